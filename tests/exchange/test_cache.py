from __future__ import annotations

from dataclasses import replace

import pytest

from delegation_core.bearer import parse_bearer
from delegation_core.bounded import ENTRY_BYTES
from delegation_core.decide import accept_issued
from delegation_core.permit import IssuedPermit
from sidecar.exchange.cache import Epoch, Issued, IssuedTokens
from tests.exchange.world import plan, policy, subject_of
from tests.fakes.lying_sts import LyingSts
from tests.fakes.tokens import CRM, NOW, PLANNER, WRITER, TokenMint

EPOCH = Epoch(keys=1, policy=1, withdrawals=0, workload=WRITER)


def permit(jti: str = "issued-1") -> IssuedPermit:
    wanted = plan()
    form = {"subject_token": subject_of(wanted).raw, "audience": str(CRM), "scope": "crm.read"}
    issued = parse_bearer(TokenMint().mint(LyingSts().claims(form, jti=jti)))
    return accept_issued(issued, plan=wanted, key=TokenMint().key, policy=policy(), now=NOW)


PERMIT = permit()
ISSUED = Issued(PERMIT, usable_until=NOW + 100, refresh_at=NOW + 80)


def kept(entries: int = 10) -> IssuedTokens:
    """Return a cache with space for this many tokens, and for as many rejections."""
    one = IssuedTokens()
    one.keep("key", ISSUED, epoch=EPOCH)
    rejected = subject_of(PERMIT.plan).held_bytes + ENTRY_BYTES
    tokens = IssuedTokens(entries * one.bytes, entries * rejected)
    tokens.keep("key", ISSUED, epoch=EPOCH)
    return tokens


def test_what_was_kept_is_found() -> None:
    assert kept().find("key", epoch=EPOCH, now=NOW) is ISSUED


def test_another_key_finds_nothing() -> None:
    assert kept().find("another", epoch=EPOCH, now=NOW) is None


@pytest.mark.parametrize(("now", "found"), [(NOW + 99, True), (NOW + 100, False), (NOW + 101, False)])
def test_a_token_is_handed_out_until_its_end(now: int, found: bool) -> None:
    tokens = kept()
    assert (tokens.find("key", epoch=EPOCH, now=now) is ISSUED) == found
    assert len(tokens) == found


@pytest.mark.parametrize(
    "later",
    [
        pytest.param(EPOCH._replace(keys=2), id="keys"),
        pytest.param(EPOCH._replace(policy=2), id="policy"),
        pytest.param(EPOCH._replace(withdrawals=1), id="withdrawal"),
        pytest.param(EPOCH._replace(workload=PLANNER), id="own SPIFFE ID"),
    ],
)
def test_any_change_ends_what_was_kept_for_good(later: Epoch) -> None:
    tokens = kept()
    assert tokens.find("key", epoch=later, now=NOW) is None
    assert len(tokens) == 0
    assert tokens.find("key", epoch=EPOCH, now=NOW) is None


def test_who_still_decides_by_an_old_policy_neither_finds_nor_keeps_nor_clears() -> None:
    tokens = IssuedTokens()
    newer = EPOCH._replace(policy=2)
    tokens.keep("key", ISSUED, epoch=newer)
    assert tokens.find("key", epoch=EPOCH, now=NOW) is None
    tokens.keep("other", ISSUED, epoch=EPOCH)
    assert tokens.find("key", epoch=newer, now=NOW) is ISSUED
    assert tokens.find("other", epoch=newer, now=NOW) is None


def test_the_least_recently_used_goes_first() -> None:
    tokens = kept(entries=2)
    tokens.keep("second", ISSUED, epoch=EPOCH)
    tokens.find("key", epoch=EPOCH, now=NOW)
    tokens.keep("third", ISSUED, epoch=EPOCH)
    assert [name for name in ("key", "second", "third") if tokens.find(name, epoch=EPOCH, now=NOW)] == ["key", "third"]


def test_a_refresh_is_put_off_for_the_token_that_is_meant_alone() -> None:
    tokens = kept()
    tokens.postpone("key", replace(ISSUED, permit=permit("another")), until=NOW + 90)
    assert tokens.find("key", epoch=EPOCH, now=NOW) is ISSUED
    tokens.postpone("key", ISSUED, until=NOW + 90)
    assert tokens.find("key", epoch=EPOCH, now=NOW) == replace(ISSUED, refresh_at=NOW + 90)
    tokens.postpone("nothing", ISSUED, until=NOW + 90)
    assert tokens.find("nothing", epoch=EPOCH, now=NOW) is None


def test_a_rejected_token_is_forgotten() -> None:
    tokens = kept()
    assert tokens.reject("key", PERMIT, monotonic_s=50.0)
    assert tokens.find("key", epoch=EPOCH, now=NOW) is None


@pytest.mark.parametrize(("later_s", "again"), [(0.0, False), (9.9, False), (10.0, True)])
def test_a_key_is_rejected_once_in_ten_seconds(later_s: float, again: bool) -> None:
    tokens = kept()
    tokens.reject("key", PERMIT, monotonic_s=50.0)
    tokens.keep("key", ISSUED, epoch=EPOCH)
    assert tokens.reject("key", PERMIT, monotonic_s=50.0 + later_s) is again
    assert (tokens.find("key", epoch=EPOCH, now=NOW) is None) == again


def test_a_late_rejection_does_not_take_the_token_that_came_after() -> None:
    tokens = kept()
    assert tokens.reject("key", permit(jti="issued-0"), monotonic_s=50.0)
    assert tokens.find("key", epoch=EPOCH, now=NOW) is ISSUED


def test_clearing_is_no_way_round_the_limit_of_rejections() -> None:
    tokens = kept()
    tokens.reject("key", PERMIT, monotonic_s=50.0)
    tokens.clear()
    assert not tokens.reject("key", PERMIT, monotonic_s=51.0)


def test_what_is_remembered_of_rejections_is_bounded() -> None:
    tokens = kept(entries=2)
    for name in ("a", "b", "c"):
        tokens.reject(name, PERMIT, monotonic_s=50.0)
    assert tokens.reject("a", PERMIT, monotonic_s=51.0)
    assert not tokens.reject("c", PERMIT, monotonic_s=51.0)


def test_a_token_counts_with_the_token_it_came_from() -> None:
    tokens = kept()
    assert tokens.bytes > PERMIT.token.held_bytes + subject_of(PERMIT.plan).held_bytes
    tokens.clear()
    assert tokens.bytes == 0


@pytest.mark.parametrize(("now", "left"), [(NOW + 99, 1), (NOW + 100, 0)])
def test_a_token_that_has_run_out_is_freed_though_nobody_asks(now: int, left: int) -> None:
    tokens = kept()
    tokens.sweep(now, monotonic_s=0.0)
    assert (len(tokens), tokens.bytes > 0) == (left, left > 0)


@pytest.mark.parametrize(("later_s", "free"), [(9.9, False), (10.0, True)])
def test_a_rejection_is_freed_when_it_counts_no_more(later_s: float, free: bool) -> None:
    tokens = kept()
    tokens.reject("key", PERMIT, monotonic_s=50.0)
    tokens.sweep(NOW, monotonic_s=50.0 + later_s)
    assert (tokens.bytes == 0) == free


def test_while_memory_is_short_the_least_recently_used_goes_first_and_rejections_stay() -> None:
    tokens = kept()
    one = tokens.bytes
    tokens.keep("second", ISSUED, epoch=EPOCH)
    tokens.find("key", epoch=EPOCH, now=NOW)
    tokens.reject("third", PERMIT, monotonic_s=50.0)
    tokens.shed(one)
    assert [name for name in ("key", "second") if tokens.find(name, epoch=EPOCH, now=NOW)] == ["key"]
    assert not tokens.reject("third", PERMIT, monotonic_s=51.0)
    assert tokens.evicted == 1
