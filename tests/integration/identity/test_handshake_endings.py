"""Every way in which a handshake ends, and what it leaves: never a traceback, and at most one refused connection.

The cells are who ends it, when and how. Each is tried at several iterations of the loop after its stage was reached:
a machine without CPU time reaches any of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

import pytest

from delegation_core.errors import Reason, SidecarError
from delegation_core.spiffe_id import SpiffeId
from sidecar.identity.handshake_queue import HandshakeQueue
from sidecar.identity.tls import client_context, server_context
from sidecar.observe.operations import report_loop_error
from sidecar.wire.dialer import Dialer, Origin
from sidecar.wire.resolver import Resolver
from sidecar_dev.pki import TrustDomainAuthority
from tests.fakes.own_identity import OwnIdentity
from tests.fakes.tokens import PLANNER, TRUST_DOMAIN, WRITER
from tests.identity.accepting import PATIENCE_S, Accepting, wait_for_end
from tests.identity.accepting import accepting as listening_for

pytestmark = [pytest.mark.integration, pytest.mark.both_loops]

ITERATIONS: Final = range(6)
STAGES: Final = ("silent", "part of a hello", "hello", "our certificate", "part of its certificate")
SEEN_BY_TLS: Final = STAGES[2:4]  # bytes that follow are records of their own


def resets(end: socket.socket) -> None:
    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    end.close()


def closes(end: socket.socket) -> None:
    end.close()


def half_closes(end: socket.socket) -> None:
    end.shutdown(socket.SHUT_WR)


def sends_garbage(end: socket.socket) -> None:
    end.send(b"\x17\x03\x03\x00\x05hello")


def sends_an_alert(end: socket.socket) -> None:
    end.send(b"\x15\x03\x03\x00\x02\x02\x28")


def waits(_end: socket.socket) -> None:
    """Do nothing."""


class Greets(asyncio.Protocol):
    """Sends a greeting; uvloop's transports of TLS are of no class that a test could ask for."""

    def connection_made(self, transport: Any) -> None:
        transport.write(b"hello\n")


@asynccontextmanager
async def accepting(**settings: Any) -> AsyncIterator[Accepting]:
    async with listening_for(**settings) as running:
        running.protocol = Greets
        yield running


End = Callable[[socket.socket], None]
LEAVES: Final[tuple[End, ...]] = (resets, closes, half_closes)
SENDS: Final[tuple[End, ...]] = (sends_garbage, sends_an_alert)

# (stage, what the peer does) → the refused connection that is counted; None: it left without a verdict of ours
BY_THE_PEER: Final[dict[tuple[str, End], Reason | None]] = {
    **{(stage, leave): None for stage in STAGES for leave in LEAVES},
    **{("silent", send): Reason.TLS_VERSION for send in SENDS},
    **{(stage, sends_garbage): Reason.TLS_VERSION for stage in SEEN_BY_TLS},
    **{(stage, sends_an_alert): None for stage in SEEN_BY_TLS},  # the peer refused us
}


@pytest.fixture
async def logged(caplog: pytest.LogCaptureFixture) -> AsyncIterator[None]:
    """Report as a process does. At the end no line may be above INFO, or have a traceback."""
    asyncio.get_running_loop().set_exception_handler(report_loop_error)
    with caplog.at_level(logging.INFO):
        yield
        gc.collect()  # an error that nobody retrieved is reported when it is collected
        await asyncio.sleep(0)
    lines = caplog.get_records("call") + caplog.get_records("teardown")
    assert [line for line in lines if line.levelno > logging.INFO or line.exc_info] == []


async def turn(iterations: int) -> None:
    for _ in range(iterations):
        await asyncio.sleep(0)


async def reached(running: Accepting, stage: str) -> socket.socket:
    """Return a client whose handshake has come as far as ``stage``."""
    assert running.client is not None
    loop, client = asyncio.get_running_loop(), await running.silent()
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = running.client.wrap_bio(incoming, outgoing, server_hostname="sidecar")
    with contextlib.suppress(ssl.SSLWantReadError):
        tls.do_handshake()
    said = outgoing.read()
    if stage != "silent":
        client.send(said[:100] if stage == "part of a hello" else said)
    async with asyncio.timeout(PATIENCE_S):
        while stage in STAGES[3:]:
            incoming.write(await loop.sock_recv(client, 65536))
            with contextlib.suppress(ssl.SSLWantReadError):
                tls.do_handshake()
                break
    if stage == STAGES[4]:
        said = outgoing.read()
        client.send(said[: len(said) // 2])
    return client


def counted(running: Accepting) -> list[Reason]:
    return [reason for reason, _ in running.refused + running.given_up]


async def ended(handshakes: HandshakeQueue) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while len(handshakes):  # noqa: ASYNC110 - there is no event
            await asyncio.sleep(0.001)


def test_no_ending_by_a_peer_is_left_out() -> None:
    """Bytes after a part of a message are the rest of it, and end nothing."""
    incomplete = {(stage, send) for stage in ("part of a hello", STAGES[4]) for send in SENDS}
    every = {(stage, end) for stage in STAGES for end in LEAVES + SENDS}
    assert BY_THE_PEER.keys() == every - incomplete


@pytest.mark.usefixtures("logged")
@pytest.mark.parametrize(
    ("stage", "end", "reason"),
    [(*cell, reason) for cell, reason in BY_THE_PEER.items()],
    ids=lambda one: getattr(one, "__name__", str(one)),
)
async def test_a_peer_ends_its_handshake(stage: str, end: End, reason: Reason | None) -> None:
    for iterations in ITERATIONS:
        async with accepting() as running:
            client = await reached(running, stage)
            await turn(iterations)
            with contextlib.suppress(ConnectionError):
                end(client)
            if client.fileno() >= 0:
                await wait_for_end(client)
            await ended(running.handshakes)
            assert counted(running) == ([] if reason is None else [reason])
            assert await running.greeting() == b"hello\n"


@pytest.mark.usefixtures("logged")
@pytest.mark.parametrize("end", [waits, *LEAVES, *SENDS])
@pytest.mark.parametrize("stage", STAGES[2:])
async def test_we_evict_a_handshake_whatever_its_peer_does_then(stage: str, end: End) -> None:
    for iterations in ITERATIONS:
        async with accepting() as running:
            client = await reached(running, stage)
            async with asyncio.timeout(PATIENCE_S):
                while not running.handshakes.running:  # noqa: ASYNC110 - there is no event
                    await asyncio.sleep(0)
            await turn(iterations)
            end(client)
            for arrival in tuple(running.handshakes._running.in_order):
                running.handshakes.evict(arrival)
            if client.fileno() >= 0:
                await wait_for_end(client)
            await ended(running.handshakes)
            refused = counted(running)
            if Reason.TLS_VERSION in refused:  # judged in an iteration before the eviction, or in the same
                refused.remove(Reason.TLS_VERSION)
            assert refused in ([], [Reason.OVERLOADED])


@pytest.mark.usefixtures("logged")
@pytest.mark.parametrize("end", [waits, *LEAVES, *SENDS])
@pytest.mark.parametrize("stage", STAGES)
async def test_a_drain_ends_a_handshake_whatever_its_peer_does_then(stage: str, end: End) -> None:
    for iterations in ITERATIONS:
        async with accepting() as running:
            client = await reached(running, stage)
            await turn(iterations)
            end(client)
            await running.handshakes.close()
            if client.fileno() >= 0:
                await wait_for_end(client)
            assert len(running.handshakes) == 0
            assert len(counted(running)) <= 1


@pytest.mark.usefixtures("logged")
@pytest.mark.parametrize("stage", STAGES)
async def test_a_handshake_takes_too_long(stage: str) -> None:
    async with accepting(timeout_s=0.1) as running:
        await wait_for_end(await reached(running, stage))
        await ended(running.handshakes)
        assert counted(running) == [Reason.TIMEOUT]


async def test_a_handshake_finds_no_memory(caplog: pytest.LogCaptureFixture) -> None:
    """The one ending that warns: it says what the operator has to change, in one line."""

    def without_memory() -> float:
        raise MemoryError

    asyncio.get_running_loop().set_exception_handler(report_loop_error)
    authority = TrustDomainAuthority(TRUST_DOMAIN)
    async with accepting() as running:
        running.handshakes._context = server_context(OwnIdentity(authority, WRITER), clock=without_memory)
        running.client = client_context(OwnIdentity(authority, SpiffeId(PLANNER)), expected=WRITER)
        client = await running.silent()
        with contextlib.suppress(ConnectionError):
            await running.shake_hands(client)
        await wait_for_end(client)
        await ended(running.handshakes)
        assert counted(running) == [Reason.OVERLOADED]
    assert [(line.levelname, line.exc_info) for line in caplog.records] == [("WARNING", None)]


# --- as a client


async def accepted_at_once(listening: socket.socket) -> socket.socket:
    """Accept a connection in the iteration in which the system has it: the client's loop has not heard of it yet."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            with contextlib.suppress(BlockingIOError):
                return listening.accept()[0]
            await asyncio.sleep(0)


@pytest.mark.usefixtures("logged")
@pytest.mark.parametrize("cancelled", [False, True])
@pytest.mark.parametrize("end", [*LEAVES, *SENDS])
async def test_an_upstream_ends_our_handshake(end: End, cancelled: bool) -> None:
    """Cancelled, as by the deadline for a connection: uvloop then leaves an error that nobody retrieves."""
    loop, authority = asyncio.get_running_loop(), TrustDomainAuthority(TRUST_DOMAIN)
    context = client_context(OwnIdentity(authority, SpiffeId(PLANNER)), expected=WRITER)
    for iterations in ITERATIONS:
        with socket.create_server(("127.0.0.1", 0)) as listening:
            listening.setblocking(False)
            origin = Origin("127.0.0.1", listening.getsockname()[1], None, tls=context, server_name="sidecar")
            dialing = loop.create_task(Dialer(Resolver(), timeout_s=PATIENCE_S).dial(origin, asyncio.Protocol))
            with await accepted_at_once(listening) as accepted:
                end(accepted)
                await turn(iterations)
                if cancelled:
                    dialing.cancel()
                with pytest.raises((asyncio.CancelledError, SidecarError) if cancelled else SidecarError):
                    await dialing
        del dialing
        await turn(3)
        gc.collect()
