"""ASGI middleware that keeps the handle of the request being served: FastAPI, Starlette, Django, MCP and A2A SDKs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

from delegation_agent.handles import HEADER, serving, sole

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_NAME: Final = HEADER.lower().encode()


class HandleMiddleware:
    """Serves each HTTP request and WebSocket with its own handle, or with none.

    Background tasks that a framework runs as part of the request, after its answer, still have the handle: the sidecar
    accepts it for the route's ``linger_s``.
    """

    def __init__(self, app: App) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection of ASGI."""
        if scope["type"] not in {"http", "websocket"}:
            await self.app(scope, receive, send)
            return
        shown = (value.decode("latin-1") for name, value in scope["headers"] if name.lower() == _NAME)
        with serving(sole(shown)):
            await self.app(scope, receive, send)
