from __future__ import annotations

import pytest

from sidecar.observe.sink import Room
from sidecar.observe.sink_space import LEAST_S, MARK_S, MARKS, SinkSpace, sink_metrics

GIB = 1 << 30


def filled(*free: int, every_s: float = 60.0) -> SinkSpace:
    filling = SinkSpace()
    for number, one in enumerate(free):
        filling = filling.measured(Room(one, 10 * GIB), 1000.0 + number * every_s)
    return filling


@pytest.mark.parametrize(
    ("free", "full_in_s"),
    [
        pytest.param([10 * GIB], None, id="one measurement is not a rate"),
        pytest.param([9 * GIB, 9 * GIB], None, id="nothing is used"),
        pytest.param([8 * GIB, 9 * GIB], None, id="it was emptied"),
        pytest.param([10 * GIB, 9 * GIB], 9 * 60, id="a GiB a minute"),
        pytest.param([10 * GIB, 8 * GIB, 6 * GIB], 3 * 60, id="two a minute"),
        pytest.param([GIB, 0], 0, id="full"),
    ],
)
def test_the_rate_so_far_tells_when_it_is_full(free: list[int], full_in_s: int | None) -> None:
    assert filled(*free).full_in_s == full_in_s


def test_a_rate_over_less_than_a_minute_is_none() -> None:
    assert filled(10 * GIB, 9 * GIB, every_s=LEAST_S - 1).full_in_s is None


def test_only_the_last_minutes_count_and_marks_have_a_limit() -> None:
    falling = [10 * GIB - number for number in range(100)]
    filling = filled(*falling, *[falling[-1]] * (MARKS + 1), every_s=MARK_S)
    assert filling.full_in_s is None
    assert len(filling.marks) == MARKS


def test_a_sink_that_is_no_file_has_no_room_to_tell() -> None:
    assert [metric.name for metric in sink_metrics(5, None)] == ["sidecar_records_waiting_bytes"]
    told = {metric.name: metric.samples[0].value for metric in sink_metrics(5, filled(GIB))}
    assert told == {
        "sidecar_records_waiting_bytes": 5,
        "sidecar_records_sink_free_bytes": GIB,
        "sidecar_records_sink_size_bytes": 10 * GIB,
    }
