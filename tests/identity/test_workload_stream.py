from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sidecar.identity.workload_stream import Backoff


def test_waits_double_up_to_the_longest() -> None:
    backoff = Backoff(0.1, 1.0)
    for longest in (0.1, 0.2, 0.4, 0.8, 1.0, 1.0):
        assert longest / 2 <= backoff.next_s() <= longest


def test_a_good_update_starts_the_waits_over() -> None:
    backoff = Backoff(0.1, 1.0)
    for _ in range(5):
        backoff.next_s()
    backoff.reset()
    assert backoff.next_s() <= 0.1


def test_waits_of_many_do_not_march_in_step() -> None:
    assert len({Backoff(0.1, 1.0).next_s() for _ in range(20)}) > 10


@given(st.integers(min_value=1, max_value=60))
def test_no_wait_is_longer_than_the_longest(number: int) -> None:
    backoff = Backoff(0.1, 1.0)
    assert all(0 < backoff.next_s() <= 1.0 for _ in range(number))
