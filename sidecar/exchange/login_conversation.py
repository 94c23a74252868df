"""Users' logins at one token service, by its adapter: begun with fresh random values, completed with the answer."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Final

from delegation_core.errors import Denied, Reason, Unavailable
from delegation_core.login import LoginPlan
from delegation_core.rfc8693 import TokenResponse
from delegation_core.spiffe_id import SpiffeId
from sidecar.exchange.adapters.login import Started, StillPending, UserFlow, WantedLogin
from sidecar.exchange.channel import StsChannel
from sidecar.exchange.client_auth import ClientAuthenticator
from sidecar.exchange.conversation import Conversation, Reached
from sidecar.exchange.failover import Unsent
from sidecar.exchange.metadata import MetadataSource, ServerMetadata
from sidecar.exchange.sts_settings import AUTHORIZATION, ExchangeSettings
from sidecar.identity.endpoint import address_of
from sidecar.identity.source import IdentitySource

MAX_URL_BYTES: Final = 8192  # browsers and servers take about as much
MAX_CODE_BYTES: Final = 2048
MAX_STARTED_BYTES: Final = MAX_URL_BYTES + MAX_CODE_BYTES
_RANDOM_BYTES = 32  # 43 characters: as long as a PKCE verifier must be (RFC 7636 section 4.1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Begun:
    """A login that has begun. ``names_issuer``: answers of the authorization endpoint name it (RFC 9207)."""

    wanted: WantedLogin = field(repr=False)
    started: Started
    names_issuer: bool


class LoginConversation:
    """Begins and completes logins. ``channel`` makes the connections to a URL, pinned as the token endpoint is."""

    def __init__(
        self,
        settings: ExchangeSettings,
        source: IdentitySource,
        conversation: Conversation,
        authenticator: ClientAuthenticator,
        channel: Callable[[str], StsChannel],
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._source = source
        self._conversation = conversation
        self._authenticator = authenticator
        self._channel = channel
        needed = settings.discovered
        self._metadata = (
            MetadataSource(
                settings.issuer,
                channel(settings.metadata_url),
                needed=needed.values(),
                monotonic=monotonic,
            )
            if needed
            else None
        )
        self._discovered: dict[str, str] = {}  # the URLs that are asked now

    async def begin(self, plan: LoginPlan, credentials: set[str], *, redirect_uri: str | None, reason: str) -> Begun:
        """Begin a login. ``redirect_uri`` is the front app's; ``reason`` is for the user to read.

        ``credentials`` collects the static credentials sent.
        """
        flow, settings = self._flow, self._settings
        metadata = None if self._metadata is None else await self._metadata.get()
        authorization_endpoint = settings.authorization_endpoint
        if metadata is not None:
            await self._discover(metadata)
            if AUTHORIZATION in settings.discovered:
                authorization_endpoint = metadata.endpoint(settings.discovered[AUTHORIZATION])
        if flow.browser and redirect_uri is None:
            raise Denied(Reason.LOGIN_MALFORMED, "redirect_uri is missing: the user's browser must come back")
        wanted = WantedLogin(
            plan=plan,
            client_id=self._authenticator.client_id,
            options=settings.options,
            reason=reason,
            state=secrets.token_urlsafe(_RANDOM_BYTES),
            verifier=secrets.token_urlsafe(_RANDOM_BYTES),
            authorization_endpoint=authorization_endpoint,
            redirect_uri=redirect_uri,
        )
        started = await self._conversation.run(flow.begin(wanted), plan.actor, credentials)
        _require_bounded(started)
        return Begun(wanted=wanted, started=started, names_issuer=metadata is not None and metadata.names_issuer)

    async def complete(
        self, begun: Begun, code: str | None, own: SpiffeId, credentials: set[str]
    ) -> TokenResponse | StillPending:
        """Request the token; `StillPending` if the user has not answered yet.

        Raises:
            SidecarError: as ``Conversation.run``; `Unsent`: the code was not sent, and may be sent later.
        """
        wanted = begun.wanted
        if self._settings.known.needs_jwt_svid(self._settings.options):
            try:
                wanted = replace(wanted, jwt_svid=await self._source.jwt_svid(self._settings.issuer))
            except Unavailable as error:
                raise Unsent(error.reason, error.detail) from error
        return await self._conversation.run(self._flow.complete(wanted, begun.started, code), own, credentials)

    async def close(self) -> None:
        """End the calls in flight."""
        if self._metadata is not None:
            await self._metadata.close()

    @property
    def _flow(self) -> UserFlow:
        login = self._settings.known.login
        if login is None:
            raise Denied(Reason.CALL_NOT_ALLOWED, f"{self._settings.known.name} has no logins of users")
        return login

    async def _discover(self, metadata: ServerMetadata) -> None:
        """Use the endpoints that the metadata names; refuse one at another address than the token endpoint's."""
        settings = self._settings
        for name, member in settings.discovered.items():
            if name == AUTHORIZATION:
                continue
            url = metadata.endpoint(member)
            if address_of(url) != address_of(settings.token_endpoint):
                raise Denied(Reason.STS_BAD_RESPONSE, f"the issuer's {member} is on another host; set endpoints.{name}")
            if self._discovered.get(name) != url:
                await self._conversation.reach(name, Reached(self._channel(url), self._authenticator))
                self._discovered[name] = url


def started_bytes(started: Started) -> int:
    """Return the size in bytes of the URL and code of a pending login."""
    return _bytes(started.url) + _bytes(started.code)


def _require_bounded(started: Started) -> None:
    """Raise Denied STS_TOO_LARGE for a URL or code that would take much memory while the login is pending."""
    for name, text, most in (("url", started.url, MAX_URL_BYTES), ("code", started.code, MAX_CODE_BYTES)):
        if _bytes(text) > most:
            raise Denied(Reason.STS_TOO_LARGE, f"{name}: a login would keep more than {most} bytes")


def _bytes(text: str | None) -> int:
    return 0 if text is None else len(text.encode("utf-8", "surrogatepass"))
