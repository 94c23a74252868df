from __future__ import annotations

from sidecar.proxy.verdicts import Verdicts
from tests.delegation.world import INBOUND_CLAIMS, PLANNER, WRITER, verified

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
