"""The admin socket: status and chains for the operator alone, read-only.

A Unix socket of mode 0600: the kernel admits only the sidecar's own user and root. The agent runs as another user.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import orjson

from sidecar.observe.pages import JSON, Make, Page, Pages
from sidecar.proxy.listening import unix_socket
from sidecar.serving.page_site import PageSite

_MODE: Final = 0o600
_BACKLOG: Final = 8

Document = Callable[[], Awaitable[dict[str, Any]]]


class UnansweredError(Exception):
    """The document is not available now; the text says why."""


def admin_pages(status: Document, chains: Document) -> Pages:
    """Return the pages ``GET /status`` and ``GET /chains`` in JSON; 503 if a document raises ``UnansweredError``."""

    def answering(document: Document) -> Make:
        async def answer() -> Page:
            try:
                return Page(orjson.dumps(await document()), content_type=JSON)
            except UnansweredError as error:
                return Page(f"{error}\n".encode(), 503)

        return answer

    pages = Pages()
    pages.add("/status", answering(status))
    pages.add("/chains", answering(chains))
    return pages


class AdminSocket:
    """Serves pages on a socket until closed."""

    def __init__(self, pages: Pages, path: Path) -> None:
        self._path = path
        self._site = PageSite(pages, keep_alive_s=5.0)
        self._server: asyncio.AbstractServer | None = None
        self._ours: tuple[int, int] | None = None

    async def open(self) -> None:
        """Start to listen; replace a socket that a killed sidecar left behind.

        Raises:
            OSError: the path is no socket, another process listens there, or the directory is not writable.
        """
        listening = unix_socket.bind(self._path, mode=_MODE, what="the admin socket")
        self._ours = unix_socket.inode(self._path)
        try:
            loop = asyncio.get_running_loop()
            self._server = await loop.create_unix_server(self._site, sock=listening, backlog=_BACKLOG)
        except BaseException:
            listening.close()
            raise

    async def close(self) -> None:
        """Stop listening, and remove the socket unless another process has replaced it."""
        if self._server is not None:
            self._server.close()
        await self._site.close()
        unix_socket.remove(self._path, self._ours)
