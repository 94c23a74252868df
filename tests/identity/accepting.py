"""A listening socket with its handshakes, and clients that stop at any point."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from delegation_core.errors import Reason
from delegation_core.spiffe_id import SpiffeId
from sidecar.admission import ADMIT, WAIT
from sidecar.identity.acceptor import Acceptor
from sidecar.identity.handshake_queue import MOST_CONNECTIONS, HandshakeQueue
from sidecar.identity.tls import client_context, server_context
from sidecar_dev.pki import TrustDomainAuthority
from tests.fakes.own_identity import OwnIdentity
from tests.fakes.tokens import PLANNER, TRUST_DOMAIN, WRITER

PATIENCE_S = 5.0


class Hello(asyncio.Protocol):
    """Sends a greeting on every connection that is made."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.write(b"hello\n")


class Accepting:
    """A listening socket and its handshakes; ``admitted`` and ``refused`` record the addresses."""

    def __init__(
        self,
        *,
        tls: bool,
        most: int | None = None,
        room: int = MOST_CONNECTIONS,
        timeout_s: float = 60.0,
        closing_s: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.protocol: Callable[[], asyncio.Protocol] = Hello
        self.admitted: list[str] = []
        self.refused: list[tuple[Reason, str | None]] = []
        self.arrived = asyncio.Event()
        self.clients: list[socket.socket] = []
        authority = TrustDomainAuthority(TRUST_DOMAIN)
        context = server_context(
            OwnIdentity(authority, WRITER),
            on_refused=lambda reason, _detail, address: self.refused.append((reason, address)),
        )
        self.client = client_context(OwnIdentity(authority, SpiffeId(PLANNER)), expected=WRITER) if tls else None
        self.given_up: list[tuple[Reason, str]] = []
        self.handshakes = HandshakeQueue(
            context if tls else None,
            most=most,
            room=room,
            timeout_s=timeout_s,
            closing_s=closing_s,
            clock=clock,
            on_given_up=lambda reason, _detail, address: self.given_up.append((reason, address)),
        )
        self.acceptor = Acceptor(
            "127.0.0.1", 0, self.admit, before_accept=lambda: WAIT if self.handshakes.full else ADMIT
        )

    def admit(self, accepted: socket.socket, address: str) -> None:
        self.admitted.append(address)
        self.arrived.set()
        self.handshakes.start(accepted, address, self.protocol)

    def evict(self, host: str | None = None) -> bool:
        """Evict the first connection that may be evicted. Return True if there was one."""
        first = self.handshakes.first_to_evict(host)
        if first is not None:
            self.handshakes.evict(first)
        return first is not None

    async def greeting(self) -> bytes:
        """Return the answer to an honest client."""
        name = "sidecar" if self.client else None
        async with asyncio.timeout(PATIENCE_S):
            reader, writer = await asyncio.open_connection(
                *self.acceptor.address, ssl=self.client, server_hostname=name
            )
            said = await reader.readline()
            writer.transport.abort()
            return said

    async def shake_hands(self, client: socket.socket) -> None:
        """Run the TLS handshake of a client that reads no more after it."""
        assert self.client is not None
        loop, incoming, outgoing = asyncio.get_running_loop(), ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = self.client.wrap_bio(incoming, outgoing, server_hostname="sidecar")
        begun = False
        while not begun:
            try:
                tls.do_handshake()
                begun = True
            except ssl.SSLWantReadError:
                await loop.sock_sendall(client, outgoing.read())
                incoming.write(await loop.sock_recv(client, 65536))
        await loop.sock_sendall(client, outgoing.read())

    async def silent(self, host: str = "127.0.0.1") -> socket.socket:
        """Open a client that connects and sends nothing, once it was admitted."""
        client = socket.socket()
        client.bind((host, 0))
        client.setblocking(False)
        self.clients.append(client)
        self.arrived.clear()
        async with asyncio.timeout(PATIENCE_S):
            await asyncio.get_running_loop().sock_connect(client, self.acceptor.address)
            await self.arrived.wait()
        return client


def hello() -> bytes:
    """Return a whole ClientHello, of a client that sends no more."""
    outgoing = ssl.MemoryBIO()
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="sidecar")
    with contextlib.suppress(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


class Goodbye(asyncio.Protocol):
    """Closes each connection at once, and records when it was lost."""

    def __init__(self) -> None:
        self.lost = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.close()

    def connection_lost(self, _exc: Exception | None) -> None:
        self.lost.set()


@asynccontextmanager
async def accepting(*, tls: bool = True, **settings: Any) -> AsyncIterator[Accepting]:
    """Run a listener. ``settings``: of ``Accepting``."""
    running = Accepting(tls=tls, **settings)
    running.acceptor.open()
    try:
        yield running
    finally:
        running.acceptor.close()
        await running.handshakes.close()
        for client in running.clients:
            client.close()


async def wait_for_end(client: socket.socket) -> None:
    """Wait until the other end closes, in whatever way."""
    async with asyncio.timeout(PATIENCE_S):
        with contextlib.suppress(ConnectionError):
            while await asyncio.get_running_loop().sock_recv(client, 4096):
                pass
