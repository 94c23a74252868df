"""Orders of operators: revoke, confirm, lift. Pure: parsed, signed and verified.

An order is a JWS, signed with the key of the operator's X.509-SVID, so that every replica and every auditor can verify
who gave it. ``book.py`` keeps them.
"""

from __future__ import annotations

import hashlib
import re
from base64 import b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Final

import orjson
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256, SHA384, SHA512, HashAlgorithm

from delegation_core.claims import is_name
from delegation_core.errors import Denied, Reason
from delegation_core.jws import TOKEN_PATTERN, encode_part, parse_compact, parse_json_part
from delegation_core.keyset import VerificationKey
from delegation_core.revocation import NAMED_BY_ISSUER, OF_WORKLOADS, Kind
from delegation_core.revocations_kept import Revocation
from delegation_core.signature import verify_signature
from delegation_core.spiffe_id import SpiffeId, SpiffeIdError

TYP: Final = "revocation-order+jwt"
ORDER: Final = f"application/{TYP}"  # the media type of an order
MAX_BOOK_BYTES: Final = 64 * 1024 * 1024
MAX_ORDER_BYTES: Final = 32 * 1024  # half of what the reader in steps takes
MAX_FOR_S: Final = 31 * 86_400
MAX_AGE_S: Final = 300  # from an order's signature to its arrival

_EMPTY_BYTES: Final = 256  # of an order, beside its texts
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
    """One order. A revocation has ``kind``, ``value`` and perhaps ``issuer``; other orders refer to a revocation by
    ``of``.

    ``operator`` is a SPIFFE ID, or the issuer whose event it follows. ``alone``: no second operator is needed.
    ``signed`` is the JWS of the order, ``certificate`` (DER in base64) the signer's; both are None for an order
    that follows from an event.
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
        """True for a revocation that another operator has to confirm."""
        return self.action is Action.REVOKE and self.kind is Kind.SUBJECT and not self.alone

    def text(self) -> str:
        """Return the order for a record."""
        named = "" if self.issuer is None else f" iss={self.issuer}"
        of = "" if self.of is None else f" of={self.of}"
        alone = " alone" if self.alone else ""
        return f"id={self.id} kind={self.kind}{named} value={self.value} until={self.expires_at}{of}{alone}"

    @property
    def name(self) -> tuple[object, ...]:
        """Identity of a revocation: of several with the same identity the book keeps one."""
        return self.operator, self.kind, self.issuer, self.value, self.alone

    @property
    def size(self) -> int:
        """Approximate bytes of the order as JSON."""
        texts = (self.id, self.operator, self.reason, self.value, self.issuer, self.of, self.signed, self.certificate)
        return _EMPTY_BYTES + sum(len(text) for text in texts if text is not None)

    @property
    def listed_size(self) -> int:
        """Approximate bytes of the order and its lift in the signed list, without the constant part of a row."""
        return 2 * len(self.id) + len(self.value) + len(self.issuer or "")

    def row(self) -> bytes:
        """Return the order as JSON, for a file or for another replica."""
        values = ((name, getattr(self, name)) for name in _MEMBERS)
        return orjson.dumps({name: value for name, value in values if value is not None})

    def revocation(self) -> Revocation:
        """Return the row of the signed list for this order."""
        return Revocation(id=self.id, kind=self.kind, value=self.value, issuer=self.issuer, expires_at=self.expires_at)


_MEMBERS: Final = tuple(Order.__dataclass_fields__)


Admit = Callable[[Order], Order]


def order_of_row(row: object) -> Order:
    """Parse an order in a replica's JSON. Raises ValueError, without quoting the input, if it is no order."""
    if not isinstance(row, dict) or not row.keys() <= set(_MEMBERS):
        raise ValueError("an order has unknown members")
    try:
        made = Order(**{**row, "action": Action(row["action"]), "kind": Kind(row["kind"])})
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError("an order lacks a member, or has one of another type") from error
    texts = (made.id, made.operator, made.reason, made.value)
    if not all(map(is_name, texts)) or not all(isinstance(time, int) for time in (made.made_at, made.expires_at)):
        raise ValueError("a member of an order has another type")
    return made


def find_revocation(orders: Mapping[str, Order], of: str | None, *, now: int) -> Order:
    """Return the revocation that an order refers to.

    Raises:
        Denied: ORDER_REFUSED, the revocation is unknown or has expired.
    """
    order = orders.get(of or "")
    if order is None or order.action is not Action.REVOKE or order.expires_at <= now:
        raise Denied(Reason.ORDER_REFUSED, "no revocation has this id, or it has expired")
    return order


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
    """Sign in the form of JWS (RFC 7518 section 3). PyJWT would import an HTTP client into the command."""
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
        ValueError: the key is neither EC, Ed25519 nor RSA.
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


def verify_order(
    raw: str,
    *,
    operator: SpiffeId,
    certificate: bytes,
    audience: str,
    orders: Mapping[str, Order],
    now: int,
    admit: Admit = lambda order: order,
) -> Order:
    """Verify an order with the SVID of the operator who sends it. ``audience`` is our own SPIFFE ID.

    ``orders`` are those of the book. ``admit`` is called for a new revocation without the mark ``unknown``. It returns
    the order, perhaps with an earlier end, or raises.

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
    order = _read(claims, operator, raw, made_at, orders, now, admit)
    known = orders.get(order.id)
    if known is not None and not _say_the_same(known, order):  # it would look accepted, and change nothing
        raise Denied(Reason.ORDER_REFUSED, "another order has this jti: choose a fresh one")
    return replace(order, certificate=b64encode(certificate).decode("ascii"))


def _say_the_same(one: Order, other: Order) -> bool:
    """Return True if two orders differ at most in their signature: its time, replica and certificate."""
    unsigned = [replace(order, made_at=0, signed=None, certificate=None) for order in (one, other)]
    return unsigned[0] == unsigned[1]


def _read(
    claims: Mapping[str, object],
    operator: SpiffeId,
    raw: str,
    made_at: int,
    orders: Mapping[str, Order],
    now: int,
    admit: Admit,
) -> Order:
    try:
        action = Action(str(claims.get("action")))
    except ValueError as error:
        raise Denied(Reason.ORDER_REFUSED, "action is not revoke, confirm or lift") from error
    if action is not Action.REVOKE:
        name, reason = _text(claims, "jti"), _text(claims, "reason")
        of = find_revocation(orders, _text(claims, "of"), now=now)
        if action is Action.CONFIRM and (not of.needs_second or of.operator == operator):
            raise Denied(Reason.ORDER_REFUSED, "only another operator may confirm, and only a pending order")
        return replace(
            of, id=name, action=action, operator=str(operator), made_at=made_at, reason=reason, of=of.id, signed=raw
        )
    order = _revoking(claims, operator, raw, made_at)
    if not now < order.expires_at <= now + MAX_FOR_S:
        raise Denied(Reason.ORDER_REFUSED, "exp is in the past, or more than 31 days ahead")
    return order if claims.get("unknown") is True else admit(order)


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
        raise Denied(Reason.ORDER_REFUSED, f"{member} is missing, or not a plain string")
    return value


def _whole(claims: Mapping[str, object], member: str) -> int:
    value = claims.get(member)
    if isinstance(value, bool) or not isinstance(value, int):
        raise Denied(Reason.ORDER_REFUSED, f"{member} is not a time in seconds")
    return value


def _thumbprint(certificate: bytes) -> str:
    return encode_part(hashlib.sha256(certificate).digest()).decode("ascii")
