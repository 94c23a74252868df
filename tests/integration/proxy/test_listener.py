"""The listener on real sockets: admission, shedding, recovery, end."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import resource
import socket
import ssl
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from delegation_core.errors import Reason, SidecarError
from delegation_core.spiffe_id import SpiffeId
from sidecar.identity.peer_address import peer_address
from sidecar.identity.tls import client_context, server_context
from sidecar.observe.access_log import AccessLog
from sidecar.observe.metrics import Metrics
from sidecar.observe.refused_connections import RefusedConnections
from sidecar.proxy.listening.listener import Listener, ListenerSettings, ShedHandler
from sidecar.wire.limits import ServerLimits
from sidecar.wire.stream import RequestHandler, Stream
from sidecar_dev.pki import TrustDomainAuthority
from tests.fakes.own_identity import OwnIdentity
from tests.fakes.sink import FakeSink
from tests.fakes.tokens import TRUST_DOMAIN, WRITER
from tests.identity.accepting import hello
from tests.wire.written import passed

pytestmark = pytest.mark.integration

GET = b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n"
HELLO = hello()
PATIENCE_S = 5.0


def nobody_told(reason: Reason, detail: str, address: str) -> None:
    pytest.fail(f"{address} was turned away: {reason}, {detail}")


class Held:
    """Answers on demand; also a handler that answers at once."""

    def __init__(self, *, at_once: bool = True) -> None:
        self.at_once = at_once
        self.exchanges: list[Stream] = []
        self.stopped: list[Reason] = []
        self.arrived = asyncio.Event()

    def on_request(self, exchange: Stream) -> None:
        self.exchanges.append(exchange)
        exchange.owner = Stopped(self, exchange)
        self.arrived.set()
        if self.at_once:
            exchange.answer(200, [], b"ok")

    def on_refused(self, exchange: Stream, error: SidecarError) -> None:
        exchange.answer(error.answer.status, [], b"", close=True)


class Stopped:
    """Ends an exchange on demand, and records the reason."""

    def __init__(self, held: Held, exchange: Stream) -> None:
        self._held = held
        self._exchange = exchange

    def gone(self) -> None:
        pass

    def stop(self, error: SidecarError) -> None:
        self._held.stopped.append(error.reason)
        if self._exchange.status:
            self._exchange.abort()
        else:
            self._exchange.answer(error.answer.status, [], b"")


@pytest.fixture
def sink() -> FakeSink:
    return FakeSink()


class Client:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def ask(self, request: bytes = GET) -> bytes:
        """Return the answer's status line and fields; empty if the other end closes."""
        self.writer.write(request)
        return await self.head()

    async def head(self) -> bytes:
        try:
            async with asyncio.timeout(PATIENCE_S):
                head = await self.reader.readuntil(b"\r\n\r\n")
                length = int(head.split(b"content-length: ")[1].split(b"\r\n")[0])
                await self.reader.readexactly(length)
        except (asyncio.IncompleteReadError, ConnectionError):
            return b""
        return head

    async def is_hung_up_on(self) -> bool:
        async with asyncio.timeout(PATIENCE_S):
            try:
                return await self.reader.read(1) == b""
            except ConnectionError:
                return True

    def leave(self) -> None:
        self.writer.transport.abort()


CLIENTS: list[Client] = []


@pytest.fixture(autouse=True)
async def _nobody_stays() -> AsyncIterator[None]:
    yield
    while CLIENTS:
        writer = CLIENTS.pop().writer
        writer.transport.abort()
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            await writer.wait_closed()


@asynccontextmanager
async def listening(
    handler: Held,
    sink: FakeSink,
    *,
    context: ssl.SSLContext | None = None,
    shed: RequestHandler | None = None,
    **settings: Any,
) -> AsyncIterator[Listener]:
    log = AccessLog(sink, run="r", metrics=Metrics())
    listener = Listener(
        ListenerSettings(host="127.0.0.1", port=0, **settings),
        ServerLimits(),
        handler=handler,
        shed=shed or ShedHandler(log, "outbound"),
        refused_connections=RefusedConnections(log, "outbound"),
        context=context,
    )
    listener.open()
    try:
        yield listener
    finally:
        await listener.abort()
        await log.close()


async def connect(listener: Listener, context: ssl.SSLContext | None = None) -> Client:
    server_hostname = "sidecar" if context is not None else None
    reader, writer = await asyncio.open_connection(*listener.address, ssl=context, server_hostname=server_hostname)
    CLIENTS.append(Client(reader, writer))
    return CLIENTS[-1]


async def until_empty(listener: Listener) -> None:
    async with asyncio.timeout(PATIENCE_S):
        await listener.connections.wait_for_empty()


async def test_above_the_cap_callers_are_told_and_hung_up_on_until_somebody_leaves(sink: FakeSink) -> None:
    async with listening(Held(), sink, max_connections=2, idle_s=60.0) as listener:
        first, second = await connect(listener), await connect(listener)
        assert (await first.ask()).startswith(b"HTTP/1.1 200 ")
        assert (await second.ask()).startswith(b"HTTP/1.1 200 ")

        third = await connect(listener)
        told = await third.ask()
        assert told.startswith(b"HTTP/1.1 503 ")
        assert b"delegation-reason: overloaded" in told
        assert b"retry-after: 1" in told
        assert await third.is_hung_up_on()
        assert (await first.ask()).startswith(b"HTTP/1.1 200 ")

        for client in (first, second):
            client.leave()
        await until_empty(listener)
        assert (await (await connect(listener)).ask()).startswith(b"HTTP/1.1 200 ")
    (record,) = sink.wait_for_records(1)
    assert (record["decision"], record["reason"], record["status"]) == ("deny", "overloaded", 503)


async def test_at_the_cap_the_longest_idle_connection_makes_room_and_no_busy_one(sink: FakeSink) -> None:
    handler = Held(at_once=False)
    async with listening(handler, sink, max_connections=2, idle_s=0.0) as listener:
        busy = await connect(listener)
        busy.writer.write(GET)
        await asyncio.wait_for(handler.arrived.wait(), PATIENCE_S)
        handler.at_once = True
        idle = await connect(listener)
        assert (await idle.ask()).startswith(b"HTTP/1.1 200 ")
        third = await connect(listener)
        assert (await third.ask()).startswith(b"HTTP/1.1 200 ")
        assert await idle.is_hung_up_on()
        handler.exchanges[0].answer(200, [], b"late")
        assert (await busy.head()).startswith(b"HTTP/1.1 200 ")
    assert not sink.data


async def test_at_the_cap_a_connection_that_was_busy_just_now_stays(sink: FakeSink) -> None:
    async with listening(Held(), sink, max_connections=1, idle_s=60.0) as listener:
        first = await connect(listener)
        assert (await first.ask()).startswith(b"HTTP/1.1 200 ")
        assert (await (await connect(listener)).ask()).startswith(b"HTTP/1.1 503 ")
        assert (await first.ask()).startswith(b"HTTP/1.1 200 ")


async def _serve(listener: Listener, handler: Held, count: int) -> list[Client]:
    """Open this many connections, each with a request without an answer yet."""
    clients = []
    for number in range(len(handler.exchanges) + 1, len(handler.exchanges) + count + 1):
        clients.append(await connect(listener))
        clients[-1].writer.write(GET)
        async with asyncio.timeout(PATIENCE_S):
            while len(handler.exchanges) < number:  # noqa: ASYNC110 - there is no event
                await asyncio.sleep(0.005)
    return clients


async def test_while_memory_is_short_there_are_no_more_than_there_were_and_then_as_many_as_ever(sink: FakeSink) -> None:
    handler = Held(at_once=False)
    async with listening(handler, sink, max_connections=20) as listener:
        served = await _serve(listener, handler, 10)
        listener.tighten(at_once=False)
        told = await (await connect(listener)).ask()
        assert told.startswith(b"HTTP/1.1 503 ")
        assert b"delegation-reason: overloaded" in told
        served[0].leave()
        async with asyncio.timeout(PATIENCE_S):
            while len(listener.connections) > 9:  # noqa: ASYNC110 - there is no event
                await asyncio.sleep(0.005)
        listener.tighten(at_once=False)
        assert (await (await connect(listener)).ask()).startswith(b"HTTP/1.1 503 ")  # no connection took the place
        assert listener.max_connections == 20
        listener.relax()
        handler.at_once = True
        assert (await (await connect(listener)).ask()).startswith(b"HTTP/1.1 200 ")
        for exchange in handler.exchanges[:10]:
            exchange.answer(200, [], b"late")
        assert (await served[1].head()).startswith(b"HTTP/1.1 200 ")  # the request in progress was not disturbed


async def test_however_short_memory_is_some_are_served(sink: FakeSink) -> None:
    handler = Held(at_once=False)
    async with listening(handler, sink, max_connections=20) as listener:
        listener.tighten(at_once=True)
        await _serve(listener, handler, 8)
        handler.at_once = True
        assert (await (await connect(listener)).ask()).startswith(b"HTTP/1.1 503 ")
        for exchange in handler.exchanges[:8]:
            exchange.answer(200, [], b"ok", close=True)
        await until_empty(listener)
        listener.tighten(at_once=True)
        assert (await (await connect(listener)).ask()).startswith(b"HTTP/1.1 200 ")


async def test_while_memory_is_short_idle_connections_go_at_once_and_nobody_has_to_ask(sink: FakeSink) -> None:
    async with listening(Held(), sink, max_connections=20, idle_s=0.0) as listener:
        idle = await connect(listener)
        assert (await idle.ask()).startswith(b"HTTP/1.1 200 ")
        listener.tighten(at_once=False)
        assert await idle.is_hung_up_on()


async def test_while_memory_is_nearly_short_nobody_goes_and_hands_are_shaken_with_a_few_at_a_time(
    sink: FakeSink, authority: TrustDomainAuthority
) -> None:
    server, caller = tls(authority)
    async with listening(Held(), sink, context=server, max_connections=100, idle_s=0.0) as listener:
        kept = await connect(listener, caller)
        assert (await kept.ask()).startswith(b"HTTP/1.1 200 ")
        listener.brace()
        for _ in range(12):
            (await connect(listener)).writer.write(HELLO)
        async with asyncio.timeout(PATIENCE_S):
            while len(listener._handshakes) < 12:  # noqa: ASYNC110 - there is no event
                await asyncio.sleep(0.005)
        assert listener._handshakes.running == 8
        assert (await kept.ask()).startswith(b"HTTP/1.1 200 ")
        assert (await (await connect(listener, caller)).ask()).startswith(b"HTTP/1.1 200 ")
        listener.relax()
        for _ in range(12):
            (await connect(listener)).writer.write(HELLO)
        async with asyncio.timeout(PATIENCE_S):
            while listener._handshakes.running < 12:  # noqa: ASYNC110 - there is no event
                await asyncio.sleep(0.005)


async def test_what_is_no_request_above_the_cap_is_refused_as_ever(sink: FakeSink) -> None:
    async with listening(Held(), sink, max_connections=1, idle_s=60.0) as listener:
        await (await connect(listener)).ask()
        assert (await (await connect(listener)).ask(b"GET  / HTTP/1.1\r\n\r\n")).startswith(b"HTTP/1.1 400 ")
    (record,) = sink.wait_for_records(1)
    assert record["reason"] == "bad_request"


async def test_far_above_the_cap_connections_are_closed(sink: FakeSink) -> None:
    async with listening(Held(), sink, max_connections=1, idle_s=60.0) as listener:
        assert (await (await connect(listener)).ask()).startswith(b"HTTP/1.1 200 ")
        crowd = [await connect(listener) for _ in range(16)]
        assert (await crowd[-1].ask()).startswith(b"HTTP/1.1 503 ")

    busy, shed = Held(at_once=False), Held(at_once=False)
    async with listening(busy, sink, shed=shed, max_connections=1) as listener:
        for number in range(1 + 16):
            (await connect(listener)).writer.write(GET)
            async with asyncio.timeout(PATIENCE_S):
                while len(busy.exchanges) + len(shed.exchanges) <= number:  # noqa: ASYNC110 - there is no event
                    await asyncio.sleep(0.005)
        assert (len(busy.exchanges), len(shed.exchanges)) == (1, 16)
        assert await (await connect(listener)).is_hung_up_on()
        for exchange in busy.exchanges + shed.exchanges:
            exchange.answer(200, [], b"ok")
    (event,) = [one for one in map(json.loads, sink.data.splitlines()) if one["event"] == "connection.refused"]
    assert (event["reason"], event["detail"]) == ("overloaded", "there are too many connections")


# --- handshakes


@pytest.fixture(scope="module")
def authority() -> TrustDomainAuthority:
    return TrustDomainAuthority(TRUST_DOMAIN)


def tls(authority: TrustDomainAuthority) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    caller = OwnIdentity(authority, SpiffeId("spiffe://acme.example/agent/planner"))
    return server_context(OwnIdentity(authority, WRITER)), client_context(caller, expected=WRITER)


async def test_a_silent_handshake_ends(sink: FakeSink, authority: TrustDomainAuthority) -> None:
    server, caller = tls(authority)
    async with listening(Held(), sink, context=server, handshake_timeout_s=0.3) as listener:
        silent = await connect(listener)
        assert await silent.is_hung_up_on()
        assert (await (await connect(listener, caller)).ask()).startswith(b"HTTP/1.1 200 ")
    (event,) = sink.wait_for_records(1)
    assert (event["event"], event["reason"]) == ("connection.refused", "timeout")
    assert event["source"] == "{}:{}".format(*silent.writer.get_extra_info("sockname"))


async def test_one_peer_has_so_many_connections_and_is_told_above_that(
    sink: FakeSink, authority: TrustDomainAuthority
) -> None:
    server, caller = tls(authority)
    handler = Held(at_once=False)
    async with listening(handler, sink, context=server, max_per_peer=2) as listener:
        held = [await connect(listener, caller) for _ in range(2)]
        for number, one in enumerate(held, 1):
            one.writer.write(GET)
            async with asyncio.timeout(PATIENCE_S):
                while len(handler.exchanges) < number:  # noqa: ASYNC110 - there is no event
                    await asyncio.sleep(0.005)
        third = await connect(listener, caller)
        told = await third.ask()
        assert told.startswith(b"HTTP/1.1 503 ")
        assert b"delegation-reason: overloaded" in told
        assert await third.is_hung_up_on()
        other = client_context(OwnIdentity(authority, SpiffeId("spiffe://acme.example/agent/other")), expected=WRITER)
        handler.at_once = True
        assert (await (await connect(listener, other)).ask()).startswith(b"HTTP/1.1 200 ")
        handler.exchanges[0].answer(200, [], b"ok")
        held[0].leave()
        async with asyncio.timeout(PATIENCE_S):
            while not (await (await connect(listener, caller)).ask()).startswith(b"HTTP/1.1 200 "):
                pass
    (record,) = [one for one in sink.wait_for_records(1) if one["event"] == "request"][:1]
    assert (record["reason"], record["status"]) == ("overloaded", 503)


async def test_one_address_has_so_many_connections_and_the_next_of_the_same_peer_is_told_so(
    sink: FakeSink, authority: TrustDomainAuthority
) -> None:
    server, caller = tls(authority)
    async with listening(Held(), sink, context=server, max_per_address=2, idle_s=60) as listener:
        kept = [await connect(listener, caller) for _ in range(2)]
        for one in kept:
            assert (await one.ask()).startswith(b"HTTP/1.1 200 ")
        third = await connect(listener, caller)
        assert (await third.ask()).startswith(b"HTTP/1.1 503 ")
        assert await third.is_hung_up_on()
        kept[0].leave()
        async with asyncio.timeout(PATIENCE_S):
            while listener.connections.of("127.0.0.1") > 1:  # noqa: ASYNC110 - there is no event
                await asyncio.sleep(0.005)
        assert (await (await connect(listener, caller)).ask()).startswith(b"HTTP/1.1 200 ")
    (record,) = sink.wait_for_records(1)
    assert (record["event"], record["reason"], record["status"]) == ("request", "overloaded", 503)


async def test_a_flood_of_one_peer_does_not_lock_out_another_one_of_its_address(
    sink: FakeSink, authority: TrustDomainAuthority
) -> None:
    server, flooding = tls(authority)
    lawful = client_context(OwnIdentity(authority, SpiffeId("spiffe://acme.example/agent/other")), expected=WRITER)
    handler = Held(at_once=False)
    async with listening(handler, sink, context=server, max_per_address=3, idle_s=60) as listener:
        flood = [await connect(listener, flooding) for _ in range(3)]
        for one in flood:
            one.writer.write(GET)  # each is served, so that none may be evicted
        async with asyncio.timeout(PATIENCE_S):
            while len(handler.exchanges) < len(flood):  # noqa: ASYNC110 - there is no event
                await asyncio.sleep(0)
        handler.at_once = True
        for _ in range(5):
            assert (await (await connect(listener, flooding)).ask()).startswith(b"HTTP/1.1 503 ")
            one = await connect(listener, lawful)
            assert (await one.ask()).startswith(b"HTTP/1.1 200 ")
            one.leave()
        for exchange in handler.exchanges[: len(flood)]:
            exchange.answer(200, [], b"ok")
        for one in flood:
            assert (await one.head()).startswith(b"HTTP/1.1 200 ")


async def test_at_its_limit_an_address_trades_its_own_slow_connection_for_the_new_one(
    sink: FakeSink, authority: TrustDomainAuthority
) -> None:
    server, caller = tls(authority)
    async with listening(Held(), sink, context=server, max_per_address=2) as listener:
        slow = await connect(listener, caller)
        slow.writer.write(GET[:-2])
        kept = await connect(listener, caller)
        assert (await kept.ask()).startswith(b"HTTP/1.1 200 ")
        async with asyncio.timeout(PATIENCE_S):
            while not await _asked(listener, caller):
                pass
        await slow.head()
        assert await slow.is_hung_up_on()


@pytest.mark.parametrize("limits", [(2, 2), (4, 2)], ids=["in all", "of one address"])
async def test_where_all_others_are_served_a_silent_handshake_makes_room(
    sink: FakeSink, authority: TrustDomainAuthority, limits: tuple[int, int]
) -> None:
    server, caller = tls(authority)
    handler = Held(at_once=False)
    settings = {"max_connections": limits[0], "max_per_address": limits[1], "max_per_peer": 2}
    async with listening(handler, sink, context=server, shed=None, **settings) as listener:
        busy = await connect(listener, caller)
        busy.writer.write(GET)
        await handler.arrived.wait()
        silent = await connect(listener)
        handler.at_once = True
        assert (await (await connect(listener, caller)).ask()).startswith(b"HTTP/1.1 200 ")
        assert await silent.is_hung_up_on()
        handler.exchanges[0].answer(200, [], b"ok")
        assert (await busy.head()).startswith(b"HTTP/1.1 200 ")


async def test_at_its_limit_an_address_waits_for_a_connection_of_its_own_that_may_be_needed_no_more(
    sink: FakeSink, authority: TrustDomainAuthority
) -> None:
    server, caller = tls(authority)
    async with listening(Held(), sink, context=server, max_per_address=1, idle_s=0.3) as listener:
        kept = await connect(listener, caller)
        assert (await kept.ask()).startswith(b"HTTP/1.1 200 ")
        assert (await (await connect(listener, caller)).ask()).startswith(b"HTTP/1.1 200 ")
        assert await kept.is_hung_up_on()


async def test_silent_handshakes_lock_nobody_out_the_oldest_make_room(
    sink: FakeSink, authority: TrustDomainAuthority
) -> None:
    server, caller = tls(authority)
    async with listening(Held(), sink, context=server, max_connections=8, handshake_timeout_s=60) as listener:
        silent = [await connect(listener)]
        for _ in range(3):  # ended ones take no place
            assert (await (await connect(listener, caller)).ask()).startswith(b"HTTP/1.1 200 ")
        await _stays(silent[0])
        silent += [await connect(listener) for _ in range(4)]
        assert await silent[0].is_hung_up_on()
        assert (await (await connect(listener, caller)).ask()).startswith(b"HTTP/1.1 200 ")
        assert await silent[1].is_hung_up_on()
        await _stays(silent[4])


@pytest.mark.parametrize(
    "said", [b"", b"\x16", hello()[:-1], hello()], ids=["nothing", "a byte", "a part", "all of it"]
)
async def test_a_crowd_that_says_so_much_of_a_client_hello_keeps_nobody_out(
    sink: FakeSink, authority: TrustDomainAuthority, said: bytes
) -> None:
    server, caller = tls(authority)
    async with listening(Held(), sink, context=server, max_handshakes=2, handshake_timeout_s=60) as listener:
        for _ in range(8):
            (await connect(listener)).writer.write(said)
        assert (await (await connect(listener, caller)).ask()).startswith(b"HTTP/1.1 200 ")


async def _asked(listener: Listener, caller: ssl.SSLContext) -> bool:
    """Tell if an ordinary request is served; a closed connection counts as no."""
    try:
        return (await (await connect(listener, caller)).ask()).startswith(b"HTTP/1.1 200 ")
    except (ConnectionError, ssl.SSLError):
        return False


async def _stays(client: Client) -> None:
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(client.reader.read(), 0.1)


async def test_each_of_a_crowd_that_comes_at_once_makes_room_for_one(
    sink: FakeSink, authority: TrustDomainAuthority
) -> None:
    server, _ = tls(authority)
    async with listening(Held(), sink, context=server, max_connections=4, handshake_timeout_s=60) as listener:
        crowd = [socket.create_connection(listener.address) for _ in range(6)]  # the loop does not run meanwhile
        clients = [await asyncio.open_connection(sock=one) for one in crowd]
        for reader, _ in clients[:4]:
            with contextlib.suppress(ConnectionError):
                assert await asyncio.wait_for(reader.read(), PATIENCE_S) == b""
        for reader, writer in clients[4:]:
            await _stays(Client(reader, writer))
        for _, writer in clients:
            writer.transport.abort()


async def test_silent_handshakes_take_half_of_the_connections_at_most(
    sink: FakeSink, authority: TrustDomainAuthority
) -> None:
    server, caller = tls(authority)
    async with listening(Held(), sink, context=server, max_connections=4, handshake_timeout_s=60) as listener:
        for _ in range(30):
            await connect(listener)
        assert (await (await connect(listener, caller)).ask()).startswith(b"HTTP/1.1 200 ")


async def test_a_crowd_without_tls_is_served_whole(sink: FakeSink) -> None:
    async with listening(Held(), sink, max_handshakes=1) as listener:
        crowd = await asyncio.gather(*(connect(listener) for _ in range(10)))
        assert all([(await client.ask()).startswith(b"HTTP/1.1 200 ") for client in crowd])


async def test_a_refused_handshake_is_told_with_the_callers_address(
    sink: FakeSink, authority: TrustDomainAuthority
) -> None:
    refused: list[tuple[Reason, str | None]] = []
    context = server_context(
        OwnIdentity(authority, WRITER), on_refused=lambda reason, _detail, address: refused.append((reason, address))
    )
    nobody = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    nobody.check_hostname = False
    nobody.verify_mode = ssl.CERT_NONE
    async with listening(Held(), sink, context=context) as listener:
        client = await connect(listener, nobody)
        address = "{}:{}".format(*client.writer.get_extra_info("sockname"))
        assert await client.is_hung_up_on()
    assert refused == [(Reason.NO_CLIENT_CERT, address)]
    assert peer_address.get() is None


# --- descriptors


@contextmanager
def no_descriptor_left() -> Iterator[None]:
    """Use up all descriptors."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.dup(0)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@contextmanager
def counted(name: str) -> Iterator[list[object]]:
    """Count the calls of a built-in method of this name, by the interpreter's profiling hook."""
    calls: list[object] = []

    def hook(_frame: FrameType, event: str, argument: Any) -> None:
        if event == "c_call" and argument.__name__ == name:
            calls.append(argument.__self__)

    sys.setprofile(hook)
    try:
        yield calls
    finally:
        sys.setprofile(None)


async def test_without_descriptors_it_waits_instead_of_spinning_and_then_serves(sink: FakeSink) -> None:
    async with listening(Held(), sink) as listener:
        with socket.create_connection(listener.address) as waiting:
            waiting.setblocking(False)
            waiting.send(GET)
            with no_descriptor_left(), counted("_accept") as tries:
                await asyncio.sleep(0.25)
                assert len(listener.connections) == 0
            assert 1 <= len(tries) <= 4
            async with asyncio.timeout(PATIENCE_S):
                assert (await asyncio.get_running_loop().sock_recv(waiting, 65536)).startswith(b"HTTP/1.1 200 ")


async def test_the_cap_follows_what_the_process_may_open(sink: FakeSink) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))  # 16 in reserve, a quarter of the rest
    try:
        async with listening(Held(), sink, idle_s=60) as listener:
            for _ in range(12):
                assert (await (await connect(listener)).ask()).startswith(b"HTTP/1.1 200 ")
            assert (await (await connect(listener)).ask()).startswith(b"HTTP/1.1 503 ")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


# --- the end


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_an_address_that_is_taken_is_an_error_and_leaks_nothing(sink: FakeSink) -> None:
    async with listening(Held(), sink) as listener:
        opened = descriptors()
        second = Listener(
            ListenerSettings(host="127.0.0.1", port=listener.address[1]),
            ServerLimits(),
            handler=Held(),
            shed=Held(),
            refused_connections=nobody_told,
            context=None,
        )
        with pytest.raises(OSError, match=r"[Aa]ddress"):
            second.open()
        assert descriptors() == opened
        assert second.address == listener.address


async def test_closed_it_accepts_nobody_and_keeps_whom_it_has(sink: FakeSink) -> None:
    async with listening(Held(), sink) as listener:
        kept = await connect(listener)
        await kept.ask()
        address = listener.address
        listener.close()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(*address)
        assert (await kept.ask()).startswith(b"HTTP/1.1 200 ")


async def test_draining_ends_idle_connections_and_waits_for_the_others(sink: FakeSink) -> None:
    handler = Held()
    async with listening(handler, sink) as listener:
        idle, busy = await connect(listener), await connect(listener)
        await idle.ask()
        handler.at_once = False
        handler.arrived.clear()
        busy.writer.write(GET)
        await handler.arrived.wait()
        draining = asyncio.ensure_future(listener.drain(PATIENCE_S))
        assert await idle.is_hung_up_on()
        assert not draining.done()
        handler.exchanges[-1].answer(200, [], b"ok")
        assert b"connection: close" in await busy.head()
        assert await draining is True


async def test_with_no_time_left_only_a_request_fails_the_drain(sink: FakeSink) -> None:
    async with listening(Held(), sink) as listener:
        idle, asking = await connect(listener), await connect(listener)
        await idle.ask()
        asking.writer.write(GET[:-2])
        async with asyncio.timeout(PATIENCE_S):
            while not any(connection.receiving for connection in listener.connections):  # noqa: ASYNC110
                await asyncio.sleep(0)
        assert await listener.drain(0.0) is False
        assert await idle.is_hung_up_on()
        asking.writer.write(GET[-2:])
        assert b"connection: close" in await asking.head()
        assert await listener.drain(0.0) is True


async def test_a_request_on_an_idle_connection_is_still_served_and_told_that_it_is_the_last(sink: FakeSink) -> None:
    async with listening(Held(), sink) as listener:
        kept = await connect(listener)
        assert b"connection: close" not in await kept.ask()
        draining = asyncio.ensure_future(listener.drain(PATIENCE_S))
        await asyncio.sleep(0)
        assert b"connection: close" in await kept.ask()
        assert await kept.is_hung_up_on()
        assert await draining is True


async def test_who_has_connected_but_was_not_yet_accepted_is_served(sink: FakeSink) -> None:
    async with listening(Held(), sink) as listener:
        client = socket.create_connection(listener.address)  # the loop does not run: nothing accepts it
        client.sendall(GET)
        draining = asyncio.ensure_future(listener.drain(PATIENCE_S))
        client.setblocking(False)
        reader, writer = await asyncio.open_connection(sock=client)
        CLIENTS.append(Client(reader, writer))
        assert b"connection: close" in await CLIENTS[-1].head()
        assert await draining is True


async def test_a_silent_handshake_does_not_hold_up_the_drain(sink: FakeSink, authority: TrustDomainAuthority) -> None:
    server, _ = tls(authority)
    async with listening(Held(), sink, context=server) as listener:
        await connect(listener)
        async with asyncio.timeout(PATIENCE_S):
            while not listener._handshakes:  # noqa: ASYNC110 - there is no event
                await asyncio.sleep(0.005)
        async with asyncio.timeout(PATIENCE_S):  # the handshake alone could last 60 s
            assert await listener.drain(60.0) is True


async def test_who_shakes_hands_while_it_drains_is_served_once(sink: FakeSink, authority: TrustDomainAuthority) -> None:
    server, caller = tls(authority)
    handler = Held(at_once=False)
    async with listening(handler, sink, context=server) as listener:
        busy = await connect(listener, caller)
        busy.writer.write(GET)
        await handler.arrived.wait()
        late = await connect(listener)
        async with asyncio.timeout(PATIENCE_S):
            while not listener._handshakes:  # noqa: ASYNC110 - there is no event
                await asyncio.sleep(0.005)
        draining = asyncio.ensure_future(listener.drain(PATIENCE_S))
        await asyncio.sleep(0)
        handler.at_once = True
        await late.writer.start_tls(caller, server_hostname="sidecar")
        assert b"connection: close" in await late.ask()
        handler.exchanges[0].answer(200, [], b"ok")
        assert await draining is True


async def test_what_outlasts_the_drain_is_told_and_cut(sink: FakeSink) -> None:
    handler = Held(at_once=False)
    async with listening(handler, sink) as listener:
        client = await connect(listener)
        client.writer.write(GET)
        await handler.arrived.wait()
        assert await listener.drain(0.05) is False
        assert handler.stopped == []
        await listener.abort()
        assert handler.stopped == [Reason.DRAINING]
        assert (await client.head()).startswith(b"HTTP/1.1 503 ")
        assert len(listener.connections) == 0


async def test_a_caller_who_takes_nothing_cannot_hold_up_the_end(sink: FakeSink) -> None:
    handler = Held(at_once=False)
    async with listening(handler, sink) as listener:
        client = await connect(listener)
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        client.writer.write(GET)
        await handler.arrived.wait()
        exchange = handler.exchanges[0]
        exchange.send_head(*passed(200, None))
        exchange.send_data(b"x" * 20_000_000)
        exchange.flush()
        async with asyncio.timeout(PATIENCE_S):
            await listener.abort()
        assert len(listener.connections) == 0


async def test_an_ipv6_address_is_served_too(sink: FakeSink) -> None:
    log = AccessLog(sink, run="r", metrics=Metrics())
    listener = Listener(
        ListenerSettings(host="::1", port=0),
        ServerLimits(),
        handler=Held(),
        shed=ShedHandler(log, "inbound"),
        refused_connections=nobody_told,
        context=None,
    )
    listener.open()
    try:
        assert (await (await connect(listener)).ask()).startswith(b"HTTP/1.1 200 ")
    finally:
        await listener.abort()
        await log.close()
