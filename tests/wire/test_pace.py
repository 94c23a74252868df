from __future__ import annotations

from sidecar.wire.teardown import Linger, Pace


def test_a_pace_begins_anew_when_enough_has_moved_and_not_by_single_bytes() -> None:
    pace = Pace()
    pace.begin(10.0, 100)
    assert pace.lasts(15.0, 100, 10) == 5.0
    assert pace.lasts(20.0, 109, 10) == 10.0
    assert pace.lasts(21.0, 110, 10) == 0.0
    assert pace.lasts(22.0, 110, 10) == 1.0


def test_a_buffer_that_grew_meanwhile_must_still_shrink_by_enough() -> None:
    pace = Pace()
    pace.begin(10.0, -100)
    assert pace.lasts(11.0, -200, 10) == 1.0
    assert pace.lasts(12.0, -191, 10) == 2.0
    assert pace.lasts(13.0, -190, 10) == 0.0


def test_lingering_ends_with_silence_with_time_or_with_too_many_bytes() -> None:
    linger = Linger(10.0, timeout_s=3.0, silence_s=0.5, max_bytes=10)
    assert linger.received(10.4, 10)
    assert not linger.over(10.8)
    assert linger.over(11.0)
    assert not linger.received(11.0, 1)
    steady = Linger(10.0, timeout_s=3.0, silence_s=None, max_bytes=10)
    assert not steady.over(12.9)
    assert steady.over(13.1)
