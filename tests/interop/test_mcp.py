"""The official MCP client through two sidecars, as straight at the server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import pytest

from tests.integration.hops import Hops
from tests.integration.world import until
from tests.interop import agents
from tests.interop.tool_mesh import ToolMesh, program, run, tool_mesh

pytestmark = [
    pytest.mark.interop,
    pytest.mark.timeout(300),
    pytest.mark.skipif(agents.missing() is not None, reason=str(agents.missing())),
]

EVERYTHING: Final = [
    "completion/complete:*", "prompts/get:*", "prompts/list", "resources/list", "resources/read:*",
    "resources/subscribe:*", "resources/templates/list", "resources/unsubscribe:*", "subscriptions/listen",
    "tasks/cancel", "tasks/get", "tasks/list", "tasks/result", "tasks/update", "tools/list",
]  # fmt: skip
TOOLS: Final = ["test_simple_text", "test_tool_with_progress", "slow"]
CALLS: Final = {
    "protocol": "mcp",
    "operations": [{"allow": [*EVERYTHING, "tools/call:test_simple_text", "tools/call:*"]}],
}
MODES: Final = {"legacy": "2025-11-25", "auto": "2026-07-28", "2026-07-28": "2026-07-28"}


def route(*allow: str) -> dict[str, Any]:
    operations = [{"allow": [*EVERYTHING, *allow]}]
    return {"name": "tools", "match": {"path": "/mcp"}, "protocol": "mcp", "operations": operations}


@asynccontextmanager
async def served(hops: Hops, *words: str, **settings: object) -> AsyncIterator[ToolMesh]:
    listed = route(*(f"tools/call:{name}" for name in TOOLS)) | settings
    async with program("mcp_server.py", *words) as port, tool_mesh(hops, port, "/mcp", listed, CALLS) as mesh:
        yield mesh


@pytest.mark.parametrize("server", ["--sessions", "--json", "--stateless"])
@pytest.mark.parametrize("mode", MODES)
async def test_a_user_of_the_client_calls_a_tool_and_reads_why_another_is_refused(
    hops: Hops, mode: str, server: str
) -> None:
    async with served(hops, server) as mesh:
        told = await run("mcp_client.py", "tools", mesh.url, mode)
        straight = await run("mcp_client.py", "tools", mesh.direct, mode)
        assert (told["version"], told["text"]) == (MODES[mode], "This is a simple text response for testing.")
        assert "delete_everything" in told["listed"]
        assert "operation_refused" in told["refused"]["message"]
        assert told["refused"]["data"]["reason"] == "operation_refused"
        assert straight == {**told, "refused": "gone"}
        for side in ("outbound", "inbound"):
            assert ("tools/call:test_simple_text", "allow", "ok") in mesh.operations(side)
        assert ("tools/call:other", "deny", "operation_refused") in mesh.operations("inbound")


@pytest.mark.parametrize("server", ["--sessions", "--json", "--stateless"])
@pytest.mark.parametrize("mode", ["legacy", "2026-07-28"])
async def test_the_client_lists_what_it_may_call_where_the_route_filters(hops: Hops, mode: str, server: str) -> None:
    async with served(hops, server, filter_lists=True) as mesh:
        told = await run("mcp_client.py", "tools", mesh.url, mode)
        straight = await run("mcp_client.py", "tools", mesh.direct, mode)
        assert set(told["listed"]) == set(TOOLS) & set(straight["listed"]) != set(straight["listed"])
        assert told["text"] == straight["text"]


@pytest.mark.parametrize("scenario", ["streams", "cancelled", "many"])
@pytest.mark.parametrize("mode", ["legacy", "2026-07-28"])
async def test_streams_cancelled_calls_and_crowds_are_what_they_are_without_sidecars(
    hops: Hops, mode: str, scenario: str
) -> None:
    async with served(hops) as mesh:
        told = await run("mcp_client.py", scenario, mesh.url, mode)
        assert told == await run("mcp_client.py", scenario, mesh.direct, mode)
        assert told.get("cancelled", True)
        if scenario != "cancelled":
            await until(lambda: all(reason == "ok" for _, _, reason in mesh.operations("inbound")))
            assert {decision for _, decision, _ in mesh.operations("inbound")} == {"allow"}
