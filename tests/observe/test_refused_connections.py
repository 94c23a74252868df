from __future__ import annotations

from delegation_core.errors import Reason
from delegation_core.records.record_schema import record_schema
from sidecar.observe.access_log import AccessLog
from sidecar.observe.metrics import Metrics
from sidecar.observe.record_rate import RecordRate, UnprovenRecords
from sidecar.observe.refused_connections import RefusedConnections
from sidecar.observe.scrape import render
from tests.fakes.sink import FakeSink
from tests.observe.schema import violations
from tests.wire.bench import Clock


async def test_each_is_counted_and_a_flood_is_told_by_its_number() -> None:
    sink, clock = FakeSink(), Clock()
    log = AccessLog(sink, run="r", metrics=Metrics(), monotonic=clock)
    refused_connections = RefusedConnections(log, "inbound", UnprovenRecords(log, RecordRate(per_s=1.0, burst=20)))
    for number in range(25):
        refused_connections(Reason.TIMEOUT, "the handshake took too long", f"192.0.2.1:{number}")
    clock.now += 1
    refused_connections(Reason.OVERLOADED, "too many", "192.0.2.2:1")
    await log.close()
    events = sink.wait_for_records(21)
    assert sink.data.count(b"\n") == 21
    first, last = events[0], events[-1]
    assert (first["event"], first["reason"], first["source"]) == ("connection.refused", "timeout", "192.0.2.1:0")
    assert (first["decision"], first["direction"], first["suppressed"]) == ("deny", "inbound", None)
    assert (last["reason"], last["detail"], last["suppressed"]) == ("overloaded", "too many", 5)
    assert violations(last, record_schema()) == []
    refused = log.metrics.handshakes_refused
    assert (refused[Reason.TIMEOUT], refused[Reason.OVERLOADED]) == (25, 1)
    assert b"sidecar_records_suppressed_total 5.0" in render(log.metrics)
