from __future__ import annotations

import pytest

from sidecar.observe.metrics import Metrics
from sidecar.observe.record_rate import RecordRate, UnprovenRecords
from tests.wire.bench import Clock


class Log:
    def __init__(self) -> None:
        self.metrics = Metrics()
        self.monotonic = Clock()


@pytest.fixture
def log() -> Log:
    return Log()


def taken(unproven: UnprovenRecords, times: int) -> int:
    return sum(unproven.take() for _ in range(times))


def test_a_burst_passes_then_the_rate_and_the_rest_is_counted(log: Log) -> None:
    unproven = UnprovenRecords(log, RecordRate(per_s=2.0, burst=10))
    assert taken(unproven, 1000) == 10
    log.monotonic.now += 3
    assert taken(unproven, 1000) == 6
    assert log.metrics.records_suppressed == 990 + 994


def test_an_hour_of_flood_leaves_no_more_than_the_rate_and_a_burst(log: Log) -> None:
    unproven = UnprovenRecords(log)
    records = 0
    for _ in range(3600):
        records += taken(unproven, 10)
        log.monotonic.now += 1
    assert records <= 50 + 5 * 3600


def test_tokens_gather_to_a_burst_and_no_further(log: Log) -> None:
    unproven = UnprovenRecords(log, RecordRate(per_s=2.0, burst=10))
    log.monotonic.now += 3600
    assert taken(unproven, 100) == 10


def test_the_next_record_tells_once_how_many_were_left_out(log: Log) -> None:
    unproven = UnprovenRecords(log, RecordRate(per_s=1.0, burst=1))
    assert unproven.take()
    assert unproven.suppressed() is None
    assert taken(unproven, 7) == 0
    log.monotonic.now += 1
    assert unproven.take()
    assert unproven.suppressed() == 7
    assert unproven.suppressed() is None


def test_processes_that_share_a_listener_share_its_rate() -> None:
    assert RecordRate(per_s=6.0, burst=50).share(3) == RecordRate(per_s=2.0, burst=16)
    assert RecordRate(per_s=6.0, burst=2).share(3).burst == 1


@pytest.mark.parametrize(("per_s", "burst"), [(0.0, 1), (-1.0, 1), (float("nan"), 1), (1.0, 0)])
def test_a_rate_that_lets_nothing_through_is_refused(per_s: float, burst: int) -> None:
    with pytest.raises(ValueError, match="above zero"):
        RecordRate(per_s=per_s, burst=burst)
