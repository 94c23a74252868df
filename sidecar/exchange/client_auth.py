"""Client authentication at a token service: the parameters of each method, and static credentials.

Our own ways need no secret: the X.509-SVID of the connection, or a JWT-SVID as client assertion. The others rest on a
file, and on a setting that allows them by name; records name the credential's fingerprint, never the credential.
"""

from __future__ import annotations

import asyncio
import base64
import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any, Final, TypeAlias
from urllib.parse import quote_plus

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, SECP384R1, EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from sidecar.delegation.spiffe_id import SpiffeId
from sidecar.errors import Reason, Unavailable
from sidecar.exchange.adapters.adapter import STATIC, ClientAuth
from sidecar.identity.file_reader import Present, Watched, look_at
from sidecar.identity.source import IdentitySource
from sidecar.observe.secret_names import UNNAMED, secret_fingerprint

ASSERTION_S: Final = 60  # the life of an assertion that we sign
MIN_RSA_BITS: Final = 2048
MAX_RSA_BITS: Final = 4096  # reading one checks its primes, which takes most of a second
_BEARER: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"  # RFC 7523 section 2.2
_SPIFFE: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-spiffe"
_SECRET: Final = re.compile(rb"[ -~]{8,4096}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientAuthSettings:
    """Authentication of the sidecar at one token service.

    ``client_id`` None: our SPIFFE ID. ``audience`` is that of assertions. A static way needs ``credential_file``, and
    ``allow_static`` says that this is meant; ``key_id`` is the header ``kid`` of an assertion signed with it.

    Raises:
        ValueError: a credential without a static method, or the reverse. The text names field and fix.
    """

    method: ClientAuth = ClientAuth.X509_SVID
    audience: str
    client_id: str | None = None
    credential_file: str | None = None
    key_id: str | None = None
    allow_static: bool = False

    def __post_init__(self) -> None:
        if self.method in STATIC and not self.allow_static:
            raise ValueError(
                f"client_auth: {self.method} is a static credential; use jwt-svid or x509-svid, or set "
                "allow_static_credential: true"
            )
        if self.method in STATIC and self.credential_file is None:
            raise ValueError(f"credential_file: it is missing, and {self.method} needs it")
        if self.method not in STATIC and (self.credential_file is not None or self.allow_static):
            raise ValueError(f"credential_file: {self.method} needs none; remove it and allow_static_credential")
        if self.key_id is not None and self.method is not ClientAuth.PRIVATE_KEY_JWT:
            raise ValueError("key_id: it is for private-key-jwt; remove it")


@dataclass(frozen=True, slots=True)
class Shown:
    """Authentication of one request: form parameters, and a value of ``Authorization``."""

    form: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    authorization: str | None = field(default=None, repr=False)
    credential: str | None = None  # of a static way, for records: ``client``, the way and a fingerprint


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


class ClientAuthenticator:
    """Authenticates this workload at one token service. ``clock`` is wall time in seconds.

    Files are read, and keys parsed and used, in a thread: checking the primes of an RSA key of 4096 bits takes almost a
    second, and would hold every request. So would the fingerprint of a secret. Both are kept until the file changes.
    """

    def __init__(self, settings: ClientAuthSettings, source: IdentitySource, clock: Callable[[], float]) -> None:
        self._settings = settings
        self._source = source
        self._clock = clock
        self._key: _SigningKey | None = None
        self._secret: _Secret | None = None

    @property
    def client_id(self) -> str:
        """Our client ID at the token service.

        Raises:
            Unavailable: NOT_READY: the client ID is our SPIFFE ID, and we have no identity.
        """
        return self._settings.client_id or str(self._own())

    async def show(self) -> Shown:
        """Return the authentication of the next request.

        Raises:
            Unavailable: NOT_READY, CREDENTIAL_UNAVAILABLE.
        """
        match self._settings.method:
            case ClientAuth.X509_SVID:
                return Shown()
            case ClientAuth.TLS_SAN_URI:
                return Shown(form=(("client_id", self.client_id),))
            case ClientAuth.JWT_SVID | ClientAuth.JWT_SPIFFE as method:
                svid = await self._source.jwt_svid(self._settings.audience)
                return self._asserted(_SPIFFE if method is ClientAuth.JWT_SPIFFE else _BEARER, svid)
            case _:
                return await self._static()

    def _asserted(self, kind: str, assertion: str, credential: str | None = None) -> Shown:
        form = (("client_id", self.client_id), ("client_assertion_type", kind), ("client_assertion", assertion))
        return Shown(form=form, credential=credential)

    async def _static(self) -> Shown:
        method, file = self._settings.method, self._settings.credential_file or ""
        if method is ClientAuth.PRIVATE_KEY_JWT:
            assertion, fingerprint = await asyncio.to_thread(self._signed, file, self._claims())
            return self._asserted(_BEARER, assertion, f"client:{method}:{fingerprint}")
        kept = await asyncio.to_thread(self._secret_in, file)
        secret, credential = kept.text, f"client:{method}:{kept.fingerprint}"
        if method is ClientAuth.SECRET_POST:
            return Shown(form=(("client_id", self.client_id), ("client_secret", secret)), credential=credential)
        pair = f"{quote_plus(self.client_id)}:{quote_plus(secret)}"  # encoded as in a form (RFC 6749 section 2.3.1)
        return Shown(authorization=f"Basic {base64.b64encode(pair.encode()).decode()}", credential=credential)

    def _secret_in(self, file: str) -> _Secret:
        """Return the secret as it is now. Blocks."""
        before = self._secret
        seen = _read(file, None if before is None else before.seen)
        if before is None or seen is not before.seen:
            content = seen.content.removesuffix(b"\n").removesuffix(b"\r")
            if not _SECRET.fullmatch(content):
                raise _no_credential(file, "does not hold one secret of 8 to 4096 characters")
            before = _Secret(seen, content.decode("ascii"), secret_fingerprint(content) or UNNAMED)
            self._secret = before
        return before

    def _signed(self, file: str, claims: dict[str, Any]) -> tuple[str, str]:
        """Sign an assertion. Return it with the key's fingerprint. Blocks."""
        before = self._key
        seen = _read(file, None if before is None else before.seen)
        if before is None or seen is not before.seen:
            before = self._key = _signing_key(seen, file)
        headers = {} if self._settings.key_id is None else {"kid": self._settings.key_id}
        import jwt  # few sidecars sign assertions

        return jwt.encode(claims, before.key, before.algorithm, headers), before.fingerprint

    def _claims(self) -> dict[str, Any]:
        now = int(self._clock())
        return {
            "iss": self.client_id,
            "sub": self.client_id,
            "aud": self._settings.audience,
            "iat": now,
            "exp": now + ASSERTION_S,
            "jti": secrets.token_urlsafe(16),
        }

    def _own(self) -> SpiffeId:
        identity = self._source.current
        if identity is None:
            raise Unavailable(Reason.NOT_READY, "this workload has no identity to authenticate with")
        return identity.svid.spiffe_id


def _read(file: str, before: Present | None) -> Present:
    """Return the file's content; if it has not changed since ``before``, that. Blocks."""
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
