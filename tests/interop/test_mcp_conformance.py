"""The official conformance runners of MCP, whole: each check through two sidecars as straight at the server."""

from __future__ import annotations

import asyncio

import pytest

from tests.integration.hops import Hops
from tests.interop import agents
from tests.interop.conformance_runs import SERVER_RUNS, differences, passed, run_server_checks
from tests.interop.test_mcp import CALLS, route
from tests.interop.tool_mesh import program, tool_mesh

pytestmark = [
    pytest.mark.interop,
    pytest.mark.timeout(300),
    pytest.mark.skipif(agents.missing() is not None, reason=str(agents.missing())),
]

AT_LEAST = {
    "released": 26,
    "alpha": 26,
}  # scenarios that the server passes whole, so that there is something to compare


@pytest.mark.parametrize(
    ("runner", "words"),
    [pytest.param(runner, words, id=f"{runner}{words[1]}") for runner, runs in SERVER_RUNS.items() for words in runs],
)
async def test_each_check_of_a_server_is_what_it_is_without_sidecars(
    hops: Hops, runner: str, words: tuple[str, ...]
) -> None:
    whole = route("tools/call:*")
    async with program("mcp_server.py", "--resumable") as port, tool_mesh(hops, port, "/mcp", whole, CALLS) as mesh:
        straight = await asyncio.to_thread(run_server_checks, runner, mesh.direct, *words)
        through = await asyncio.to_thread(run_server_checks, runner, mesh.url, *words)
        assert differences(straight, through) == {}
        assert len(passed(straight)) >= AT_LEAST[runner]
