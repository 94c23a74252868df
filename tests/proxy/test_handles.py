from __future__ import annotations

from typing import Any, Final

import pytest

from sidecar.errors import Denied, Reason, SidecarError, Unavailable
from sidecar.proxy.handles import Handles, ServedRequest
from tests.delegation.world import LOGIN_CLAIMS, NOW, login
from tests.fakes.guard import FakeGuard

REST_S: Final = 540


class Clock:
    """Wall time, and a monotonic clock that keeps up with it."""

    def __init__(self) -> None:
        self.now = float(NOW)

    def __call__(self) -> float:
        return self.now


def served(*, rest_s: int = REST_S, max_calls: int | None = None, linger_s: float = 0.0) -> ServedRequest:
    delegation = login(LOGIN_CLAIMS | {"exp": NOW + rest_s})
    return ServedRequest(delegation, max_calls, linger_s, call_in=None)


def handles(clock: Clock, **limits: Any) -> Handles:
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


# --- handles of requests


def test_a_handle_stands_for_its_request_until_that_ends() -> None:
    made = handles(Clock())
    request = served()
    handle = made.open(request)
    assert made.resolve(handle) is request
    made.end(handle)
    assert reason(made, handle) is Reason.NO_REQUEST_CONTEXT
    assert len(made) == 0


def test_handles_are_unguessable_and_never_the_same() -> None:
    made = handles(Clock())
    opened = {made.open(served()) for _ in range(1000)}
    assert len(opened) == 1000
    assert {len(handle) for handle in opened} == {43}  # 258 bits


@pytest.mark.parametrize("handle", ["", "x" * 43])
def test_what_was_never_made_stands_for_nothing(handle: str) -> None:
    made = handles(Clock())
    made.open(served())
    assert reason(made, handle) is Reason.NO_REQUEST_CONTEXT
    made.end(handle)
    assert len(made) == 1


def test_one_sidecars_handle_stands_for_nothing_at_another() -> None:
    clock = Clock()
    assert reason(handles(clock), handles(clock).open(served())) is Reason.NO_REQUEST_CONTEXT


@pytest.mark.parametrize(
    ("later_s", "found"),
    [(0, None), (29, None), (30, Reason.NO_REQUEST_CONTEXT), (31, Reason.NO_REQUEST_CONTEXT)],
)
def test_a_lingering_handle_lives_exactly_so_long_after_its_request(later_s: int, found: Reason | None) -> None:
    clock = Clock()
    made = handles(clock)
    request = served(linger_s=30)
    handle = made.open(request)
    clock.now += 100
    before = request.ended_at
    made.end(handle)
    assert (before, request.ended_at) == (None, clock.now)
    clock.now += later_s
    assert reason(made, handle) is found


@pytest.mark.parametrize("ended", [False, True])
def test_no_handle_outlives_its_token(ended: bool) -> None:
    clock = Clock()
    made = handles(clock)
    handle = made.open(served(rest_s=10, linger_s=3600))
    if ended:
        made.end(handle)
    clock.now += 9
    assert reason(made, handle) is None
    clock.now += 1
    assert reason(made, handle) is Reason.NO_REQUEST_CONTEXT
    assert len(made) == 0


def test_the_linger_follows_the_monotonic_clock_and_the_token_the_wall_clock() -> None:
    wall, monotonic = Clock(), Clock()
    made = Handles(clock=wall, monotonic=monotonic)
    handle = made.open(served(rest_s=100, linger_s=30))
    made.end(handle)
    wall.now -= 1000
    monotonic.now += 29
    assert reason(made, handle) is None
    monotonic.now += 1
    assert reason(made, handle) is Reason.NO_REQUEST_CONTEXT


def test_ended_handles_are_forgotten_by_the_sweep_and_those_that_linger_are_not() -> None:
    clock = Clock()
    made = handles(clock)
    short, long, alive = (made.open(served(linger_s=linger_s)) for linger_s in (10, 30, 10))
    made.end(short)
    made.end(long)
    clock.now += 10
    made.sweep()
    assert len(made) == 2
    assert [reason(made, handle) for handle in (short, long, alive)] == [Reason.NO_REQUEST_CONTEXT, None, None]
    clock.now += 20
    made.sweep()
    assert reason(made, alive) is None
    assert len(made) == 1


def test_of_too_many_that_linger_the_longest_ended_dies_first_and_none_that_is_alive() -> None:
    made = handles(Clock(), max_lingering=2)
    alive = made.open(served(linger_s=30))
    lingering = [made.open(served(linger_s=30)) for _ in range(3)]
    for handle in lingering:
        made.end(handle)
    assert [reason(made, handle) for handle in lingering] == [Reason.NO_REQUEST_CONTEXT, None, None]
    assert reason(made, alive) is None


@pytest.mark.parametrize("max_calls", [0, 1, 3])
def test_a_request_makes_so_many_calls_and_no_more(max_calls: int) -> None:
    request = served(max_calls=max_calls)
    for _ in range(max_calls):
        request.count_call()
    with pytest.raises(Denied) as refused:
        request.count_call()
    assert refused.value.reason is Reason.CALLS_EXHAUSTED


# --- a handle dies with the authority of its request


class Judge:
    """Says what the test says of every request, and counts."""

    def __init__(self) -> None:
        self.refusal: SidecarError | None = None
        self.asked = 0

    def __call__(self, _served: ServedRequest) -> None:
        self.asked += 1
        if self.refusal is not None:
            raise self.refusal


def test_a_request_is_judged_once_after_each_change_and_never_without_one() -> None:
    judge = Judge()
    made = handles(Clock(), judge=judge)
    handle = made.open(served())
    for changes in range(3):
        assert [reason(made, handle), reason(made, handle)] == [None, None]
        assert judge.asked == changes
        made.suspect()
    late = made.open(served())
    assert (reason(made, late), judge.asked) == (None, 2)  # it was decided by what is in force


DIES = {
    "denied": (Denied(Reason.POLICY_DENIED), Reason.POLICY_DENIED),
    "its token's key is gone": (Denied(Reason.UNKNOWN_KEY), Reason.UNKNOWN_KEY),
    "trust in its peer is gone": (Denied(Reason.UNTRUSTED_CHAIN), Reason.NO_REQUEST_CONTEXT),  # no HTTP answer says so
}


@pytest.mark.parametrize("linger_s", [0.0, 60.0])
@pytest.mark.parametrize(("refusal", "told"), DIES.values(), ids=DIES.keys())
def test_a_handle_dies_with_the_authority_of_its_request(refusal: Denied, told: Reason, linger_s: float) -> None:
    judge = Judge()
    made = handles(Clock(), judge=judge)
    handle, other = made.open(served(linger_s=linger_s)), made.open(served())
    if linger_s:
        made.end(handle)
    made.suspect()
    judge.refusal = refusal
    assert reason(made, handle) is told
    judge.refusal = None
    assert reason(made, handle) is Reason.NO_REQUEST_CONTEXT  # for good
    assert reason(made, other) is None


def test_a_handle_survives_what_is_only_unknown() -> None:
    judge = Judge()
    made = handles(Clock(), judge=judge)
    handle = made.open(served())
    made.suspect()
    judge.refusal = Unavailable(Reason.KEYS_UNAVAILABLE)
    assert reason(made, handle) is Reason.KEYS_UNAVAILABLE
    judge.refusal = None
    assert reason(made, handle) is None


def test_lingering_handles_hold_one_proof_for_each_certificate() -> None:
    made = handles(Clock())
    kept = []
    for fingerprint in ("aa", "bb", "aa"):
        request = served(linger_s=60.0)
        request.guard = FakeGuard(fingerprint=fingerprint)
        made.end(made.open(request))
        kept.append(request.guard)
    assert kept[0] is kept[2] is not kept[1]
    made.sweep()
    again = served(linger_s=60.0)
    again.guard = FakeGuard(fingerprint="aa")
    made.end(made.open(again))
    assert again.guard is kept[0]


def test_the_proof_of_a_peer_goes_with_its_last_lingering_handle() -> None:
    clock = Clock()
    made = handles(clock)
    first, second = served(linger_s=60.0), served(linger_s=60.0)
    first.guard, second.guard = FakeGuard(), FakeGuard()
    made.end(made.open(first))
    clock.now += 60
    made.sweep()
    made.end(made.open(second))
    assert second.guard is not first.guard
