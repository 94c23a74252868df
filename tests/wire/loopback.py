"""Raw ends on loopback: an upstream that does only what a test tells it, and a caller that speaks bytes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any

from delegation_core.errors import SidecarError
from sidecar.wire.connections import Connections
from sidecar.wire.dialer import Origin
from sidecar.wire.h1_server import ServerConnection
from sidecar.wire.limits import ClientLimits, ServerLimits
from sidecar.wire.message import Edits, Request, Response
from sidecar.wire.pool import UpstreamPool
from sidecar.wire.pump import Pump
from sidecar.wire.stream import Stream
from tests.wire.written import AS_THEY_ARE

WAIT_S = 5.0


class Raw:
    """One end of a connection, in bytes. Every wait has a deadline."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        async with asyncio.timeout(WAIT_S):
            await self.writer.drain()

    async def read_until(self, end: bytes) -> bytes:
        async with asyncio.timeout(WAIT_S):
            return await self.reader.readuntil(end)

    async def read_exactly(self, size: int) -> bytes:
        async with asyncio.timeout(WAIT_S):
            return await self.reader.readexactly(size)

    async def read_to_end(self) -> bytes:
        """Everything until the other end closes; ConnectionResetError if it resets."""
        async with asyncio.timeout(WAIT_S):
            return await self.reader.read()

    def reset(self) -> None:
        self.writer.transport.abort()

    async def close(self) -> None:
        if self.writer.transport.get_write_buffer_size():
            self.reset()
        self.writer.close()
        with suppress(OSError):
            await self.writer.wait_closed()


class Upstream:
    """Accepts connections and hands them to the test."""

    def __init__(self) -> None:
        self.port = 0
        self.count = 0
        self._accepted: asyncio.Queue[Raw] = asyncio.Queue()
        self._all: list[Raw] = []
        self._server: asyncio.Server | None = None

    async def listen(self, *, host: str = "127.0.0.1", port: int = 0, **options: Any) -> None:
        self._server = await asyncio.start_server(self._accept, host, port, **options)
        self.port = self._server.sockets[0].getsockname()[1]

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        raw = Raw(reader, writer)
        self.count += 1
        self._all.append(raw)
        self._accepted.put_nowait(raw)

    async def accept(self) -> Raw:
        async with asyncio.timeout(WAIT_S):
            return await self._accepted.get()

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        for _ in range(5):  # what was accepted just now still becomes a connection
            await asyncio.sleep(0)
        for raw in self._all:
            await raw.close()


class CountingTransport:
    """Passes everything on and counts writes."""

    def __init__(self, transport: Any, counts: dict[str, int], name: str) -> None:
        self._transport = transport
        self._counts = counts
        self._name = name

    def write(self, data: bytes) -> None:
        self._counts[self._name] = self._counts.get(self._name, 0) + 1
        self._transport.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class CountedConnection(ServerConnection):
    """A server connection that counts its reads and writes."""

    counts: dict[str, int]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(CountingTransport(transport, self.counts, "server writes"))  # type: ignore[arg-type]

    def data_received(self, data: bytes) -> None:
        self.counts["server reads"] = self.counts.get("server reads", 0) + 1
        super().data_received(data)


class Passing(Pump):
    """Forwards one request as it came."""

    def __init__(self, proxy: Proxy, exchange: Stream, head: Request) -> None:
        super().__init__(exchange, head, proxy.pool, proxy.origin, head.target, AS_THEY_ARE)
        self.proxy = proxy

    def rewrite(self, head: Response) -> Edits:
        return self.proxy.rewrite(head)

    def unfinished(self, head: Response) -> None:
        self.proxy.unfinished.append(head)

    def done(self, error: SidecarError | None) -> None:
        self.proxy.ends.put_nowait(error)
        if error is not None:
            self._stream.answer(error.answer.status or 400, [], str(error.reason).encode())


class Proxy:
    """A listener that forwards everything to one upstream through the pump, and remembers how each ended."""

    def __init__(self, origin: Origin, server: ServerLimits, client: ClientLimits) -> None:
        self.origin = origin
        self.limits = server
        self.pool = UpstreamPool(client)
        self.connections: Connections[ServerConnection] = Connections()
        self.counts: dict[str, int] = {}
        self.exchanges: list[Stream] = []
        self.pumps: list[Pump] = []
        self.ends: asyncio.Queue[SidecarError | None] = asyncio.Queue()
        self.rewrite: Callable[[Response], Edits] = lambda _: AS_THEY_ARE
        self.unfinished: list[Response] = []
        self.port = 0

    def on_request(self, exchange: Stream) -> None:
        head = exchange.head
        assert head is not None

        pump = Passing(self, exchange, head)
        self.exchanges.append(exchange)
        self.pumps.append(pump)
        pump.start()

    def on_refused(self, exchange: Stream, error: SidecarError) -> None:
        exchange.answer(error.answer.status or 400, [], str(error.reason).encode())

    def connect(self) -> ServerConnection:
        connection = CountedConnection(self, self.limits, self.connections)
        connection.counts = self.counts
        return connection

    async def end(self) -> SidecarError | None:
        """Return the end of the next request."""
        async with asyncio.timeout(WAIT_S):
            return await self.ends.get()

    async def close(self) -> None:
        for connection in self.connections:
            connection.transport.abort()
        async with asyncio.timeout(WAIT_S):
            await self.pool.close()
            await self.connections.wait_for_empty()

    async def call(self) -> Raw:
        """A new caller."""
        return Raw(*await asyncio.open_connection("127.0.0.1", self.port))


@asynccontextmanager
async def proxied(
    *, server: ServerLimits | None = None, client: ClientLimits | None = None
) -> AsyncIterator[tuple[Proxy, Upstream, Raw]]:
    """A proxy on loopback, its upstream, and one caller."""
    async with AsyncExitStack() as stack:
        upstream = Upstream()
        await upstream.listen()
        stack.push_async_callback(upstream.close)
        proxy = Proxy(Origin("127.0.0.1", upstream.port, key="b"), server or ServerLimits(), client or ClientLimits())
        stack.push_async_callback(proxy.close)
        listener = await asyncio.get_running_loop().create_server(proxy.connect, "127.0.0.1", 0)
        stack.callback(listener.close)
        proxy.port = listener.sockets[0].getsockname()[1]
        caller = await proxy.call()
        stack.push_async_callback(caller.close)
        yield proxy, upstream, caller
