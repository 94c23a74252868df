"""Key sets: the JWKS of an issuer, the JWT bundle of a trust domain (RFC 7517, RFC 7518 section 6).

An unusable key is skipped; an unreadable document is refused. Each key is restricted to the algorithms that its type
and its ``alg`` member allow, so a token's header cannot choose how a key is used.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from delegation_core.jwk import JwkError, PublicKey, key_of
from delegation_core.jws import MAX_KID_CHARACTERS
from delegation_core.strict_json import StrictJsonError, parse_object

MAX_JWKS_BYTES: Final = 262144
MAX_KEYS: Final = 100
_PRIVATE_MEMBERS: Final = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})


class KeySetError(ValueError):
    """The document is not a key set. The message never quotes it."""


@dataclass(frozen=True, slots=True)
class VerificationKey:
    """One public key and the signature algorithms it may be used with."""

    kid: str | None
    algorithms: frozenset[str]
    public_key: PublicKey = field(repr=False)


class KeySet:
    """Usable keys of one issuer or trust domain; immutable, possibly empty.

    Identical keys count once. Different keys with the same kid are ambiguous: ``find`` returns none of them for that
    kid, and ``ambiguous`` lists the kid.
    """

    __slots__ = ("_by_kid", "_only", "ambiguous")

    def __init__(self, keys: Iterable[VerificationKey]) -> None:
        published: dict[str | None, list[VerificationKey]] = {}
        for key in keys:
            same_kid = published.setdefault(key.kid, [])
            if key not in same_kid:
                same_kid.append(key)
        self._by_kid = {kid: found[0] for kid, found in published.items() if kid is not None and len(found) == 1}
        self.ambiguous = frozenset(kid for kid, found in published.items() if kid is not None and len(found) > 1)
        different = [key for found in published.values() for key in found]
        self._only = different[0] if len(different) == 1 else None

    def find(self, kid: str | None) -> VerificationKey | None:
        """Return the key with this kid; for None the only key of a set with one key. None if there is no such key."""
        return self._only if kid is None else self._by_kid.get(kid)

    @property
    def kids(self) -> frozenset[str]:
        """Key IDs that ``find`` accepts."""
        return frozenset(self._by_kid)

    def __len__(self) -> int:
        return max(len(self._by_kid), 1 if self._only else 0)

    def __repr__(self) -> str:
        return f"KeySet({len(self)} keys)"


def parse_jwks(document: bytes, *, max_bytes: int = MAX_JWKS_BYTES, max_keys: int = MAX_KEYS) -> KeySet:
    """Parse an issuer's JWKS. Only keys whose ``use`` is absent or ``sig`` count.

    Raises:
        KeySetError: the document is too large, not a strict JSON object, or without ``keys``, at most ``max_keys``.
    """
    keys = _keys(document, max_bytes=max_bytes, max_keys=max_keys)
    return KeySet(key for jwk in keys if jwk.get("use", "sig") == "sig" and (key := _usable(jwk)))


def parse_jwt_bundle(document: bytes, *, max_bytes: int = MAX_JWKS_BYTES, max_keys: int = MAX_KEYS) -> KeySet:
    """Parse a trust domain's JWT authorities. Only keys with a kid, and ``use`` absent or ``jwt-svid``, count.

    The Workload API sends a standard JWK set (Workload API section 6.2.2), in which SPIRE's keys have no ``use``.

    Raises:
        KeySetError: as ``parse_jwks``.
    """
    keys = _keys(document, max_bytes=max_bytes, max_keys=max_keys)
    return KeySet(key for jwk in keys if jwk.get("use", "jwt-svid") == "jwt-svid" and (key := _usable(jwk)) and key.kid)


def _keys(document: bytes, *, max_bytes: int, max_keys: int) -> list[dict[str, object]]:
    try:
        keys = parse_object(document, max_bytes=max_bytes).get("keys")
    except StrictJsonError as error:
        raise KeySetError(str(error)) from error
    if not isinstance(keys, list) or len(keys) > max_keys:
        raise KeySetError("keys is not an array, or has too many members")
    return [jwk for jwk in keys if isinstance(jwk, dict)]


def _usable(jwk: dict[str, object]) -> VerificationKey | None:
    kid = jwk.get("kid")
    if kid is not None and not (isinstance(kid, str) and 0 < len(kid) <= MAX_KID_CHARACTERS):
        return None
    operations = jwk.get("key_ops", ["verify"])
    if not isinstance(operations, list) or "verify" not in operations or not _PRIVATE_MEMBERS.isdisjoint(jwk):
        return None
    try:
        public_key, algorithms = key_of(jwk)
    except JwkError:
        return None
    algorithm = jwk.get("alg")
    if algorithm is not None:
        algorithms = frozenset(fitting for fitting in algorithms if fitting == algorithm)
    return VerificationKey(kid, algorithms, public_key) if algorithms else None
