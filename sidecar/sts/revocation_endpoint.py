"""HTTP endpoints of revocations: operators post orders, workloads get the signed list, replicas get all orders.

``GET /revocations`` has an entity tag: a sidecar that polls every two seconds is mostly answered 304, with a signed
confirmation that says when this replica last heard each of the others. Only an operator learns why an order was
refused. Replicas fetch each other's orders, and send each other new ones.
"""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit

import orjson
from aiohttp import hdrs, web

from delegation_core.errors import Denied, Reason, SidecarError, Unavailable
from delegation_core.revocation_list import UNCHANGED_FIELD
from delegation_core.spiffe_id import SpiffeId
from delegation_core.token_endpoint import build_error
from sidecar.identity.tls import guard_of
from sidecar.observe.tracing import new_id
from sidecar.steps import in_steps
from sidecar.sts.book import parse_book
from sidecar.sts.endpoints import TokenEndpoint
from sidecar.sts.known_names import known_names
from sidecar.sts.orders import ORDER, Action, Order
from sidecar.sts.revocations import Register
from sidecar.sts.service import TokenService

_LIST: Final = "application/revocations+jwt"


class RevocationEndpoint:
    """The endpoints of one replica. ``token_endpoint`` identifies clients and reads bodies."""

    def __init__(self, service: TokenService, register: Register, token_endpoint: TokenEndpoint) -> None:
        self._service = service
        self._register = register
        self._clients = token_endpoint
        self._replica = new_id()  # so that a replica that asks itself by another name notices

    def add_to(self, app: web.Application) -> None:
        """Add the routes, under the path of the issuer identifier."""
        prefix = urlsplit(self._service.policy.issuer).path.rstrip("/")
        app.router.add_get(f"{prefix}/revocations", self.signed_list)
        app.router.add_post(f"{prefix}/revocations", self.order)
        app.router.add_get(f"{prefix}/revocations/orders", self.orders)
        app.router.add_post(f"{prefix}/revocations/orders", self.take)

    async def signed_list(self, request: web.Request) -> web.Response:
        """Return the signed list, to any workload of the mesh."""
        try:
            self._clients.client_of(request)
            etag = request.headers.get(hdrs.IF_NONE_MATCH)
            answer = await self._register.signed_list(self._service.policy, self._service.current_ring(), etag)
        except SidecarError as error:
            return _refusal(error)
        headers = {hdrs.ETAG: answer.tag, hdrs.CACHE_CONTROL: "no-cache"}
        if answer.unchanged is not None:
            return web.Response(status=304, headers=headers | {UNCHANGED_FIELD: answer.unchanged})
        return web.Response(body=answer.jws, content_type=_LIST, headers=headers)

    async def order(self, request: web.Request) -> web.Response:
        """Accept one order of an operator; the order is on the disk before the answer.

        The answer lists as ``missing`` the replicas that may lack the order.
        """
        client: SpiffeId | None = None
        try:
            client = self._clients.client_of(request)
            if request.content_type != ORDER:
                raise Denied(Reason.ORDER_REFUSED, f"the content type is not {ORDER}")
            body = await self._clients.body_of(request)
            self._clients.client_of(request)  # trust may have been withdrawn while the body arrived
            order = await self._accept(request, client, body)
        except SidecarError as error:
            return self._refuse(error, client)
        missing = await self._register.acknowledge(order)
        waiting = await in_steps(self._register.book.waiting(order.made_at))
        waits = any(one.id == order.id for one in waiting)
        answer: dict[str, object] = {"id": order.of or order.id, "state": "waiting" if waits else str(order.action)}
        if order.action is Action.REVOKE:
            answer |= {"until": order.expires_at, **self._register.seen.of(order)}
        if missing:
            answer["missing"] = [urlsplit(one).netloc for one in missing]
        return web.Response(body=orjson.dumps(answer), content_type="application/json")

    async def _accept(self, request: web.Request, client: SpiffeId, body: bytes) -> Order:
        own = self._service.log.workload
        if request.transport is None or own is None:
            raise Unavailable(Reason.NOT_READY, "this workload has no identity")
        certificate = guard_of(request.transport).chain[0]
        return await self._register.accept(
            body.decode("ascii", "replace"),
            operator=client,
            certificate=certificate,
            audience=own,
            known=known_names(self._service.policy, self._service.bundles.jwt_bundles),
        )

    async def take(self, request: web.Request) -> web.Response:
        """Accept orders of another replica; the orders are on the disk before the answer."""
        client: SpiffeId | None = None
        try:
            client = self._require_replica(request)
            body = await self._clients.body_of(request)
            self._require_replica(request)  # trust may have been withdrawn while the body arrived
            try:
                book, _ = await in_steps(parse_book(body))
            except ValueError as error:
                raise Denied(Reason.ORDER_REFUSED, str(error)) from error
            await self._register.take(book.orders)
        except SidecarError as error:
            return self._refuse(error, client)
        return web.Response(body=b"{}", content_type="application/json")

    def _require_replica(self, request: web.Request) -> SpiffeId:
        client = self._clients.client_of(request)
        if client != self._service.log.workload:
            raise Denied(Reason.ORDER_REFUSED, "the client is not a replica")
        return client

    async def orders(self, request: web.Request) -> web.StreamResponse:
        """Return all orders, to another replica or an operator. The entity tag changes with the orders."""
        try:
            client = self._clients.client_of(request)
            if client != self._service.log.workload and client not in self._register.settings.operators:
                raise Denied(Reason.ORDER_REFUSED, "the client is neither a replica nor an operator")
            if self._register.trouble is not None:
                raise Unavailable(Reason.NOT_READY, self._register.trouble)
        except SidecarError as error:
            return _refusal(error)
        tag = f'"{self._replica}-{self._register.changes}"'
        headers = {hdrs.CACHE_CONTROL: "no-store", hdrs.ETAG: tag, hdrs.CONTENT_TYPE: "application/json"}
        if request.headers.get(hdrs.IF_NONE_MATCH) == tag:
            return web.Response(status=304, headers=headers)
        members: dict[str, object] = {"replica": self._replica}
        if client in self._register.settings.operators:
            waiting = await in_steps(self._register.book.waiting(int(self._service.clock())))
            members["waiting"] = [one.id for one in waiting]
        response = web.StreamResponse(headers=headers)
        response.content_length, pieces = self._register.document(members)
        await response.prepare(request)
        for piece in pieces:  # of all orders at once, encryption alone would take 20 ms
            await response.write(piece)
        await response.write_eof()
        return response

    @property
    def replica(self) -> str:
        """The random name of this replica."""
        return self._replica

    def _refuse(self, error: SidecarError, client: SpiffeId | None) -> web.Response:
        self._service.log.event(
            "revocation.refused", decision="deny", reason=error.reason, peer=client, detail=error.detail or None
        )
        listed = client in self._register.settings.operators
        return _refusal(error, error.detail if listed else None)


def _refusal(error: SidecarError, detail: str | None = None) -> web.Response:
    status, members = build_error(error)
    status = error.answer.status if error.reason is Reason.ORDER_REFUSED else status
    if detail is not None:
        members["detail"] = detail
    response = web.Response(
        status=status,
        body=orjson.dumps(members),
        content_type="application/json",
        headers={hdrs.CACHE_CONTROL: "no-store", "Delegation-Reason": str(error.reason)},
    )
    if error.reason is Reason.CLIENT_NOT_AUTHENTICATED:
        response.force_close()
    return response
