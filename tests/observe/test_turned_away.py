from __future__ import annotations

from sidecar.errors import Reason
from sidecar.observe.access_log import AccessLog
from sidecar.observe.metrics import Metrics
from sidecar.observe.turned_away import EVENTS_PER_S, TurnedAway
from tests.fakes.sink import FakeSink
from tests.wire.bench import Clock


async def test_each_is_counted_and_a_flood_is_told_by_its_number() -> None:
    sink, clock = FakeSink(), Clock()
    log = AccessLog(sink, run="r", metrics=Metrics(), monotonic=clock)
    turned_away = TurnedAway(log, "inbound")
    for number in range(EVENTS_PER_S + 5):
        turned_away(Reason.TIMEOUT, "the handshake took too long", f"192.0.2.1:{number}")
    clock.now += 1
    turned_away(Reason.OVERLOADED, "too many", "192.0.2.2:1")
    await log.close()
    events = sink.wait_for_records(EVENTS_PER_S + 1)
    assert sink.data.count(b"\n") == EVENTS_PER_S + 1
    first, last = events[0], events[-1]
    assert (first["event"], first["reason"], first["source"]) == ("connection.refused", "timeout", "192.0.2.1:0")
    assert (first["decision"], first["direction"]) == ("deny", "inbound")
    assert (last["reason"], last["detail"]) == ("overloaded", "too many; 5 before it went untold")
    refused = log.metrics.handshakes_refused
    assert (refused[Reason.TIMEOUT], refused[Reason.OVERLOADED]) == (EVENTS_PER_S + 5, 1)
