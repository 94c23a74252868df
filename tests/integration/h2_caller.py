"""A caller that speaks HTTP/2 over a real socket: the library's client, and one task that reads."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager

from tests.integration.world import PATIENCE_S
from tests.wire.h2_bench import Answer, Fields, Peer


def asks(
    target: str = "/draft",
    *,
    method: str = "POST",
    host: str = "writer",
    scheme: str = "https",
    headers: Sequence[tuple[str, str]] = (),
) -> Fields:
    """Return the fields of a request."""
    pseudo = [(":method", method), (":scheme", scheme), (":path", target), (":authority", host)]
    return [(name.encode(), value.encode()) for name, value in (*pseudo, *headers)]


class H2Caller:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.peer = Peer()
        self.writer = writer
        self._reader = reader
        self._news = asyncio.Event()
        self._reading = asyncio.ensure_future(self._read())
        self.send()

    def send(self) -> None:
        """Write what the library has to write."""
        self.writer.write(self.peer.h2.data_to_send())

    async def _read(self) -> None:
        try:
            while data := await self._reader.read(65536):
                self.peer.take(data)
                self.send()
                self._tell()
        finally:
            self._tell()

    def _tell(self) -> None:
        self._news.set()
        self._news = asyncio.Event()

    def begin(self, fields: Iterable[tuple[bytes, bytes]], *, ends: bool = True) -> int:
        """Send the head of a request."""
        stream_id = self.peer.h2.get_next_available_stream_id()
        self.peer.h2.send_headers(stream_id, list(fields), end_stream=ends)
        self.send()
        return stream_id

    async def until(self, stream_id: int) -> Answer:
        """Return an answer once it has ended, in whatever way."""
        answer = self.peer.answer(stream_id)
        async with asyncio.timeout(PATIENCE_S):
            while not (answer.ended or answer.reset is not None):
                if self._reading.done():
                    raise ConnectionError("the other end closed")
                await self._news.wait()
        return answer

    async def until_goaway(self) -> None:
        """Return once the other end leaves."""
        async with asyncio.timeout(PATIENCE_S):
            while not self.peer.goaways:
                await self._news.wait()

    async def ask(self, fields: Iterable[tuple[bytes, bytes]], body: bytes | None = None) -> Answer:
        """Send a request and return its answer."""
        stream_id = self.begin(fields, ends=body is None)
        if body is not None:
            self.peer.h2.send_data(stream_id, body, end_stream=True)
            self.send()
        return await self.until(stream_id)

    async def close(self) -> None:
        self._reading.cancel()
        await asyncio.gather(self._reading, return_exceptions=True)
        self.writer.transport.abort()
        self.peer.h2._frame_dispatch_table.clear()  # the library's reference cycle
        del self.peer, self.writer, self._reader, self._reading


@asynccontextmanager
async def speaking_http2(port: int, context: ssl.SSLContext | None = None) -> AsyncIterator[H2Caller]:
    """Open a connection; over TLS, HTTP/2 has to be chosen by ALPN."""
    server_hostname = "sidecar" if context is not None else None
    async with asyncio.timeout(PATIENCE_S):
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname=server_hostname)
    if context is not None:
        chosen = writer.get_extra_info("ssl_object").selected_alpn_protocol()
        if chosen != "h2":
            writer.transport.abort()
            raise ConnectionError(f"the other end chose {chosen}")
    caller = H2Caller(reader, writer)
    try:
        yield caller
    finally:
        await caller.close()
