"""The acceptor on real sockets."""

from __future__ import annotations

import asyncio
import resource
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from itertools import pairwise

import pytest

from delegation_core.errors import Reason
from sidecar.identity.acceptor import ACCEPTS_PER_WAKE, PAUSE_S, Acceptor
from tests.identity.accepting import PATIENCE_S, Accepting, accepting, wait_for_end

pytestmark = pytest.mark.integration


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
            client.send(b"\x16\x03\x01\x00\x04\x01\x00\x00\x00")
            await wait_for_end(client)
            assert running.refused[-1] == (Reason.TLS_VERSION, "{}:{}".format(*client.getsockname()))
        assert len(running.refused) == 3


async def test_a_turn_of_the_loop_accepts_some_of_many() -> None:
    async with accepting(tls=False) as running:
        running.clients += [socket.create_connection(running.acceptor.address) for _ in range(3 * ACCEPTS_PER_WAKE)]
        counts = [0]
        async with asyncio.timeout(PATIENCE_S):
            while counts[-1] < len(running.clients):
                await asyncio.sleep(0)
                counts.append(len(running.admitted))
        assert max(now - before for before, now in pairwise(counts)) <= ACCEPTS_PER_WAKE


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
    """Allow at most this many descriptors; None: the hard limit."""
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
    """Counts attempts to accept without a descriptor."""

    pauses = 0

    def _pause(self, error: OSError) -> None:
        self.pauses += 1
        super()._pause(error)


@asynccontextmanager
async def starved() -> AsyncIterator[tuple[Accepting, Counting, socket.socket]]:
    """Return an acceptor without a descriptor for a waiting client; it has tried."""
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
