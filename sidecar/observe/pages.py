"""Pages at fixed paths, for the probe listener and the admin socket.

Of a request only the method and the target count. A body is not read: if some of it is missing, the connection closes
after the answer.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final, NamedTuple

from delegation_core.errors import SidecarError
from sidecar.wire.stream import Stream

_log: Final = logging.getLogger("sidecar")

TEXT: Final = b"text/plain; charset=utf-8"
JSON: Final = b"application/json"


class Page(NamedTuple):
    """One answer."""

    body: bytes = b""
    status: int = 200
    content_type: bytes = TEXT


Make = Callable[[], Awaitable[Page]]


class Pages:
    """A ``RequestHandler`` that answers GET and HEAD with the page made by the path's function."""

    def __init__(self) -> None:
        self._made: dict[bytes, Make] = {}
        self._strict: set[bytes] = set()
        self._making: set[asyncio.Task[None]] = set()

    def add(self, path: str, make: Make, *, strict: bool = False) -> None:
        """Serve a path with the page that ``make`` returns. ``strict``: only GET, and no query."""
        self._made[path.encode("ascii")] = make
        if strict:
            self._strict.add(path.encode("ascii"))

    def on_request(self, stream: Stream) -> None:
        """Answer now, or when the page is made."""
        head = stream.head
        assert head is not None  # noqa: S101 - for the type only: the wire gives no request without a head
        stream.take_whole_body()
        path, question, _ = head.target.partition(b"?")
        make = self._made.get(path)
        strict = path in self._strict
        if make is None or (strict and question):
            _give(stream, Page(b"404: Not Found", 404))
        elif head.method != "GET" and (strict or head.method != "HEAD"):
            _give(stream, Page(b"405: Method Not Allowed", 405), (b"allow", b"GET" if strict else b"GET, HEAD"))
        else:
            making = asyncio.ensure_future(self._answer(stream, make))
            self._making.add(making)
            making.add_done_callback(self._making.discard)

    def on_refused(self, stream: Stream, error: SidecarError) -> None:
        """Refuse an unusable request."""
        if stream.gone:
            return
        if error.answer.status == 0:
            stream.abort()
        else:
            stream.answer(error.answer.status, (), b"", close=True)

    async def finish(self, timeout_s: float) -> None:
        """Wait up to ``timeout_s`` for pages in progress, then cancel them."""
        making = tuple(self._making)
        if making:
            await asyncio.wait(making, timeout=timeout_s)
        for one in making:
            one.cancel()

    async def _answer(self, stream: Stream, make: Make) -> None:
        try:
            page = await make()
        except Exception:  # noqa: BLE001 - a bug costs one request, and is visible
            _log.exception("answering a request for a page failed")
            page = Page(b"500: Internal Server Error", 500)
        _give(stream, page)


def _give(stream: Stream, page: Page, *more: tuple[bytes, bytes]) -> None:
    stream.answer(page.status, ((b"content-type", page.content_type), *more), page.body)
