from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

import pytest

from delegation_core.bounded import ENTRY_BYTES
from delegation_core.errors import Denied, Reason, SidecarError, Unavailable
from delegation_core.spiffe_id import SpiffeId
from sidecar.proxy.journeys.handles import HELD_BYTES, OPEN_BYTES, Handles, ServedRequest
from tests.core.world import LOGIN_CLAIMS, NOW, PLANNER, WRITER, login
from tests.fakes.guard import FakeGuard

REST_S: Final = 540


class Clock:
    """Wall time, and a monotonic clock that keeps up with it."""

    def __init__(self) -> None:
        self.now = float(NOW)

    def __call__(self) -> float:
        return self.now


def served(*, rest_s: int = REST_S, max_calls: int | None = None, linger_s: float = 0.0) -> ServedRequest:
    delegation = login(LOGIN_CLAIMS | {"exp": NOW + rest_s, "jti": f"of {rest_s} s"})
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


COST: Final = served().delegation.token.held_bytes + HELD_BYTES + ENTRY_BYTES + 256  # of one that outlives its request


@pytest.mark.parametrize("limits", [{"max_per_subject": 2}, {"max_bytes": 2 * 2 * COST}])
def test_one_login_too_many_is_refused_and_no_users_handle_dies_for_it(limits: Any) -> None:
    clock = Clock()
    made = handles(clock, **limits)
    kept = [made.keep(served(rest_s=rest_s)) for rest_s in (30, 10)]
    with pytest.raises(Unavailable) as refused:
        made.keep(served())
    assert refused.value.reason is Reason.OVERLOADED
    assert [reason(made, handle) for handle in kept] == [None, None]
    clock.now += 10
    made.keep(served())  # space again, without a sweep


def test_a_login_has_one_handle_however_often_it_is_traded() -> None:
    made = handles(Clock(), max_per_subject=1)
    assert made.keep(served()) == made.keep(served())
    assert len(made) == 1


def test_another_login_of_the_same_subject_has_another() -> None:
    made = handles(Clock())
    assert made.keep(served()) != made.keep(served(rest_s=REST_S + 1))


def test_a_login_that_has_expired_has_its_handle_no_more_and_its_place_is_free() -> None:
    clock = Clock()
    made = handles(clock, max_per_subject=1)
    before = made.keep(served(rest_s=10))
    clock.now += 10
    assert made.keep(served(rest_s=20)) != before
    assert len(made) == 1


def test_one_subjects_logins_take_no_other_subjects_place() -> None:
    made = handles(Clock(), max_per_subject=1)
    made.keep(served())
    other = ServedRequest(login(LOGIN_CLAIMS | {"sub": "another", "jti": "another"}), None, 0.0, call_in=None)
    made.keep(other)
    assert len(made) == 2


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


def lingering(made: Handles, count: int = 1, *, peer: SpiffeId = PLANNER, linger_s: float = 30) -> list[str]:
    """Return handles of ended requests of ``peer``, the longest-ended first."""
    delegated = replace(served().delegation, token=replace(served().delegation.token, actor_id=peer))
    ended = []
    for _ in range(count):
        ended.append(made.open(ServedRequest(delegated, None, linger_s, call_in=None)))
        made.end(ended[-1])
    return ended


def alive(made: Handles, ended: Sequence[str]) -> list[bool]:
    return [reason(made, handle) is None for handle in ended]


def test_of_too_many_bytes_that_linger_the_longest_ended_go_first_and_none_that_is_served() -> None:
    made = handles(Clock(), max_bytes=2 * COST + 2 * OPEN_BYTES)
    open_one = made.open(served(linger_s=30))
    assert alive(made, lingering(made, 3)) == [False, True, True]
    assert reason(made, open_one) is None
    assert made.evicted == 1
    assert made.bytes <= 2 * COST + 2 * OPEN_BYTES


def test_a_large_token_takes_the_place_of_many() -> None:
    made = handles(Clock(), max_bytes=20 * COST)
    small = lingering(made, 10)
    large = replace(served().delegation, token=replace(served().delegation.token, raw="x" * 15 * COST))
    handle = made.open(ServedRequest(large, None, 30, call_in=None))
    made.end(handle)
    assert reason(made, handle) is None
    assert sum(alive(made, small)) < 6
    assert made.bytes <= 20 * COST


def test_of_too_many_that_linger_the_peer_that_has_most_loses_its_own() -> None:
    made = handles(Clock(), max_bytes=6 * COST)
    few, many = lingering(made, 2, peer=WRITER), lingering(made, 20, peer=PLANNER)
    assert alive(made, few) == [True, True]
    assert sum(alive(made, many)) == 4
    assert alive(made, many[-4:]) == [True] * 4


def test_while_memory_is_short_lingering_handles_go_and_no_others() -> None:
    made = handles(Clock())
    kept, open_one = made.keep(served()), made.open(served(linger_s=30))
    few, many = lingering(made, 1, peer=WRITER), lingering(made, 9, peer=PLANNER)
    made.shed(made.bytes - 4 * COST)
    assert alive(made, few) == [True]
    assert alive(made, many) == [False] * 5 + [True] * 4  # COST is a little more than one of them
    made.shed(0)
    assert (alive(made, few + many), made.evicted) == ([False] * 10, 10)
    assert [reason(made, handle) for handle in (kept, open_one)] == [None, None]


def test_where_logins_take_all_they_may_what_lingers_keeps_some_room() -> None:
    made = handles(Clock(), max_bytes=8 * COST)
    logins = [made.keep(served(rest_s=REST_S + number)) for number in range(4)]
    with pytest.raises(Unavailable):
        made.keep(served(rest_s=REST_S + 9))
    assert sum(alive(made, lingering(made, 8))) == 4
    assert alive(made, logins) == [True] * 4


def test_a_login_takes_the_place_of_what_lingers() -> None:
    made = handles(Clock(), max_bytes=4 * COST)
    ended = lingering(made, 4)
    made.keep(served())
    assert alive(made, ended) == [False, True, True, True]


def test_nothing_lingers_where_there_is_no_room_even_for_one() -> None:
    made = handles(Clock(), max_bytes=COST // 2)
    assert alive(made, lingering(made)) == [False]
    assert (made.evicted, made.bytes) == (1, 0)


@pytest.mark.parametrize("over", ["linger", "token"])
def test_the_bytes_of_handles_come_back_when_their_time_is_over_though_nobody_asks(over: str) -> None:
    clock = Clock()
    made = handles(clock)
    made.keep(served())
    lingering(made, 5, linger_s=10 if over == "linger" else 3600)
    assert made.bytes > 5 * HELD_BYTES
    clock.now += 10
    made.sweep()
    assert len(made) == (1 if over == "linger" else 6)
    clock.now += REST_S
    made.sweep()
    assert (len(made), made.bytes) == (0, 0)


def test_a_handle_whose_time_is_over_is_counted_no_more_once_somebody_asked() -> None:
    clock = Clock()
    made = handles(clock)
    ended = lingering(made, 1, linger_s=10)
    clock.now += 10
    assert alive(made, ended) == [False]
    assert made.bytes == 0


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
    """Judges every request as the test sets, and counts."""

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
    assert (reason(made, late), judge.asked) == (None, 2)  # it was decided by the policy in force


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
    request = served(linger_s=linger_s)
    handle, other = made.open(request), made.open(served())
    if linger_s:
        made.end(handle)
    made.suspect()
    judge.refusal = refusal
    assert reason(made, handle) is told
    judge.refusal = None
    assert reason(made, handle) is Reason.NO_REQUEST_CONTEXT  # permanently
    assert reason(made, other) is None
    assert made.find(handle) is request  # it is still no credential of the agent's own
    if not linger_s:
        made.end(handle)
        with pytest.raises(Denied):
            made.find(handle)


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


@pytest.mark.parametrize("calls_of_a_certificate", [1, 10])
def test_at_the_limit_a_new_certificate_makes_room_for_its_proof_too(calls_of_a_certificate: int) -> None:
    """An eviction without notice would keep a handle until the process ends."""
    clock, most = Clock(), 20 * (COST - 256) + 3000
    made = handles(clock, max_bytes=most)
    for number in range(400):
        request = served(linger_s=20.0)
        request.guard = FakeGuard(fingerprint=f"{number // calls_of_a_certificate}")
        made.end(made.open(request))
        assert len(made) == len(made._lingering or ())
        assert made.bytes <= most
    assert made.evicted
    clock.now += 20
    made.sweep()
    assert (len(made), made.bytes) == (0, 0)
