"""A server of streams, on a free port of loopback."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def listening(serve: Serve, **options: Any) -> AsyncIterator[int]:
    """Its port. What is being served ends with the block.

    The library's own keeps nobody who waits for what never comes: such a one may be collected as garbage at any time.
    """
    serving: dict[asyncio.Future[None], asyncio.StreamWriter] = {}

    def begin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        one: asyncio.Future[None] = asyncio.ensure_future(serve(reader, writer))
        serving[one] = writer
        one.add_done_callback(serving.pop)

    server = await asyncio.start_server(begin, "127.0.0.1", 0, **options)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for one, writer in tuple(serving.items()):
            writer.transport.abort()
            one.cancel()
        await asyncio.gather(*serving, return_exceptions=True)
        await server.wait_closed()
