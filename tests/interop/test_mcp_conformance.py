"""The official conformance runners of MCP, whole: each check through two sidecars as straight at the server."""

from __future__ import annotations

import asyncio
from typing import Final

import pytest

from tests.integration.hops import Hops
from tests.integration.world import free_port
from tests.interop import agents
from tests.interop.conformance_runs import (
    SERVER_RUNS,
    client_scenarios,
    differences,
    passed,
    run_client_checks,
    run_server_checks,
)
from tests.interop.test_mcp import CALLS, route
from tests.interop.tool_mesh import program, tool_mesh

pytestmark = [
    pytest.mark.interop,
    pytest.mark.timeout(300),
    pytest.mark.skipif(agents.missing() is not None, reason=str(agents.missing())),
]

AT_LEAST: Final = {
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


CLIENTS: Final = {
    "released": ["initialize", "tools_call", "elicitation-sep1034-client-defaults", "sse-retry"],
    "alpha": [
        "initialize",
        "tools_call",
        "elicitation-sep1034-client-defaults",
        "sse-retry",
        "request-metadata",
        "sep-2322-client-request-state",
        "http-standard-headers",
        "http-custom-headers",
        "http-invalid-tool-headers",
        "json-schema-ref-no-deref",
        "json-schema-2020-12-preservation",
        "sep-2640-client-no-prefetch",
        "sep-2640-client-verify-digest",
        "sep-2640-client-verify-size",
        "sep-2640-client-verify-frontmatter",
    ],
}
FAILED: Final = ("sep-2640-", "json-schema-2020-12-preservation")  # the client reads no skills, and returns no schema


@pytest.mark.parametrize("runner", CLIENTS)
def test_no_scenario_for_clients_is_left_out(runner: str) -> None:
    # Those of "auth/" are of a client that gets tokens by itself; in the mesh it holds none.
    assert CLIENTS[runner] == [name for name in client_scenarios(runner) if not name.startswith("auth/")]


@pytest.mark.parametrize(
    ("runner", "scenario"), [(runner, scenario) for runner, scenarios in CLIENTS.items() for scenario in scenarios]
)
async def test_each_check_of_a_client_is_what_it_is_without_sidecars(hops: Hops, runner: str, scenario: str) -> None:
    port = free_port()
    straight = await asyncio.to_thread(run_client_checks, runner, scenario, "direct", port)
    async with tool_mesh(hops, port, "/mcp", route("tools/call:*"), CALLS) as mesh:
        through = await asyncio.to_thread(run_client_checks, runner, scenario, mesh.url, port)
    assert differences(straight, through) == {}
    assert (passed(straight) == {scenario}) is not scenario.startswith(FAILED)
