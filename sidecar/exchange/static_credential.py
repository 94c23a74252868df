"""Static credentials of the sidecar at a token service: a key that signs assertions, or a secret, each in a file."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Final, TypeAlias

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, SECP384R1, EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from delegation_core.errors import Reason, Unavailable
from sidecar.identity.file_reader import Present, Watched, look_at
from sidecar.observe.secret_names import UNNAMED, secret_fingerprint

ASSERTION_S: Final = 60  # the life of an assertion that we sign
MIN_RSA_BITS: Final = 2048
MAX_RSA_BITS: Final = 4096  # reading one checks its primes, which takes most of a second
_SECRET: Final = re.compile(rb"[ -~]{8,4096}")

_PrivateKey: TypeAlias = EllipticCurvePrivateKey | Ed25519PrivateKey | RSAPrivateKey


@dataclass(frozen=True, slots=True)
class _SigningKey:
    """A private key as it was read, the algorithm that it signs with, and a fingerprint of its public half."""

    seen: Present
    key: _PrivateKey = field(repr=False)
    algorithm: str
    fingerprint: str


@dataclass(frozen=True, slots=True)
class _Secret:
    """A client secret as it was read, and its fingerprint for records."""

    seen: Present
    text: str = field(repr=False)
    fingerprint: str


class StaticCredential:
    """The credential in one file, cached until the file changes. All methods block: call them in a thread.

    Checking the primes of an RSA key of 4096 bits takes almost a second; the fingerprint of a secret is slow, too.
    ``key_id`` and ``audience`` are those of assertions; ``clock`` is wall time in seconds.
    """

    def __init__(self, file: str, *, key_id: str | None, audience: str, clock: Callable[[], float]) -> None:
        self._file = file
        self._key_id = key_id
        self._audience = audience
        self._clock = clock
        self._key: _SigningKey | None = None
        self._secret: _Secret | None = None

    def secret(self) -> tuple[str, str]:
        """Return the file's current secret and its fingerprint. Raises Unavailable: CREDENTIAL_UNAVAILABLE."""
        file, before = self._file, self._secret
        seen = _read(file, None if before is None else before.seen)
        if before is None or seen is not before.seen:
            content = seen.content.removesuffix(b"\n").removesuffix(b"\r")
            if not _SECRET.fullmatch(content):
                raise _no_credential(file, "does not hold one secret of 8 to 4096 characters")
            before = _Secret(seen, content.decode("ascii"), secret_fingerprint(content) or UNNAMED)
            self._secret = before
        return before.text, before.fingerprint

    def sign(self, client_id: str) -> tuple[str, str]:
        """Sign an assertion. Return it with the key's fingerprint. Raises Unavailable: CREDENTIAL_UNAVAILABLE."""
        before = self._key
        seen = _read(self._file, None if before is None else before.seen)
        if before is None or seen is not before.seen:
            before = self._key = _signing_key(seen, self._file)
        headers = {} if self._key_id is None else {"kid": self._key_id}
        now = int(self._clock())
        claims = {
            "iss": client_id,
            "sub": client_id,
            "aud": self._audience,
            "iat": now,
            "exp": now + ASSERTION_S,
            "jti": secrets.token_urlsafe(16),
        }
        import jwt  # few sidecars sign assertions

        return jwt.encode(claims, before.key, before.algorithm, headers), before.fingerprint


def _read(file: str, before: Present | None) -> Present:
    """Return the file's content, or ``before`` itself if the file has not changed. Blocks."""
    seen = look_at(Watched(Path(file), private=True), before)
    if not isinstance(seen, Present):
        raise Unavailable(Reason.CREDENTIAL_UNAVAILABLE, seen.why)
    return seen


def _signing_key(seen: Present, file: str) -> _SigningKey:
    try:
        key = load_pem_private_key(seen.content, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise _no_credential(file, "holds no private key in PEM without a password") from error
    match key:
        case EllipticCurvePrivateKey() if isinstance(key.curve, SECP256R1):
            algorithm = "ES256"
        case EllipticCurvePrivateKey() if isinstance(key.curve, SECP384R1):
            algorithm = "ES384"
        case Ed25519PrivateKey():
            algorithm = "EdDSA"
        case RSAPrivateKey() if MIN_RSA_BITS <= key.key_size <= MAX_RSA_BITS:
            algorithm = "RS256"
        case _:
            raise _no_credential(
                file, "holds a key that cannot sign: use P-256, P-384, Ed25519, or RSA of 2048 to 4096 bits"
            )
    public = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return _SigningKey(seen, key, algorithm, sha256(public).hexdigest()[:32])


def _no_credential(file: str, why: str) -> Unavailable:
    return Unavailable(Reason.CREDENTIAL_UNAVAILABLE, f"{file} {why}")
