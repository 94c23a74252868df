"""A listener for user issuers, which have no SVID: they report that a login or a user must stop.

``POST /backchannel-logout`` takes a form with ``logout_token`` (OpenID Connect Back-Channel Logout), ``POST /events`` a
security event token (RFC 8935). The listener is plain HTTP: put a proxy that ends TLS before it. Each event is
authenticated by its issuer's signature. Invalid ones cost one signature check at most; their records are rate-limited.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import orjson
from aiohttp import hdrs, web

from delegation_core.errors import Denied, Reason, SidecarError, Unavailable
from delegation_core.form import FormError, media_type, parse_form
from delegation_core.jws import MAX_TOKEN_BYTES
from sidecar.observe.record_rate import UnprovenRecords
from sidecar.sts.logout_events import LogoutFeed, issuer_of, order_of
from sidecar.sts.orders import Order
from sidecar.sts.revocations import Register
from sidecar.sts.service import TokenService

MAX_BODY_BYTES: Final = 2 * MAX_TOKEN_BYTES
_BODY_TIMEOUT_S: Final = 5.0
_NO_STORE: Final[Mapping[str, str]] = {hdrs.CACHE_CONTROL: "no-store"}


@dataclass(frozen=True, slots=True, kw_only=True)
class EventSettings:
    """Address of the listener, our ``audiences`` besides the entries' OAuth clients, and the lives of revocations."""

    host: str
    port: int
    audiences: frozenset[str] = frozenset()
    login_for_s: int = 86_400
    subject_for_s: int = 3600


class LogoutEndpoint:
    """Turns verified events into orders of the register."""

    def __init__(
        self, service: TokenService, register: Register, settings: EventSettings, *, unproven: UnprovenRecords
    ) -> None:
        self._service = service
        self._register = register
        self._settings = settings
        self._unproven = unproven

    def app(self) -> web.Application:
        """Build the routes."""
        app = web.Application(client_max_size=MAX_BODY_BYTES)
        app.router.add_post("/backchannel-logout", self.logout)
        app.router.add_post("/events", self.event)
        return app

    async def logout(self, request: web.Request) -> web.Response:
        """Accept a logout token: 200 once a majority of replicas has its revocation, 400 if refused, 503 otherwise."""
        try:
            if media_type(request.headers.get(hdrs.CONTENT_TYPE)) != "application/x-www-form-urlencoded":
                raise Denied(Reason.ORDER_REFUSED, "the content type is not application/x-www-form-urlencoded")
            form = parse_form(await _body_of(request), repeatable=(), max_bytes=MAX_BODY_BYTES)
            (raw,) = form.get("logout_token", ("",))
            await self._accept(raw)
        except (SidecarError, FormError) as error:
            return self._refusal(error, "error")
        return web.Response(headers=_NO_STORE)

    async def event(self, request: web.Request) -> web.Response:
        """Accept a security event token (RFC 8935 section 2): 202 once a majority of the replicas has its
        revocation, 400 if refused, 503 otherwise.
        """
        try:
            if media_type(request.headers.get(hdrs.CONTENT_TYPE)) != "application/secevent+jwt":
                raise Denied(Reason.ORDER_REFUSED, "the content type is not application/secevent+jwt")
            await self._accept((await _body_of(request)).decode("ascii", "replace"))
        except SidecarError as error:
            return self._refusal(error, "err")
        return web.Response(status=202, headers=_NO_STORE)

    async def _accept(self, raw: str) -> Order:
        service = self._service
        bearer = issuer_of(raw)
        feed = self._feed_of(bearer.issuer)
        keys = service.login_keys
        key = keys.find(bearer.issuer, bearer.kid) or await keys.wait_for_key(bearer.issuer, bearer.kid)
        order = order_of(bearer, feed=feed, key=key, now=int(service.clock()))
        order = await self._register.add(order, sources=len(service.policy.login_issuers))
        await self._register.acknowledge(order)
        if not self._register.peers.majority_holds(order.id):
            raise Unavailable(
                Reason.NOT_READY, "this replica has the order, but a majority of the replicas has not confirmed it"
            )
        return order

    def _feed_of(self, issuer: str) -> LogoutFeed:
        policy, settings = self._service.policy, self._settings
        login = policy.login_issuers.get(issuer)
        if login is None:
            raise Denied(Reason.ORDER_REFUSED, "the event's issuer is not a user issuer here")
        clients = {entry.client_ids[issuer] for entry in policy.entries.values() if issuer in entry.client_ids}
        return LogoutFeed(
            trusted=login.trusted,
            audiences=settings.audiences | clients,
            login_for_s=settings.login_for_s,
            subject_for_s=settings.subject_for_s,
        )

    def _refusal(self, error: SidecarError | FormError, member: str) -> web.Response:
        unavailable = isinstance(error, SidecarError) and error.answer.status >= 500
        reason = error.reason if isinstance(error, SidecarError) else Reason.ORDER_REFUSED
        if self._unproven.take():
            self._service.log.event("revocation.refused", decision="deny", reason=reason, detail=str(error) or None)
        body = orjson.dumps({member: "temporarily_unavailable" if unavailable else "invalid_request"})
        return web.Response(
            status=503 if unavailable else 400, body=body, content_type="application/json", headers=_NO_STORE
        )


async def _body_of(request: web.Request) -> bytes:
    try:
        async with asyncio.timeout(_BODY_TIMEOUT_S):
            return await request.read()
    except (TimeoutError, web.HTTPRequestEntityTooLarge, web.RequestPayloadError, OSError) as error:
        raise Denied(Reason.ORDER_REFUSED, "the body is incomplete or too large") from error
