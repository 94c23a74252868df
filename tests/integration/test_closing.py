"""The end of a connection over real TLS: a slow reader gets every byte; a peer that has everything is not awaited."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from delegation_core.errors import SidecarError
from delegation_core.spiffe_id import SpiffeId
from sidecar.identity.acceptor import Acceptor
from sidecar.identity.handshake_queue import HandshakeQueue
from sidecar.identity.tls import client_context, server_context
from sidecar.wire.connections import Connections
from sidecar.wire.h1_server import ServerConnection
from sidecar.wire.kernel import queued
from sidecar.wire.limits import ServerLimits
from sidecar.wire.stream import Stream
from sidecar_dev.pki import TrustDomainAuthority
from tests.fakes.own_identity import OwnIdentity
from tests.fakes.tokens import PLANNER, TRUST_DOMAIN, WRITER
from tests.integration.world import until
from tests.wire.bench import Clock, Handler
from tests.wire.written import passed

pytestmark = [pytest.mark.integration, pytest.mark.both_loops]

PATIENCE_S = 20.0
LAST = b"GET /a HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
PIECE = bytes(range(256)) * 256
PIECES = 128  # 8 MiB
WINDOW = 65536  # of the caller: its unread bytes stay on our side
STEP_S = 5.0


class Sender:
    """Answers with 8 MiB in pieces, at the peer's pace, like a pump."""

    def __init__(self, exchange: Stream) -> None:
        self._exchange = exchange
        self._left = PIECES
        exchange.sender = self
        exchange.send_head(*passed(200, PIECES * len(PIECE)))
        self.on_caller_resume()

    def on_caller_gone(self, error: SidecarError | None = None) -> None:
        pass

    def on_caller_pause(self) -> None:
        pass

    def on_caller_resume(self) -> None:
        while self._left and not self._exchange.writing_paused:
            self._left -= 1
            self._exchange.send_data(PIECE)
            self._exchange.flush()
        if not self._left and not self._exchange.ended:
            self._exchange.send_end()


def send_all(exchange: Stream) -> None:
    exchange.answer(200, [], PIECE * PIECES)


def send_little(exchange: Stream) -> None:
    exchange.answer(200, [], b"ok")


class Caller:
    """An mTLS peer that reads only on demand: not even our ``close_notify`` is answered.

    ``connections`` are ours, and see no time pass but what a test says.
    """

    def __init__(self, connections: Connections[ServerConnection], clock: Clock, context: ssl.SSLContext) -> None:
        self.connections = connections
        self.clock = clock
        self.socket = socket.socket()
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, WINDOW)
        self.socket.setblocking(False)
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname="sidecar")
        self._read = b""

    async def connect(self, address: tuple[str, int]) -> None:
        await asyncio.get_running_loop().sock_connect(self.socket, address)
        begun = False
        while not begun:
            try:
                self._tls.do_handshake()
                begun = True
            except ssl.SSLWantReadError:
                await self._flush()
                await self._receive()

    async def ask(self) -> None:
        self._tls.write(LAST)
        await self._flush()

    async def read(self, size: int) -> bytes:
        """Read exactly this much; less only at the end."""
        async with asyncio.timeout(PATIENCE_S):
            while len(self._read) < size:
                try:
                    data = self._tls.read(65536)
                except ssl.SSLWantReadError:
                    await self._receive()
                    continue
                if not data:
                    break
                self._read += data
        said, self._read = self._read[:size], self._read[size:]
        return said

    async def given_everything(self) -> None:
        """Wait until the caller's kernel has acknowledged everything; the caller reads none of it."""
        await until(lambda: any(one.transport.is_closing() and queued(one.transport) == 0 for one in self.connections))

    async def head(self) -> bytes:
        said = b""
        while not said.endswith(b"\r\n\r\n"):
            byte = await self.read(1)
            assert byte
            said += byte
        return said

    async def after(self, seconds: float) -> None:
        """Let time pass, so that each deadline is checked, and run the loop."""
        self.clock.now += seconds
        self.connections.sweep()
        for _ in range(5):
            await asyncio.sleep(0)

    async def _flush(self) -> None:
        await asyncio.get_running_loop().sock_sendall(self.socket, self._outgoing.read())

    async def _receive(self) -> None:
        data = await asyncio.get_running_loop().sock_recv(self.socket, 65536)
        if not data:
            self._incoming.write_eof()
        self._incoming.write(data)


@asynccontextmanager
async def called(handler: Handler) -> AsyncIterator[Caller]:
    """Return a caller that has sent its request."""
    clock = Clock()
    connections: Connections[ServerConnection] = Connections(interval_s=3600, clock=clock)
    authority = TrustDomainAuthority(TRUST_DOMAIN)
    handshakes = HandshakeQueue(server_context(OwnIdentity(authority, WRITER)), most=None, timeout_s=60.0)
    acceptor = Acceptor(
        "127.0.0.1",
        0,
        lambda accepted, address: handshakes.start(
            accepted, address, lambda: ServerConnection(handler, ServerLimits(), connections)
        ),
    )
    acceptor.open()
    caller = Caller(connections, clock, client_context(OwnIdentity(authority, SpiffeId(PLANNER)), expected=WRITER))
    try:
        async with asyncio.timeout(PATIENCE_S):
            await caller.connect(acceptor.address)
            await caller.ask()
        yield caller
    finally:
        caller.socket.close()
        acceptor.close()
        await handshakes.close()
        for connection in connections:
            connection.transport.abort()
        async with asyncio.timeout(PATIENCE_S):
            await connections.wait_for_empty()


@pytest.mark.parametrize("act", [Sender, send_all], ids=["in pieces", "in one write"])
async def test_a_slow_lawful_reader_gets_every_byte_of_a_last_answer(act: Callable[[Stream], None]) -> None:
    async with called(Handler(act)) as caller:
        await caller.head()
        for _ in range(PIECES):
            assert await caller.read(len(PIECE)) == PIECE
            await caller.after(STEP_S)
        assert await caller.read(1) == b""


@pytest.mark.parametrize("act", [Sender, send_all], ids=["in pieces", "in one write"])
async def test_who_stops_reading_a_last_answer_is_cut_when_its_time_is_over(
    act: Callable[[Stream], None],
) -> None:
    async with called(Handler(act)) as caller:
        await caller.head()
        for _ in range(5):
            await caller.after(STEP_S)
        assert len(caller.connections) == 1
        for _ in range(5):
            await caller.after(STEP_S)
        assert len(caller.connections) == 0


async def test_a_frozen_caller_that_has_been_given_everything_is_let_go() -> None:
    async with called(Handler(send_little)) as caller:
        await caller.given_everything()
        for _ in range(4):
            await caller.after(0.25)
        early = len(caller.connections)
        for _ in range(2):
            await caller.after(0.25)
        assert (early, len(caller.connections)) == (1, 0)
