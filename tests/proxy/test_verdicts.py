from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest

from delegation_core.bounded import ENTRY_BYTES
from delegation_core.decide import decide_verified, delegate
from delegation_core.permit import Permit
from sidecar.observe.attribution import facts_of
from sidecar.proxy.journeys.verdicts import Call, Epoch, Permits, Verdicts
from tests.core.world import INBOUND_CLAIMS, NOW, PLANNER, POLICY, SEARCH, WRITER, verified

TOKEN = verified(INBOUND_CLAIMS)
OTHER = verified(INBOUND_CLAIMS | {"jti": "another"})


NOW_IN_FORCE = (1, 1)  # generation of the keys, number of the policy
CHANGED = ((2, 1), (1, 2))


def remembering(tokens: int = 8) -> Verdicts:
    """Return a cache with space for this many."""
    verdicts = Verdicts(tokens * (TOKEN.held_bytes + ENTRY_BYTES + 64))
    assert verdicts.find((TOKEN.raw, PLANNER), NOW_IN_FORCE) is None
    verdicts.add(TOKEN, PLANNER, NOW_IN_FORCE)
    return verdicts


def test_a_verified_token_is_found_again() -> None:
    assert remembering().find((TOKEN.raw, PLANNER), NOW_IN_FORCE) is TOKEN


def test_it_is_found_for_the_same_peer_only() -> None:
    assert remembering().find((TOKEN.raw, WRITER), NOW_IN_FORCE) is None


def test_it_is_found_by_the_whole_token_only() -> None:
    verdicts = remembering()
    assert verdicts.find((TOKEN.raw + "x", PLANNER), NOW_IN_FORCE) is None
    assert verdicts.find((TOKEN.raw[:-1], PLANNER), NOW_IN_FORCE) is None
    assert verdicts.find((OTHER.raw, PLANNER), NOW_IN_FORCE) is None


@pytest.mark.parametrize("epoch", CHANGED)
def test_other_keys_or_another_policy_forget_everything_for_good(epoch: Epoch) -> None:
    verdicts = remembering()
    assert verdicts.find((TOKEN.raw, PLANNER), epoch) is None
    assert len(verdicts) == 0
    assert verdicts.find((TOKEN.raw, PLANNER), NOW_IN_FORCE) is None


@pytest.mark.parametrize("epoch", CHANGED)
def test_a_token_verified_while_keys_or_policy_changed_is_not_kept(epoch: Epoch) -> None:
    verdicts = remembering()
    verdicts.add(OTHER, PLANNER, epoch)
    assert verdicts.find((OTHER.raw, PLANNER), NOW_IN_FORCE) is None
    assert len(verdicts) == 1


def test_it_holds_so_many_bytes_and_the_oldest_goes_first() -> None:
    verdicts = remembering(tokens=2)
    tokens = [TOKEN, *(verified(INBOUND_CLAIMS | {"jti": str(number)}) for number in range(3))]
    for before, token in pairwise(tokens):
        assert verdicts.find((before.raw, PLANNER), NOW_IN_FORCE) is before
        verdicts.add(token, PLANNER, NOW_IN_FORCE)
    assert len(verdicts) == 2
    found = [verdicts.find((token.raw, PLANNER), NOW_IN_FORCE) for token in tokens]
    assert found == [None, None, *tokens[2:]]
    large = verified(INBOUND_CLAIMS | {"jti": "x" * 1200})
    verdicts.add(large, PLANNER, NOW_IN_FORCE)
    assert [token.raw for token in map(verdicts.get, verdicts.entries) if token] == [large.raw]


@pytest.mark.parametrize(("later_s", "left"), [(-1, 1), (0, 0)])
def test_a_verdict_is_freed_when_its_token_has_expired_with_its_leeway(later_s: int, left: int) -> None:
    verdicts = remembering()
    assert TOKEN.leeway_s > 0
    verdicts.sweep(TOKEN.expires_at + TOKEN.leeway_s + later_s)
    assert len(verdicts) == left


# --- permits

CALL = Call(b"Bearer " + TOKEN.raw.encode(), "ab" * 32, "search")


def permit() -> Permit:
    return decide_verified(TOKEN, peer=PLANNER, route=SEARCH, policy=POLICY, now=NOW)


def giving(max_bytes: int = 1 << 20, verdicts_bytes: int = 1 << 20) -> Permits:
    permits = Permits(max_bytes, Verdicts(verdicts_bytes))
    assert permits.find(CALL, NOW_IN_FORCE) is None
    permits.give(CALL, permit(), NOW_IN_FORCE)
    return permits


def test_a_permit_is_had_again_with_what_its_handle_stands_for_and_its_record_says() -> None:
    given = Permits(1 << 20, Verdicts(1 << 20)).give(CALL, permit(), NOW_IN_FORCE)
    assert given.permit.token is TOKEN
    assert given.delegation == delegate(given.permit)
    found = giving().find(CALL, NOW_IN_FORCE)
    assert found is not None
    assert (found.permit.token, found.delegation) == (TOKEN, given.delegation)
    assert {**found.of_token, **found.facts} == facts_of(found.permit)


@pytest.mark.parametrize(
    "call",
    [
        CALL._replace(authorization=b"bearer " + TOKEN.raw.encode()),
        CALL._replace(authorization=b"Bearer " + OTHER.raw.encode()),
        CALL._replace(authorization=None),
        CALL._replace(certificate="cd" * 32),
        CALL._replace(route="other"),
    ],
)
def test_it_is_had_again_for_exactly_the_same_call_only(call: Call) -> None:
    assert giving().find(call, NOW_IN_FORCE) is None


def test_other_keys_or_another_policy_take_every_permit_back_for_good() -> None:
    for keys, policy in ((2, 1), (1, 2)):
        permits = giving()
        assert permits.find(CALL, (keys, policy)) is None
        assert len(permits) == 0
        assert permits.find(CALL, NOW_IN_FORCE) is None


def test_a_permit_given_while_keys_or_policy_changed_is_not_remembered() -> None:
    for keys, policy in ((2, 1), (1, 2)):
        permits = Permits(1 << 20, Verdicts(1 << 20))
        permits.find(CALL, NOW_IN_FORCE)
        permits.give(CALL, permit(), (keys, policy))
        assert len(permits) == 0


def test_without_exactly_one_authorization_nothing_is_remembered() -> None:
    permits = Permits(1 << 20, Verdicts(1 << 20))
    for _ in range(2):
        assert permits.find(CALL._replace(authorization=None), NOW_IN_FORCE) is None
        permits.give(CALL._replace(authorization=None), permit(), NOW_IN_FORCE)
    assert len(permits) == 0


def test_permits_hold_so_many_bytes_and_the_oldest_goes_first() -> None:
    one = giving().bytes
    permits = giving(max_bytes=2 * one, verdicts_bytes=0)
    calls = [CALL._replace(route=str(number)) for number in range(3)]
    for before, call in pairwise((CALL, *calls)):
        assert permits.find(before, NOW_IN_FORCE) is not None
        permits.give(call, permit(), NOW_IN_FORCE)
    found = [permits.find(call, NOW_IN_FORCE) is not None for call in (CALL, *calls)]
    assert (len(permits), found) == (2, [False, False, True, True])


@pytest.mark.parametrize(("later_s", "left"), [(-1, 1), (0, 0)])
def test_a_permit_is_freed_when_its_token_has_expired_with_its_leeway(later_s: int, left: int) -> None:
    permits = giving()
    permits.sweep(TOKEN.expires_at + TOKEN.leeway_s + later_s)
    assert len(permits) == left


# --- both: a token is accounted once


def tied(permits_bytes: int = 1 << 20, verdicts_bytes: int = 1 << 20) -> tuple[Verdicts, Permits]:
    """Return both caches with a verdict, and a permit of the same token."""
    verdicts = Verdicts(verdicts_bytes)
    permits = Permits(permits_bytes, verdicts)
    for cache in (verdicts, permits):
        cache.turn_to(NOW_IN_FORCE)
    verdicts.add(TOKEN, PLANNER, NOW_IN_FORCE)
    permits.give(CALL, permit(), NOW_IN_FORCE)
    return verdicts, permits


def test_a_token_that_is_a_verdict_too_is_accounted_once() -> None:
    alone, (_, permits) = giving(), tied()
    assert permits.bytes == alone.bytes - TOKEN.held_bytes


def _others(verdicts: Verdicts) -> None:
    for number in range(16):  # none is found: one in eight is kept
        verdicts.add(verified(INBOUND_CLAIMS | {"jti": str(number)}), PLANNER, NOW_IN_FORCE)


@pytest.mark.parametrize(
    "lose",
    [
        lambda verdicts: verdicts.drop((TOKEN.raw, PLANNER)),
        lambda verdicts: verdicts.shed(0),
        lambda verdicts: verdicts.sweep(TOKEN.expires_at + TOKEN.leeway_s),
        lambda verdicts: verdicts.turn_to((1, 2)),
        lambda verdicts: verdicts.carry((1, 2), drop=lambda token: token is TOKEN),
        lambda verdicts: verdicts.add(verified(INBOUND_CLAIMS), PLANNER, NOW_IN_FORCE),
        _others,
    ],
    ids=["dropped", "shed", "expired", "another epoch", "revoked", "verified again", "evicted"],
)
def test_a_permit_whose_memory_is_accounted_with_its_token_goes_with_it(lose: Callable[[Verdicts], object]) -> None:
    verdicts, permits = tied(verdicts_bytes=3 * (TOKEN.held_bytes + ENTRY_BYTES + 64))
    lose(verdicts)
    assert (len(permits), permits.bytes) == (0, 0)
    assert verdicts._tied == {}


@pytest.mark.parametrize("other", [CALL._replace(route="other"), CALL._replace(certificate="cd" * 32)])
def test_all_permits_of_a_token_go_with_it_and_no_others(other: Call) -> None:
    verdicts, permits = tied()
    permits.give(other, permit(), NOW_IN_FORCE)
    of_another = decide_verified(OTHER, peer=PLANNER, route=SEARCH, policy=POLICY, now=NOW)
    call = CALL._replace(authorization=b"Bearer " + OTHER.raw.encode())
    verdicts.add(OTHER, PLANNER, NOW_IN_FORCE)
    permits.give(call, of_another, NOW_IN_FORCE)
    verdicts.drop((TOKEN.raw, PLANNER))
    assert list(permits.entries) == [call]
    assert verdicts._tied == {(OTHER.raw, PLANNER): {call: None}}


def test_a_permit_for_one_more_operation_is_not_compared_with_those_for_all_others() -> None:
    """A token may have a permit for each of thousands of tools."""

    class Route(str):
        __slots__ = ()
        compared = 0
        __hash__ = str.__hash__

        def __eq__(self, other: object) -> bool:
            Route.compared += 1
            return str.__eq__(self, other)

    verdicts, _ = tied()
    calls = [CALL._replace(route=Route(f"tools tools/call:{number}")) for number in range(200)]
    for call in calls:
        assert verdicts.tie(call, permit(), NOW_IN_FORCE)
    for call in calls:
        verdicts.untie(call, permit())
    assert Route.compared < 10 * len(calls)


def test_a_permit_that_is_evicted_alone_leaves_nothing_with_its_token() -> None:
    one = tied()[1].bytes
    verdicts, permits = tied(permits_bytes=2 * one, verdicts_bytes=TOKEN.held_bytes + ENTRY_BYTES)
    for number in range(20):
        permits.give(CALL._replace(route=str(number % 5)), permit(), NOW_IN_FORCE)
        assert set(verdicts._tied[TOKEN.raw, PLANNER]) == set(permits.entries)
    permits.turn_to((1, 2))
    assert verdicts._tied == {}
    assert len(verdicts) == 1


def test_a_permit_of_a_token_that_is_no_verdict_is_accounted_with_its_token() -> None:
    for epoch, kept in (((1, 2), False), (NOW_IN_FORCE, True)):
        verdicts = Verdicts(1 << 20)
        permits = Permits(1 << 20, verdicts)
        permits.turn_to(NOW_IN_FORCE)
        verdicts.turn_to((1, 2))
        verdicts.add(TOKEN, PLANNER, (1, 2))
        permits.give(CALL, permit(), epoch)
        assert permits.bytes == (giving().bytes if kept else 0)
        assert verdicts._tied == {}


def test_a_permit_that_holds_an_older_copy_of_the_verdicts_token_is_accounted_with_it() -> None:
    alone, (verdicts, permits) = giving(), tied()
    again = verified(INBOUND_CLAIMS)
    verdicts.add(again, PLANNER, NOW_IN_FORCE)
    assert verdicts.get((TOKEN.raw, PLANNER)) is again
    permits.give(CALL, permit(), NOW_IN_FORCE)
    assert permits.bytes == alone.bytes
    assert verdicts._tied == {}


def test_a_turn_through_more_tokens_than_fit_finds_most_of_those_that_do() -> None:
    verdicts = Verdicts(20 * (TOKEN.held_bytes + ENTRY_BYTES + 64))
    permits = Permits(20 * tied()[1].bytes, verdicts)
    tokens = [verified(INBOUND_CLAIMS | {"jti": f"{number:02}"}) for number in range(30)]
    found = 0
    for turn in range(20):
        for token in tokens:
            call = CALL._replace(authorization=b"Bearer " + token.raw.encode())
            if permits.find(call, NOW_IN_FORCE) is not None:
                found += turn > 0
            elif verdicts.find((token.raw, PLANNER), NOW_IN_FORCE) is None:
                verdicts.add(token, PLANNER, NOW_IN_FORCE)
                allowed = decide_verified(token, peer=PLANNER, route=SEARCH, policy=POLICY, now=NOW)
                permits.give(call, allowed, NOW_IN_FORCE)
        assert len(verdicts) <= 21
    print(f"{found / (19 * len(tokens)):.2f} found")  # noqa: T201 - with -s
    assert found > 0.4 * 19 * len(tokens)  # with the oldest evicted each time, none


def test_permits_use_what_verdicts_leave_free_and_give_it_back() -> None:
    one, of_token = tied()[1].bytes, TOKEN.held_bytes + ENTRY_BYTES + 64
    verdicts, permits = tied(permits_bytes=2 * one, verdicts_bytes=10 * of_token)
    both = permits._least_bytes + verdicts.max_bytes
    for number in range(100):
        permits.give(CALL._replace(route=str(number)), permit(), NOW_IN_FORCE)
        assert permits.find(CALL._replace(route=str(number)), NOW_IN_FORCE) is not None
        assert permits.bytes + verdicts.bytes <= both
    assert len(permits) > 10
    for number in range(20):
        verdicts.hits += 1
        verdicts.add(verified(INBOUND_CLAIMS | {"jti": f"{number:07}"}), PLANNER, NOW_IN_FORCE)
        assert permits.bytes + verdicts.bytes <= both
    assert len(verdicts) == 10
    assert permits.bytes <= permits._least_bytes + of_token
