"""The admin socket: status and chains for the operator alone.

A Unix socket of mode 0600: the kernel lets only our own user (and root) connect, and the agent is another user. It is
read-only.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import orjson
from aiohttp import web

from sidecar.proxy import unix_socket

# The library's own log quotes input that it could not parse.
_SILENT: Final = logging.getLogger(f"{__name__}.silent")
_SILENT.disabled = True

_MODE: Final = 0o600
_BACKLOG: Final = 8

Document = Callable[[], Awaitable[dict[str, Any]]]


def admin_app(status: Document, chains: Document) -> web.Application:
    """``GET /status`` and ``GET /chains``, both JSON."""

    def answering(document: Document) -> Callable[[web.Request], Any]:
        async def answer(_request: web.Request) -> web.Response:
            return web.Response(body=orjson.dumps(await document()), content_type="application/json")

        return answer

    app = web.Application()
    app.router.add_get("/status", answering(status))
    app.router.add_get("/chains", answering(chains))
    return app


class AdminSocket:
    """Serves an admin application on a socket until closed."""

    def __init__(self, app: web.Application, path: Path) -> None:
        self._path = path
        self._runner = web.AppRunner(app, access_log=None, logger=_SILENT, keepalive_timeout=5.0, auto_decompress=False)
        self._server: asyncio.AbstractServer | None = None
        self._ours: tuple[int, int] | None = None

    async def open(self) -> None:
        """Start to listen. A socket that a killed sidecar left behind is replaced.

        Raises:
            OSError: something else is there, another process listens there, or the directory is not ours to write.
        """
        listening = unix_socket.bind(self._path, mode=_MODE, what="the admin socket")
        self._ours = unix_socket.inode(self._path)
        try:
            await self._runner.setup()
            server = self._runner.server
            assert server is not None  # noqa: S101 - setup() has made it
            self._server = await asyncio.get_running_loop().create_unix_server(server, sock=listening, backlog=_BACKLOG)
        except BaseException:
            listening.close()
            raise

    async def close(self) -> None:
        """Stop, and remove the socket if it is still ours."""
        if self._server is not None:
            self._server.close()
        await self._runner.cleanup()
        unix_socket.remove(self._path, self._ours)
