"""Extraction and strict parsing of a request's bearer token, before verification.

``bearer_of`` runs on every request, before the verdict cache, and only extracts one unambiguous token. On a cache miss
``parse_bearer`` parses the token strictly; every token in the cache has passed it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Final

from delegation_core.errors import Denied, Reason
from delegation_core.jws import HEADER_MEMBERS, MAX_TOKEN_BYTES, CompactJws, parse_compact, parse_json_part
from delegation_core.strict_json import MAX_DEPTH, may_nest, nesting_of

__all__ = [
    "MAX_TOKEN_BYTES",
    "Bearer",
    "bearer_of",
    "fingerprint_of",
    "parse_bearer",
    "parse_jwt_svid",
    "parse_txn_token",
]

JWT_SVID_ALGORITHMS: Final = frozenset(
    {"RS256", "RS384", "RS512", "ES256", "ES384", "ES512", "PS256", "PS384", "PS512"}
)  # JWT-SVID section 2.1
JWT_SVID_MEMBERS: Final = frozenset({"alg", "kid", "typ"})
TXN_TOKEN_TYPE: Final = "txntoken+jwt"  # noqa: S105 - a name, no secret
JWT_SVID_TYPES: Final = frozenset({None, "jwt", "jose"})

# Actor chains nest: act.py refuses a chain that is too deep with its own reason. Other claims keep MAX_DEPTH.
_MAX_NESTING_WITH_ACT: Final = 512

_SCHEME: Final = re.compile(rb"[A-Za-z0-9!#$%&'*+.^_`|~-]+")  # a token of RFC 9110 section 5.6.2


@dataclass(frozen=True, slots=True)
class Bearer:
    """A well-formed JWT whose claims are not verified yet. ``issuer`` is empty for a JWT-SVID."""

    raw: str = field(repr=False)
    header: Mapping[str, object] = field(repr=False)
    claims: Mapping[str, object] = field(repr=False)
    alg: str
    kid: str | None = field(repr=False)
    typ: str | None = field(repr=False)
    issuer: str = field(repr=False)
    signing_input: bytes = field(repr=False)
    signature: bytes = field(repr=False)

    @property
    def fingerprint(self) -> str:
        """Identifier of the token in records; see ``fingerprint_of``."""
        return fingerprint_of(self.raw)


def fingerprint_of(raw: str) -> str:
    """Return the first 128 bits of the token's SHA-256 as 32 hexadecimal digits, for records."""
    return sha256(raw.encode()).hexdigest()[:32]


def bearer_of(authorization: Sequence[bytes]) -> str:
    """Return the one bearer token of a request (RFC 6750 section 2.1, the only method supported).

    ``authorization`` holds the values of all Authorization fields.

    Raises:
        Denied: NO_TOKEN without an Authorization field or for another scheme; HEADER_MALFORMED for two fields, a list,
            or a scheme without a token; TOKEN_TOO_LARGE; MALFORMED_TOKEN for a JSON serialization or a non-ASCII token.
    """
    if not authorization:
        raise Denied(Reason.NO_TOKEN, "no Authorization field")
    if len(authorization) > 1:
        raise Denied(Reason.HEADER_MALFORMED, "two Authorization fields")
    value = authorization[0]
    token = value[7:]
    if value[:7] != b"Bearer " or b" " in token or b"," in token or not 0 < len(token) <= MAX_TOKEN_BYTES:
        token = _unusual(value)
    if not token.isascii():
        raise Denied(Reason.MALFORMED_TOKEN, "the token is not ASCII")
    return token.decode("ascii")


def parse_bearer(raw: str) -> Bearer:
    """Parse an OAuth JWT (an access token or a login token) strictly; verify nothing.

    Raises:
        Denied: TOKEN_TOO_LARGE, MALFORMED_TOKEN, DUPLICATE_CLAIM, ALG_NOT_ALLOWED.
    """
    jws = parse_compact(raw, members=HEADER_MEMBERS)
    claims = _claims(jws)
    issuer = claims.get("iss")
    if not isinstance(issuer, str):
        raise Denied(Reason.MALFORMED_TOKEN, "iss is not a string")
    return _bearer(raw, jws, claims, issuer)


def parse_jwt_svid(raw: str) -> Bearer:
    """Parse a JWT-SVID by the header rules of JWT-SVID section 2. A kid is required, as in go-spiffe and SPIRE.

    Raises:
        Denied: TOKEN_TOO_LARGE, MALFORMED_TOKEN, DUPLICATE_CLAIM, ALG_NOT_ALLOWED, TOKEN_TYPE.
    """
    jws = parse_compact(raw, members=JWT_SVID_MEMBERS)
    if jws.alg not in JWT_SVID_ALGORITHMS:
        raise Denied(Reason.ALG_NOT_ALLOWED, "the algorithm is not allowed for JWT-SVIDs")
    if jws.kid is None:
        raise Denied(Reason.MALFORMED_TOKEN, "the header has no kid")
    if jws.typ not in JWT_SVID_TYPES:
        raise Denied(Reason.TOKEN_TYPE, "the header's typ is not for JWT-SVIDs")
    return _bearer(raw, jws, _claims(jws), "")


def parse_txn_token(raw: str) -> Bearer:
    """Parse a transaction token (draft-ietf-oauth-transaction-tokens-09 section 9), whose ``iss`` is optional.

    Raises:
        Denied: TOKEN_TOO_LARGE, MALFORMED_TOKEN, DUPLICATE_CLAIM, ALG_NOT_ALLOWED, TOKEN_TYPE.
    """
    jws = parse_compact(raw, members=HEADER_MEMBERS)
    if jws.typ != TXN_TOKEN_TYPE:
        raise Denied(Reason.TOKEN_TYPE, "the header's typ is not for transaction tokens")
    return _bearer(raw, jws, _claims(jws), "")


def _unusual(value: bytes) -> bytes:
    """Return the token of an Authorization value that the fast path does not accept. Raises Denied as ``bearer_of``."""
    scheme, _, credentials = value.partition(b" ")
    token = credentials.lstrip(b" ")
    if not _SCHEME.fullmatch(scheme) or not token:
        raise Denied(Reason.HEADER_MALFORMED, "the Authorization field is malformed")
    if scheme.lower() != b"bearer":
        hidden = b"bearer" in credentials.lower()  # a list: another parser might use the second credential
        raise Denied(Reason.HEADER_MALFORMED if hidden else Reason.NO_TOKEN, "the scheme is not Bearer")
    if len(token) > MAX_TOKEN_BYTES:
        raise Denied(Reason.TOKEN_TOO_LARGE, "the token is too large")
    if token.startswith(b"{"):
        raise Denied(Reason.MALFORMED_TOKEN, "the token is a JWS in JSON serialization")
    if b" " in token or b"," in token:
        raise Denied(Reason.HEADER_MALFORMED, "more than one credential")
    return token


def _claims(jws: CompactJws) -> dict[str, object]:
    claims = parse_json_part(jws.payload, max_depth=_MAX_NESTING_WITH_ACT)
    if may_nest(jws.payload, MAX_DEPTH):
        without_act = [value for claim, value in claims.items() if claim != "act"]
        if nesting_of(without_act) > MAX_DEPTH:
            raise Denied(Reason.MALFORMED_TOKEN, "a claim is nested too deeply")
    return claims


def _bearer(raw: str, jws: CompactJws, claims: dict[str, object], issuer: str) -> Bearer:
    return Bearer(raw, jws.header, claims, jws.alg, jws.kid, jws.typ, issuer, jws.signing_input, jws.signature)
