"""Reads the claims of tokens without trusting them. Verifies signatures if the issuer's keys are available."""

from __future__ import annotations

import re
from base64 import urlsafe_b64decode
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from delegation_core.errors import Denied
from delegation_core.jws import ALGORITHMS, CompactJws, parse_compact
from delegation_core.keyset import KeySet
from delegation_core.signature import verify_signature
from delegation_core.strict_json import StrictJsonError, parse_object

MAX_TOKEN_BYTES: Final = 65_536
_MAX_DEPTH: Final = 64
_PART: Final = re.compile(r"[A-Za-z0-9_-]*={0,2}")
_SCOPE_CLAIMS: Final = ("scope", "scp")
_CLIENT_CLAIMS: Final = ("client_id", "azp", "cid", "appid")
_NAMES: Final = ("sub", "client_id", "azp")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """The content of a token. ``claims`` None: unreadable.

    ``kind`` is the token's form, ``by`` the source of its claims, ``signature`` the result of verification.
    """

    kind: str
    by: str = "the token"
    header: Mapping[str, object] = field(default_factory=dict)
    claims: Mapping[str, object] | None = field(default=None, repr=False)
    signature: str = "not verified"

    def claim(self, name: str) -> object:
        """Return a claim; None if it is absent or unreadable."""
        return None if self.claims is None else self.claims.get(name)

    @property
    def subject(self) -> str | None:
        """The claim ``sub``."""
        return _text(self.claim("sub"))

    @property
    def act(self) -> object:
        """The claim ``act``, of any type."""
        return self.claim("act")

    @property
    def expires_at(self) -> float | None:
        """The claim ``exp``."""
        return _number(self.claim("exp"))

    @property
    def issued_at(self) -> float | None:
        """The claim ``iat``."""
        return _number(self.claim("iat"))

    @property
    def audiences(self) -> tuple[str, ...] | None:
        """The claim ``aud`` as a list; None if there is none."""
        value = self.claim("aud")
        if isinstance(value, str):
            return (value,)
        if isinstance(value, list):
            return tuple(one for one in value if isinstance(one, str))
        return None

    @property
    def scope_claim(self) -> tuple[str, str] | None:
        """Name and shape of the claim that holds scopes."""
        for name in _SCOPE_CLAIMS:
            value = self.claim(name)
            if isinstance(value, str | list):
                return name, "string" if isinstance(value, str) else "array"
        return None

    @property
    def scopes(self) -> frozenset[str] | None:
        """The scopes of the claim; None without one."""
        found = self.scope_claim
        return None if found is None else scopes_of(self.claim(found[0]))

    @property
    def clients(self) -> dict[str, str]:
        """The claims that name an OAuth client."""
        return {name: value for name in _CLIENT_CLAIMS if (value := _text(self.claim(name))) is not None}

    @property
    def names(self) -> frozenset[str]:
        """The names by which an ``act`` may call the holder of this token, if it is the holder's own."""
        return frozenset(value for name in _NAMES if (value := _text(self.claim(name))) is not None)


def scopes_of(value: object) -> frozenset[str]:
    """Return the scopes of a string or an array, leniently."""
    if isinstance(value, str):
        return frozenset(value.split())
    return frozenset(one for one in value if isinstance(one, str)) if isinstance(value, list) else frozenset()


def read_token(raw: str, keys: KeySet | None = None) -> Reading:
    """Read a token: a JWT with its claims, a JWE or an opaque string without. ``raw`` may be anything."""
    parts = raw.split(".")
    if len(raw) > MAX_TOKEN_BYTES or not all(map(_PART.fullmatch, parts)):
        return Reading(kind="opaque")
    header = _object(parts[0]) if len(parts) in (3, 5) else None
    if header is None:
        return Reading(kind="opaque")
    if len(parts) == 5:
        return Reading(kind="JWE", header=header)
    claims = _object(parts[1])
    if claims is None:
        return Reading(kind="opaque")
    return Reading(kind="JWT", header=header, claims=claims, signature=_signature(raw, keys))


def parse_introspection(members: Mapping[str, object], kind: str) -> Reading | None:
    """Return the reading of an introspection answer (RFC 7662 section 2.2); None unless the token is active."""
    if members.get("active") is not True:
        return None
    return Reading(kind=kind, by="introspection", claims=members)


def _signature(raw: str, keys: KeySet | None) -> str:
    if keys is None:
        return "not verified"
    try:
        jws: CompactJws = parse_compact(raw, max_bytes=MAX_TOKEN_BYTES)
    except Denied as error:
        return f"not in a form that a sidecar takes: {error.detail}"
    key = keys.find(jws.kid)
    if key is None:
        return "by a key that the issuer does not publish"
    try:
        verify_signature(jws, key, ALGORITHMS)
    except Denied:
        return "wrong"
    return "verified"


def _object(part: str) -> dict[str, object] | None:
    try:
        return parse_object(
            urlsafe_b64decode(part.rstrip("=") + "=" * (-len(part.rstrip("=")) % 4)), max_depth=_MAX_DEPTH
        )
    except (StrictJsonError, ValueError):
        return None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _number(value: object) -> float | None:
    return None if isinstance(value, bool) or not isinstance(value, int | float) else value
