from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

import orjson
import pytest

from sidecar.delegation.decide import decide_verified
from sidecar.delegation.jws import encode_part
from sidecar.delegation.keyset import VerificationKey
from sidecar.delegation.policy import Deny
from sidecar.delegation.profile import DEFAULT_ALGORITHMS
from sidecar.delegation.revocation import (
    InForce,
    Kind,
    Revocation,
    Revocations,
    RevocationsError,
    parse_list,
    verify_list,
)
from sidecar.errors import Denied, Reason, Unavailable
from sidecar.sts.keys import SigningKey
from tests.delegation.world import IDP, NOW, POLICY, SEARCH, STS, delegation, login, plan

KEY: Final = SigningKey.generate()
TOKEN: Final = replace(delegation().token, sub_id=(IDP, "4711"), txn="txn-1", jti="j2", parent_jti="j1", sid="s1")
PEER: Final = TOKEN.actor_id
OTHER: Final = "https://other.example"


def revocation(kind: Kind, value: str, issuer: str | None = None, **changes: Any) -> Revocation:
    lawful: dict[str, Any] = {"id": f"{kind}-{value}", "expires_at": NOW + 100}
    return Revocation(kind=kind, value=value, issuer=issuer, **{**lawful, **changes})


def stopped(*revocations: Revocation, **changes: Any) -> Revocations:
    lawful: dict[str, Any] = {"seq": 1, "issued_at": NOW, "ttl_s": 300}
    return Revocations(in_force={one.id: one for one in revocations}, **{**lawful, **changes})


def signed(revocations: Revocations, *, key: SigningKey = KEY, issuer: str = STS) -> bytes:
    return key.sign_revocations(revocations, issuer=issuer)


def read(raw: bytes, *, key: VerificationKey = KEY.verification_key, now: int = NOW) -> Revocations:
    return verify_list(parse_list(raw), issuer=STS, key=key, algorithms=DEFAULT_ALGORITHMS, now=now)


@pytest.mark.parametrize(
    ("kind", "value", "issuer", "stops"),
    [
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
    assert (revoked.kind_of(TOKEN) is Kind.TXN) is stops


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
            revoked.check(TOKEN, PEER)
        assert error.value.reason is Reason.REVOCATIONS_STALE
    else:
        revoked.check(TOKEN, PEER)


def test_a_call_for_a_stopped_login_or_its_subject_is_not_planned() -> None:
    for one in (revocation(Kind.SUBJECT, "idp|alice", STS), revocation(Kind.SUBJECT, "alice", IDP)):
        policy = replace(POLICY, deny=Deny(revoked=InForce(lists={STS: stopped(one)}, own=frozenset((STS,)))))
        with pytest.raises(Denied) as refused:
            plan(login(), policy)
        assert refused.value.reason is Reason.REVOKED
    assert plan(login()).expected_subject == "idp|alice"


def test_a_signed_list_comes_back_as_it_was() -> None:
    said = stopped(revocation(Kind.SUBJECT, "alice", IDP), revocation(Kind.TXN, "txn-1"), lifted={"x": NOW + 5}, seq=7)
    assert read(signed(said)) == said


def rewritten(**changes: object) -> bytes:
    claims = stopped(revocation(Kind.TXN, "t")).claims(STS) | changes
    header = orjson.dumps({"alg": "ES256", "kid": KEY.kid, "typ": "revocations+jwt"})
    head = encode_part(header) + b"." + encode_part(orjson.dumps(claims))
    return head + b"." + encode_part(KEY._signature(head))


ROW: Final = {"id": "a", "kind": "txn", "value": "t", "exp": NOW + 9}


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(signed(stopped(), key=SigningKey.generate()), id="another key"),
        pytest.param(signed(stopped(), issuer=OTHER), id="another issuer"),
        pytest.param(signed(stopped(issued_at=NOW - 400)), id="expired"),
        pytest.param(signed(stopped(issued_at=NOW + 100)), id="from the future"),
        pytest.param(KEY.sign({"iss": STS}).encode(), id="an access token"),
        pytest.param(signed(stopped())[:-8], id="cut"),
        pytest.param(b"", id="nothing"),
        pytest.param("\N{SNOWMAN}".encode(), id="no text"),
        pytest.param(rewritten(seq="1"), id="a number that is text"),
        pytest.param(rewritten(seq=True), id="a number that is true"),
        pytest.param(rewritten(exp=NOW), id="an end that is not its ttl"),
        pytest.param(rewritten(revoked={}), id="revocations that are no list"),
        pytest.param(rewritten(revoked=["t"]), id="a revocation that is no object"),
        pytest.param(rewritten(revoked=[ROW, ROW]), id="one revocation twice"),
        pytest.param(rewritten(revoked=[ROW | {"kind": "planet"}]), id="a kind of a later version"),
        pytest.param(rewritten(revoked=[ROW | {"only_for": "x"}]), id="a condition of a later version"),
        pytest.param(rewritten(revoked=[ROW | {"kind": "subject"}]), id="a subject of no issuer"),
        pytest.param(rewritten(revoked=[ROW | {"value": ""}]), id="no value"),
        pytest.param(rewritten(lifted=[{"id": "a", "exp": -1}]), id="a lift with another end"),
    ],
)
def test_a_list_with_any_fault_is_refused_whole(raw: bytes) -> None:
    with pytest.raises(RevocationsError):
        read(raw)
    assert read(rewritten(revoked=[ROW])).names(Kind.TXN) == {"t"}


def test_a_merge_loses_no_revocation_until_it_expires_or_is_lifted() -> None:
    first, second = revocation(Kind.TXN, "1"), revocation(Kind.TXN, "2", expires_at=NOW + 50)
    both = stopped(first).merged(stopped(second), now=NOW)
    assert both.names(Kind.TXN) == {"1", "2"}
    assert both.at(NOW + 50).names(Kind.TXN) == {"1"}
    lifted = both.merged(stopped(seq=2, lifted={first.id: first.expires_at}), now=NOW)
    assert lifted.names(Kind.TXN) == {"2"}
    assert lifted.merged(stopped(first, seq=2), now=NOW).names(Kind.TXN) == {"2"}, "a replica that missed the lift"


def test_a_number_that_falls_is_refused() -> None:
    assert stopped(seq=5).merged(stopped(seq=5), now=NOW).seq == 5
    with pytest.raises(RevocationsError, match="fell from 5 to 4"):
        stopped(seq=5).merged(stopped(seq=4), now=NOW)


@pytest.mark.parametrize(
    ("after", "only"),
    [
        pytest.param({}, True, id="nothing"),
        pytest.param({"lists": {STS: stopped(revocation(Kind.SUBJECT, "bob", IDP))}}, True, id="another subject"),
        pytest.param({"lists": {STS: stopped(revocation(Kind.ACTOR, "a"))}}, False, id="a workload"),
        pytest.param({"lists": {STS: stopped(), OTHER: stopped()}}, False, id="another list"),
        pytest.param({"stale": frozenset((STS,))}, False, id="a list that is too old"),
        pytest.param({"own": frozenset((STS,))}, False, id="a list that counts for all"),
    ],
)
def test_a_change_that_names_tokens_only_leaves_all_other_decisions(after: dict[str, Any], only: bool) -> None:
    before = InForce(lists={STS: stopped(revocation(Kind.TXN, "txn-1"))})
    assert replace(before, **after).only_names_tokens_since(before) is only
    assert before.only_names_tokens_since(replace(before, **after)) is only


def test_a_stopped_workload_stops_the_chains_that_it_started_for_itself() -> None:
    revoked = stopped(revocation(Kind.ACTOR, "spiffe://acme.example/agent/cron"))
    started = replace(TOKEN, subject="spiffe://acme.example/agent/cron", sub_id=None)
    assert revoked.kind_of(started, PEER) is Kind.ACTOR
    assert revoked.kind_of(replace(started, subject="spiffe://acme.example/agent/other"), PEER) is None
