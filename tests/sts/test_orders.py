from __future__ import annotations

import datetime
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

import jwt
import orjson
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import load_der_private_key

from delegation_core.errors import Denied, Reason
from delegation_core.revocation import Kind
from delegation_core.revocations_kept import NONE, Revocation
from delegation_core.spiffe_id import SpiffeId, TrustDomain
from delegation_core.steps import at_once
from sidecar.sts.book import Book, parse_book
from sidecar.sts.book_file import pieces_of
from sidecar.sts.orders import TYP, Action, Order, order_of_row, sign_order, verify_order
from sidecar_dev.pki import TrustDomainAuthority
from tests.fakes.sts import LOGIN
from tests.fakes.tokens import NOW

AUTHORITY: Final = TrustDomainAuthority(TrustDomain("acme.example"))
ANN, BOB = (SpiffeId(f"spiffe://acme.example/operator/{name}") for name in ("ann", "bob"))
STS: Final = "spiffe://acme.example/sts"
SVIDS: Final = {one: AUTHORITY.issue_x509(one) for one in (ANN, BOB)}
ABSENT: Final = object()


def claims(**changes: object) -> dict[str, object]:
    lawful: dict[str, object] = {
        "iss": ANN,
        "aud": STS,
        "iat": NOW,
        "jti": "order-1",
        "action": "revoke",
        "kind": "txn",
        "value": "txn-1",
        "reason": "INC-42",
        "until": NOW + 3600,
    }
    return {name: value for name, value in (lawful | changes).items() if value is not ABSENT}


def order(signer: SpiffeId = ANN, **changes: object) -> str:
    svid = SVIDS[signer]
    key = load_der_private_key(svid.key_der, None)
    return sign_order(claims(iss=signer, **changes), key=key, certificate=svid.chain_der[0])


def signed_as(*, typ: str = TYP, certificate: bytes = SVIDS[ANN].chain_der[0]) -> str:
    """Return Ann's order, signed with her key, with another head."""
    key = load_der_private_key(SVIDS[ANN].key_der, None)
    raw = sign_order(claims(), key=key, certificate=certificate)
    head = jwt.get_unverified_header(raw)
    return jwt.encode(claims(), key, head["alg"], headers=head | {"typ": typ})  # type: ignore[arg-type]


def verified(raw: str, *, by: SpiffeId = ANN, book: Book | None = None, now: int = NOW, **more: Any) -> Order:
    certificate = SVIDS[by].chain_der[0]
    return verify_order(
        raw, operator=by, certificate=certificate, audience=STS, **{"orders": (book or Book()).orders, **more}, now=now
    )


def in_force(book: Book, now: int = NOW) -> list[Revocation]:
    """Return what sidecars would be told."""
    found = at_once(NONE.merged(at_once(book.listed(now, ttl_s=300)), now=now))
    return list(found.in_force.values())


def written(book: Book) -> bytes:
    return b"".join(pieces_of({"seq": book.seq}, {name: one.row() for name, one in book.orders.items()}))


def book_of(*orders: Order) -> Book:
    book = Book()
    for one in orders:
        book = book.with_order(one, now=NOW)
    return book


ORDER_OF_ANN: Final = order()  # it has the form of a token
ROW: Final = orjson.loads(verified(ORDER_OF_ANN).row())
USER: Final[dict[str, Any]] = {"kind": "subject", "value": "alice", "of_issuer": LOGIN}


def test_an_order_is_what_its_operator_signed() -> None:
    made = verified(order(**USER))
    assert (made.operator, made.kind, made.issuer, made.value) == (str(ANN), Kind.SUBJECT, LOGIN, "alice")
    assert (made.made_at, made.expires_at, made.reason, made.alone) == (NOW, NOW + 3600, "INC-42", False)


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"aud": "spiffe://acme.example/other"}, id="for another token service"),
        pytest.param({"iat": NOW - 301}, id="an old one"),
        pytest.param({"iat": NOW + 301}, id="one of the future"),
        pytest.param({"iat": ABSENT}, id="of no time"),
        pytest.param({"jti": ABSENT}, id="without an id"),
        pytest.param({"reason": ABSENT}, id="without a reason"),
        pytest.param({"reason": "a\nb"}, id="a reason with a line break"),
        pytest.param({"until": NOW}, id="over already"),
        pytest.param({"until": NOW + 32 * 86_400}, id="for longer than a month"),
        pytest.param({"action": "forgive"}, id="another action"),
        pytest.param({"kind": "planet"}, id="another kind"),
        pytest.param({"value": ABSENT}, id="of nothing"),
        pytest.param({"kind": "actor", "value": "planner"}, id="an actor that is no SPIFFE ID"),
        pytest.param({"kind": "through", "value": "planner"}, id="a chain through no SPIFFE ID"),
        pytest.param({"kind": "jti", "value": ORDER_OF_ANN}, id="a whole token for its name"),
        pytest.param({"kind": "login", "value": "sid"}, id="a login of no issuer"),
        pytest.param({"action": "lift", "of": "nothing"}, id="a lift of nothing"),
        pytest.param({"action": "confirm", "of": ABSENT}, id="a confirmation of nothing"),
    ],
)
def test_an_order_with_one_fact_changed_is_refused(changes: dict[str, Any]) -> None:
    assert verified(order()).kind is Kind.TXN
    with pytest.raises(Denied) as refused:
        verified(order(**changes))
    assert refused.value.reason is Reason.ORDER_REFUSED


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(order(BOB), id="another operator's"),
        pytest.param(order()[:-4] + "AAAA", id="with another signature"),
        pytest.param("x", id="no order"),
        pytest.param(signed_as(typ="JWT"), id="of another type"),
        pytest.param(signed_as(certificate=SVIDS[BOB].chain_der[0]), id="with another certificate in its head"),
    ],
)
def test_only_the_operator_of_the_connection_gives_an_order(raw: str) -> None:
    with pytest.raises(Denied) as refused:
        verified(raw)
    assert refused.value.reason is Reason.ORDER_REFUSED


def test_an_order_may_be_sent_again_and_its_id_names_no_other_one() -> None:
    book = book_of(verified(order(of_issuer=LOGIN)))
    assert verified(order(iat=NOW + 1), book=book).id == "order-1"
    for changed in ({"value": "txn-2"}, {"kind": "jti"}, {"until": NOW + 7200}, {"reason": "INC-43"}):
        with pytest.raises(Denied, match="another order has this jti"):
            verified(order(**changed), book=book)
    with pytest.raises(Denied, match="another order has this jti"):
        verified(order(BOB), by=BOB, book=book)


def test_a_whole_user_is_stopped_only_by_two_operators_or_one_who_says_alone() -> None:
    first = verified(order(**USER))
    book = book_of(first)
    assert at_once(book.waiting(NOW)) == [first]
    assert not in_force(book)
    confirmation: dict[str, Any] = {"action": "confirm", "of": first.id, "jti": "order-2"}
    with pytest.raises(Denied, match="another operator"):
        verified(order(**confirmation), book=book)
    book = book.with_order(verified(order(BOB, **confirmation), by=BOB, book=book), now=NOW)
    assert not at_once(book.waiting(NOW))
    assert [(one.issuer, one.value) for one in in_force(book)] == [(LOGIN, "alice")]
    alone = book_of(verified(order(**USER, alone=True)))
    assert [(one.issuer, one.value) for one in in_force(alone)] == [(LOGIN, "alice")]


def test_a_confirmation_that_a_book_only_claims_counts_for_nothing() -> None:
    first = verified(order(**USER))
    forged = replace(first, id="order-2", action=Action.CONFIRM, of=first.id)
    assert not in_force(book_of(first, forged))


def test_a_lift_ends_a_revocation_and_an_end_does_too() -> None:
    book = book_of(verified(order()))
    assert [(one.issuer, one.value) for one in in_force(book)] == [(None, "txn-1")]
    assert not in_force(book, NOW + 3600)
    lift = verified(order(BOB, action="lift", of="order-1", jti="order-2"), by=BOB, book=book)
    lifted = book.with_order(lift, now=NOW)
    said = at_once(lifted.listed(NOW, ttl_s=300))
    assert (in_force(lifted), said.lifted, said.seq) == ([], {"order-1": NOW + 3600}, 2)


def test_books_merge_to_the_same_whichever_way_and_their_number_never_falls() -> None:
    one, two, three = (verified(order(jti=name, value=name)) for name in ("a", "b", "c"))
    left, right = book_of(one, two), book_of(one, three)
    first = left.merged(right, now=NOW)
    second = right.merged(first, now=NOW)
    assert first.orders.keys() == second.orders.keys() == {"a", "b", "c"}
    assert first.seq == second.seq == 3
    assert first.merged(second, now=NOW) is first
    assert book_of(one).merged(left, now=NOW).seq == left.seq == 2
    assert Book(seq=9, orders=left.orders).merged(left, now=NOW).seq == 9


def test_an_order_given_twice_counts_once() -> None:
    made = verified(order())
    assert book_of(made, made).seq == 1


def test_a_book_is_read_as_it_was_written() -> None:
    book = book_of(verified(order()), verified(order(**USER, jti="order-2")))
    document = written(book)
    assert at_once(parse_book(document)) == (book, {"seq": 2})
    assert orjson.loads(document)["orders"][0]["id"] == "order-1"


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"seq": -1, "orders": []},
        {"seq": 1, "orders": {}},
        {"seq": 1, "orders": [7]},
        {"seq": 1, "orders": [{"id": "a"}]},
        {"seq": 1, "orders": [{**ROW, "kind": "planet"}]},
        {"seq": 1, "orders": [{**ROW, "expires_at": "soon"}]},
    ],
)
def test_what_is_no_book_is_refused(document: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"order|seq"):
        at_once(parse_book(orjson.dumps(document)))
    assert at_once(parse_book(orjson.dumps({"seq": 1, "orders": [ROW]})))[0].orders


def _certificate(key: Any) -> bytes:
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "ann")])
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(now).not_valid_after(now + datetime.timedelta(hours=1))
    algorithm = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return builder.sign(key, algorithm).public_bytes(serialization.Encoding.DER)


@pytest.mark.parametrize(
    ("make", "algorithm"),
    [
        (lambda: ec.generate_private_key(ec.SECP256R1()), "ES256"),
        (lambda: ec.generate_private_key(ec.SECP384R1()), "ES384"),
        (lambda: ec.generate_private_key(ec.SECP521R1()), "ES512"),
        (ed25519.Ed25519PrivateKey.generate, "EdDSA"),
        (lambda: rsa.generate_private_key(65537, 2048), "RS256"),
    ],
)
def test_an_order_of_every_kind_of_key_is_signed_as_another_library_verifies(
    make: Callable[[], Any], algorithm: str
) -> None:
    key = make()
    raw = sign_order(claims(), key=key, certificate=_certificate(key))
    assert (
        jwt.decode(raw, key.public_key(), [algorithm], audience=STS, options={"verify_iat": False})["value"] == "txn-1"
    )
    other = make()
    with pytest.raises(jwt.InvalidSignatureError):
        jwt.decode(raw, other.public_key(), [algorithm], audience=STS, options={"verify_iat": False})


@pytest.mark.parametrize(
    "changes",
    [
        {"more": 1},
        {"action": "pardon"},
        {"kind": "everything"},
        {"operator": 7},
        {"reason": None},
        {"value": ["txn-1"]},
        {"made_at": "now"},
        {"expires_at": None},
        {"id": ABSENT},
    ],
)
def test_a_replica_s_row_that_is_no_order_is_refused(changes: dict[str, object]) -> None:
    kept = verified(order())
    lawful = orjson.loads(kept.row())
    assert order_of_row(lawful) == kept
    row = {name: value for name, value in {**lawful, **changes}.items() if value is not ABSENT}
    with pytest.raises(ValueError, match="order"):
        order_of_row(row)


def test_a_replica_s_row_is_an_object() -> None:
    with pytest.raises(ValueError, match="unknown members"):
        order_of_row(["id"])
