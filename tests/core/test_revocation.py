from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

import pytest

from delegation_core.act import parse_act
from delegation_core.decide import decide_verified
from delegation_core.errors import Denied, Reason, Unavailable
from delegation_core.policy import Deny
from delegation_core.revocation import NO_NAMES, InForce, Kind, Use
from delegation_core.revocations_kept import MAX_AHEAD, Listed, Revocation, Revocations, RevocationsError
from delegation_core.spiffe_id import SpiffeId
from delegation_core.steps import IN_A_STEP, at_once
from tests.core.world import FRONT, IDP, NOW, POLICY, SEARCH, STS, delegation, login, plan

TOKEN: Final = replace(
    delegation().token, sub_id=(IDP, "4711"), txn="txn-1", jti="j2", parent_jti="j1", ancestors=("j0",), sid="s1"
)
PEER: Final = TOKEN.actor_id
USE: Final = Use(TOKEN, PEER, NO_NAMES)
OTHER: Final = "https://other.example"


def revocation(kind: Kind, value: str, issuer: str | None = None, **changes: Any) -> Revocation:
    lawful: dict[str, Any] = {"id": f"{kind}-{value}", "expires_at": NOW + 100}
    return Revocation(kind=kind, value=value, issuer=issuer, **{**lawful, **changes})


def stopped(*revocations: Revocation, **changes: Any) -> Revocations:
    lawful: dict[str, Any] = {"seq": 1, "issued_at": NOW, "ttl_s": 300}
    return Revocations(in_force={one.id: one for one in revocations}, **{**lawful, **changes})


def merged(known: Revocations, other: Revocations) -> Revocations:
    newer = Listed(
        seq=other.seq, issued_at=other.issued_at, ttl_s=other.ttl_s, revoked=other.in_force, lifted=other.lifted
    )
    return at_once(known.merged(newer, now=NOW))


@pytest.mark.parametrize(
    ("kind", "value", "issuer", "stops"),
    [
        pytest.param(Kind.ACTOR, FRONT, None, False, id="an earlier actor is history"),
        pytest.param(Kind.THROUGH, FRONT, None, True, id="a chain through an earlier actor"),
        pytest.param(Kind.JTI, "j0", None, True, id="a token before its parent"),
        pytest.param(Kind.SUBJECT, TOKEN.subject, STS, True, id="the subject, as tokens name it"),
        pytest.param(Kind.SUBJECT, "4711", IDP, True, id="the subject, as its login names it"),
        pytest.param(Kind.SUBJECT, "4711", STS, False, id="the same name at another issuer"),
        pytest.param(Kind.SUBJECT, "4712", IDP, False, id="another subject"),
        pytest.param(Kind.ACTOR, PEER, None, True, id="the actor"),
        pytest.param(Kind.ACTOR, f"{PEER}/x", None, False, id="another actor"),
        pytest.param(Kind.TXN, "txn-1", None, True, id="the chain"),
        pytest.param(Kind.TXN, "txn-2", None, False, id="another chain"),
        pytest.param(Kind.JTI, "j2", None, True, id="the token"),
        pytest.param(Kind.JTI, "j1", None, True, id="the token it was exchanged for"),
        pytest.param(Kind.JTI, "j3", None, False, id="another token"),
        pytest.param(Kind.LOGIN, "s1", IDP, True, id="the login"),
        pytest.param(Kind.LOGIN, "s2", IDP, False, id="another login"),
        pytest.param(Kind.LOGIN, "s1", OTHER, False, id="the same session at another issuer"),
    ],
)
def test_a_revocation_stops_exactly_what_it_names(kind: Kind, value: str, issuer: str | None, stops: bool) -> None:
    revoked = InForce(lists={STS: stopped(revocation(kind, value, issuer))})
    policy = replace(POLICY, deny=Deny(revoked=revoked))
    assert PEER is not None

    def decide() -> None:
        decide_verified(TOKEN, peer=PEER, route=SEARCH, policy=policy, now=NOW)

    if stops:
        with pytest.raises(Denied) as refused:
            decide()
        assert refused.value.reason is Reason.REVOKED
    else:
        decide()


@pytest.mark.parametrize(
    ("lists", "own", "stops"),
    [
        pytest.param({STS}, set(), True, id="the token's own issuer"),
        pytest.param({OTHER}, set(), False, id="another issuer"),
        pytest.param({OTHER}, {OTHER}, True, id="our own token service, whoever issued the token"),
    ],
)
def test_a_list_counts_for_its_issuers_tokens_or_for_all_if_it_is_ours(
    lists: set[str], own: set[str], stops: bool
) -> None:
    found = stopped(revocation(Kind.TXN, "txn-1"))
    revoked = InForce(lists=dict.fromkeys(lists, found), own=frozenset(own))
    assert (revoked.kind_of(USE) is Kind.TXN) is stops


@pytest.mark.parametrize(
    ("stale", "own", "refused"),
    [
        pytest.param(STS, (), True, id="of the token's issuer"),
        pytest.param(OTHER, (), False, id="of another issuer"),
        pytest.param(OTHER, (OTHER,), True, id="of our own token service"),
    ],
)
def test_a_list_that_is_too_old_refuses_what_it_would_decide(stale: str, own: tuple[str, ...], refused: bool) -> None:
    revoked = InForce(own=frozenset(own), stale=frozenset((stale,)))
    if refused:
        with pytest.raises(Unavailable) as error:
            revoked.check(USE)
        assert error.value.reason is Reason.REVOCATIONS_STALE
    else:
        revoked.check(USE)


BARE: Final = replace(
    TOKEN, subject="x", client_id=None, chain=None, actor_id=None, sub_id=None, txn=None, jti=None, parent_jti=None,
    ancestors=(), sid=None,
)  # fmt: skip
SOMEBODY: Final = SpiffeId("spiffe://acme.example/agent/somebody")


@pytest.mark.parametrize(
    ("use", "kinds"),
    [
        pytest.param(Use(BARE, None, NO_NAMES), set(), id="nobody"),
        pytest.param(Use(BARE, SOMEBODY, NO_NAMES), {Kind.ACTOR, Kind.THROUGH}, id="the presenter"),
        pytest.param(Use(None, SOMEBODY, NO_NAMES), {Kind.ACTOR, Kind.THROUGH}, id="a caller without a token"),
        pytest.param(
            Use(replace(BARE, subject=SOMEBODY), None, NO_NAMES), {Kind.ACTOR, Kind.THROUGH}, id="the one who began it"
        ),
        pytest.param(Use(replace(BARE, client_id=SOMEBODY), None, NO_NAMES), {Kind.ACTOR, Kind.THROUGH}, id="client"),
        pytest.param(
            Use(replace(BARE, actor_id=SOMEBODY), None, NO_NAMES), {Kind.ACTOR, Kind.THROUGH}, id="the mapped actor"
        ),
        pytest.param(
            Use(replace(BARE, chain=parse_act({"act": {"sub": SOMEBODY}})), None, NO_NAMES),
            {Kind.ACTOR, Kind.THROUGH},
            id="the actor",
        ),
        pytest.param(
            Use(replace(BARE, chain=parse_act({"act": {"sub": "y", "act": {"sub": SOMEBODY}}})), None, NO_NAMES),
            {Kind.THROUGH},
            id="an earlier actor",
        ),
        pytest.param(
            Use(replace(BARE, chain=parse_act({"act": {"sub": "y", "client_id": SOMEBODY}})), None, NO_NAMES),
            {Kind.ACTOR, Kind.THROUGH},
            id="the actor, as an issuer names it that reads client_id",
        ),
        pytest.param(
            Use(
                replace(BARE, chain=parse_act({"act": {"sub": "y", "act": {"sub": "c1", "client_id": str(SOMEBODY)}}})),
                None,
                NO_NAMES,
            ),
            {Kind.THROUGH},
            id="an earlier actor, as the issuer that it crossed from names it",
        ),
        pytest.param(
            Use(replace(BARE, prior_ids=(SOMEBODY,), chain=TOKEN.chain), None, NO_NAMES),
            {Kind.THROUGH},
            id="an earlier actor by its mapped name",
        ),
    ],
)
def test_everyone_a_token_speaks_for_is_named_and_nobody_twice(use: Use, kinds: set[Kind]) -> None:
    names = use.names()
    assert names.keys() == set(Kind)
    assert {kind for kind, found in names.items() if SOMEBODY in found} == kinds


def test_a_call_for_a_stopped_login_or_its_subject_is_not_planned() -> None:
    for one in (revocation(Kind.SUBJECT, "idp|alice", STS), revocation(Kind.SUBJECT, "alice", IDP)):
        policy = replace(POLICY, deny=Deny(revoked=InForce(lists={STS: stopped(one)}, own=frozenset((STS,)))))
        with pytest.raises(Denied) as refused:
            plan(login(), policy)
        assert refused.value.reason is Reason.REVOKED
    assert plan(login()).expected_subject == "idp|alice"


def test_a_merge_loses_no_revocation_until_it_expires_or_is_lifted() -> None:
    first, second = revocation(Kind.TXN, "1"), revocation(Kind.TXN, "2", expires_at=NOW + 50)
    both = merged(stopped(first), stopped(second))
    assert both.names(Kind.TXN) == {"1", "2"}
    assert at_once(both.at(NOW + 50)).names(Kind.TXN) == {"1"}
    lifted = merged(both, stopped(seq=2, lifted={first.id: first.expires_at}))
    assert lifted.names(Kind.TXN) == {"2"}
    assert merged(lifted, stopped(first, seq=2)).names(Kind.TXN) == {"2"}, "a replica that missed the lift"


def test_a_number_that_falls_is_refused() -> None:
    assert merged(stopped(seq=5), stopped(seq=5)).seq == 5
    with pytest.raises(RevocationsError, match="fell from 5 to 4"):
        merged(stopped(seq=5), stopped(seq=4))
    assert merged(stopped(seq=5), stopped(seq=5 + MAX_AHEAD)).seq == 5 + MAX_AHEAD
    with pytest.raises(RevocationsError, match="jumps from 5"):
        merged(stopped(seq=5), stopped(seq=6 + MAX_AHEAD))


@pytest.mark.parametrize(
    ("after", "only"),
    [
        pytest.param({}, True, id="nothing"),
        pytest.param({"lists": {STS: stopped(revocation(Kind.SUBJECT, "bob", IDP))}}, True, id="another subject"),
        pytest.param({"lists": {STS: stopped(revocation(Kind.ACTOR, "a"))}}, False, id="a workload"),
        pytest.param({"lists": {STS: stopped(revocation(Kind.THROUGH, "a"))}}, False, id="a workload with its chains"),
        pytest.param({"lists": {STS: stopped(), OTHER: stopped()}}, False, id="another list"),
        pytest.param({"stale": frozenset((STS,))}, False, id="a list that is too old"),
        pytest.param({"own": frozenset((STS,))}, False, id="a list that counts for all"),
    ],
)
def test_a_change_that_names_tokens_only_leaves_all_other_decisions(after: dict[str, Any], only: bool) -> None:
    before = InForce(lists={STS: stopped(revocation(Kind.TXN, "txn-1"))})
    assert replace(before, **after).only_names_tokens_since(before) is only
    assert before.only_names_tokens_since(replace(before, **after)) is only


def test_what_a_reader_keeps_has_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("delegation_core.revocations_kept.MAX_LISTED", 2)
    known = stopped(revocation(Kind.TXN, "1"), revocation(Kind.TXN, "2"))
    assert merged(known, stopped(revocation(Kind.TXN, "2"))).names(Kind.TXN) == {"1", "2"}
    with pytest.raises(RevocationsError, match="more than 2"):
        merged(known, stopped(revocation(Kind.TXN, "3")))
    lifted = stopped(lifted={"a": NOW + 9, "b": NOW + 9})
    with pytest.raises(RevocationsError, match="more than 2"):
        merged(lifted, stopped(lifted={"c": NOW + 9}))


def test_lists_are_merged_and_ended_in_steps_and_unchanged_names_are_shared() -> None:
    many = [revocation(Kind.TXN, str(one), expires_at=NOW + 9 + one) for one in range(1000)]
    known = stopped(*many, revocation(Kind.ACTOR, "a"))
    newer = Listed(seq=2, issued_at=NOW, ttl_s=300, revoked={"x": revocation(Kind.ACTOR, "b", id="x")})
    assert sum(1 for _ in known.merged(newer, now=NOW)) >= 1001 // IN_A_STEP
    assert sum(1 for _ in known.at(NOW + 9)) >= 1001 // IN_A_STEP
    assert sum(1 for _ in known.at(NOW + 8)) == 0, "nothing has ended"
    both = at_once(known.merged(newer, now=NOW))
    assert both.names(Kind.TXN) is known.names(Kind.TXN)
    assert both.names(Kind.ACTOR) == {"a", "b"}
