"""Token introspection (RFC 7662): tells a token's audience that it is active, and its claims with the whole chain.

Off by default: every token is a JWT that its audience can verify alone. The endpoint is for resource servers that
cannot verify, or that must learn of a revocation at once. The client is authenticated by its X.509-SVID. A token for
another audience gets the same answer as an invalid token; whether such a token is revoked is never looked up.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final
from urllib.parse import urlsplit

import orjson
from aiohttp import hdrs, web

from delegation_core.bearer import parse_bearer
from delegation_core.errors import Denied, Reason
from delegation_core.form import FormError, media_type, parse_form
from delegation_core.rfc8693 import MAX_REQUEST_BYTES
from delegation_core.spiffe_id import SpiffeId
from delegation_core.verify import ANY_CERTIFICATE, VerifiedToken, verify_token
from sidecar.sts.authority import use_of
from sidecar.sts.endpoints import NO_STORE, TokenEndpoint, go_on
from sidecar.sts.keys import KeyRing
from sidecar.sts.policy import StsPolicy
from sidecar.sts.rate import ExchangeRate
from sidecar.sts.records import ExchangeRecord
from sidecar.sts.service import TokenService

_INACTIVE: Final[Mapping[str, object]] = {"active": False}


class IntrospectionEndpoint:
    """The endpoint. ``clients`` identifies clients, reads bodies and answers refusals; ``rate`` counts each client."""

    def __init__(self, service: TokenService, clients: TokenEndpoint, rate: ExchangeRate) -> None:
        self._service = service
        self._clients = clients
        self._rate = rate

    def add_to(self, app: web.Application) -> None:
        """Add the route, under the path of the issuer identifier."""
        prefix = urlsplit(self._service.policy.issuer).path.rstrip("/")
        app.router.add_route(hdrs.METH_ANY, f"{prefix}/introspect", self.introspect, expect_handler=go_on)

    async def introspect(self, request: web.Request) -> web.Response:
        """Handle one request: one answer and one record in every case."""
        return await self._clients.answered(request, self._answer)

    async def _answer(self, request: web.Request, client: SpiffeId, record: ExchangeRecord) -> web.Response:
        service, policy = self._service, self._service.policy
        raw = parse_introspection(await self._clients.body_of(request), request.headers.get(hdrs.CONTENT_TYPE))
        self._clients.client_of(request)  # trust may have been withdrawn while the body arrived
        self._rate.take(client)
        if service.register is not None:
            service.register.revocations(policy)  # whatever the token is, this replica can tell, or it answers 503
        answer: Mapping[str, object]
        try:
            token = verify_presented(
                raw, client=client, policy=policy, ring=service.current_ring(), now=int(service.clock())
            )
            if service.register is not None:
                service.register.refuse(use_of(token, client, policy), policy)
        except Denied as error:
            record.introspected(error)
            answer = _INACTIVE
        else:
            record.introspected(token)
            answer = {**token.claims, "active": True, "token_type": "Bearer"}
        return web.Response(body=orjson.dumps(answer), content_type="application/json", headers=NO_STORE)


def parse_introspection(body: bytes, content_type: str | None) -> str:
    """Return the token of a request (RFC 7662 section 2.1). ``token_type_hint`` changes nothing: there is one type.

    Raises:
        Denied: EXCHANGE_MALFORMED, the body is no form, or has no token or several.
    """
    if media_type(content_type) != "application/x-www-form-urlencoded":
        raise Denied(Reason.EXCHANGE_MALFORMED, "the content type is not application/x-www-form-urlencoded")
    try:
        parameters = parse_form(body, repeatable=(), max_bytes=MAX_REQUEST_BYTES)
    except FormError as error:
        raise Denied(Reason.EXCHANGE_MALFORMED, str(error)) from error
    if "token" not in parameters:
        raise Denied(Reason.EXCHANGE_MALFORMED, "token is missing")
    return parameters["token"][0]


def verify_presented(raw: str, *, client: SpiffeId, policy: StsPolicy, ring: KeyRing, now: int) -> VerifiedToken:
    """Verify a token of ours that is for one of the audiences of ``client``.

    Raises:
        Denied: as ``verify_token``; WRONG_ISSUER, UNKNOWN_KEY, TOKEN_EXPIRED.
    """
    bearer = parse_bearer(raw)
    if bearer.issuer != policy.issuer:
        raise Denied(Reason.WRONG_ISSUER, "the token was issued elsewhere")
    key = ring.find(bearer.kid)
    if key is None:
        raise Denied(Reason.UNKNOWN_KEY, "this service has no key with this kid")
    token = verify_token(
        bearer,
        issuer=policy.own,
        key=key,
        audiences=policy.audiences_of(client),
        now=now,
        peer_certificate_sha256=ANY_CERTIFICATE,  # the client compares cnf with the certificate of its own peer
    )
    if token.expires_at <= now:  # active is a word about now: the leeway is for those who verify
        raise Denied(Reason.TOKEN_EXPIRED, "the token has expired")
    return token
