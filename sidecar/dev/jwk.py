"""Public keys as JSON Web Keys (RFC 7517, RFC 7518 section 6)."""

from __future__ import annotations

import base64

from cryptography.hazmat.primitives.asymmetric import ec, rsa

PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey


def public_jwk(key: PublicKey) -> dict[str, object]:
    """Give the members that describe a P-256 or RSA public key. ``kid``, ``use`` and ``alg`` are the caller's.

    Raises:
        ValueError: an elliptic curve other than P-256.
    """
    if isinstance(key, rsa.RSAPublicKey):
        numbers = key.public_numbers()
        return {"kty": "RSA", "n": _base64url_uint(numbers.n), "e": _base64url_uint(numbers.e)}
    if key.curve.name != ec.SECP256R1.name:
        raise ValueError("development keys are P-256 or RSA")
    point = key.public_numbers()
    return {"kty": "EC", "crv": "P-256", "x": _base64url_uint(point.x, 32), "y": _base64url_uint(point.y, 32)}


def _base64url_uint(number: int, octets: int = 0) -> str:
    """Encode big-endian; coordinates have a fixed length (RFC 7518 section 6.2.1.2), other numbers their shortest."""
    length = octets or (number.bit_length() + 7) // 8
    return base64.urlsafe_b64encode(number.to_bytes(length, "big")).rstrip(b"=").decode()
