"""Verification of JWS signatures, with algorithms that both the issuer and the key allow."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from typing import Any, Final, Protocol, TypeAlias

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA
from cryptography.hazmat.primitives.asymmetric.padding import MGF1, PSS, PKCS1v15
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256, SHA384, SHA512, HashAlgorithm

from delegation_core.errors import Denied, Reason
from delegation_core.keyset import VerificationKey

# Each calls the key's own verification, which raises InvalidSignature. PyJWT does the same, but imports an HTTP client.
_Verify: TypeAlias = Callable[[Any, bytes, bytes], None]


def _ecdsa(hashed: HashAlgorithm) -> _Verify:
    def verify(key: Any, signature: bytes, signed: bytes) -> None:
        size = (key.curve.key_size + 7) // 8
        if len(signature) != 2 * size:  # RFC 7518 section 3.4
            raise InvalidSignature
        r, s = int.from_bytes(signature[:size], "big"), int.from_bytes(signature[size:], "big")
        key.verify(encode_dss_signature(r, s), signed, method)

    method = ECDSA(hashed)
    return verify


def _rsa(hashed: HashAlgorithm, padding: PKCS1v15 | PSS) -> _Verify:
    return lambda key, signature, signed: key.verify(signature, signed, padding, hashed)


def _pss(hashed: HashAlgorithm) -> _Verify:
    """Verifier of RSASSA-PSS, with a salt as long as the hash (RFC 7518 section 3.5)."""
    return _rsa(hashed, PSS(mgf=MGF1(hashed), salt_length=hashed.digest_size))


def _ed25519(key: Any, signature: bytes, signed: bytes) -> None:
    key.verify(signature, signed)


_VERIFIERS: Final[Mapping[str, _Verify]] = {
    "RS256": _rsa(SHA256(), PKCS1v15()),
    "RS384": _rsa(SHA384(), PKCS1v15()),
    "RS512": _rsa(SHA512(), PKCS1v15()),
    "PS256": _pss(SHA256()),
    "PS384": _pss(SHA384()),
    "PS512": _pss(SHA512()),
    "ES256": _ecdsa(SHA256()),
    "ES384": _ecdsa(SHA384()),
    "ES512": _ecdsa(SHA512()),
    "EdDSA": _ed25519,
    "Ed25519": _ed25519,
}


class Signed(Protocol):
    """A signed object with its algorithm and signature: a ``Bearer`` or a ``CompactJws``."""

    @property
    def alg(self) -> str: ...  # noqa: D102
    @property
    def signing_input(self) -> bytes: ...  # noqa: D102
    @property
    def signature(self) -> bytes: ...  # noqa: D102


def verify_signature(signed: Signed, key: VerificationKey, algorithms: Container[str]) -> None:
    """Verify a JWS signature; an ECDSA signature must have exactly the length for its curve (RFC 7518 section 3.4).

    For an ECDSA signature (r, s), (r, n - s) is valid too: neither a token nor its hash may serve as a replay
    identifier.

    Raises:
        Denied: ALG_NOT_ALLOWED if ``algorithms`` or ``key`` do not allow the algorithm; BAD_SIGNATURE.
    """
    if signed.alg not in algorithms:
        raise Denied(Reason.ALG_NOT_ALLOWED, "the issuer may not use this algorithm")
    if signed.alg not in key.algorithms:
        raise Denied(Reason.ALG_NOT_ALLOWED, "the key does not fit this algorithm")
    try:
        _VERIFIERS[signed.alg](key.public_key, signed.signature, signed.signing_input)
    except InvalidSignature:
        raise Denied(Reason.BAD_SIGNATURE, "the signature is wrong") from None
