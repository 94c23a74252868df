import asyncio
import errno
import os
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import orjson
import pytest

from delegation_core.errors import Denied, Reason, Unavailable
from delegation_core.records.record_schema import record_schema
from sidecar.observe.access_log import LASTS_S, MAX_BYTES, TICK_S, AccessLog
from sidecar.observe.metrics import Metrics
from sidecar.observe.writer import AT_ONCE
from tests.fakes.sink import FakeSink
from tests.observe.schema import violations

NOW = 1_795_554_245.123456


class NoText(str):
    """A value that cannot be encoded."""

    def __str__(self) -> str:
        raise RuntimeError


class Clock:
    """A monotonic clock that the test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def wait_until_settled(log: AccessLog) -> None:
    deadline = time.monotonic() + 5
    while not log.settled and time.monotonic() < deadline:
        os.sched_yield()
    assert log.settled


@pytest.fixture
def sink() -> Iterator[FakeSink]:
    sink = FakeSink()
    yield sink
    sink.fail(None)
    sink.block(blocked=False)


@pytest.fixture
def metrics() -> Metrics:
    metrics = Metrics()
    metrics.declare_routes("inbound", ["search"])
    return metrics


@pytest.fixture
async def log(sink: FakeSink, metrics: Metrics, clock: Clock) -> AsyncIterator[AccessLog]:
    log = AccessLog(sink, run="r1", metrics=metrics, max_records=4, wall=lambda: NOW, monotonic=clock)
    log.workload = "spiffe://acme.example/agent/crm"
    yield log
    sink.fail(None)
    sink.block(blocked=False)
    await log.close()


async def test_a_request_leaves_exactly_one_record_however_often_it_is_closed(sink: FakeSink, log: AccessLog) -> None:
    entry = log.reserve()
    entry.close()
    entry.close()
    await log.close()
    assert len(sink.wait_for_records(1)) == sink.data.count(b"\n") == 1


async def test_a_record_says_who_when_and_in_which_order(sink: FakeSink, log: AccessLog) -> None:
    log.event("started")
    log.reserve().close()
    first, second = sink.wait_for_records(2)
    assert [first["event"], second["event"]] == ["started", "request"]
    assert [first["seq"], second["seq"]] == [1, 2]
    assert first["ts"] == second["ts"] == "2026-11-24T21:04:05.123456Z"
    assert first["run"] == "r1"
    assert first["workload"] == "spiffe://acme.example/agent/crm"
    for record in (first, second):
        assert violations(record, record_schema()) == []


async def test_the_time_of_a_record_is_told_to_the_microsecond_wherever_the_clock_goes(
    sink: FakeSink, metrics: Metrics
) -> None:
    times = [NOW, NOW + 0.876543, NOW + 0.876544, NOW + 60, NOW - 1, 0.0, 0.000001]
    log = AccessLog(sink, run="r1", metrics=metrics, wall=iter(times).__next__)
    for _ in times:
        log.event("ready")
    assert [record["ts"] for record in sink.wait_for_records(len(times))] == [
        "2026-11-24T21:04:05.123456Z",
        "2026-11-24T21:04:05.999999Z",
        "2026-11-24T21:04:06.000000Z",
        "2026-11-24T21:05:05.123456Z",
        "2026-11-24T21:04:04.123456Z",
        "1970-01-01T00:00:00.000000Z",
        "1970-01-01T00:00:00.000001Z",
    ]
    await log.close()


async def test_a_request_that_nobody_decided_is_recorded_as_refused(sink: FakeSink, log: AccessLog) -> None:
    log.reserve("outbound").close()
    (record,) = sink.wait_for_records(1)
    assert (record["decision"], record["reason"], record["direction"]) == ("deny", "internal", "outbound")


async def test_every_event_has_every_key(sink: FakeSink, log: AccessLog) -> None:
    log.event("connection.refused", reason=Reason.BAD_SVID, source="10.1.2.3:50412", detail="two URI SANs")
    (record,) = sink.wait_for_records(1)
    assert violations(record, record_schema()) == []
    assert (record["reason"], record["source"]) == ("bad_svid", "10.1.2.3:50412")


async def test_without_room_a_request_is_refused_and_with_room_again_served(
    sink: FakeSink, log: AccessLog, metrics: Metrics
) -> None:
    sink.block(blocked=True)
    entries = [log.reserve() for _ in range(4)]
    with pytest.raises(Unavailable) as refused:
        log.reserve()
    assert refused.value.reason is Reason.AUDIT_UNAVAILABLE
    assert not log.healthy
    assert metrics.requests["inbound", "none", "deny", "audit_unavailable"] == 1
    for entry in entries:
        entry.close()
    with pytest.raises(Unavailable):  # encoded, but not yet written: the space is still taken
        log.reserve()
    sink.block(blocked=False)
    sink.wait_for_records(4)
    await log.close()
    assert metrics.in_flight() == 0


async def test_room_is_given_back_however_requests_and_events_come_and_go(
    sink: FakeSink, log: AccessLog, metrics: Metrics
) -> None:
    for number in range(20):
        first, second = log.reserve(), log.reserve("outbound")
        first.opened()
        assert metrics.in_flight() == 2
        log.event("ready")
        for entry in (second, first, first):
            entry.close()
        wait_until_settled(log)
        assert len(sink.wait_for_records(4 * (number + 1))) == 4 * (number + 1)
    assert (metrics.in_flight(), metrics.events_dropped, log.waiting) == (0, 0, 0)
    entries = [log.reserve() for _ in range(4)]
    with pytest.raises(Unavailable):
        log.reserve()
    for entry in entries:
        entry.close()


async def test_unwritten_bytes_have_a_limit_too(sink: FakeSink, metrics: Metrics) -> None:
    log = AccessLog(sink, run="r1", metrics=metrics, max_bytes=2000)
    sink.block(blocked=True)
    entry = log.reserve()
    entry.path = "/" + "a" * 2000
    entry.close()
    sink.wait_for(lambda: sink.tries == 1)
    assert not log.healthy
    sink.block(blocked=False)
    await log.close()


async def test_from_the_moment_a_sink_takes_nothing_a_stated_number_of_requests_is_served_and_each_is_spilled(
    sink: FakeSink, metrics: Metrics, clock: Clock, tmp_path: Path
) -> None:
    log = AccessLog(sink, run="r1", metrics=metrics, monotonic=clock, spill_folder=tmp_path)  # no time passes here
    sink.block(blocked=True)
    served = 0
    while log.healthy:
        log.reserve().close()
        served += 1
        if served % AT_ONCE == 0:
            await asyncio.sleep(0.0005)  # as between requests: the writer's thread lets go of what it encodes
    with pytest.raises(Unavailable, match="too many records wait for the sink"):
        log.reserve()
    await log.close(timeout_s=0.05)
    lines = (tmp_path / "records-r1.jsonl").read_bytes().splitlines(keepends=True)
    assert len(lines) == log.unwritten == metrics.events_dropped == served
    assert len(b"".join(lines)) <= MAX_BYTES + 2 * AT_ONCE * len(lines[-1])


async def test_what_was_let_in_before_a_sink_is_full_up_leaves_its_record_and_its_events(
    sink: FakeSink, metrics: Metrics
) -> None:
    log = AccessLog(sink, run="r1", metrics=metrics, max_bytes=1)
    entry = log.reserve()
    sink.block(blocked=True)
    log.event("started")
    sink.wait_for(lambda: sink.tries == 1)
    with pytest.raises(Unavailable):
        log.reserve()
    log.event("token.exchanged")  # uses that request's space
    entry.close()
    sink.block(blocked=False)
    await log.close()
    assert [record["event"] for record in sink.wait_for_records(3)] == ["started", "token.exchanged", "request"]
    assert metrics.events_dropped == 0


async def test_a_failed_sink_refuses_requests_until_it_works(sink: FakeSink, log: AccessLog, metrics: Metrics) -> None:
    sink.fail(OSError(errno.ENOSPC, "full"))
    log.event("started")
    sink.wait_for(lambda: sink.tries >= 2)
    assert not log.healthy
    with pytest.raises(Unavailable) as refused:
        log.reserve()
    assert refused.value.detail == "the record sink failed: ENOSPC"
    sink.fail(None)
    sink.wait_for_records(1)
    log.event("ready")  # its record shows that the writer has finished the first batch
    sink.wait_for_records(2)
    log.reserve().close()
    assert len(sink.wait_for_records(3)) == 3


async def test_a_blocked_sink_refuses_requests(sink: FakeSink, log: AccessLog, clock: Clock) -> None:
    clock.now = 1e12  # the writer's own clock is the real one; for the log ages have passed
    sink.block(blocked=True)
    log.event("started")
    sink.wait_for(lambda: sink.tries == 1)
    with pytest.raises(Unavailable) as refused:
        log.reserve()
    assert refused.value.detail == "the record sink is blocked"


async def test_a_lost_event_is_counted_and_leaves_a_gap(sink: FakeSink, log: AccessLog, metrics: Metrics) -> None:
    sink.block(blocked=True)
    for _ in range(6):
        log.event("started")
    assert metrics.events_dropped == 2
    sink.block(blocked=False)
    sink.wait_for_records(4)
    await log.close()
    log.event("stopped")
    assert metrics.events_dropped == 3


async def test_a_closed_log_takes_no_request(log: AccessLog) -> None:
    await log.close()
    with pytest.raises(Unavailable):
        log.reserve()


async def test_what_cannot_be_written_at_the_end_is_counted(sink: FakeSink, metrics: Metrics) -> None:
    log = AccessLog(sink, run="r1", metrics=metrics)
    sink.fail(OSError(errno.EPIPE, "gone"))
    log.event("started")
    log.event("stopped")
    await log.close(timeout_s=0.05)
    assert metrics.events_dropped == 2


async def test_times_are_measured_on_the_monotonic_clock(sink: FakeSink, log: AccessLog, clock: Clock) -> None:
    entry = log.reserve("outbound")
    clock.now += 0.001
    entry.exchanging()
    clock.now += 0.02
    entry.exchanged()
    entry.forwarded()
    clock.now += 0.3
    entry.responded(204)
    clock.now += 1
    entry.close()
    (record,) = sink.wait_for_records(1)
    assert (record["exchange_ms"], record["upstream_ms"], record["total_ms"]) == (20.0, 300.0, 1321.0)
    assert record["upstream_status"] == 204


async def test_a_query_is_never_recorded(sink: FakeSink, log: AccessLog) -> None:
    entry = log.reserve()
    entry.path = "/search?token=secret"
    entry.close()
    (record,) = sink.wait_for_records(1)
    assert record["path"] == "/search"
    assert b"secret" not in sink.data


async def test_a_refusal_tells_reason_detail_and_status(sink: FakeSink, log: AccessLog, metrics: Metrics) -> None:
    entry = log.reserve()
    entry.route = "search"
    entry.refuse(Denied(Reason.ACTOR_MISMATCH, "act.sub is another"))
    entry.close()
    (record,) = sink.wait_for_records(1)
    assert (record["decision"], record["reason"], record["status"]) == ("deny", "actor_mismatch", 403)
    assert record["detail"] == "act.sub is another"
    assert metrics.requests["inbound", "search", "deny", "actor_mismatch"] == 1
    assert metrics.refused_for(Reason.ACTOR_MISMATCH) == 1


async def test_a_long_request_can_be_told_at_once(sink: FakeSink, log: AccessLog) -> None:
    entry = log.reserve()
    entry.opened()
    (opened,) = sink.wait_for_records(1)
    entry.close()
    closed = sink.wait_for_records(2)[1]
    assert (opened["event"], closed["event"]) == ("request.opened", "request")
    assert opened["request_id"] == closed["request_id"]


async def test_a_request_is_told_once_and_never_after_its_record(sink: FakeSink, log: AccessLog) -> None:
    entry = log.reserve()
    entry.opened()
    entry.close()
    short = log.reserve()
    short.close()
    for ended in (entry, short):
        ended.opened()
    await log.close()
    assert [record["event"] for record in sink.wait_for_records(3)] == ["request.opened", "request", "request"]
    assert sink.data.count(b"\n") == 3


async def test_a_request_that_lasts_is_told_before_it_has_lasted_a_second(
    sink: FakeSink, log: AccessLog, clock: Clock
) -> None:
    old = log.reserve()
    clock.now += LASTS_S - TICK_S - 0.01
    young = log.reserve()
    log.tell_lasting()
    assert sink.data == b""
    clock.now += 0.02
    log.tell_lasting()
    log.tell_lasting()
    old.close()
    young.close()
    await log.close()
    told = [(record["event"], record["request_id"]) for record in map(orjson.loads, sink.data.splitlines())]
    assert told == [
        ("request.opened", old.request_id),
        ("request", old.request_id),
        ("request", young.request_id),
    ]


async def test_the_oldest_that_is_told_already_hides_no_younger_one(
    sink: FakeSink, log: AccessLog, clock: Clock
) -> None:
    streams, lasts = log.reserve(), log.reserve()
    streams.opened()
    clock.now += LASTS_S
    log.tell_lasting()
    opened = sink.wait_for_records(2)
    assert [record["request_id"] for record in opened] == [streams.request_id, lasts.request_id]
    streams.close()
    lasts.close()


async def test_a_request_about_which_nobody_has_decided_is_told_without_a_decision(
    sink: FakeSink, log: AccessLog
) -> None:
    entry = log.reserve()
    entry.opened()
    (opened,) = sink.wait_for_records(1)
    assert (opened["decision"], opened["reason"]) == (None, None)
    assert violations(opened, record_schema()) == []
    entry.close()
    closed = sink.wait_for_records(2)[1]
    assert (closed["decision"], closed["reason"]) == ("deny", "internal")


async def test_an_opening_without_room_is_counted_and_leaves_a_gap(
    sink: FakeSink, log: AccessLog, metrics: Metrics
) -> None:
    sink.block(blocked=True)
    entries = [log.reserve() for _ in range(4)]
    entries[0].opened()
    assert metrics.events_dropped == 1
    sink.block(blocked=False)
    entries[0].close()
    (closed,) = sink.wait_for_records(1)
    assert closed["seq"] == 2
    for entry in entries[1:]:
        entry.close()


async def test_request_ids_differ(log: AccessLog) -> None:
    entries = [log.reserve() for _ in range(4)]
    assert len({entry.request_id for entry in entries}) == 4
    for entry in entries:
        entry.close()


@pytest.mark.parametrize(("scope", "lost"), [(["a"], 0), ([NoText("\ud800")], 1)], ids=["another", "it"])
async def test_a_record_that_cannot_be_encoded_is_named_counted_and_ends_the_process_with_an_error(
    log: AccessLog, metrics: Metrics, caplog: pytest.LogCaptureFixture, scope: list[str], lost: int
) -> None:
    entry = log.reserve()
    entry.scope = scope
    entry.close()
    await log.close()
    named = [(one.run, one.seq, one.request_id) for one in caplog.records if one.msg == "record not written"]  # type: ignore[attr-defined]
    assert named == [("r1", 1, entry.request_id)] * lost
    assert (log.unwritten, metrics.events_dropped) == (lost, lost)


@pytest.mark.parametrize("kind", ["a folder", "nothing", "a file", "a folder without write permission"])
async def test_a_spill_folder_that_takes_nothing_is_told_at_the_start(
    kind: str, tmp_path: Path, metrics: Metrics, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "spill"
    if kind == "a file":
        folder.touch()
    elif kind != "nothing":
        folder.mkdir()
    if kind == "a folder without write permission":
        folder.chmod(0o500)
        if os.access(folder, os.W_OK):
            pytest.skip("root may write to any folder")
    log = AccessLog(FakeSink(), run="r1", metrics=metrics, spill_folder=folder)
    await log.close()
    told = [one for one in caplog.messages if one.startswith("records.spill is not a folder")]
    assert len(told) == (kind != "a folder")


async def test_a_request_that_waits_for_its_record_is_told_when_it_is_written(sink: FakeSink, log: AccessLog) -> None:
    entry, told = log.reserve(), asyncio.get_running_loop().create_future()
    entry.decision, entry.reason = "allow", "ok"
    entry.open_first(told.set_result)
    assert not told.done()
    assert await told is None
    (record,) = sink.wait_for_records(1)
    assert (record["event"], record["decision"], record["status"]) == ("request.opened", "allow", None)
    entry.close()
    assert [one["event"] for one in sink.wait_for_records(2)] == ["request.opened", "request"]


async def test_a_request_is_told_why_its_record_is_not_written_in_time(
    sink: FakeSink, log: AccessLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sidecar.observe.access_log.FIRST_S", 0.01)
    sink.block(blocked=True)
    entry, told = log.reserve(), asyncio.get_running_loop().create_future()
    entry.open_first(told.set_result)
    assert "record sink" in await told
    sink.block(blocked=False)
    wait_until_settled(log)  # the record comes all the same, and tells nobody again


async def test_refusals_without_a_sink_are_recorded_up_to_their_reserve_and_counted_above(
    sink: FakeSink, log: AccessLog, metrics: Metrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sidecar.observe.access_log.MAX_REFUSALS", 2)
    log.max_records = 100
    sink.block(blocked=True)
    ids = [log.refused("inbound", {"path": "/draft", "status": 503}) for _ in range(3)]
    assert len(set(ids)) == 3
    assert metrics.events_dropped == 1
    sink.block(blocked=False)
    wait_until_settled(log)
    records = sink.wait_for_records(2)
    assert [one["request_id"] for one in records] == ids[:2]
    assert [violations(one, record_schema()) for one in records] == [[], []]
    assert {(one["decision"], one["reason"], one["status"]) for one in records} == {("deny", "audit_unavailable", 503)}
    log.refused("inbound", {})  # the sink has written since: the reserve is whole again
    assert [one["seq"] for one in sink.wait_for_records(3)] == [1, 2, 4]


async def test_refusals_of_a_slow_sink_leave_it_time_for_requests(
    sink: FakeSink, log: AccessLog, metrics: Metrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A peer that asks faster than the sink writes may not have all others refused for as long as it likes."""
    monkeypatch.setattr("sidecar.observe.access_log.MAX_REFUSALS", 2)
    log.max_records = 8
    sink.block(blocked=True)
    entries = [log.reserve() for _ in range(8)]
    for entry in entries[:3]:
        entry.close()
        sink.block(blocked=False)
        wait_until_settled(log)  # the sink writes, and the log is still more than half full
        sink.block(blocked=True)
        log.tell_lasting()
        log.refused("inbound", {})
    assert metrics.events_dropped == 1
    for entry in entries[3:]:
        entry.close()
    sink.block(blocked=False)
    wait_until_settled(log)
    log.refused("inbound", {})
    assert metrics.events_dropped == 1


async def test_refusals_with_long_paths_take_as_many_bytes_as_requests_may(
    sink: FakeSink, log: AccessLog, metrics: Metrics
) -> None:
    sink.block(blocked=True)
    for _ in range(100):
        log.refused("inbound", {"path": "/" + 40_000 * "a"})
        log.writer._encode_waiting()
    assert log.waiting_bytes < 2 * MAX_BYTES + 50_000
    assert metrics.events_dropped > 40
