"""An upstream that speaks HTTP/2 by the library's server: it does what a test tells it, and keeps what it was asked."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from typing import Any

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, RequestReceived, StreamEnded, StreamReset, TrailersReceived

Fields = list[tuple[bytes, bytes]]
OK: Fields = [(b":status", b"200")]


class Asked:
    """One request that an upstream got, and the ways to answer it."""

    def __init__(self, link: Link, stream_id: int, fields: Fields) -> None:
        self.link = link
        self.stream_id = stream_id
        self.fields = dict(fields)
        self.body = b""
        self.ended = False
        self.reset: int | None = None

    def head(self, *fields: tuple[bytes, bytes], status: int = 200, ends: bool = False) -> None:
        self.link.h2.send_headers(self.stream_id, [(b":status", b"%d" % status), *fields], end_stream=ends)
        self.link.send()

    def data(self, data: bytes, *, ends: bool = False) -> None:
        self.link.h2.send_data(self.stream_id, data, end_stream=ends)
        self.link.send()

    def trailers(self, *fields: tuple[bytes, bytes]) -> None:
        self.link.h2.send_headers(self.stream_id, list(fields), end_stream=True)
        self.link.send()

    def answer(self, body: bytes, *fields: tuple[bytes, bytes]) -> None:
        """Answer whole, in one write."""
        self.link.h2.send_headers(self.stream_id, [*OK, *fields])
        self.link.h2.send_data(self.stream_id, body, end_stream=True)
        self.link.send()

    def refuse(self, code: int) -> None:
        self.link.h2.reset_stream(self.stream_id, code)
        self.link.send()


class Link:
    """One accepted connection."""

    def __init__(self, upstream: H2Upstream, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.upstream = upstream
        self.reader = reader
        self.writer = writer
        config = H2Configuration(
            client_side=False, header_encoding=None, validate_outbound_headers=False, normalize_outbound_headers=False
        )
        self.h2 = H2Connection(config)
        self.h2.initiate_connection()
        self.asked: dict[int, Asked] = {}

    def send(self) -> None:
        self.writer.write(self.h2.data_to_send())

    async def serve(self) -> None:
        self.send()
        while data := await self.reader.read(65536):
            for event in self.h2.receive_data(data):
                self._on(event)
            self.send()

    def _on(self, event: Any) -> None:
        if isinstance(event, RequestReceived):
            asked = self.asked[event.stream_id] = Asked(self, event.stream_id, list(event.headers))
            self.upstream.requests.append(asked)
            self.upstream.arrived.put_nowait(asked)
        elif isinstance(event, DataReceived):
            self.asked[event.stream_id].body += event.data
            if self.upstream.reads:
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, StreamEnded):
            asked = self.asked[event.stream_id]
            asked.ended = True
            if self.upstream.act is not None:
                self.upstream.act(asked)
        elif isinstance(event, StreamReset):
            self.asked[event.stream_id].reset = int(event.error_code)
        else:
            assert not isinstance(event, TrailersReceived)


class H2Upstream:
    """Accepts connections. ``act`` answers each whole request; without it the test does. ``reads``: windows open."""

    def __init__(self, act: Callable[[Asked], None] | None = None) -> None:
        self.act = act
        self.reads = True
        self.port = 0
        self.links: list[Link] = []
        self.requests: list[Asked] = []
        self.arrived: asyncio.Queue[Asked] = asyncio.Queue()
        self._server: asyncio.Server | None = None
        self._serving: set[asyncio.Task[None]] = set()

    async def listen(self, tls: ssl.SSLContext | None = None) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, ssl=tls)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = Link(self, reader, writer)
        self.links.append(link)
        try:
            await link.serve()
        except ConnectionError:
            pass
        finally:
            writer.close()

    async def next(self) -> Asked:
        """Return the next request whose head has come."""
        async with asyncio.timeout(5):
            return await self.arrived.get()

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        for link in self.links:
            link.writer.transport.abort()
        for _ in range(5):
            await asyncio.sleep(0)
