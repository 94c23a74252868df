"""Spans of a whole mesh: one trace over three hops, whoever forwards what, and calls that no collector disturbs."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sidecar.engine import Engine
from sidecar.observe.scrape import render
from tests.fakes.collector import Collector, Span, open_collector
from tests.integration.door_world import DoorWorld, open_door_world
from tests.integration.mesh import Mesh, passed
from tests.integration.process import process
from tests.integration.traced_mesh import CLIENT, EXCHANGE, EXCHANGES, SERVER, THREE_HOPS, parents, traced_mesh, tree
from tests.integration.world import CRM, PLANNER, WRITER, Sidecar, World, bearer, calling, mint, ok, until
from tests.native import needs_native

pytestmark = pytest.mark.integration

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
CALLER = "00f067aa0ba902b7"
ENGINES = ["python", pytest.param("native", marks=needs_native)]


@pytest.fixture
def collector() -> Iterator[Collector]:
    with open_collector() as opened:
        yield opened


async def arrived(collector: Collector, count: int) -> list[Span]:
    await asyncio.to_thread(collector.wait_for, lambda: len(collector.spans) >= count)
    return collector.spans


async def stopped(sidecar: Sidecar) -> None:
    sidecar.stop.set()
    await asyncio.wait_for(asyncio.shield(sidecar.running), 10)


async def test_three_hops_are_one_trace_whose_parents_are_right(collector: Collector) -> None:
    async with traced_mesh(collector.url) as mesh:
        answer = await mesh.ask(mesh.log_in(), ("traceparent", f"00-{TRACE}-{CALLER}-01"))
        assert answer.status == 200
        spans = await arrived(collector, 9)
        records = {name: mesh.records(name) for name in mesh.sidecars}
    assert {span.trace_id for span in spans} == {TRACE}
    assert parents(spans, CALLER) == (THREE_HOPS, EXCHANGES)
    exchanges = [span for span in spans if span.name == EXCHANGE]
    for exchange in exchanges:
        call = next(span for span in spans if span.span_id == exchange.parent)
        assert call.begins_at <= exchange.begins_at < exchange.ends_at <= call.ends_at
    for written in records.values():  # a record and its span are found by each other
        assert {record["span_id"] for record in written} <= {span.span_id for span in spans}


async def test_an_agent_that_forwards_no_traceparent_does_not_end_the_trace(collector: Collector) -> None:
    async with traced_mesh(collector.url) as mesh:

        async def work(fields: dict[str, str]) -> bytes:
            shown = [("authorization", fields["authorization"])]
            return passed(await mesh.call("planner", "/writer/draft", shown, method="POST"))

        mesh.scripts["planner"] = work
        assert (await mesh.ask(mesh.log_in())).status == 200
        spans = await arrived(collector, 9)
    found = tree(spans)
    assert len({span.trace_id for span in spans}) == 1
    assert found["agent/planner", CLIENT].parent == found["agent/planner", SERVER].span_id
    assert found["agent/front", CLIENT].parent == ""


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("forwards", [True, False], ids=["agents forward it", "agents forward nothing"])
async def test_warm_requests_of_either_engine_are_one_trace_too(
    collector: Collector, engine: Engine, *, forwards: bool
) -> None:
    async with traced_mesh(collector.url, engine=engine, ratio=0.0) as mesh:
        if not forwards:
            for name, target in (("planner", "/writer/draft"), ("writer", "/crm/customers/42")):
                mesh.scripts[name] = _forwarding_nothing(mesh, name, target)
        login = mesh.log_in()
        for number in range(12):
            trace, flags = f"{number:x}{TRACE[1:]}", "01" if number > 1 and number % 2 else "00"
            assert (await mesh.ask(login, ("traceparent", f"00-{trace}-{CALLER}-{flags}"))).status == 200
            assert mesh.agents["crm"].headers()["traceparent"].startswith(f"00-{trace}-")
            assert mesh.agents["crm"].headers()["traceparent"].endswith(f"-{flags}")
        spans = await arrived(collector, 5 * 6)
        await until(lambda: all(len(mesh.records(name)) >= 12 for name in ("planner", "writer", "crm")))
        records = [record for name in mesh.sidecars for record in mesh.records(name)]
        engines = {name: sidecar.server.metrics.finished.counted().engines for name, sidecar in mesh.sidecars.items()}
    of_traces = {span.trace_id: [one for one in spans if one.trace_id == span.trace_id] for span in spans}
    assert list(of_traces) == [f"{number:x}{TRACE[1:]}" for number in (3, 5, 7, 9, 11)]
    assert [parents(one, CALLER) for one in of_traces.values()] == [(THREE_HOPS, [])] * 5
    assert {span.span_id for span in spans} < {record["span_id"] for record in records}
    # Others are Python's: calls with a login, routes that pass the token. So is one that is in progress at a tick.
    for name, direction in (("planner", "inbound"), ("planner", "outbound"), ("writer", "outbound")):
        assert (engines[name][direction, "native"] >= 6) == (engine == "native"), (name, direction)


def _forwarding_nothing(mesh: Mesh, name: str, target: str) -> Callable[[dict[str, str]], Awaitable[bytes]]:
    async def work(fields: dict[str, str]) -> bytes:
        shown = [("authorization", fields["authorization"])]
        method = "GET" if name == "writer" else "POST"
        return passed(await mesh.call(name, target, shown, method=method))

    return work


async def test_a_trace_that_its_caller_does_not_record_has_no_spans_and_goes_on(collector: Collector) -> None:
    async with traced_mesh(collector.url) as mesh:
        assert (await mesh.ask(mesh.log_in(), ("traceparent", f"00-{TRACE}-{CALLER}-00"))).status == 200
        await until(lambda: bool(mesh.records("crm")))
        assert mesh.agents["crm"].headers()["traceparent"].startswith(f"00-{TRACE}-")
        assert mesh.agents["crm"].headers()["traceparent"].endswith("-00")
        assert {record["trace_id"] for name in mesh.sidecars for record in mesh.records(name)} == {TRACE}
    assert collector.spans == []


@pytest.mark.parametrize(
    "forged",
    [f"00-{TRACE}-{'0' * 16}-01", f"00-{TRACE.upper()}-{CALLER}-01", f"ff-{TRACE}-{CALLER}-01", "x" * 55],
    ids=["no parent", "upper case", "version ff", "text"],
)
async def test_a_forged_traceparent_begins_a_trace(collector: Collector, forged: str) -> None:
    async with traced_mesh(collector.url) as mesh:
        assert (await mesh.ask(mesh.log_in(), ("traceparent", forged))).status == 200
        spans = await arrived(collector, 9)
    (trace,) = {span.trace_id for span in spans}
    assert trace != TRACE
    assert tree(spans)["agent/front", CLIENT].parent == ""


async def test_of_new_traces_the_share_of_the_ratio_is_recorded(collector: Collector) -> None:
    async with traced_mesh(collector.url, ratio=0.0) as mesh:
        assert (await mesh.ask(mesh.log_in())).status == 200
        assert mesh.agents["crm"].headers()["traceparent"].endswith("-02")
        assert (await mesh.ask(mesh.log_in(), ("traceparent", f"00-{TRACE}-{CALLER}-01"))).status == 200
        assert {span.trace_id for span in await arrived(collector, 6)} == {TRACE}  # tokens are cached by now


async def test_a_span_says_who_acted_where_and_nothing_that_is_secret(collector: Collector) -> None:
    async with traced_mesh(collector.url, headers={}) as mesh:
        login = mesh.log_in()
        assert (await mesh.ask(login)).status == 200
        refused = await mesh.call("writer", "/crm/customers/42?secret=s3cret", [("authorization", "Bearer wrong")])
        assert refused.status == 403
        spans = await arrived(collector, 10)
        ports = mesh.ports
        tokens = [mesh.agents[name].headers()["delegation-token"] for name in ("writer", "crm")]
        handles = [mesh.agents[name].headers()["authorization"].split()[1] for name in ("planner", "writer", "crm")]
    (inbound,) = [span for span in spans if span.resource["service.name"] == "tool/crm"]
    assert inbound.name == "GET customers"
    assert not inbound.error
    assert {key: inbound.attributes[key] for key in inbound.attributes if not key.endswith(("_ms", "_id"))} == {
        "http.request.method": "GET",
        "http.response.status_code": 200,
        "delegation.decision": "allow",
        "delegation.reason": "ok",
        "delegation.direction": "inbound",
        "delegation.peer": str(WRITER),
        "delegation.actor": str(WRITER),
        "delegation.chain_depth": 3,
        "delegation.route": "customers",
        "delegation.subject.hash": inbound.attributes["delegation.subject.hash"],
    }
    assert inbound.resource["delegation.workload"] == str(CRM)
    assert inbound.resource["service.namespace"] == "acme.example"
    hashes = {span.attributes.get("delegation.subject.hash") for span in spans}
    assert len(hashes - {None}) == 1  # the same user, at every hop
    servers = {
        (span.attributes["server.address"], span.attributes["server.port"]) for span in spans if span.name == "GET crm"
    }
    assert servers == {("127.0.0.1", ports["crm-in"])}
    (denied,) = [span for span in spans if span.attributes.get("error.type")]
    assert denied.error
    assert denied.attributes["error.type"] == denied.attributes["delegation.reason"] == "no_request_context"
    assert denied.attributes["http.response.status_code"] == 403
    for secret in (login, *tokens, *handles, "alice", "s3cret", "customers/42", "0123456789abcdef"):
        assert secret.encode() not in collector.everything


@pytest.mark.parametrize("status", [None, 503, 400], ids=["hangs", "unavailable", "refuses"])
async def test_calls_do_not_notice_a_collector_that_takes_nothing(
    collector: Collector, status: int | None, caplog: pytest.LogCaptureFixture
) -> None:
    collector.status = status
    async with traced_mesh(collector.url, queue=4) as mesh:
        login = mesh.log_in()
        assert (await mesh.ask(login)).status == 200  # exchanges
        began = time.monotonic()
        for _ in range(30):
            assert (await mesh.ask(login)).status == 200
        assert time.monotonic() - began < 5
        writer = mesh.sidecars["writer"]
        await until(lambda: len(mesh.records("writer")) >= 62)
        counts = writer.server.metrics.telemetry()
        assert counts["spans", "sent"] == 0
        assert counts["spans", "dropped"] > 0
        assert b'sidecar_telemetry_total{result="dropped",signal="spans"}' in render(writer.server.metrics)
        began = time.monotonic()
        await stopped(mesh.sidecars["crm"])
        assert time.monotonic() - began < 6
    assert "REASON-OF-COLLECTOR" not in caplog.text


async def test_a_collector_that_is_not_there_costs_no_call_and_is_used_when_it_comes(collector: Collector) -> None:
    with open_collector() as other:
        port = other.port
    other.port = port
    async with traced_mesh(other.url, timeout_s=0.5) as mesh:
        login = mesh.log_in()
        assert (await mesh.ask(login)).status == 200
        metrics = mesh.sidecars["crm"].server.metrics
        await until(lambda: metrics.telemetry()["spans", "failed"] == 1)
        with open_collector(port) as late:
            assert (await mesh.ask(login)).status == 200
            await asyncio.to_thread(late.wait_for, lambda: len(late.spans) >= 6)
            await until(lambda: metrics.telemetry()["spans", "sent"] == 1)  # counted once the answer has come
        counts = {result: count for (signal, result), count in metrics.telemetry().items() if signal == "spans"}
        assert counts == {"sent": 1, "failed": 1, "dropped": 0}


async def test_what_waits_is_sent_at_the_stop(collector: Collector) -> None:
    async with traced_mesh(collector.url) as mesh:
        assert (await mesh.ask(mesh.log_in())).status == 200
        await until(lambda: bool(mesh.records("crm")))
        await stopped(mesh.sidecars["crm"])
        assert "tool/crm" in {span.resource["service.name"] for span in collector.spans}


async def test_records_are_logs_byte_for_byte_where_the_settings_say_so(collector: Collector) -> None:
    async with traced_mesh(collector.url, records=True) as mesh:
        assert (await mesh.ask(mesh.log_in())).status == 200
        await asyncio.to_thread(
            collector.wait_for,
            lambda: any("tool/crm" in log.body and '"request"' in log.body for log in collector.logs),
        )
        lines = mesh.sidecars["crm"].records_path.read_text().splitlines()
    logs = [log for log in collector.logs if log.body in lines]
    assert [log.event for log in logs if log.trace_id] == ["delegation.request"]
    assert "delegation.started" in {log.event for log in logs}
    (request,) = [log for log in logs if log.event == "delegation.request"]
    assert (request.trace_id, request.span_id) in {(span.trace_id, span.span_id) for span in collector.spans}
    assert request.severity == "INFO"


async def test_without_the_setting_no_record_leaves(collector: Collector) -> None:
    async with traced_mesh(collector.url) as mesh:
        assert (await mesh.ask(mesh.log_in())).status == 200
        await arrived(collector, 9)
    assert collector.logs == []


@pytest.mark.parametrize("traced", [False, True], ids=["off", "on"])
async def test_a_stranger_at_the_door_continues_no_trace_and_is_linked(
    collector: Collector, monkeypatch: pytest.MonkeyPatch, *, traced: bool
) -> None:
    settings_of_front = DoorWorld.front_settings

    def with_tracing(door: DoorWorld, **changes: Any) -> dict[str, Any]:
        return {**settings_of_front(door, **changes), "tracing": {"endpoint": collector.url}}

    if traced:
        monkeypatch.setattr(DoorWorld, "front_settings", with_tracing)
    message = {"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": {"name": "search"}}
    with tempfile.TemporaryDirectory(prefix="sc-") as folder:
        async with open_door_world(Path(folder)) as door:
            theirs = ("traceparent", f"00-{TRACE}-{CALLER}-01"), ("tracestate", "theirs=1")
            assert (await door.send(message, *theirs)).status == 200
            record = await door.last(1)
            assert record["trace_id"] not in {None, TRACE}
            forwarded = door.world.agent.headers()
            assert forwarded["traceparent"].startswith(f"00-{record['trace_id']}-")
            assert "tracestate" not in forwarded
            if traced:
                await arrived(collector, 1)
    spans = [span for span in collector.spans if span.name != EXCHANGE]
    assert [(span.name, span.parent, span.links) for span in spans] == (
        [("tools/call search", "", ((TRACE, CALLER),))] if traced else []
    )
    assert [span.attributes.get("gen_ai.tool.name") for span in spans] == ["search"] * traced


@pytest.mark.parametrize("engine", ENGINES)
async def test_every_worker_sends_its_spans(world: World, collector: Collector, engine: Engine) -> None:
    world.agent.script = lambda _head, _body: ok(b"done")
    settings = {**world.settings(), "tracing": {"endpoint": collector.url}, "engine": engine}
    shown = bearer(mint())
    planner = calling(await world.source(PLANNER), WRITER)
    async with process(world, settings, starts=2, workers=2) as sidecar:
        for _ in range(20):
            answer = await world.call(sidecar.port, planner, headers=shown)
            assert answer.status == 200
        spans = await arrived(collector, 20)
    assert len({span.resource["service.instance.id"] for span in spans}) == 2
    assert len(spans) == 20


def test_a_sidecar_without_tracing_imports_nothing_of_it() -> None:
    code = (
        "import sys, sidecar.cli, sidecar.one_process, sidecar.workers.run, sidecar.workers.worker, sidecar.config\n"
        "foreign = {'opentelemetry', 'requests', 'urllib3', 'certifi'}\n"
        "print(sorted(name for name in sys.modules if name.split('.')[0] in foreign))"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, timeout=60, text=True)
    assert said.stdout == "[]\n"
