"""Parser for one public JWK: its key, and the algorithms that key can be used with (RFC 7518 section 6, RFC 8037)."""

from __future__ import annotations

import re
from base64 import urlsafe_b64decode
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import (
    SECP256R1,
    SECP384R1,
    SECP521R1,
    EllipticCurve,
    EllipticCurvePublicKey,
    EllipticCurvePublicNumbers,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey, RSAPublicNumbers

PublicKey = RSAPublicKey | EllipticCurvePublicKey | Ed25519PublicKey

MIN_RSA_BITS: Final = 2048
MAX_RSA_BITS: Final = 8192  # the cost of verification grows with the square of the size: limits denial of service
MAX_RSA_EXPONENT: Final = 65537  # verification with a full-length exponent takes a hundred times as long

_RSA: Final = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"})
_CURVES: Final[dict[str, tuple[EllipticCurve, str]]] = {
    "P-256": (SECP256R1(), "ES256"),
    "P-384": (SECP384R1(), "ES384"),
    "P-521": (SECP521R1(), "ES512"),
}
_ED25519: Final = frozenset({"EdDSA", "Ed25519"})  # one algorithm with two names, the second by RFC 9864

_BASE64URL: Final = re.compile(r"[A-Za-z0-9_-]+")


class JwkError(ValueError):
    """The JWK is not a supported public key."""


def key_of(jwk: dict[str, object]) -> tuple[PublicKey, frozenset[str]]:
    """Return the public key of a JWK, and the algorithms for its type.

    Supported: RSA of 2048 to 8192 bits with an exponent of at most 65537, EC on P-256, P-384 or P-521, and OKP Ed25519.

    Raises:
        JwkError: any other key, or malformed members.
    """
    kind = jwk.get("kty")
    try:
        if kind == "RSA":
            return _rsa(jwk), _RSA
        if kind == "EC":
            return _ec(jwk)
        if kind == "OKP" and jwk.get("crv") == "Ed25519":
            return Ed25519PublicKey.from_public_bytes(_octets(jwk, "x")), _ED25519
    # raised by the library for a point off the curve, an even exponent ...
    except (ValueError, UnsupportedAlgorithm) as error:
        raise JwkError("the members are not a valid key") from error
    raise JwkError("an unsupported key type")


def algorithms_of(key: object) -> frozenset[str]:
    """Return the algorithms for a public key that is not from a JWK.

    Raises:
        JwkError: an unsupported key type, or an RSA key of an unsupported size.
    """
    if isinstance(key, RSAPublicKey) and MIN_RSA_BITS <= key.key_size <= MAX_RSA_BITS:
        if key.public_numbers().e > MAX_RSA_EXPONENT:
            raise JwkError("an RSA key's exponent must be at most 65537")
        return _RSA
    if isinstance(key, Ed25519PublicKey):
        return _ED25519
    for curve, algorithm in _CURVES.values():
        if isinstance(key, EllipticCurvePublicKey) and isinstance(key.curve, type(curve)):
            return frozenset({algorithm})
    raise JwkError("an unsupported key type")


def _rsa(jwk: dict[str, object]) -> RSAPublicKey:
    modulus = int.from_bytes(_octets(jwk, "n"), "big")
    exponent = int.from_bytes(_octets(jwk, "e"), "big")
    if not MIN_RSA_BITS <= modulus.bit_length() <= MAX_RSA_BITS:
        raise JwkError("an RSA key must have 2048 to 8192 bits")
    if exponent > MAX_RSA_EXPONENT:
        raise JwkError("an RSA key's exponent must be at most 65537")
    return RSAPublicNumbers(exponent, modulus).public_key()


def _ec(jwk: dict[str, object]) -> tuple[EllipticCurvePublicKey, frozenset[str]]:
    name = jwk.get("crv")
    if not isinstance(name, str) or name not in _CURVES:
        raise JwkError("an unsupported curve")
    curve, algorithm = _CURVES[name]
    x, y = (int.from_bytes(_octets(jwk, member), "big") for member in ("x", "y"))
    return EllipticCurvePublicNumbers(x, y, curve).public_key(), frozenset({algorithm})


def _octets(jwk: dict[str, object], member: str) -> bytes:
    value = jwk.get(member)
    # The library ignores characters outside the alphabet.
    if not isinstance(value, str) or not _BASE64URL.fullmatch(value):
        raise JwkError("a member is not base64url")
    return urlsafe_b64decode(value + "=" * (-len(value) % 4))
