"""The record of the start and the metrics name the engine that serves, and count the requests of each."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import pytest
from prometheus_client.parser import text_string_to_metric_families

from sidecar import __version__
from sidecar.engine import Engine
from sidecar.observe.scrape import render
from tests.integration.hops import Headers, Hops, open_hops
from tests.integration.world import CRM, WRITER, Kept, bearer, mint, ok
from tests.native import needs_native

pytestmark = pytest.mark.integration


@pytest.mark.parametrize(
    ("engine", "served"),
    [
        ("python", {"python": 3, "native": 0}),
        pytest.param("native", {"python": 1, "native": 2}, marks=needs_native),  # the first with a token is not warm
    ],
)
async def test_the_engine_is_told_by_the_start_and_by_the_metrics(
    tmp_path: Path, engine: Engine, served: dict[str, int]
) -> None:
    async with open_hops(tmp_path) as hops:
        hops.agent.script = None
        await hops.start(engine=engine)
        headers = bearer(mint())
        async with hops.world.kept(hops.writer.inbound, hops.planner) as kept:
            for _ in range(3):
                kept.send("/draft", headers=headers, host="writer")
                assert (await kept.receive()).status == 200
        (started,) = await hops.writer.wait_for_records(1, event="started")
        assert started["detail"] == f"engine={engine}"
        scraped = list(text_string_to_metric_families(render(hops.writer.server.metrics).decode()))
    samples = [sample for family in scraped for sample in family.samples]
    assert [one.labels for one in samples if one.name == "sidecar_build_info"] == [
        {"version": __version__, "engine": engine}
    ]
    counted = {one.labels["engine"]: one.value for one in samples if one.name == "sidecar_engine_requests_total"}
    assert counted == served


_TOOLS: Final[dict[str, Any]] = {"protocol": "mcp", "operations": [{"allow": ["tools/call:search"]}]}


async def calls_a_tool(kept: Kept, host: str, target: str, shown: Headers, name: str = "search") -> tuple[int, bytes]:
    """Call a tool by MCP 2025-06-18; return the answer's status and body."""
    body = b'{"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "%b"}}' % name.encode()
    fields = [("host", host), ("content-type", "application/json"), ("content-length", str(len(body))), *shown]
    lines = [f"POST {target} HTTP/1.1", *(f"{field}: {value}" for field, value in fields)]
    kept.writer.write("\r\n".join([*lines, "", ""]).encode() + body)
    answer = await kept.receive()
    return answer.status, answer.body


async def start_with_tools(hops: Hops, engine: Engine) -> None:
    """Start the writer's sidecar with tools on both sides: those of its agent, and those of the crm."""
    tools = {"name": "tools", "match": {"path": "/mcp"}, **_TOOLS}
    settings = hops.settings(route={"may_call": ["crm-tools"]}, engine=engine)
    draft = settings["inbound"]["routes"][0]
    settings["inbound"]["routes"] = [draft, {**draft, **tools, "may_call": []}]
    settings["outbound"]["routes"] = [hops.route("crm-tools", CRM, {"prefix": "/crm"}) | _TOOLS]
    hops.writer = await hops.world.sidecar(WRITER, settings)


@pytest.mark.parametrize(("engine", "by_native"), [("python", 0), pytest.param("native", 2, marks=needs_native)])
async def test_calls_of_tools_are_served_and_counted_by_the_engine(
    tmp_path: Path, engine: Engine, by_native: int
) -> None:
    async with open_hops(tmp_path) as hops:
        await start_with_tools(hops, engine)
        own = f"127.0.0.1:{hops.writer.outbound}"
        hops.crm.script = lambda _head, _body: ok(b"found")
        async with hops.serving() as held, hops.world.kept(hops.writer.outbound) as kept:
            for _ in range(3):
                assert await calls_a_tool(kept, own, "/crm/mcp", held.shown) == (200, b"found")
            assert (await calls_a_tool(kept, own, "/crm/mcp", held.shown, "delete"))[0] == 403
        hops.agent.script = lambda _head, _body: ok(b"of the agent")
        shown = bearer(mint())
        async with hops.world.kept(hops.writer.inbound, hops.planner) as kept:
            for _ in range(3):
                assert await calls_a_tool(kept, "writer", "/mcp", shown) == (200, b"of the agent")
            assert (await calls_a_tool(kept, "writer", "/mcp", shown, "delete"))[0] == 403
        metrics = list(text_string_to_metric_families(render(hops.writer.server.metrics).decode()))
        records = [one for one in await hops.writer.wait_for_records(9) if one["op"] is not None]  # one is of no tool
    samples = [sample for family in metrics for sample in family.samples]
    counted = {
        one.labels["direction"]: one.value
        for one in samples
        if one.name == "sidecar_engine_requests_total" and one.labels["engine"] == "native"
    }
    assert {counted.get("inbound", 0), counted.get("outbound", 0)} == {by_native}
    operations = {
        (one.labels["direction"], one.labels["op"], one.labels["decision"]): one.value
        for one in samples
        if one.name == "sidecar_operations_total"
    }
    for direction in ("inbound", "outbound"):
        assert operations[direction, "tools/call:search", "allow"] == 3
        assert operations[direction, "tools/call:other", "deny"] == 1
        named = [(one["op"], one["decision"]) for one in records if one["direction"] == direction]
        assert named == [("tools/call:search", "allow")] * 3 + [("tools/call:other", "deny")]
