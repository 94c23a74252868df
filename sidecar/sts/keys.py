"""The token service's signing keys: one signs; the ones before and after it are published beside it.

A key's ``kid`` is its RFC 7638 thumbprint, so replicas that read the same file use the same name, and no two keys can
share one. ``schedule.py`` assigns the roles.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

import jwt
import orjson
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key as generate_rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm, get_default_algorithms

from delegation_core.checkpoint import Checkpoint, Head, countersign
from delegation_core.errors import Reason, Unavailable
from delegation_core.keyset import VerificationKey
from delegation_core.revocation_list import UNCHANGED_TYP, sign_list

TOKEN_TYP: Final = "at+jwt"  # noqa: S105 - the header value of RFC 9068 section 2.1
MIN_RSA_BITS: Final = 2048
NO_SIGNER: Final = "the signing key is not in the directory of keys"
_ALGORITHMS: Final = get_default_algorithms()
_THUMBPRINT_MEMBERS: Final = ("crv", "e", "kty", "n", "x", "y")  # RFC 7638 section 3.2, in its order

PrivateKey = EllipticCurvePrivateKey | Ed25519PrivateKey | RSAPrivateKey
_GENERATORS: Final[Mapping[str, Callable[[], PrivateKey]]] = {
    "ES256": lambda: generate_private_key(SECP256R1()),
    "EdDSA": Ed25519PrivateKey.generate,
    "RS256": lambda: generate_rsa(public_exponent=65537, key_size=MIN_RSA_BITS),
}


class KeyRefusedError(ValueError):
    """The key cannot sign our tokens. The message never holds key material."""


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A private key with the one algorithm it is used for. Its repr shows the ``kid`` only."""

    private_key: PrivateKey = field(repr=False)
    algorithm: str
    kid: str
    jwk: Mapping[str, str] = field(repr=False)
    verification_key: VerificationKey = field(init=False, repr=False, compare=False)
    """The public half."""

    def __post_init__(self) -> None:
        algorithms = frozenset((self.algorithm,))  # made once: deriving the public key takes time
        key = VerificationKey(kid=self.kid, algorithms=algorithms, public_key=self.private_key.public_key())
        object.__setattr__(self, "verification_key", key)

    @classmethod
    def of(cls, private_key: object) -> SigningKey:
        """Wrap a P-256, Ed25519 or RSA key of at least 2048 bits.

        Raises:
            KeyRefusedError: any other key.
        """
        match private_key:
            case EllipticCurvePrivateKey() if isinstance(private_key.curve, SECP256R1):
                algorithm, members = "ES256", ECAlgorithm.to_jwk(private_key.public_key(), as_dict=True)
            case Ed25519PrivateKey():
                algorithm, members = "EdDSA", OKPAlgorithm.to_jwk(private_key.public_key(), as_dict=True)
            case RSAPrivateKey() if private_key.key_size >= MIN_RSA_BITS:
                algorithm, members = "RS256", RSAAlgorithm.to_jwk(private_key.public_key(), as_dict=True)
            case _:
                raise KeyRefusedError("a signing key must be EC P-256, Ed25519, or RSA of at least 2048 bits")
        public = {str(name): str(members[name]) for name in _THUMBPRINT_MEMBERS if name in members}
        kid = _thumbprint(public)
        return cls(private_key, algorithm, kid, {**public, "kid": kid, "alg": algorithm, "use": "sig"})

    @classmethod
    def generate(cls, algorithm: str = "ES256") -> SigningKey:
        """Make a new key for ES256, EdDSA or RS256, in memory only."""
        if algorithm not in _GENERATORS:
            raise KeyRefusedError("the algorithm must be one of ES256, EdDSA, RS256")
        return cls.of(_GENERATORS[algorithm]())

    def sign(self, claims: Mapping[str, object]) -> str:
        """Sign an access token: compact JWS, ``typ`` at+jwt (RFC 9068 section 2.1)."""
        return jwt.encode(dict(claims), self.private_key, self.algorithm, headers={"typ": TOKEN_TYP, "kid": self.kid})

    def countersign(self, head: Head, *, issuer: str, workload: str, at: int) -> Checkpoint:
        """Sign the head of a workload's record stream at ``at``, seconds since 1970."""
        return countersign(
            head, issuer=issuer, workload=workload, at=at, alg=self.algorithm, kid=self.kid, sign=self._signature
        )

    def sign_revocations(self, claims: Mapping[str, object]) -> bytes:
        """Sign the claims of a list of revocations, as a compact JWS."""
        return sign_list(claims, alg=self.algorithm, kid=self.kid, sign=self._signature)

    def sign_unchanged(self, claims: Mapping[str, object]) -> str:
        """Sign the claims of a confirmation of a list, as a compact JWS."""
        raw = sign_list(claims, alg=self.algorithm, kid=self.kid, sign=self._signature, typ=UNCHANGED_TYP)
        return raw.decode("ascii")

    def _signature(self, data: bytes) -> bytes:
        signature: bytes = _ALGORITHMS[self.algorithm].sign(data, self.private_key)
        return signature


@dataclass(frozen=True, slots=True)
class KeyRing:
    """Snapshot of the published keys: the ``signer``, the ``announced`` future ones, the ``retired`` former ones.

    A ring is also a source of keys (``service.Keys``) whose roles never change.
    """

    signer: SigningKey | None
    announced: tuple[SigningKey, ...] = ()
    retired: tuple[SigningKey, ...] = ()

    def __post_init__(self) -> None:
        kids = [key.kid for key in self.published]
        if len(set(kids)) != len(kids):
            raise KeyRefusedError("one key is listed twice in the ring")

    @property
    def active(self) -> SigningKey:
        """The key that signs.

        Raises:
            Unavailable: NOT_READY, this replica lacks that key; consumers may not know another one.
        """
        if self.signer is None:
            raise Unavailable(Reason.NOT_READY, NO_SIGNER)
        return self.signer

    @property
    def published(self) -> tuple[SigningKey, ...]:
        """Every published key, the signing one first."""
        return (*(() if self.signer is None else (self.signer,)), *self.announced, *self.retired)

    def at(self, _now: int, *, keep_s: int) -> KeyRing:
        """Return this ring, regardless of the time."""
        del keep_s
        return self

    def find(self, kid: str | None) -> VerificationKey | None:
        """Return the published key with this ``kid``; None if there is none."""
        return next((key.verification_key for key in self.published if key.kid == kid), None)

    def jwks(self) -> bytes:
        """Return the public keys as a JWK set (RFC 7517 section 5)."""
        return orjson.dumps({"keys": [key.jwk for key in self.published]})


def _thumbprint(members: Mapping[str, str]) -> str:
    digest = hashlib.sha256(orjson.dumps(members, option=orjson.OPT_SORT_KEYS)).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode("ascii")
