"""Connections accepted by hand, on real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import socket
import ssl
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

import pytest

from sidecar.delegation.spiffe_id import SpiffeId
from sidecar.dev.pki import TrustDomainAuthority
from sidecar.errors import Reason
from sidecar.identity.acceptor import PAUSE_S, Acceptor
from sidecar.identity.handshakes import Handshakes
from sidecar.identity.tls import client_context, server_context
from tests.fakes.own_identity import OwnIdentity
from tests.fakes.tokens import PLANNER, TRUST_DOMAIN, WRITER

pytestmark = pytest.mark.integration

PATIENCE_S = 5.0
PATIENCE_OVER_S = 0.3  # with a handshake


class Hello(asyncio.Protocol):
    """Says hello to everybody whose connection is made."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.write(b"hello\n")


class Accepting:
    """A listening socket and its handshakes; ``admitted`` and ``refused`` keep the addresses."""

    def __init__(
        self, *, tls: bool, most: int | None = None, timeout_s: float = 60.0, closing_s: float | None = None
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
        self.handshakes = Handshakes(
            context if tls else None,
            most=most,
            timeout_s=timeout_s,
            closing_s=closing_s,
            on_given_up=lambda reason, _detail, address: self.given_up.append((reason, address)),
        )
        self.acceptor = Acceptor("127.0.0.1", 0, self.admit, is_full=lambda: self.handshakes.full)

    def admit(self, accepted: socket.socket, address: str) -> None:
        self.admitted.append(address)
        self.arrived.set()
        self.handshakes.start(accepted, address, self.protocol)

    async def greeting(self) -> bytes:
        """What a lawful client hears."""
        name = "sidecar" if self.client else None
        async with asyncio.timeout(PATIENCE_S):
            reader, writer = await asyncio.open_connection(
                *self.acceptor.address, ssl=self.client, server_hostname=name
            )
            said = await reader.readline()
            writer.transport.abort()
            return said

    async def shake_hands(self, client: socket.socket) -> None:
        """The TLS handshake of a client that reads no more after it."""
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

    async def silent(self) -> socket.socket:
        """A client that connects and says nothing, once it was admitted."""
        client = socket.socket()
        client.setblocking(False)
        self.clients.append(client)
        self.arrived.clear()
        async with asyncio.timeout(PATIENCE_S):
            await asyncio.get_running_loop().sock_connect(client, self.acceptor.address)
            await self.arrived.wait()
        return client


class Goodbye(asyncio.Protocol):
    """Closes each connection at once, and keeps when it was lost."""

    def __init__(self) -> None:
        self.lost = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.close()

    def connection_lost(self, _exc: Exception | None) -> None:
        self.lost.set()


@asynccontextmanager
async def accepting(
    *, tls: bool = True, most: int | None = None, timeout_s: float = 60.0, closing_s: float | None = None
) -> AsyncIterator[Accepting]:
    running = Accepting(tls=tls, most=most, timeout_s=timeout_s, closing_s=closing_s)
    running.acceptor.open()
    try:
        yield running
    finally:
        running.acceptor.close()
        await running.handshakes.close()
        for client in running.clients:
            client.close()


async def wait_for_end(client: socket.socket) -> None:
    """Until the other end hangs up, in whatever way."""
    async with asyncio.timeout(PATIENCE_S):
        with contextlib.suppress(ConnectionError):
            while await asyncio.get_running_loop().sock_recv(client, 4096):
                pass


@pytest.mark.parametrize("tls", [True, False], ids=["tls", "plain"])
async def test_a_connection_is_made_and_its_address_known(tls: bool) -> None:
    async with accepting(tls=tls) as running:
        assert await running.greeting() == b"hello\n"
        assert [address.rpartition(":")[0] for address in running.admitted] == ["127.0.0.1"]
        assert running.refused == []


async def test_a_refused_handshake_is_told_with_the_address_of_its_own_peer() -> None:
    async with accepting() as running:
        for _ in range(3):
            client = await running.silent()
            client.send(b"GET / HTTP/1.1\r\n\r\n")
            await wait_for_end(client)
            assert running.refused[-1] == (Reason.TLS_VERSION, "{}:{}".format(*client.getsockname()))
        assert len(running.refused) == 3


async def test_one_more_than_there_is_room_for_makes_the_oldest_give_up() -> None:
    async with accepting(most=2) as running:
        clients = [await running.silent() for _ in range(3)]
        await wait_for_end(clients[0])
        assert await running.greeting() == b"hello\n"
        await wait_for_end(clients[1])
        assert len(running.handshakes) == 1
        assert running.given_up == [
            (Reason.OVERLOADED, "{}:{}".format(*client.getsockname())) for client in clients[:2]
        ]


async def test_while_all_are_young_who_comes_waits_in_the_queue_and_is_served() -> None:
    async with accepting(most=1) as running:
        await running.silent()
        assert running.handshakes.full
        assert await running.greeting() == b"hello\n"
        assert not running.handshakes.full


async def test_who_was_silent_in_the_queue_already_is_as_old_as_its_connection() -> None:
    """A crowd that says nothing is known as one when it is accepted; who has spoken there has all the time."""
    async with accepting(most=2) as running:
        silent, speaking = (socket.create_connection(running.acceptor.address) for _ in range(2))
        running.clients += [silent, speaking]
        speaking.send(b"\x16\x03\x01")
        time.sleep(PATIENCE_OVER_S)  # noqa: ASYNC251 - the loop does not turn: nobody is accepted meanwhile
        while len(running.handshakes) < 2:  # noqa: ASYNC110 - there is no event
            await asyncio.sleep(0)
        assert not running.handshakes.full
        assert running.handshakes.make_room()
        assert not running.handshakes.full
        assert not running.handshakes.make_room()
        assert running.given_up == [(Reason.OVERLOADED, "{}:{}".format(*silent.getsockname()))]


async def test_the_oldest_of_one_host_makes_room_once_it_had_its_time() -> None:
    async with accepting() as running:
        clients = [await running.silent() for _ in range(2)]
        assert not running.handshakes.can_make_room()
        assert not running.handshakes.make_room_at("127.0.0.1")
        async with asyncio.timeout(PATIENCE_S):
            while not running.handshakes.can_make_room():  # noqa: ASYNC110 - there is no event
                await asyncio.sleep(0.005)
        assert not running.handshakes.make_room_at("127.0.0.2")
        assert running.handshakes.make_room_at("127.0.0.1")
        assert running.given_up == [(Reason.OVERLOADED, "{}:{}".format(*clients[0].getsockname()))]
        await wait_for_end(clients[0])


async def test_handshakes_are_counted_by_their_host() -> None:
    async with accepting() as running:
        await running.silent()
        await running.silent()
        assert (running.handshakes.of("127.0.0.1"), running.handshakes.of("127.0.0.2")) == (2, 0)
        assert 0.0 < running.handshakes.over(running.admitted[0]) < PATIENCE_S
        assert (running.handshakes.of("127.0.0.1"), len(running.handshakes)) == (1, 1)
        await running.handshakes.close()
        assert running.handshakes.of("127.0.0.1") == 0


async def test_a_silent_handshake_ends_in_time() -> None:
    async with accepting(timeout_s=0.05) as running:
        client = await running.silent()
        await wait_for_end(client)
        await running.handshakes.close()
        assert len(running.handshakes) == 0
        assert running.given_up == [(Reason.TIMEOUT, "{}:{}".format(*client.getsockname()))]


async def test_a_peer_that_does_not_say_goodbye_is_waited_for_as_long_as_was_said() -> None:
    async with accepting(closing_s=0.1) as running:
        goodbye = Goodbye()
        running.protocol = lambda: goodbye
        async with asyncio.timeout(PATIENCE_S):
            client = await running.silent()
            await running.shake_hands(client)
            await goodbye.lost.wait()


async def test_who_leaves_inside_a_handshake_was_not_given_up() -> None:
    async with accepting() as running:
        (await running.silent()).close()
        async with asyncio.timeout(PATIENCE_S):
            while len(running.handshakes):  # noqa: ASYNC110 - there is no event
                await asyncio.sleep(0.005)
        assert running.given_up == []


async def test_what_is_given_up_before_its_first_step_is_closed() -> None:
    handshakes = Handshakes(None, most=1, timeout_s=60.0)
    pairs = [socket.socketpair() for _ in range(2)]
    for ours, _ in pairs:
        ours.setblocking(False)
        handshakes.start(ours, "a:1", asyncio.Protocol)
    await handshakes.close()
    assert [ours.fileno() for ours, _ in pairs] == [-1, -1]
    for _, theirs in pairs:
        theirs.close()


async def test_a_closed_acceptor_takes_nobody_and_frees_its_address() -> None:
    async with accepting() as running:
        address = running.acceptor.address
        running.acceptor.close()
        running.acceptor.close()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(*address)
        with socket.create_server(address):
            pass


async def test_an_address_that_is_taken_is_told() -> None:
    async with accepting() as running:
        second = Acceptor(*running.acceptor.address, running.admit)
        with pytest.raises(OSError, match="in use"):
            second.open()


@contextmanager
def descriptors(limit: int | None = None) -> Iterator[None]:
    """At most so many; None: as many as may be."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (before[1] if limit is None else limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def next_descriptor() -> int:
    with socket.socket() as probe:
        return probe.fileno()


class Counting(Acceptor):
    """Counts how often there was nothing to accept with."""

    pauses = 0

    def _pause(self, error: OSError) -> None:
        self.pauses += 1
        super()._pause(error)


@asynccontextmanager
async def starved() -> AsyncIterator[tuple[Accepting, Counting, socket.socket]]:
    """An acceptor that has no descriptor for the client that waits; it has tried."""
    async with accepting(tls=False) as running:
        running.acceptor.close()
        running.acceptor = acceptor = Counting("127.0.0.1", 0, running.admit)
        acceptor.open()
        client = socket.socket()
        client.setblocking(False)
        running.clients.append(client)
        with descriptors(next_descriptor()):
            await asyncio.get_running_loop().sock_connect(client, acceptor.address)
            for _ in range(50):
                await asyncio.sleep(0)
            assert running.admitted == []
            yield running, acceptor, client


async def test_without_descriptors_it_pauses_and_goes_on_by_itself() -> None:
    async with starved() as (_, acceptor, client):
        assert acceptor.pauses == 1
        with descriptors():
            async with asyncio.timeout(PATIENCE_S):
                assert await asyncio.get_running_loop().sock_recv(client, 10) == b"hello\n"


async def test_an_acceptor_that_was_closed_while_it_paused_stays_closed() -> None:
    loop = asyncio.get_running_loop()
    bugs: list[object] = []
    loop.set_exception_handler(lambda _loop, context: bugs.append(context))
    over = asyncio.Event()
    async with starved() as (_, acceptor, _client):
        acceptor.close()
        loop.call_later(2 * PAUSE_S, over.set)
        await over.wait()
    assert bugs == []
