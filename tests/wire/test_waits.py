from __future__ import annotations

from sidecar.wire.waits import Linger, Stall


def test_a_stall_begins_anew_with_every_byte_taken() -> None:
    stall = Stall()
    stall.begin(10.0, 100)
    assert stall.lasts(15.0, 100) == 5.0
    assert stall.lasts(20.0, 99) == 0.0
    assert stall.lasts(21.0, 99) == 1.0


def test_lingering_ends_with_silence_with_time_or_with_too_many_bytes() -> None:
    linger = Linger(10.0, timeout_s=3.0, silence_s=0.5, max_bytes=10)
    assert linger.received(10.4, 10)
    assert not linger.over(10.8)
    assert linger.over(11.0)
    assert not linger.received(11.0, 1)
    steady = Linger(10.0, timeout_s=3.0, silence_s=None, max_bytes=10)
    assert not steady.over(12.9)
    assert steady.over(13.1)
