"""``sidecar status --web``: the operator's own process serves the live page on loopback while it runs.

Loopback is shared: any user and program of the network namespace can connect, and any page that a browser shows can
make it send requests there. So only the browser that opened the one-time link gets the page: the link sets an HttpOnly,
SameSite cookie and expires. Browsers send cookies to every port of a host, so the cookie is limited to an unguessable
path: other programs on loopback do not receive it. Every request must have our own address in ``Host``, which defeats
DNS rebinding. In the sidecar's network namespace, which its agent shares, the page is not served.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import secrets
import signal
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final, Protocol

from aiohttp import web

from delegation_audit.report.page import policy_of, style

_SILENT: Final = logging.getLogger(f"{__name__}.silent")  # the library's own log quotes requests
_SILENT.disabled = True
_COOKIE: Final = "sidecar-status"
_HOST: Final = "127.0.0.1"


class Page(Protocol):
    """Returns the current page."""

    def __call__(self, *, paused: bool) -> Awaitable[str]:
        """Return the page; a paused page does not reload itself."""


class SharedNamespaceError(Exception):
    """Serving the page here is unsafe. The message has the fix."""


def require_own_namespace(status: dict[str, Any], own: str | None) -> None:
    """Check that this process and the sidecar have different network namespaces.

    Raises:
        SharedNamespaceError: the namespaces are the same or unknown.
    """
    theirs = status.get("network_namespace")
    fix = "forward the socket and run the command elsewhere: ssh -N -L /tmp/admin.sock:SOCKET HOST"
    if own is None or theirs is None:
        raise SharedNamespaceError(f"it cannot be told if the agent shares this network namespace; {fix}")
    if own == theirs:
        raise SharedNamespaceError(f"the agent shares this network namespace and could reach the page; {fix}")


class _Protocol(web.RequestHandler):
    """aiohttp's protocol with its own answers replaced: they quote the request, and other sites may frame them."""

    __slots__ = ()

    def __init__(self, server: web.Server) -> None:
        super().__init__(server, loop=asyncio.get_running_loop(), access_log=_SILENT, logger=_SILENT)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer with our own text. Raises ConnectionError if another answer has begun, as the library's does."""
        super().handle_error(request, status, exc, message)
        text = "this request cannot be read" if status < 500 else "a bug: report it with what was asked"
        return _refusal(status, text)


class LiveServer:
    """Serves ``page`` to the browser that opens ``link`` first."""

    def __init__(self, page: Page) -> None:
        self._page = page
        self._ticket: str | None = secrets.token_urlsafe(32)
        self._cookie = secrets.token_urlsafe(32)
        self._path = f"/{secrets.token_urlsafe(16)}/"
        self._authority = ""
        self._runner: web.ServerRunner | None = None
        self._listener: asyncio.Server | None = None

    @property
    def link(self) -> str:
        """The one-time link."""
        return f"http://{self._authority}{self._path}?ticket={self._ticket}"

    async def open(self) -> None:
        """Listen on a port of the system's choice. Raises OSError."""
        server = web.Server(self._answer)
        runner = self._runner = web.ServerRunner(server)
        await runner.setup()
        self._listener = await asyncio.get_running_loop().create_server(partial(_Protocol, server), _HOST, 0)
        self._authority = "{}:{}".format(*self._listener.sockets[0].getsockname())

    async def close(self) -> None:
        """Stop."""
        if self._listener is not None:
            self._listener.close()
        if self._runner is not None:
            await self._runner.cleanup()

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.headers.getall("Host", []) != [self._authority]:
            return _refusal(421, "this address is not the one that the command printed")
        if request.method != "GET" or not _same(request.path, self._path):
            return _refusal(404, "there is one page here; open the link that the command printed")
        paused = "paused" in request.query
        if "ticket" in request.query:
            return self._admit(request.query["ticket"], paused=paused)
        if not _same(request.cookies.get(_COOKIE, ""), self._cookie):
            return _refusal(403, "open the link that the command printed; it works once")
        text = await self._page(paused=paused)
        return web.Response(text=text, content_type="text/html", headers=_headers())

    def _admit(self, ticket: str, *, paused: bool) -> web.Response:
        expected, self._ticket = self._ticket, None  # whatever was shown, there is no second attempt
        if expected is None or not _same(ticket, expected):
            return _refusal(403, "the link has been used; run the command again")
        location = f"{self._path}{'?paused' if paused else ''}"
        response = web.Response(status=303, headers={"Location": location, **_headers()})
        response.set_cookie(_COOKIE, self._cookie, httponly=True, samesite="Strict", path=self._path)
        return response


def _same(sent: str, expected: str) -> bool:
    """Compare in constant time. Bytes that are not UTF-8 arrive as lone surrogates and never match."""
    return hmac.compare_digest(sent.encode(errors="surrogatepass"), expected.encode())


def _refusal(status: int, text: str) -> web.Response:
    return web.Response(status=status, text=f"{text}\n", headers=_headers())


def _headers() -> dict[str, str]:
    return {
        "Content-Security-Policy": f"{policy_of(style())}; frame-ancestors 'none'",
        "Cache-Control": "no-store",
        "X-Content-Type-Options": "nosniff",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Referrer-Policy": "no-referrer",
    }


async def serve(page: Page, announce: Callable[[str], None]) -> None:
    """Serve until SIGINT or SIGTERM. ``announce`` is called with the link. Raises OSError."""
    server = LiveServer(page)
    await server.open()
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    try:
        announce(server.link)
        await stop.wait()
    finally:
        await server.close()
