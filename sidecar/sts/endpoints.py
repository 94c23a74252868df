"""The token service's HTTP endpoints: tokens, keys and metadata for clients.

A client is identified by its X.509-SVID. The SVID is checked for every request, because a connection may outlive the
SVID or the trust that opened it. Nothing that a client sends is logged by the HTTP library or reflected.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextlib import suppress
from typing import Final
from urllib.parse import urlsplit

import orjson
from aiohttp import HttpVersion11, hdrs, web

from delegation_core.errors import Denied, Reason, SidecarError, Unavailable
from delegation_core.rfc8693 import CLIENT_CREDENTIALS, GRANT_TYPE, MAX_REQUEST_BYTES, TOKEN_TYPE_JWT
from delegation_core.spiffe_id import SpiffeId
from delegation_core.token_endpoint import build_error
from sidecar.identity.svid import VerifiedPeer
from sidecar.identity.tls import guard_of
from sidecar.observe.record_rate import UnprovenRecords
from sidecar.serving.connections import head_has_arrived
from sidecar.sts.mint import ACCESS_TOKEN_TYPES, TYPES_OF_LOGINS, ClientCertificate
from sidecar.sts.policy import StsPolicy
from sidecar.sts.records import ExchangeRecord
from sidecar.sts.schedule import KEYS_MAX_AGE_S
from sidecar.sts.service import TokenService

_LOG: Final = logging.getLogger(__name__)
NO_STORE: Final[Mapping[str, str]] = {hdrs.CACHE_CONTROL: "no-store", hdrs.PRAGMA: "no-cache"}
_PUBLIC: Final[Mapping[str, str]] = {hdrs.CACHE_CONTROL: f"max-age={KEYS_MAX_AGE_S}"}
_JSON: Final = "application/json"
ACTOR_PROFILE_URN: Final = "urn:ietf:params:oauth:grant-profile:actor-profile"
_CONTINUE: Final = "100-continue"
_UNSERVED: Final[Mapping[int, Reason]] = {
    404: Reason.NO_ROUTE,
    405: Reason.METHOD_REFUSED,
    417: Reason.EXPECTATION_REFUSED,
}

Answering = Callable[[web.Request, SpiffeId, ExchangeRecord], Awaitable[web.Response]]
"""Answers the request of a client, and writes its record. Raises SidecarError to refuse it."""


class TokenEndpoint:
    """Tokens, keys and metadata, for a listener that accepts verified peers only."""

    def __init__(
        self,
        service: TokenService,
        *,
        base_url: str | None = None,
        keys_max_age_s: int = KEYS_MAX_AGE_S,
        introspects: bool = False,
        body_timeout_s: float = 5.0,
        unproven: UnprovenRecords | None = None,
    ) -> None:
        """``base_url``: our URL for clients, if it is not the issuer identifier; ``keys_max_age_s``: how long
        clients may cache our keys; ``introspects``: the service has an introspection endpoint.

        ``unproven`` limits the records of requests without a valid SVID.
        """
        self._service = service
        self._unproven = unproven or UnprovenRecords(service.log)
        self._base_url = base_url
        self._keys_max_age_s = keys_max_age_s
        self._introspects = introspects
        self._body_timeout_s = body_timeout_s
        self._in_flight = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._draining = False

    def app(self) -> web.Application:
        """Build the routes, under the path of the issuer identifier (metadata: RFC 8414 section 3.1)."""
        prefix = urlsplit(self._service.policy.issuer).path.rstrip("/")
        app = web.Application(client_max_size=MAX_REQUEST_BYTES, middlewares=[head_has_arrived])
        app.router.add_route(hdrs.METH_ANY, f"{prefix}/token", self.token, expect_handler=go_on)
        app.router.add_route(hdrs.METH_ANY, f"{prefix}/countersign", self.countersign, expect_handler=go_on)
        app.router.add_get(f"{prefix}/jwks", self.jwks)
        app.router.add_get(f"/.well-known/oauth-authorization-server{prefix}", self.metadata)
        return app

    def leave(self) -> None:
        """Make each answer the last on its connection."""
        self._draining = True

    async def drain(self, timeout_s: float) -> bool:
        """Wait until requests in flight are answered, at most ``timeout_s``. A connection ends with its next answer.

        Returns True if all were answered.
        """
        self.leave()
        try:
            async with asyncio.timeout(timeout_s):
                await self._idle.wait()
        except TimeoutError:
            return False
        return True

    async def token(self, request: web.Request) -> web.Response:
        """Handle one request to the token endpoint: one answer and one record in every case."""
        return await self.answered(request, self._answer)

    async def countersign(self, request: web.Request) -> web.Response:
        """Handle one request to countersign a client's record stream: one answer and one record in every case."""
        return await self.answered(request, self._countersign)

    async def answered(self, request: web.Request, answer: Answering) -> web.Response:
        """Identify the client, then serve its request by ``answer``. A drain waits for it; a refusal is recorded."""
        return await self._track(self._identify(request, answer))

    async def _track(self, answering: Coroutine[None, None, web.Response]) -> web.Response:
        self._in_flight += 1
        self._idle.clear()
        try:
            response = await answering
        finally:
            self._in_flight -= 1
            if not self._in_flight:
                self._idle.set()
        if self._draining:
            response.force_close()
        return response

    async def _identify(self, request: web.Request, answer: Answering) -> web.Response:
        record = self._record(request)
        try:
            client = self.client_of(request)
            record.identify(client)
            self._require_room()
            return await answer(request, client, record)
        except SidecarError as error:
            return self._refusal(error, record)
        except asyncio.CancelledError:
            record.refuse(Unavailable(Reason.DRAINING, "the service stopped before the answer was ready"), 503)
            raise
        except Exception as error:  # noqa: BLE001 - the one driver: a bug ends this request, not the service
            _LOG.error("a request failed", extra={"bug": type(error).__name__, "request_id": record.request_id})
            return self._refusal(Denied(Reason.INTERNAL, type(error).__name__), record)

    async def _answer(self, request: web.Request, client: SpiffeId, record: ExchangeRecord) -> web.Response:
        body = await self.body_of(request)
        content_type = request.headers.get(hdrs.CONTENT_TYPE)
        peer = self._peer_of(request)  # trust may have been withdrawn while the body arrived
        answer = await self._service.token(
            body,
            content_type,
            client=client,
            record=record,
            confirm=lambda: self.client_of(request),
            certificate=ClientCertificate(peer.fingerprint, peer.not_after),
        )
        return web.Response(body=orjson.dumps(answer), content_type=_JSON, headers=NO_STORE)

    async def _countersign(self, request: web.Request, _client: SpiffeId, _record: ExchangeRecord) -> web.Response:
        body = await self.body_of(request)
        client = self.client_of(request)  # trust may have been withdrawn while the body arrived
        checkpoint = self._service.countersign(body, request.headers.get(hdrs.CONTENT_TYPE), client=client)
        return web.Response(body=orjson.dumps({"checkpoint": checkpoint.text()}), content_type=_JSON, headers=NO_STORE)

    def unserved(self, request: web.BaseRequest, status: int, allow: str | None = None) -> web.Response:
        """Answer a request that is invalid HTTP, has no route, or met a bug: one record, nothing quoted."""
        record = self._record(request)
        with suppress(SidecarError):
            record.identify(self.client_of(request))
        reason = _UNSERVED.get(status, Reason.BAD_REQUEST if status < 500 else Reason.INTERNAL)
        response = self._refusal(Denied(reason), record)
        if allow is not None:
            response.headers[hdrs.ALLOW] = allow
        return response

    async def jwks(self, _request: web.Request) -> web.Response:
        """Return the public keys."""
        headers = {hdrs.CACHE_CONTROL: f"max-age={self._keys_max_age_s}"}
        return web.Response(body=self._service.current_ring().jwks(), content_type=_JSON, headers=headers)

    async def metadata(self, _request: web.Request) -> web.Response:
        """Return the server metadata (RFC 8414)."""
        document = server_metadata(self._service.policy, self._base_url, introspects=self._introspects)
        return web.Response(body=orjson.dumps(document), content_type=_JSON, headers=_PUBLIC)

    def _refusal(self, error: SidecarError, record: ExchangeRecord) -> web.Response:
        status, members = build_error(error, actor_profile=self._service.policy.act_iss is not None)
        record.refuse(error, status)
        headers: dict[str, str] = {**NO_STORE, "Delegation-Reason": str(error.reason)}
        if error.reason is Reason.METHOD_REFUSED:
            headers[hdrs.ALLOW] = hdrs.METH_POST
        if error.answer.retry_after_s is not None:
            headers[hdrs.RETRY_AFTER] = str(error.answer.retry_after_s)
        response = web.Response(status=status, body=orjson.dumps(members), content_type=_JSON, headers=headers)
        if error.answer.close or error.reason is Reason.CLIENT_NOT_AUTHENTICATED:
            response.force_close()
        return response

    def _record(self, request: web.BaseRequest) -> ExchangeRecord:
        service = self._service
        return ExchangeRecord(service.log, service.policy.issuer, source=request.remote, unproven=self._unproven)

    def _require_room(self) -> None:
        if not self._service.log.healthy:
            raise Unavailable(Reason.AUDIT_UNAVAILABLE, "the exchange could not be recorded")

    def client_of(self, request: web.BaseRequest) -> SpiffeId:
        """Return the identity of a client that is trusted now. Raises Denied CLIENT_NOT_AUTHENTICATED or PEER_GONE."""
        return self._peer_of(request).spiffe_id

    def _peer_of(self, request: web.BaseRequest) -> VerifiedPeer:
        """Return the peer of a client that is trusted now. Raises as ``client_of``."""
        if request.transport is None:
            raise Denied(Reason.PEER_GONE)
        guard = guard_of(request.transport)
        try:
            return guard.check(int(self._service.clock()))
        except Denied as error:
            raise Denied(Reason.CLIENT_NOT_AUTHENTICATED, str(error)) from error

    async def body_of(self, request: web.Request) -> bytes:
        """Read the body of a POST. Raises SidecarError."""
        if request.method != hdrs.METH_POST:
            raise Denied(Reason.METHOD_REFUSED)
        if request.headers.get(hdrs.EXPECT, _CONTINUE).lower() != _CONTINUE:
            raise Denied(Reason.EXPECTATION_REFUSED)
        for name in (hdrs.AUTHORIZATION, hdrs.CONTENT_ENCODING):  # a second authentication; an encoded body
            if name in request.headers:
                raise Denied(Reason.EXCHANGE_MALFORMED, f"the request has {name}")
        if request.query_string:  # parameters belong in the body: URLs are logged
            raise Denied(Reason.EXCHANGE_MALFORMED, "the request has a query")
        try:
            async with asyncio.timeout(self._body_timeout_s):
                return await request.read()
        except TimeoutError as error:
            raise Denied(Reason.TIMEOUT, "the body did not arrive in time") from error
        except web.HTTPRequestEntityTooLarge as error:
            raise Denied(Reason.TOO_LARGE, "the body is too large") from error
        except web.RequestPayloadError:
            # the library's error quotes the body
            raise Denied(Reason.BAD_REQUEST, "the body's framing is broken") from None
        except OSError as error:
            raise Denied(Reason.PEER_GONE, "the client went away") from error


async def go_on(request: web.Request) -> None:
    """Send ``100 Continue``. The library's own handler refuses other expectations without a record."""
    if request.headers[hdrs.EXPECT].lower() == _CONTINUE and request.version == HttpVersion11:
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0


def server_metadata(policy: StsPolicy, base_url: str | None = None, *, introspects: bool = False) -> dict[str, object]:
    """Build authorization server metadata (RFC 8414 section 2), and that of the actor profile if tokens follow it.

    Clients authenticate by mTLS and their URI SAN (RFC 8705).
    """
    base = (base_url or policy.issuer).rstrip("/")
    document: dict[str, object] = {
        "issuer": policy.issuer,
        "token_endpoint": f"{base}/token",
        "jwks_uri": f"{base}/jwks",
        "record_countersigning_endpoint": f"{base}/countersign",
        "grant_types_supported": [GRANT_TYPE, *([CLIENT_CREDENTIALS] if policy.self_rules else [])],
        "response_types_supported": [],
        "token_endpoint_auth_methods_supported": ["tls_client_auth"],
        "scopes_supported": sorted(frozenset().union(*(target.scopes for target in policy.targets))),
        "tls_client_certificate_bound_access_tokens": any(target.bound for target in policy.targets),
    }
    if policy.act_iss is not None:
        logins = {kind for login in policy.login_issuers.values() for kind in TYPES_OF_LOGINS[login.kind]}
        document["authorization_grant_profiles_supported"] = [ACTOR_PROFILE_URN]
        document["actor_profile_token_exchange"] = {
            "subject_token_types_supported": sorted(ACCESS_TOKEN_TYPES | logins),
            "actor_token_types_supported": [TOKEN_TYPE_JWT],
            "requested_token_types_supported": sorted(ACCESS_TOKEN_TYPES),
        }
    if introspects:
        document["introspection_endpoint"] = f"{base}/introspect"
        document["introspection_endpoint_auth_methods_supported"] = ["tls_client_auth"]
    return document
