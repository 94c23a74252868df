"""For aiohttp: ``client_middleware()`` for a ``ClientSession``, and ``server_middleware`` for an application."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from aiohttp import ClientHandlerType, ClientMiddlewareType, ClientRequest, ClientResponse, web

from delegation_agent.handles import HEADER, handle, serving, sole
from delegation_agent.outbound import Outbound


def client_middleware(*, outbound: str | None = None) -> ClientMiddlewareType:
    """Return a middleware for a session: it sends the handle with requests to the sidecar (aiohttp 3.12 or newer).

    A session runs it for each request of a redirect, with header fields of its own.
    """
    sidecar = Outbound(outbound)

    async def show(request: ClientRequest, send: ClientHandlerType) -> ClientResponse:
        to, held = request.proxy or request.url, handle()
        if held is not None and request.url.scheme == "http" and sidecar.is_at(to.scheme, to.host, to.port):
            request.headers.setdefault(HEADER, held)
        return await send(request)

    return show


@web.middleware
async def server_middleware(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Serve a request with its own handle, or with none."""
    with serving(sole(request.headers.getall(HEADER, []))):
        return await handler(request)
