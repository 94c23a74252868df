from __future__ import annotations

import pytest

from delegation_core.bounded import ENTRY_BYTES
from delegation_core.errors import Reason, Unavailable
from sidecar.sts.rate import KEY_BYTES, ExchangeRate, RateSettings


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def taken(rate: ExchangeRate, key: str, times: int) -> int:
    """Return the number of successful takes out of ``times``."""
    done = 0
    for _ in range(times):
        try:
            rate.take(key)
        except Unavailable:
            continue
        done += 1
    return done


def test_what_is_refused_is_too_much_at_once() -> None:
    rate = ExchangeRate(RateSettings(burst=1), monotonic=Clock())
    rate.take("a")
    with pytest.raises(Unavailable) as refused:
        rate.take("a")
    assert refused.value.reason is Reason.OVERLOADED


@pytest.mark.parametrize(("burst", "per_s"), [(1, 1.0), (3, 1.0), (120, 2.0), (7, 3.0), (2, 1.3), (1000, 1.5)])
def test_a_burst_is_had_at_once_and_then_no_more(burst: int, per_s: float) -> None:
    rate = ExchangeRate(RateSettings(burst=burst, per_s=per_s), monotonic=Clock())
    assert taken(rate, "a", burst + 10) == burst


def test_time_gives_back_so_many_a_second_and_never_more_than_a_burst() -> None:
    clock = Clock()
    rate = ExchangeRate(RateSettings(burst=10, per_s=2.0), monotonic=clock)
    assert taken(rate, "a", 20) == 10
    clock.now += 1
    assert taken(rate, "a", 20) == 2
    clock.now += 1000
    assert taken(rate, "a", 20) == 10


def test_whoever_is_refused_may_come_again_in_a_second_however_often_he_asks() -> None:
    clock = Clock()
    rate = ExchangeRate(RateSettings(burst=1, per_s=1.0), monotonic=clock)
    assert taken(rate, "a", 1000) == 1
    clock.now += 1
    assert taken(rate, "a", 1000) == 1


def test_one_key_takes_nothing_from_another() -> None:
    rate = ExchangeRate(RateSettings(burst=2), monotonic=Clock())
    assert (taken(rate, "a", 5), taken(rate, "b", 5)) == (2, 2)


def test_the_table_is_bounded_and_forgets_whoever_has_not_come_for_longest() -> None:
    rate = ExchangeRate(RateSettings(burst=1), monotonic=Clock(), max_bytes=2 * (KEY_BYTES + ENTRY_BYTES))
    for key in ("a", "b", "c"):
        rate.take(key)
    assert taken(rate, "b", 1) == taken(rate, "c", 1) == 0
    assert taken(rate, "a", 1) == 1


def test_whoever_came_again_is_not_the_one_to_be_forgotten() -> None:
    rate = ExchangeRate(RateSettings(burst=2), monotonic=Clock(), max_bytes=2 * (KEY_BYTES + ENTRY_BYTES))
    for key in ("a", "b", "a", "c"):
        rate.take(key)
    assert taken(rate, "a", 1) == 0


def test_a_key_as_long_as_its_caller_likes_takes_no_more_than_another() -> None:
    rate = ExchangeRate(RateSettings(burst=1), monotonic=Clock(), max_bytes=2 * (KEY_BYTES + ENTRY_BYTES))
    for key in ("x" * 100_000, "y" * 100_000):
        rate.take(key)
    assert len(rate) == 2
    assert taken(rate, "x" * 100_000, 1) == 0


def test_a_key_that_has_everything_back_is_forgotten_when_the_next_one_comes() -> None:
    clock = Clock()
    rate = ExchangeRate(RateSettings(burst=10, per_s=1.0), monotonic=clock)
    taken(rate, "a", 10)
    rate.take("b")
    clock.now += 9.5
    rate.take("c")
    assert len(rate) == 2
    assert taken(rate, "a", 20) == 9


@pytest.mark.parametrize("numbers", [{"burst": 0}, {"per_s": 0.9}, {"per_s": float("nan")}])
def test_less_than_one_a_second_is_refused(numbers: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        RateSettings(**numbers)  # type: ignore[arg-type]
