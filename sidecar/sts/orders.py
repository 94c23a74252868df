"""Orders of operators: revoke, confirm, lift. Pure: parsed, verified, and kept in a book that replicas merge.

An order is a JWS, signed with the key of the operator's X.509-SVID, so that every replica and every auditor can verify
who gave it. A book is a set of orders: merging two loses nothing, and what is in force follows from the set and the
time. Its sequence number grows with every order, and a merge takes the larger one.
"""

from __future__ import annotations

import hashlib
import re
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Final

import orjson
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256, SHA384, SHA512, HashAlgorithm

from sidecar.delegation.claims import is_name
from sidecar.delegation.json_steps import object_in_steps
from sidecar.delegation.jws import TOKEN_PATTERN, encode_part, parse_compact, parse_json_part
from sidecar.delegation.keyset import VerificationKey
from sidecar.delegation.revocation import (
    MAX_LISTED,
    MAX_REVOCATIONS,
    NAMED_BY_ISSUER,
    OF_WORKLOADS,
    Kind,
    Listed,
    Revocation,
)
from sidecar.delegation.signature import verify_signature
from sidecar.delegation.spiffe_id import SpiffeId, SpiffeIdError
from sidecar.errors import Denied, Reason
from sidecar.steps import Steps, drained, slices

TYP: Final = "revocation-order+jwt"
ORDER: Final = f"application/{TYP}"  # the media type of an order
MAX_BOOK_BYTES: Final = 64 * 1024 * 1024
MAX_ORDER_BYTES: Final = 32 * 1024  # half of what the reader in steps takes
MAX_FOR_S: Final = 31 * 86_400
MAX_AGE_S: Final = 300  # from an order's signature to its arrival

_TOKEN: Final = re.compile(TOKEN_PATTERN)
_BY_CURVE: Final = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512"}
_HASHES: Final[Mapping[str, HashAlgorithm]] = {"ES256": SHA256(), "ES384": SHA384(), "ES512": SHA512()}


class Action(StrEnum):
    """Kinds of orders."""

    REVOKE = "revoke"
    CONFIRM = "confirm"
    LIFT = "lift"


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """One order. A revocation names ``kind``, ``value`` and perhaps ``issuer``; the others name one by ``of``.

    ``operator`` is a SPIFFE ID, or the issuer whose event it follows. ``alone``: no second operator is needed.
    ``signed`` is the order as it was signed and ``certificate`` (DER in base64) that of the key; None for one that
    follows an event.
    """

    id: str
    action: Action
    operator: str
    made_at: int
    expires_at: int
    reason: str
    kind: Kind
    value: str = field(repr=False)
    issuer: str | None = None
    of: str | None = None
    alone: bool = False
    signed: str | None = field(default=None, repr=False)
    certificate: str | None = field(default=None, repr=False)

    @property
    def needs_second(self) -> bool:
        """True for a revocation that counts only once another operator confirms it."""
        return self.action is Action.REVOKE and self.kind is Kind.SUBJECT and not self.alone

    def text(self) -> str:
        """Return the order for a record."""
        named = "" if self.issuer is None else f" iss={self.issuer}"
        of = "" if self.of is None else f" of={self.of}"
        alone = " alone" if self.alone else ""
        return f"id={self.id} kind={self.kind}{named} value={self.value} until={self.expires_at}{of}{alone}"

    def row(self) -> bytes:
        """Return the order as JSON, for a file or for another replica."""
        values = ((name, getattr(self, name)) for name in _MEMBERS)
        return orjson.dumps({name: value for name, value in values if value is not None})

    def revocation(self) -> Revocation:
        """Return what it stops, for the list."""
        return Revocation(id=self.id, kind=self.kind, value=self.value, issuer=self.issuer, expires_at=self.expires_at)


_FOR_OPERATORS: Final = 2_000  # orders for which events of logouts leave room
ROOM_FOR_EVENTS: Final = MAX_REVOCATIONS - _FOR_OPERATORS
_MEMBERS: Final = tuple(Order.__dataclass_fields__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Book:
    """All orders that have not expired, by ID, and a number that grows with each."""

    seq: int = 0
    orders: Mapping[str, Order] = field(default_factory=dict)

    def with_order(self, order: Order, *, now: int) -> Book:
        """Add one order; one that is there already changes nothing.

        Raises:
            Denied: ORDER_REFUSED, it would be one too many.
        """
        if order.id in self.orders:
            return self
        kept = _unexpired(self.orders, now)
        room = MAX_REVOCATIONS if order.signed is not None else ROOM_FOR_EVENTS
        if len(kept) >= room:
            raise Denied(Reason.ORDER_REFUSED, f"{room} orders are kept already: wait until some expire")
        return Book(seq=self.seq + 1, orders={**kept, order.id: order})

    def merged(self, other: Book, *, now: int) -> Book:
        """Return all orders of both. The number never falls, and grows if this book learns of an order.

        Raises:
            ValueError: together they are more than any reader takes.
        """
        new = {name: one for name, one in other.orders.items() if name not in self.orders and one.expires_at > now}
        seq = max(self.seq, other.seq)
        if not new:
            return self if seq == self.seq else replace(self, seq=seq)
        kept = _unexpired(self.orders, now)
        if len(kept) + len(new) > MAX_LISTED:
            raise ValueError(f"with its orders there would be more than {MAX_LISTED}")
        if other.seq == self.seq or not kept.keys() <= other.orders.keys():  # a set that no replica had so far
            seq += 1
        return Book(seq=max(seq, self.seq + 1), orders={**kept, **new})

    def find(self, of: str | None, *, now: int) -> Order:
        """Return the revocation that another order names.

        Raises:
            Denied: ORDER_REFUSED, there is none, or it is over.
        """
        order = self.orders.get(of or "")
        if order is None or order.action is not Action.REVOKE or order.expires_at <= now:
            raise Denied(Reason.ORDER_REFUSED, "no revocation has this id, or it has expired")
        return order

    def waiting(self, now: int) -> Steps[list[Order]]:
        """Return, in steps, the revocations that need a second operator."""
        confirmed = yield from self._confirmed()
        found: list[Order] = []
        for some in slices(self.orders.values()):
            yield
            found += (one for one in some if one.expires_at > now and one.needs_second and one.id not in confirmed)
        return found

    def listed(self, now: int, *, ttl_s: int) -> Steps[Listed]:
        """Return, in steps, what is in force and what was lifted, as of ``now``, for readers that may rely on it for
        ``ttl_s``.
        """
        confirmed = yield from self._confirmed()
        lifted: dict[str, int] = {}
        revoked: dict[str, Revocation] = {}
        for some in slices(self.orders.values()):
            yield
            for one in some:
                if one.action is Action.LIFT and one.of:
                    lifted[one.of] = one.expires_at
                elif one.action is Action.REVOKE and (not one.needs_second or one.id in confirmed):
                    revoked[one.id] = one.revocation()
        return Listed(seq=self.seq, issued_at=now, ttl_s=ttl_s, revoked=revoked, lifted=lifted)

    def _confirmed(self) -> Steps[set[str]]:
        """Return the IDs of revocations that an operator confirmed who did not order them."""
        found: set[str] = set()
        for some in slices(self.orders.values()):
            yield
            for one in some:
                of = self.orders.get(one.of or "") if one.action is Action.CONFIRM else None
                if of is not None and of.operator != one.operator:
                    found.add(of.id)
        return found


def _unexpired(orders: Mapping[str, Order], now: int) -> dict[str, Order]:
    return {name: one for name, one in orders.items() if one.expires_at > now}


def parse_book(document: bytes) -> Steps[tuple[Book, Mapping[str, object]]]:
    """Read a book that a replica wrote, in steps. Return it, and the other members of the document.

    Raises:
        ValueError: it is no book. Nothing of it is quoted.
    """
    members = yield from object_in_steps(document, max_bytes=MAX_BOOK_BYTES)
    seq, rows = members.get("seq"), members.pop("orders", None)
    if not isinstance(seq, int) or seq < 0 or not isinstance(rows, list):
        raise ValueError("it has no seq or no orders")
    orders: dict[str, Order] = {}
    for some in drained(rows):
        orders.update((one.id, one) for one in map(_order, some))
        yield
    return Book(seq=seq, orders=orders), members


def _order(row: object) -> Order:
    if not isinstance(row, dict) or not row.keys() <= set(_MEMBERS):
        raise ValueError("an order has other members")
    try:
        made = Order(**{**row, "action": Action(row["action"]), "kind": Kind(row["kind"])})
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError("an order lacks a member, or has one of another type") from error
    texts = (made.id, made.operator, made.reason, made.value)
    if not all(map(is_name, texts)) or not all(isinstance(time, int) for time in (made.made_at, made.expires_at)):
        raise ValueError("a member of an order has another type")
    return made


def sign_order(claims: Mapping[str, object], *, key: object, certificate: bytes) -> str:
    """Sign an order with the key of an X.509-SVID, whose ``certificate`` (DER) the header names by its SHA-256.

    Raises:
        ValueError: the key is of a kind that cannot sign.
    """
    (algorithm,) = key_of(certificate).algorithms
    header = orjson.dumps({"alg": algorithm, "typ": TYP, "x5t#S256": _thumbprint(certificate)})
    signing_input = encode_part(header) + b"." + encode_part(orjson.dumps(claims))
    return (signing_input + b"." + encode_part(_sign(key, algorithm, signing_input))).decode("ascii")


def _sign(key: object, algorithm: str, data: bytes) -> bytes:
    """Sign in the form of JWS (RFC 7518 section 3). PyJWT does the same, and brings an HTTP client into the command."""
    match key:
        case ec.EllipticCurvePrivateKey():
            size = (key.key_size + 7) // 8
            r, s = decode_dss_signature(key.sign(data, ec.ECDSA(_HASHES[algorithm])))
            return r.to_bytes(size, "big") + s.to_bytes(size, "big")
        case ed25519.Ed25519PrivateKey():
            return key.sign(data)
        case rsa.RSAPrivateKey():
            return key.sign(data, PKCS1v15(), SHA256())
        case _:
            raise ValueError("the SVID's key is neither EC, Ed25519 nor RSA")


def key_of(certificate: bytes) -> VerificationKey:
    """Return the public key of an SVID (DER), with the one algorithm that it signs with.

    Raises:
        ValueError: it is neither EC, Ed25519 nor RSA.
    """
    match x509.load_der_x509_certificate(certificate).public_key():
        case ec.EllipticCurvePublicKey() as key if key.curve.name in _BY_CURVE:
            return VerificationKey(kid=None, algorithms=frozenset({_BY_CURVE[key.curve.name]}), public_key=key)
        case ed25519.Ed25519PublicKey() as key:
            return VerificationKey(kid=None, algorithms=frozenset({"EdDSA"}), public_key=key)
        case rsa.RSAPublicKey() as key:
            return VerificationKey(kid=None, algorithms=frozenset({"RS256"}), public_key=key)
        case _:
            raise ValueError("the SVID's key is neither EC, Ed25519 nor RSA")


def verify_order(raw: str, *, operator: SpiffeId, certificate: bytes, audience: str, book: Book, now: int) -> Order:
    """Verify an order by the SVID of the operator who brings it. ``audience`` is our own SPIFFE ID.

    Raises:
        Denied: ORDER_REFUSED; the detail says why.
    """
    try:
        jws = parse_compact(raw)
        key = key_of(certificate)
        verify_signature(jws, key, key.algorithms)
        claims = parse_json_part(jws.payload, max_depth=2)
    except (Denied, ValueError) as error:
        raise Denied(Reason.ORDER_REFUSED, str(error)) from error
    if jws.typ != TYP or jws.header.get("x5t#S256") != _thumbprint(certificate):
        raise Denied(Reason.ORDER_REFUSED, "it is not signed with the SVID of this connection")
    if claims.get("iss") != operator or claims.get("aud") != audience:
        raise Denied(Reason.ORDER_REFUSED, "iss is not the operator, or aud not this token service")
    made_at = _whole(claims, "iat")
    if abs(now - made_at) > MAX_AGE_S:
        raise Denied(Reason.ORDER_REFUSED, "it was signed too long ago, or the clocks differ")
    order = _read(claims, operator, raw, made_at, book, now)
    known = book.orders.get(order.id)
    if known is not None and not _say_the_same(known, order):  # it would look accepted, and change nothing
        raise Denied(Reason.ORDER_REFUSED, "another order has this jti: choose a fresh one")
    return replace(order, certificate=b64encode(certificate).decode("ascii"))


def _say_the_same(one: Order, other: Order) -> bool:
    """Tell if two orders differ only in when, and for which replica, they were signed."""
    unsigned = [replace(order, made_at=0, signed=None, certificate=None) for order in (one, other)]
    return unsigned[0] == unsigned[1]


def _read(claims: Mapping[str, object], operator: SpiffeId, raw: str, made_at: int, book: Book, now: int) -> Order:
    try:
        action = Action(str(claims.get("action")))
    except ValueError as error:
        raise Denied(Reason.ORDER_REFUSED, "action is not revoke, confirm or lift") from error
    if action is not Action.REVOKE:
        name, reason = _text(claims, "jti"), _text(claims, "reason")
        of = book.find(_text(claims, "of"), now=now)
        if action is Action.CONFIRM and (not of.needs_second or of.operator == operator):
            raise Denied(Reason.ORDER_REFUSED, "only another operator confirms, and only what waits for it")
        return replace(
            of, id=name, action=action, operator=str(operator), made_at=made_at, reason=reason, of=of.id, signed=raw
        )
    order = _revoking(claims, operator, raw, made_at)
    if not now < order.expires_at <= now + MAX_FOR_S:
        raise Denied(Reason.ORDER_REFUSED, "its end is past, or more than 31 days ahead")
    return order


def _revoking(claims: Mapping[str, object], operator: SpiffeId, raw: str, made_at: int) -> Order:
    try:
        kind = Kind(str(claims.get("kind")))
    except ValueError as error:
        raise Denied(Reason.ORDER_REFUSED, f"kind is not one of {', '.join(Kind)}") from error
    value = _text(claims, "value")
    if _TOKEN.search(value):  # it would be on every sidecar's list
        raise Denied(Reason.ORDER_REFUSED, "value is a token: name its jti")
    if kind in OF_WORKLOADS:
        try:
            SpiffeId(value)
        except SpiffeIdError as error:
            raise Denied(Reason.ORDER_REFUSED, "the actor is not a SPIFFE ID") from error
    return Order(
        id=_text(claims, "jti"),
        action=Action.REVOKE,
        operator=str(operator),
        made_at=made_at,
        expires_at=_whole(claims, "until"),
        reason=_text(claims, "reason"),
        kind=kind,
        value=value,
        issuer=_text(claims, "of_issuer") if kind in NAMED_BY_ISSUER else None,
        alone=claims.get("alone") is True,
        signed=raw,
    )


def _text(claims: Mapping[str, object], member: str) -> str:
    value = claims.get(member)
    if not is_name(value):
        raise Denied(Reason.ORDER_REFUSED, f"{member} is missing, or not plain text")
    return value


def _whole(claims: Mapping[str, object], member: str) -> int:
    value = claims.get(member)
    if isinstance(value, bool) or not isinstance(value, int):
        raise Denied(Reason.ORDER_REFUSED, f"{member} is not a time in seconds")
    return value


def _thumbprint(certificate: bytes) -> str:
    return encode_part(hashlib.sha256(certificate).digest()).decode("ascii")
