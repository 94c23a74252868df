"""Signature verification: the key must fit the algorithm, and the issuer must be allowed to use it."""

from __future__ import annotations

from collections.abc import Container
from typing import Final, Protocol

from jwt.algorithms import get_default_algorithms

from sidecar.delegation.jws import ALGORITHMS
from sidecar.delegation.keyset import VerificationKey
from sidecar.errors import Denied, Reason

_LIBRARY_NAMES: Final = {"Ed25519": "EdDSA"}
_LIBRARY: Final = get_default_algorithms()
_VERIFIERS: Final = {name: _LIBRARY[_LIBRARY_NAMES.get(name, name)] for name in ALGORITHMS}


class Signed(Protocol):
    """A signed object with its algorithm and signature: a ``Bearer`` or a ``CompactJws``."""

    @property
    def alg(self) -> str: ...  # noqa: D102
    @property
    def signing_input(self) -> bytes: ...  # noqa: D102
    @property
    def signature(self) -> bytes: ...  # noqa: D102


def verify_signature(signed: Signed, key: VerificationKey, algorithms: Container[str]) -> None:
    """Return if the signature is right; ECDSA signatures have exactly the length of their curve (RFC 7518 section 3.4).

    An ECDSA signature (r, s) has a twin (r, n - s) that verifies as well: neither a token nor its hash may serve as a
    replay identifier.

    Raises:
        Denied: ALG_NOT_ALLOWED if ``algorithms`` or the key do not allow the token's algorithm; BAD_SIGNATURE.
    """
    if signed.alg not in algorithms:
        raise Denied(Reason.ALG_NOT_ALLOWED, "the issuer may not use this algorithm")
    if signed.alg not in key.algorithms:
        raise Denied(Reason.ALG_NOT_ALLOWED, "the key does not fit this algorithm")
    if _VERIFIERS[signed.alg].verify(signed.signing_input, key.public_key, signed.signature) is not True:
        raise Denied(Reason.BAD_SIGNATURE, "the signature is wrong")
