"""The token service's sockets: mTLS for clients, a plain port for probes, and the order of opening and closing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

from aiohttp import hdrs, web

from delegation_core.errors import Reason
from delegation_core.rfc8693 import MAX_REQUEST_BYTES
from sidecar.identity.source import IdentitySource
from sidecar.identity.tls import server_context
from sidecar.observe.probe import OneProcess, probe_pages
from sidecar.observe.refused_connections import RefusedConnections
from sidecar.serving.app_site import AppSite, QuietProtocol, quiet_runner
from sidecar.serving.connections import HEAD_TIMEOUT_S, Connections, Crowd
from sidecar.serving.page_site import PageSite
from sidecar.serving.probe import Probe
from sidecar.serving.site import HANDSHAKE_TIMEOUT_S, TlsSite
from sidecar.sts import features
from sidecar.sts.endpoints import TokenEndpoint
from sidecar.sts.keys import NO_SIGNER
from sidecar.sts.schedule import KEYS_MAX_AGE_S
from sidecar.sts.service import TokenService

if TYPE_CHECKING:
    from sidecar.sts.logout_endpoint import EventSettings
    from sidecar.sts.rate import RateSettings

_GRACE_S: Final = 1.0  # for requests that were sent before their client could know that we stop
_CUT_OFF_S: Final = 0.1  # for requests still in progress after the drain

Unserved = Callable[[web.BaseRequest, int, "str | None"], web.Response]
"""Answers a request that no handler was asked about, by the library's status and the methods that it allows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StsSettings:
    """Addresses of the service. Clients reach it at ``base_url``, by default the issuer identifier.

    ``keys_max_age_s`` is how long consumers may cache the key set.

    Raises:
        ValueError: a time or number is not positive.
    """

    host: str = "127.0.0.1"
    port: int = 7444
    probe_host: str = "127.0.0.1"
    probe_port: int = 7090
    base_url: str | None = None
    keys_max_age_s: int = KEYS_MAX_AGE_S
    body_timeout_s: float = 5.0
    drain_s: float = 10.0
    handshake_timeout_s: float = HANDSHAKE_TIMEOUT_S
    head_timeout_s: float = HEAD_TIMEOUT_S
    max_connections: int = 1024

    def __post_init__(self) -> None:
        for name in ("body_timeout_s", "drain_s", "handshake_timeout_s", "head_timeout_s", "max_connections"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}: must be a number above zero")


class _Protocol(QuietProtocol):
    """aiohttp's protocol with the library's own answers replaced: they quote the request, which may hold a token."""

    __slots__ = ("_unserved",)

    def __init__(self, server: web.Server, unserved: Unserved) -> None:
        super().__init__(server)
        self._unserved = unserved

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer with our own text. Raises ConnectionError if another answer has begun, as the library's does."""
        super().handle_error(request, status, exc, message)
        return self._unserved(request, status, None)

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Send an answer; with our own text where the library found no handler."""
        if isinstance(resp, web.HTTPException):
            resp = self._unserved(request, resp.status, resp.headers.get(hdrs.ALLOW))
        return await super().finish_response(request, resp, start_time)


class StsServer:
    """Both listeners, open from ``start`` on. Until there is an SVID every client's handshake is refused."""

    def __init__(
        self,
        settings: StsSettings,
        *,
        service: TokenService,
        source: IdentitySource,
        events: EventSettings | None = None,
        introspection: RateSettings | None = None,
        refused_connections: RefusedConnections | None = None,
    ) -> None:
        """``refused_connections`` records refused handshakes and other connections without a request.

        ``introspection`` is the rate limit of each client there; None: there is no such endpoint.
        """
        self._turned_away = refused_connections or RefusedConnections(service.log, "inbound")
        self._settings = settings
        self._service = service
        self._source = source
        self._tls = server_context(source, on_refused=self._turned_away, clock=service.clock)
        self._endpoint = TokenEndpoint(
            service,
            base_url=settings.base_url,
            keys_max_age_s=settings.keys_max_age_s,
            introspects=introspection is not None,
            body_timeout_s=settings.body_timeout_s,
            unproven=self._turned_away.unproven,
        )
        self._introspection = features.introspection_of(introspection, service, self._endpoint)
        self.revocations = features.revocations_of(service, self._endpoint)
        self._events: Probe | None = None
        logouts = features.logouts_of(events, service, self._turned_away.unproven)
        if events is not None and logouts is not None:
            self._events = Probe(AppSite(logouts.app()), events.host, events.port)
        self._draining = False
        self._runner: web.AppRunner | None = None
        self._site: TlsSite | None = None
        self._connections: Connections | None = None
        self._probe = Probe(
            PageSite(probe_pages(OneProcess(service.log.metrics, self.missing))),
            settings.probe_host,
            settings.probe_port,
        )
        self.address: tuple[str, int] = (settings.host, settings.port)
        service.log.metrics.lacking = self.missing

    def missing(self) -> list[str]:
        """Reasons why the service is not ready, for the operator; empty if it is ready."""
        source, login_keys = self._source, self._service.login_keys
        lacking: list[str] = []
        if self._draining:
            lacking.append("draining")
        if source.current is None:
            lacking.append(_because(f"identity: {source.state}", source.last_error))
        if not source.jwt_bundles:
            lacking.append("jwt bundles")
        if not self._service.log.healthy:
            lacking.append("records")
        if self._service.current_ring().signer is None:
            lacking.append(_because("keys", NO_SIGNER))
        register = self._service.register
        if register is not None and (unsure := register.lacking()) is not None:
            lacking.append(f"revocations ({unsure})")
        errors = login_keys.last_errors()
        lacking += (
            _because(f"keys of {issuer}", errors.get(issuer))
            for issuer in self._service.policy.login_issuers
            if not login_keys.ready(issuer)
        )
        return lacking

    async def start(self) -> None:
        """Open the listeners.

        Raises:
            OSError: an address cannot be bound.
        """
        await self._probe.open()
        if self._events is not None:
            await self._events.open()
        app = self._endpoint.app()
        for more in (self.revocations, self._introspection):
            if more is not None:
                more.add_to(app)
        self.address = await self._listen(app)

    @property
    def events_address(self) -> tuple[str, int] | None:
        """Address of the listener of user issuers' events; None without one."""
        return None if self._events is None else self._events.address

    @property
    def probe_address(self) -> tuple[str, int]:
        """Address of the probe listener, with the real port if 0 was configured."""
        return self._probe.address

    async def stop(self) -> bool:
        """Become unready and refuse new clients, give requests in flight ``drain_s`` to finish, close the probe last.

        Connections stay open for a grace period: a request that was sent before its client could know is answered.
        Returns True if all of them finished in time.
        """
        self._draining = True
        self._endpoint.leave()
        began_at = asyncio.get_running_loop().time()
        site, self._site = self._site, None
        if site is not None and self._connections is not None:
            grace_s = min(_GRACE_S, self._settings.drain_s / 2)
            await site.finish(grace_s)
            await self._connections.wait_for_empty(grace_s)
            await site.stop()
        spent_s = asyncio.get_running_loop().time() - began_at
        in_time = await self._endpoint.drain(self._settings.drain_s - spent_s)
        if self._runner is not None:
            await self._runner.cleanup()
        if self._events is not None:
            await self._events.close()
        await self._probe.close()
        return in_time

    async def _listen(self, app: web.Application) -> tuple[str, int]:
        runner = self._runner = quiet_runner(app, shutdown_s=_CUT_OFF_S)
        await runner.setup()
        connections = self._connections = self._limit_connections(runner)
        site = self._site = TlsSite(
            runner,
            self._settings.host,
            self._settings.port,
            context=self._tls,
            connections=connections,
            handshake_timeout_s=self._settings.handshake_timeout_s,
            on_given_up=self._turned_away,
        )
        await site.start()
        return site.address

    def _limit_connections(self, runner: web.AppRunner) -> Connections:
        assert runner.server is not None  # noqa: S101 - for the type only: the runner was set up
        return Connections(
            partial(_Protocol, runner.server, self._endpoint.unserved),
            limit=self._settings.max_connections,
            crowd=Crowd(max_bytes=self._settings.max_connections * MAX_REQUEST_BYTES),
            head_timeout_s=self._settings.head_timeout_s,
            on_cut=self._on_cut,
        )

    def _on_cut(self, reason: Reason, source: str | None) -> None:
        self._turned_away(reason, "the request did not arrive in time, or was evicted", source)


def _because(what: str, error: str | None) -> str:
    return f"{what} ({error})" if error else what


async def serve(settings: StsSettings, *, service: TokenService, source: IdentitySource) -> None:
    """Serve until cancelled, then drain. The caller keeps ``source`` and the service's keys fresh."""
    server = StsServer(settings, service=service, source=source)
    try:
        await server.start()
        await asyncio.Event().wait()
    finally:
        await server.stop()
