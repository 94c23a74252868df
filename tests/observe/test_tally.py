from __future__ import annotations

from typing import get_args

import pytest

from delegation_core.errors import Reason
from delegation_core.records.record import OK, Direction, Record
from sidecar.observe.entry import request_record
from sidecar.observe.tally import AT_ONCE, OTHER, Finished, Histogram, Tally

LABELS = {None: "none", "search": "search"}


def record(direction: Direction = "inbound", **known: object) -> Record:
    """Return the record of a finished request."""
    return request_record(direction, "r1") | {"total_ms": 1.0} | known


def permitted(depth: int, **known: object) -> Record:
    return (
        record()
        | {"route": "search", "decision": "allow", "reason": OK, "chain_depth": depth, "decide_ms": 0.1}
        | known
    )


@pytest.mark.parametrize("times", [0, 1, AT_ONCE - 1, AT_ONCE, AT_ONCE + 1, 3 * AT_ONCE + 5])
def test_every_request_is_counted_once_however_many_there_are(times: int) -> None:
    tally = Tally(LABELS)
    for _ in range(times):
        tally.add(permitted(2))
    for _ in range(2):  # a scrape changes nothing
        counted = tally.counted()
        assert counted.requests.get(("inbound", "search", "allow", OK), 0) == times
        assert counted.request_seconds["inbound"].up_to[-1] == times
        assert counted.request_seconds["inbound"].total == times
        assert counted.decision_seconds["inbound"].up_to[-1] == times
        assert counted.chain_depth.total == 2 * times


@pytest.mark.parametrize("times", [(AT_ONCE, 0), (0, AT_ONCE), (5, 7), (AT_ONCE - 1, 2 * AT_ONCE + 1)])
def test_each_direction_is_counted_by_itself(times: tuple[int, int]) -> None:
    tally = Tally(LABELS)
    for number in range(max(times)):
        for direction, its in zip(get_args(Direction), times, strict=True):
            if number < its:
                tally.add(permitted(1, direction=direction, decide_ms=None, total_ms=float(its)))
    counted = tally.counted()
    for direction, its in zip(get_args(Direction), times, strict=True):
        assert counted.requests.get((direction, "search", "allow", OK), 0) == its
        assert (counted.request_seconds[direction].up_to[-1], counted.request_seconds[direction].total) == (its, its**2)
        assert counted.decision_seconds[direction].up_to[-1] == 0
    assert counted.chain_depth.up_to[-1] == sum(times)


def test_requests_are_counted_by_the_engine_that_ended_them() -> None:
    tally = Tally(LABELS)
    nothing: Finished = [], [], []
    native: list[Finished] = [
        (
            [("search", 2, "SendMessage", 1), ("search", 2, None, 2), ("other", None, None, 1)],
            [1.0, 2.0, 3.0, 4.0],
            [0.5, 1.5, 2.5, 3.5],
        )
    ]
    tally.add_native("inbound", lambda: native.pop() if native else nothing)
    tally.add(permitted(1))
    tally.add(permitted(1, direction="outbound"))
    counted = tally.counted()
    assert counted.engines == {
        ("inbound", "python"): 1,
        ("inbound", "native"): 4,
        ("outbound", "python"): 1,
        ("outbound", "native"): 0,
    }
    assert counted.requests["inbound", "search", "allow", OK] == 1 + 3
    assert counted.requests["inbound", OTHER, "allow", OK] == 1
    assert counted.operations == {("inbound", "search", "SendMessage", "allow"): 1}
    assert counted.chain_depth.up_to[1] == 2 + 3  # of the one without a depth nothing is known
    assert counted.request_seconds["inbound"].up_to[-1] == counted.decision_seconds["inbound"].up_to[-1] == 5
    assert tally.counted().engines["inbound", "native"] == 4  # each is counted once


def test_a_record_that_cannot_be_counted_stops_no_later_one() -> None:
    tally = Tally(LABELS)
    tally.add(permitted(1, total_ms=None))
    with pytest.raises(TypeError):
        tally.counted()
    tally.add(permitted(1))
    assert tally.counted().request_seconds["inbound"].up_to[-1] == 1


def test_requests_that_nobody_looked_at_are_few() -> None:
    tally = Tally(LABELS)
    for _ in range(10 * AT_ONCE - 1):
        tally.add(permitted(2))
    assert sum(tally.requests.values()) == 9 * AT_ONCE


def test_requests_are_told_apart_by_direction_route_decision_and_reason() -> None:
    tally = Tally(LABELS)
    for direction in ("inbound", "outbound"):
        tally.add(permitted(1) | {"direction": direction})
    tally.add(record(route="search", reason=Reason.POLICY_DENIED))
    tally.add(record(reason=Reason.NO_ROUTE))
    tally.add(record(route="of-the-old-settings", reason=Reason.POLICY_DENIED))
    assert tally.counted().requests == {
        ("inbound", "search", "allow", OK): 1,
        ("outbound", "search", "allow", OK): 1,
        ("inbound", "search", "deny", "policy_denied"): 1,
        ("inbound", "none", "deny", "no_route"): 1,
        ("inbound", OTHER, "deny", "policy_denied"): 1,
    }


def test_only_permitted_requests_have_a_depth_and_only_those_decided_on_a_decision_time() -> None:
    tally = Tally(LABELS)
    tally.add(permitted(3))
    tally.add(record(chain_depth=5))  # refused after its token was parsed
    tally.add(record(decision="allow", reason=OK))  # a login has no chain
    tally.add(record(decision="allow", reason=OK, decide_ms=0.0))
    counted = tally.counted()
    assert counted.chain_depth.up_to == [0, 0, 1, 1, 1, 1, 1]
    assert counted.decision_seconds["inbound"].up_to[-1] == 2
    assert counted.request_seconds["inbound"].up_to[-1] == 4


def test_times_are_told_in_seconds() -> None:
    tally = Tally(LABELS)
    tally.add(permitted(1, total_ms=5.0))
    tally.add(permitted(1, total_ms=5.001))
    buckets, total = tally.counted().request_seconds["inbound"].told()
    assert [count for bound, count in buckets if bound in {"0.0025", "0.005", "0.01", "+Inf"}] == [0, 1, 2, 2]
    assert total == pytest.approx(0.010001)


def test_a_value_on_a_bound_belongs_to_it_and_buckets_add_up() -> None:
    histogram = Histogram((1, 2, 4))
    for number in (0.5, 1, 2, 3, 9):
        histogram.observe([number])
    assert histogram.told() == ([("1", 2.0), ("2", 3.0), ("4", 4.0), ("+Inf", 5.0)], 15.5)
    together = Histogram((1, 2, 4))
    together.observe([3, 0.5, 9, 1, 2])
    assert together.told() == histogram.told()
