"""Names in orders: unknown issuers and trust domains are refused with the nearest known one; values were seen."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import pytest

from delegation_core.errors import Denied
from delegation_core.profile_presets import PRESETS
from delegation_core.revocation import NO_NAMES, Kind, Use
from sidecar.sts.known_names import LEAST_S, MAX_SEEN, SeenNames, known_names
from tests.core.world import INBOUND_CLAIMS, WRITER, verified
from tests.fakes.sts import FRONT, LOGIN, Mesh, login_issuer, small_policy, trusted
from tests.fakes.tokens import ISSUER, NOW, PLANNER
from tests.sts.test_crossing import policy as with_foreign
from tests.sts.test_orders import USER
from tests.sts.test_orders import order as signed
from tests.sts.test_orders import verified as ordered
from tests.sts.test_revocations import order, register

POLICY: Final = small_policy()
KNOWN: Final = known_names(POLICY, {"acme.example", "partner.example"})


@pytest.mark.parametrize(
    ("kind", "issuer", "hint"),
    [
        pytest.param(Kind.SUBJECT, f"{LOGIN}/", f"did you mean {LOGIN}?", id="a slash at its end"),
        pytest.param(Kind.LOGIN, LOGIN.upper(), f"did you mean {LOGIN}?", id="another case"),
        pytest.param(Kind.SUBJECT, LOGIN.replace("login", "l%6Fgin"), f"did you mean {LOGIN}?", id="percent-encoding"),
        pytest.param(Kind.SUBJECT, LOGIN.replace("l", "\uff4c"), f"did you mean {LOGIN}?", id="another Unicode form"),
        pytest.param(Kind.SUBJECT, LOGIN.replace("login", "logn"), f"did you mean {LOGIN}?", id="a letter too few"),
        pytest.param(Kind.SUBJECT, "urn:x", f"known are {LOGIN}, {ISSUER}", id="nothing like any"),
    ],
)
def test_an_unknown_issuer_is_refused_with_the_nearest_known_one(kind: Kind, issuer: str, hint: str) -> None:
    assert KNOWN.admit(order(kind, "alice", LOGIN)).issuer == LOGIN
    with pytest.raises(Denied) as refused:
        KNOWN.admit(order(kind, "alice", issuer))
    assert "the issuer is unknown here" in str(refused.value.detail)
    assert hint in str(refused.value.detail)


@pytest.mark.parametrize("kind", [Kind.ACTOR, Kind.THROUGH])
def test_an_unknown_trust_domain_is_refused_with_the_nearest_known_one(kind: Kind) -> None:
    assert KNOWN.admit(order(kind, str(PLANNER))).value == PLANNER
    with pytest.raises(Denied, match=r"trust domain is unknown here.*did you mean acme\.example\?"):
        KNOWN.admit(order(kind, "spiffe://acme.exampl/agent/planner"))


def test_what_says_that_it_is_unknown_is_taken_as_it_is() -> None:
    elsewhere = {**USER, "of_issuer": "https://elsewhere.example"}
    assert ordered(signed(**elsewhere, unknown=True), admit=KNOWN.admit).issuer == "https://elsewhere.example"
    with pytest.raises(Denied, match="unknown here"):
        ordered(signed(**elsewhere), admit=KNOWN.admit)
    with pytest.raises(Denied, match="unknown here"):
        ordered(signed(**elsewhere, unknown="yes"), admit=KNOWN.admit)


def test_an_order_ends_when_nothing_that_it_names_can_live_any_more() -> None:
    month = 30 * 86_400
    limited = login_issuer(trusted=replace(trusted(LOGIN), profile=replace(PRESETS["oidc-id-token"], max_lifetime_s=9)))
    bounded = known_names(replace(POLICY, login_issuers={LOGIN: limited}), {"acme.example"})
    for known, kind, ends in (
        (KNOWN, Kind.TXN, LEAST_S),  # ours alone
        (KNOWN, Kind.JTI, month),  # a login token may live as long as its issuer likes
        (bounded, Kind.JTI, LEAST_S),
        (known_names(with_foreign(), {"acme.example"}), Kind.TXN, month),  # a foreign token service has no limit here
        (KNOWN, Kind.ACTOR, month),
        (KNOWN, Kind.LOGIN, month),
    ):
        value = str(PLANNER) if kind is Kind.ACTOR else "x"
        assert known.admit(order(kind, value, LOGIN, until=NOW + month)).expires_at == NOW + ends, kind
    assert KNOWN.admit(order(Kind.TXN, "x", until=NOW + 60)).expires_at == NOW + 60
    resent = signed(until=NOW + month)
    book = {"order-1": ordered(resent, admit=KNOWN.admit)}
    assert ordered(resent, orders=book, admit=KNOWN.admit).expires_at == NOW + LEAST_S, "and may be sent again"


def test_a_name_is_seen_or_not_since_a_time_and_what_reads_alike_is_told() -> None:
    now = NOW
    seen = SeenNames(lambda: now)
    alice = order(Kind.SUBJECT, "alice", INBOUND_CLAIMS["iss"])
    assert seen.of(alice) == {"seen_at": None, "seen_since": NOW, "alike": None}
    now += 5
    seen.note(Use(verified(INBOUND_CLAIMS), WRITER, NO_NAMES))
    now += 5
    assert seen.of(alice) == {"seen_at": NOW + 5, "seen_since": NOW}
    for spelling in ("%61lice", "Alice", "\uff41lice", "alice/", "ailce"):
        assert seen.of(replace(alice, value=spelling)) == {"seen_at": None, "seen_since": NOW, "alike": "alice"}
    for another in ("alices", "alicia", "laiec", "bob"):
        assert seen.of(replace(alice, value=another))["alike"] is None
    assert seen.of(order(Kind.THROUGH, str(FRONT)))["seen_at"] == NOW + 5
    assert seen.of(order(Kind.ACTOR, str(FRONT)))["seen_at"] is None
    assert seen.of(order(Kind.JTI, "token-1"))["seen_at"] == NOW + 5


def test_the_memory_is_bounded_and_says_since_when_it_can_tell() -> None:
    now = NOW
    seen = SeenNames(lambda: now)
    for number in range(MAX_SEEN + 2):
        now = NOW + number
        seen.note_issued({"txn": f"txn-{number}", "jti": "x" * 2000})
    assert sum(map(len, seen._seen.values())) == MAX_SEEN + 1
    assert seen.of(order(Kind.TXN, "txn-0")) == {"seen_at": None, "seen_since": NOW + 1, "alike": None}
    assert seen.of(order(Kind.TXN, "txn-2"))["seen_at"] == NOW + 2
    assert seen.of(order(Kind.JTI, "x" * 2000))["seen_at"] == now
    assert seen.of(order(Kind.JTI, "y" * 2000)) == {"seen_at": None, "seen_since": NOW, "alike": None}


async def test_what_is_exchanged_or_issued_here_is_seen() -> None:
    mesh = Mesh()
    known = register(mesh)
    claims = await mesh.claims_for(mesh.login_form(subject_token=mesh.login(sid="s1")), FRONT)
    for kind, value, issuer in (
        (Kind.SUBJECT, "alice", LOGIN),
        (Kind.SUBJECT, "alice", ISSUER),
        (Kind.ACTOR, str(FRONT), None),
        (Kind.LOGIN, "s1", LOGIN),
        (Kind.TXN, claims["txn"], None),
        (Kind.JTI, claims["jti"], None),
    ):
        assert known.seen.of(order(kind, str(value), issuer))["seen_at"] == NOW, kind
        assert known.seen.of(order(kind, f"{value}x", issuer))["seen_at"] is None, kind
