from __future__ import annotations

from typing import Final

import pytest

from sidecar.errors import Denied, Reason, SidecarError, Unavailable
from sidecar.proxy.handles import Handles, ServedRequest
from tests.delegation.world import LOGIN_CLAIMS, NOW, login

REST_S: Final = 540


class Clock:
    """Wall time, and a monotonic clock that keeps up with it."""

    def __init__(self) -> None:
        self.now = float(NOW)

    def __call__(self) -> float:
        return self.now


def served(*, rest_s: int = REST_S, max_calls: int | None = None, linger_s: float = 0.0) -> ServedRequest:
    delegation = login(LOGIN_CLAIMS | {"exp": NOW + rest_s})
    return ServedRequest(delegation, request_id="r", call_in=None, max_calls=max_calls, linger_s=linger_s)


def handles(clock: Clock, **limits: int) -> Handles:
    return Handles(clock=clock, monotonic=clock, **limits)


def reason(made: Handles, handle: str) -> Reason | None:
    try:
        made.resolve(handle)
    except SidecarError as error:
        return error.reason
    return None


@pytest.mark.parametrize(
    ("later_s", "found"),
    [(0, None), (REST_S - 1, None), (REST_S, Reason.NO_REQUEST_CONTEXT), (REST_S + 1, Reason.NO_REQUEST_CONTEXT)],
)
def test_a_logins_handle_lives_exactly_as_long_as_its_token(later_s: int, found: Reason | None) -> None:
    clock = Clock()
    made = handles(clock)
    handle = made.keep(served())
    clock.now += later_s
    assert reason(made, handle) is found


def test_a_logins_handle_is_no_lingering_one() -> None:
    made = handles(Clock())
    assert made.resolve(made.keep(served())).ended_at is None


def test_expired_logins_are_forgotten_by_the_sweep_and_others_are_not() -> None:
    clock = Clock()
    made = handles(clock)
    made.keep(served(rest_s=20))
    longest = made.keep(served(rest_s=60))
    made.keep(served(rest_s=10))
    clock.now += 20
    made.sweep()
    assert len(made) == 1
    assert reason(made, longest) is None


def test_one_login_too_many_is_refused_and_no_users_handle_dies_for_it() -> None:
    clock = Clock()
    made = handles(clock, max_kept=2)
    kept = [made.keep(served(rest_s=rest_s)) for rest_s in (30, 10)]
    with pytest.raises(Unavailable) as refused:
        made.keep(served())
    assert refused.value.reason is Reason.OVERLOADED
    assert [reason(made, handle) for handle in kept] == [None, None]
    clock.now += 10
    made.keep(served())  # room again, without a sweep


def test_two_handles_of_one_login_are_two() -> None:
    made = handles(Clock())
    assert made.keep(served()) != made.keep(served())


def test_calls_are_counted_only_where_there_is_a_limit() -> None:
    unlimited, limited = served(), served(max_calls=1)
    for _ in range(1000):
        unlimited.count_call()
    limited.count_call()
    with pytest.raises(Denied):
        limited.count_call()
