"""Client authentication at a token service: the form parameters or ``Authorization`` value of each method.

Our own ways need no secret: the X.509-SVID of the connection, or a JWT-SVID as client assertion. The others rest on a
file, and on a setting that allows them by name; records name the credential's fingerprint, never the credential.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final
from urllib.parse import quote_plus

from delegation_core.errors import Reason, Unavailable
from delegation_core.spiffe_id import SpiffeId
from sidecar.exchange.adapters.adapter import STATIC, ClientAuth
from sidecar.identity.source import IdentitySource

if TYPE_CHECKING:
    from sidecar.exchange.static_credential import StaticCredential

_BEARER: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"  # RFC 7523 section 2.2
_SPIFFE: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-spiffe"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientAuthSettings:
    """Authentication of the sidecar at one token service.

    ``client_id`` None: our SPIFFE ID. ``audience`` is the audience of assertions. A static method needs
    ``credential_file``, and ``allow_static`` to permit it; ``key_id`` is the header ``kid`` of an assertion signed with
    that credential.

    Raises:
        ValueError: a credential without a static method or the reverse, or a ``key_id`` with a method that uses none.
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
                f"client_auth: {self.method} needs a static credential; use jwt-svid or x509-svid, or set "
                "allow_static_credential: true"
            )
        if self.method in STATIC and self.credential_file is None:
            raise ValueError(f"credential_file: it is missing, but {self.method} needs it")
        if self.method not in STATIC and (self.credential_file is not None or self.allow_static):
            raise ValueError(f"credential_file: {self.method} needs none; remove it and allow_static_credential")
        if self.key_id is not None and self.method is not ClientAuth.PRIVATE_KEY_JWT:
            raise ValueError("key_id: only private-key-jwt uses it; remove it")


@dataclass(frozen=True, slots=True)
class Shown:
    """Authentication of one request: form parameters, and a value of ``Authorization``."""

    form: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    authorization: str | None = field(default=None, repr=False)
    credential: str | None = None  # of a static way, for records: ``client``, the way and a fingerprint


class ClientAuthenticator:
    """Authenticates this workload at one token service. ``clock`` is wall time in seconds.

    Static credentials are read and used in a thread: this may take almost a second, and would block every request.
    """

    def __init__(self, settings: ClientAuthSettings, source: IdentitySource, clock: Callable[[], float]) -> None:
        self._settings = settings
        self._source = source
        self._clock = clock
        self._static: StaticCredential | None = None

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
            case method:
                return await self._show_static(method)

    def _asserted(self, kind: str, assertion: str, credential: str | None = None) -> Shown:
        form = (("client_id", self.client_id), ("client_assertion_type", kind), ("client_assertion", assertion))
        return Shown(form=form, credential=credential)

    async def _show_static(self, method: ClientAuth) -> Shown:
        if self._static is None:
            from sidecar.exchange.static_credential import StaticCredential

            file, key_id = self._settings.credential_file or "", self._settings.key_id
            self._static = StaticCredential(file, key_id=key_id, audience=self._settings.audience, clock=self._clock)
        static, client_id = self._static, self.client_id
        if method is ClientAuth.PRIVATE_KEY_JWT:
            assertion, fingerprint = await asyncio.to_thread(static.sign, client_id)
            return self._asserted(_BEARER, assertion, f"client:{method}:{fingerprint}")
        secret, fingerprint = await asyncio.to_thread(static.secret)
        credential = f"client:{method}:{fingerprint}"
        if method is ClientAuth.SECRET_POST:
            return Shown(form=(("client_id", client_id), ("client_secret", secret)), credential=credential)
        pair = f"{quote_plus(client_id)}:{quote_plus(secret)}"  # encoded as in a form (RFC 6749 section 2.3.1)
        return Shown(authorization=f"Basic {base64.b64encode(pair.encode()).decode()}", credential=credential)

    def _own(self) -> SpiffeId:
        identity = self._source.current
        if identity is None:
            raise Unavailable(Reason.NOT_READY, "this workload has no identity to authenticate with")
        return identity.svid.spiffe_id
