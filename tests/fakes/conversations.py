"""A server of streams, on a free port of loopback."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def listening(serve: Serve, port: int = 0, **options: Any) -> AsyncIterator[int]:
    """Serve on ``port``, or on a free one, and yield it. All connections end with the block.

    The library's own server keeps no reference to them: a waiting one may be garbage-collected at any time.
    """
    serving: set[asyncio.Future[None]] = set()
    writers: weakref.WeakSet[asyncio.StreamWriter] = weakref.WeakSet()

    def begin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not server.is_serving():
            writer.transport.abort()
            return
        one: asyncio.Future[None] = asyncio.ensure_future(serve(reader, writer))
        serving.add(one)
        writers.add(writer)
        one.add_done_callback(serving.discard)

    server = await asyncio.start_server(begin, "127.0.0.1", port, **options)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for writer in tuple(writers):
            writer.transport.abort()
        for one in tuple(serving):
            one.cancel()
        await asyncio.gather(*serving, return_exceptions=True)
        await server.wait_closed()
