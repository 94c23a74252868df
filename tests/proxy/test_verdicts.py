from __future__ import annotations

import pytest

from sidecar.delegation.decide import Permit, decide_verified, delegate
from sidecar.observe.attribution import facts_of
from sidecar.proxy.verdicts import Call, Permits, Verdicts
from tests.delegation.world import INBOUND_CLAIMS, NOW, PLANNER, POLICY, SEARCH, WRITER, verified

TOKEN = verified(INBOUND_CLAIMS)
OTHER = verified(INBOUND_CLAIMS | {"jti": "another"})


def remembering(max_entries: int = 8) -> Verdicts:
    verdicts = Verdicts(max_entries)
    assert verdicts.find(TOKEN.raw, PLANNER, keys=1, policy=1) is None
    verdicts.keep(TOKEN, PLANNER, keys=1, policy=1)
    return verdicts


def test_a_verified_token_is_found_again() -> None:
    assert remembering().find(TOKEN.raw, PLANNER, keys=1, policy=1) is TOKEN


def test_it_is_found_for_the_same_peer_only() -> None:
    assert remembering().find(TOKEN.raw, WRITER, keys=1, policy=1) is None


def test_it_is_found_by_the_whole_token_only() -> None:
    verdicts = remembering()
    assert verdicts.find(TOKEN.raw + "x", PLANNER, keys=1, policy=1) is None
    assert verdicts.find(TOKEN.raw[:-1], PLANNER, keys=1, policy=1) is None
    assert verdicts.find(OTHER.raw, PLANNER, keys=1, policy=1) is None


def test_other_keys_or_another_policy_forget_everything_for_good() -> None:
    for keys, policy in ((2, 1), (1, 2)):
        verdicts = remembering()
        assert verdicts.find(TOKEN.raw, PLANNER, keys=keys, policy=policy) is None
        assert len(verdicts) == 0
        assert verdicts.find(TOKEN.raw, PLANNER, keys=1, policy=1) is None


def test_a_token_verified_while_keys_or_policy_changed_is_not_kept() -> None:
    for keys, policy in ((2, 1), (1, 2)):
        verdicts = remembering()
        verdicts.keep(OTHER, PLANNER, keys=keys, policy=policy)
        assert verdicts.find(OTHER.raw, PLANNER, keys=1, policy=1) is None
        assert len(verdicts) == 1


def test_it_holds_so_many_and_the_oldest_goes_first() -> None:
    verdicts = remembering(max_entries=2)
    tokens = [verified(INBOUND_CLAIMS | {"jti": str(number)}) for number in range(3)]
    for token in tokens:
        verdicts.keep(token, PLANNER, keys=1, policy=1)
    assert len(verdicts) == 2
    found = [verdicts.find(token.raw, PLANNER, keys=1, policy=1) for token in (TOKEN, *tokens)]
    assert found == [None, None, *tokens[1:]]


def test_one_token_kept_twice_takes_one_place() -> None:
    verdicts = remembering(max_entries=1)
    verdicts.keep(TOKEN, PLANNER, keys=1, policy=1)
    assert verdicts.find(TOKEN.raw, PLANNER, keys=1, policy=1) is TOKEN


# --- permits

CALL = Call(b"Bearer " + TOKEN.raw.encode(), "ab" * 32, "search")


def permit() -> Permit:
    return decide_verified(TOKEN, peer=PLANNER, route=SEARCH, policy=POLICY, now=NOW)


def giving(max_entries: int = 8) -> Permits:
    permits = Permits(max_entries)
    assert permits.find(CALL, keys=1, policy=1) is None
    permits.give(CALL, permit(), keys=1, policy=1)
    return permits


def test_a_permit_is_had_again_with_what_its_handle_stands_for_and_its_record_says() -> None:
    given = Permits().give(CALL, permit(), keys=1, policy=1)
    assert given.permit.token is TOKEN
    assert given.delegation == delegate(given.permit)
    found = giving().find(CALL, keys=1, policy=1)
    assert found is not None
    assert (found.permit.token, found.delegation) == (TOKEN, given.delegation)
    assert found.facts == facts_of(found.permit)


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
    assert giving().find(call, keys=1, policy=1) is None


def test_other_keys_or_another_policy_take_every_permit_back_for_good() -> None:
    for keys, policy in ((2, 1), (1, 2)):
        permits = giving()
        assert permits.find(CALL, keys=keys, policy=policy) is None
        assert len(permits) == 0
        assert permits.find(CALL, keys=1, policy=1) is None


def test_a_permit_given_while_keys_or_policy_changed_is_not_remembered() -> None:
    for keys, policy in ((2, 1), (1, 2)):
        permits = Permits()
        permits.find(CALL, keys=1, policy=1)
        permits.give(CALL, permit(), keys=keys, policy=policy)
        assert len(permits) == 0


def test_without_exactly_one_authorization_nothing_is_remembered() -> None:
    permits = Permits()
    for _ in range(2):
        assert permits.find(CALL._replace(authorization=None), keys=1, policy=1) is None
        permits.give(CALL._replace(authorization=None), permit(), keys=1, policy=1)
    assert len(permits) == 0


def test_so_many_permits_are_remembered_and_the_oldest_goes_first() -> None:
    permits = giving(max_entries=2)
    calls = [CALL._replace(route=str(number)) for number in range(3)]
    for call in calls:
        permits.give(call, permit(), keys=1, policy=1)
    found = [permits.find(call, keys=1, policy=1) is not None for call in (CALL, *calls)]
    assert (len(permits), found) == (2, [False, False, True, True])
