from __future__ import annotations

import select
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Final, cast

import pytest
from h2.errors import ErrorCodes
from h2.settings import SettingCodes

from delegation_core.errors import Reason, SidecarError, Unavailable
from sidecar.proxy.listening import connection_table
from sidecar.proxy.listening.connection_limits import ConnectionLimits
from sidecar.proxy.listening.connection_table import ConnectionTable
from sidecar.wire.h1_server import ServerConnection
from sidecar.wire.limits import ServerLimits
from sidecar.wire.stream import Stream
from tests.calls import calls_of
from tests.wire.bench import Clock, Handler, RecordingTransport, answer_ok
from tests.wire.h2_bench import ASKS, H2Served
from tests.wire.written import passed

GET = b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n"
PATIENCE_S: Final = 5.0


class Owner:
    """Owner of a request; records why it was stopped."""

    def __init__(self) -> None:
        self.stopped: list[Reason] = []

    def gone(self) -> None:
        pass

    def stop(self, error: SidecarError) -> None:
        self.stopped.append(error.reason)


def begin_answer(exchange: Stream) -> None:
    """An answer that is not at its end yet."""
    exchange.owner = Owner()
    exchange.send_head(*passed(200, 9))


class Door:
    """A table with a clock set by hand, and connections from any host."""

    def __init__(self, **limits: int | float) -> None:
        self.clock = Clock()
        self.shed = Handler()
        self.handshake_s = 0.0
        self.table = ConnectionTable(
            ConnectionLimits(**limits),  # type: ignore[arg-type]
            shed=self.shed,
            on_made=lambda _: self.handshake_s,
        )
        self.table.clock = self.clock
        self.handler = Handler(answer_ok)
        self.shown: list[ServerConnection] = []  # to a native engine, which takes nothing

    def _show(self, connection: ServerConnection, _data: bytes) -> bool:
        self.shown.append(connection)
        return False

    def connect(
        self, host: str = "192.0.2.1", *, ours: socket.socket | None = None
    ) -> tuple[ServerConnection, RecordingTransport]:
        """Connect; ``ours`` is the socket whose kernel state is read."""
        connection = ServerConnection(self.handler, ServerLimits(), self.table, warm=self._show)
        transport = RecordingTransport(peername=(host, 1234), socket=ours)
        connection.connection_made(transport)
        return connection, transport

    def evict(self, host: str | None = None) -> bool:
        """Evict the first connection that may be evicted. Return True if there was one."""
        first = self.table.first_to_evict(host)
        if first is not None:
            self.table.evict(first)
        return first is not None

    @contextmanager
    def connected_unread(self) -> Iterator[tuple[socket.socket, RecordingTransport]]:
        """Connect with a request that has arrived and was not read yet; return our socket and its transport."""
        with socket.create_server(("127.0.0.1", 0)) as listening:
            theirs, (ours, _) = socket.create_connection(listening.getsockname()), listening.accept()
        with theirs, ours:
            _, transport = self.connect(ours=ours)
            theirs.sendall(GET)
            select.select([ours], [], [], PATIENCE_S)
            yield ours, transport


class Peers:
    """The SPIFFE ID that the next connections prove."""

    current = ""


def peers_of(monkeypatch: pytest.MonkeyPatch) -> Peers:
    """Let connections prove ``current`` from now on, without TLS."""
    peers = Peers()
    monkeypatch.setattr(connection_table, "_peer_of", lambda _: peers.current)
    return peers


@pytest.fixture
async def door() -> AsyncIterator[Door]:
    door = Door(max_connections=8)
    yield door
    for connection in door.table:
        door.table.discard(connection)


async def test_connections_are_counted_by_their_source_address(door: Door) -> None:
    (first, _), _, _ = door.connect(), door.connect(), door.connect("192.0.2.2")
    assert (door.table.of("192.0.2.1"), door.table.of("192.0.2.2"), len(door.table)) == (2, 1, 3)
    first.connection_lost(None)
    first.connection_lost(None)
    assert (door.table.of("192.0.2.1"), door.table.of("192.0.2.3"), len(door.table)) == (1, 0, 2)


async def test_who_waits_longest_makes_room_and_nobody_who_is_served(door: Door) -> None:
    door.handler.act = None
    busy, busy_transport = door.connect()
    busy.data_received(GET)
    door.clock.now += 1
    _, silent = door.connect()
    door.clock.now += 1
    slow, slow_transport = door.connect()
    slow.data_received(GET[:-2])
    door.clock.now += 1
    assert door.evict()
    assert (busy_transport.aborted, silent.aborted, slow_transport.aborted) == (False, True, False)
    assert door.evict()
    assert slow_transport.aborted
    ((_, error),) = door.handler.refused
    assert error.reason is Reason.OVERLOADED
    assert not door.evict()
    assert not busy_transport.aborted


async def test_who_came_just_now_stays_and_one_that_was_served_may_rest_a_while(door: Door) -> None:
    kept, kept_transport = door.connect()
    door.clock.now += 1
    kept.data_received(GET)
    _, young = door.connect()
    door.clock.now += 0.04
    assert not door.evict()
    door.clock.now += 0.2
    assert door.evict()
    assert (kept_transport.aborted, young.aborted) == (False, True)
    door.clock.now += 0.5
    assert not door.evict()
    door.clock.now += 0.5
    assert door.evict()
    assert kept_transport.aborted


async def test_a_search_in_vain_is_not_repeated_at_once(door: Door) -> None:
    door.connect()
    door.clock.now += 0.09
    assert not door.evict()
    door.clock.now += 0.015
    assert not door.evict()
    door.clock.now += 0.015
    assert door.evict()


async def test_evictable_soon_while_a_head_may_still_come_and_for_a_while_after_the_last_was_let_in(door: Door) -> None:
    assert not door.table.evictable_soon()
    kept, _ = door.connect()
    door.clock.now += 0.01
    kept.data_received(GET)
    assert [door.table.evictable_soon(patiently=patiently) for patiently in (True, False)] == [True, False]
    door.connect()
    assert door.table.evictable_soon(patiently=False)


async def test_nobody_waits_for_ever_for_connections_that_may_rest_or_take_an_answer_slowly(door: Door) -> None:
    (kept, _), (slow, _) = door.connect(), door.connect()
    door.handler.act = begin_answer
    slow.data_received(GET)
    slow.pause_writing()
    for _ in range(4):
        assert door.table.evictable_soon()
        door.clock.now += 0.6
        door.handler.act = answer_ok
        kept.data_received(GET)
        slow.pause_writing()
    assert not door.table.evictable_soon()
    assert not door.table.first_to_evict()


async def test_an_answer_that_is_stuck_makes_room_where_nobody_else_may(door: Door) -> None:
    door.handler.act = begin_answer
    (stuck, stuck_transport), (taking, taking_transport) = door.connect(), door.connect()
    for one in (stuck, taking):
        one.data_received(GET)
    stuck.pause_writing()
    door.clock.now += 1.9
    assert not door.evict()
    door.clock.now += 0.2
    assert door.evict()
    assert not door.evict()
    assert (stuck_transport.aborted, taking_transport.aborted) == (True, False)


async def test_a_peer_with_few_connections_is_the_last_to_make_room_and_has_more_time_for_a_head(door: Door) -> None:
    _, alone = door.connect("192.0.2.2")
    door.clock.now += 0.15
    crowd = [door.connect()[1] for _ in range(3)]
    assert not door.evict()
    assert door.table.evictable_soon()
    door.clock.now += 0.15
    for _ in range(2):
        assert door.evict()
    assert (sum(one.aborted for one in crowd), alone.aborted) == (2, False)
    assert door.evict()  # now its peer has as many as any other
    assert alone.aborted


async def test_who_was_slow_in_the_handshake_has_more_time_for_a_head_within_reason(door: Door) -> None:
    for door.handshake_s, has_s in ((0.001, 0.1), (0.1, 0.4), (5.0, 1.0)):
        _, transport = door.connect()
        door.clock.now += has_s - 0.03
        assert not door.evict()
        door.clock.now += 0.04
        assert door.evict()
        assert transport.aborted


async def test_whose_bytes_are_here_and_not_read_yet_is_not_ended_for_it(door: Door) -> None:
    """A head arrived while our loop was busy: the delay is ours."""
    with door.connected_unread() as (ours, transport):
        door.clock.now += 0.2
        assert not door.evict()
        ours.recv(len(GET))
        door.clock.now += 0.03
        assert door.evict()
        assert transport.aborted


async def test_bytes_that_are_not_read_are_no_excuse_for_ever(door: Door) -> None:
    with door.connected_unread() as (_, transport):
        door.clock.now += 1.2
        assert door.evict()
        assert transport.aborted


async def test_while_memory_is_short_half_of_those_who_wait_go_at_each_look_the_longest_first(door: Door) -> None:
    door.handler.act = None
    busy, busy_transport = door.connect()
    busy.data_received(GET)
    silent = []
    for _ in range(3):
        door.clock.now += 1
        silent.append(door.connect()[1])
    door.clock.now += 1
    _, young = door.connect()
    door.table.relieve_memory()
    assert [one.aborted for one in silent] == [True, True, False]
    door.table.relieve_memory()
    assert [one.aborted for one in silent] == [True, True, True]
    door.table.relieve_memory()
    assert (busy_transport.aborted, young.aborted) == (False, False)


async def test_while_memory_is_short_an_answer_that_is_not_taken_goes_too_and_a_slow_one_if_it_must(door: Door) -> None:
    door.handler.act = begin_answer
    served = [door.connect() for _ in range(3)]
    (stuck, stuck_transport), (slow, slow_transport), (quick, quick_transport) = served
    for one in (stuck, slow, quick):
        one.data_received(GET)
    stuck.pause_writing()
    door.clock.now += 0.9
    slow.pause_writing()
    door.table.relieve_memory()
    assert not stuck_transport.aborted
    door.clock.now += 0.2
    for _ in range(2):
        door.table.relieve_memory()
    assert (stuck_transport.aborted, slow_transport.aborted) == (True, False)
    for _ in range(2):
        door.table.relieve_memory(slow_ones=True)
    assert (slow_transport.aborted, quick_transport.aborted) == (True, False)
    assert [cast(Owner, one.owner).stopped for one in door.handler.requests] == [
        [Reason.OVERLOADED],
        [Reason.OVERLOADED],
        [],
    ]


async def test_while_memory_is_short_less_of_an_answer_is_held_until_there_is_some_again(door: Door) -> None:
    (_, transport), (_, closing) = door.connect(), door.connect()
    closing.close()
    for _ in range(2):
        door.table.hold(little=True)
    _, later = door.connect()
    door.table.hold(little=False)
    _, last = door.connect()
    usual, little = 64 * 1024, 16 * 1024
    told = [one.told_limits for one in (transport, later, closing, last)]
    assert told == [[usual, little, usual], [little, usual], [usual], [usual]]


async def test_an_address_competes_with_its_own_connections_only(door: Door) -> None:
    _, other = door.connect("192.0.2.2")
    door.clock.now += 1
    _, own = door.connect()
    door.clock.now += 1
    assert door.evict("192.0.2.1")
    assert (own.aborted, other.aborted) == (True, False)
    assert not door.evict("192.0.2.1")


async def test_a_peer_above_its_cap_evicts_its_own_idle_connection_or_is_shed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The cap per SPIFFE ID holds for all addresses of a peer, and costs no other peer a connection."""
    peers = peers_of(monkeypatch)
    door = Door(max_connections=8, max_per_peer=2)
    door.handler.act = None
    peers.current = "spiffe://acme.example/other"
    _, other = door.connect("192.0.2.9")
    peers.current = "spiffe://acme.example/planner"
    served = [door.connect(f"192.0.2.{number}") for number in (1, 2)]
    for connection, _ in served:
        connection.data_received(GET)
    door.clock.now += 9.0
    third, third_transport = door.connect("192.0.2.3")
    assert third.handler is door.shed
    third.data_received(GET)
    assert door.shown == [connection for connection, _ in served]  # and not the one that is only to be refused
    assert (third_transport.aborted, other.aborted) == (False, False)
    served[0][0].connection_lost(None)  # its twin below the cap
    third.connection_lost(None)
    assert door.connect("192.0.2.4")[0].handler is door.handler
    door.clock.now += 9.0
    fifth, _ = door.connect("192.0.2.5")  # the idle one is evicted for it
    assert fifth.handler is door.handler
    assert (other.aborted, served[1][1].aborted) == (False, False)
    for connection in door.table:
        door.table.discard(connection)


async def test_connections_without_a_proven_peer_have_no_cap_per_peer(door: Door) -> None:
    door = Door(max_connections=8, max_per_peer=1)
    assert all(door.connect()[0].handler is door.handler for _ in range(3))
    for connection in door.table:
        door.table.discard(connection)


async def test_giving_way_twice_does_no_harm(door: Door) -> None:
    connection, transport = door.connect()
    for _ in range(2):
        connection.give_way(Unavailable(Reason.OVERLOADED))
    connection.connection_lost(None)
    assert transport.aborted
    assert len(door.table) == 0


# --- cost


def crowd_of(count: int, *, busy: bool) -> Door:
    """Return a full table of connections, each served or waiting for long; they come from seven hosts."""
    door = Door(max_connections=count, max_per_peer=count)
    door.handler.act = None
    for number in range(count):
        door.clock.now += 0.001
        connection, _ = door.connect(f"192.0.2.{number % 7}")
        if busy:
            connection.data_received(GET)
    door.clock.now += 9.0
    return door


def cost_with(count: int, *, busy: bool) -> dict[str, int]:
    door = crowd_of(count, busy=busy)
    table = door.table
    costs = {
        "first to evict": calls_of(table.first_to_evict),
        "evict": calls_of(door.evict),
        "evict of a host": calls_of(lambda: door.evict("192.0.2.3")),
        "evictable soon": calls_of(table.evictable_soon),
        "one more": calls_of(lambda: door.connect("192.0.2.5")),
        "memory is short": calls_of(table.relieve_memory),
    }
    for connection in table:
        table.discard(connection)
    return costs


@pytest.mark.parametrize("busy", [True, False], ids=["all served", "all waiting"])
async def test_one_more_connection_costs_the_same_however_many_there_are(busy: bool) -> None:
    assert cost_with(600, busy=busy) == cost_with(2400, busy=busy)


async def test_the_few_that_may_be_ended_among_many_that_are_served_are_found_in_some_looks() -> None:
    door = crowd_of(600, busy=True)
    _, silent = door.connect("192.0.2.3")
    door.clock.now += 9.0
    looks = 0
    while not door.evict():
        door.clock.now += 0.021
        looks += 1
    assert silent.aborted
    assert looks <= 600 // 64
    for connection in door.table:
        door.table.discard(connection)


async def test_a_peer_with_few_connections_is_ended_among_many_only_once_nobody_else_may_be() -> None:
    door = crowd_of(300, busy=True)
    _, alone = door.connect("192.0.2.200")
    for _ in range(60):
        door.connect("192.0.2.3")
    door.clock.now += 9.0
    ended = 0
    while not alone.aborted:
        ended += door.evict()
        door.clock.now += 0.021
    assert ended == 61
    for connection in door.table:
        door.table.discard(connection)


async def test_so_many_a_second_make_room_and_the_others_wait() -> None:
    door = crowd_of(300, busy=False)
    ended = sum(door.evict() for _ in range(300))
    assert ended == 64
    assert not door.evict("192.0.2.3")
    assert door.table.evictable_soon()
    door.clock.now += 0.1
    assert sum(door.evict() for _ in range(300)) == 25
    for connection in door.table:
        door.table.discard(connection)


async def test_who_was_found_and_is_served_since_is_not_ended() -> None:
    door = crowd_of(200, busy=False)
    assert door.table.first_to_evict()
    found = cast("list[ServerConnection]", door.table._all.found)
    for connection in list(found[1:]):
        connection.data_received(GET)
    last = found[0]
    assert door.evict()
    assert last not in set(door.table)
    assert all(connection.stream is not None for connection in found[1:])
    for connection in door.table:
        door.table.discard(connection)


class Streams:
    """Connections of HTTP/2 at a door, from any host."""

    def __init__(self, table: ConnectionTable) -> None:
        self.table = table

    async def begin(self, count: int, host: str = "192.0.2.1") -> H2Served:
        """Connect and begin requests, which nobody answers."""
        served = H2Served(connections=self.table, extra={"peername": (host, 1234)})
        for _ in range(count):
            served.begin()
        await served.exchange()
        return served


def overloaded(served: H2Served) -> int:
    """Return the number of its requests that were refused, each by itself."""
    assert all(error.reason is Reason.OVERLOADED for error in served.refusals)
    assert not served.peer.goaways
    return len(served.refusals)


async def test_requests_of_http2_in_progress_are_as_many_as_connections_may_be(door: Door) -> None:
    streams = Streams(door.table)
    hosts = [await streams.begin(3, f"192.0.2.{host}") for host in range(4)]
    assert [overloaded(served) for served in hosts] == [0, 0, 1, 3]
    hosts[0].connection.connection_lost(None)
    assert overloaded(await streams.begin(4, "192.0.2.9")) == 1


async def test_one_peer_has_three_quarters_of_them_on_all_its_connections(door: Door) -> None:
    streams = Streams(door.table)
    first, second = await streams.begin(4), await streams.begin(4)
    assert (overloaded(first), overloaded(second)) == (0, 2)
    assert overloaded(await streams.begin(2, "192.0.2.2")) == 0


@pytest.mark.parametrize("end", ["answer", "abort", "reset", "lost"])
async def test_a_request_of_http2_counts_until_it_is_over_however_it_ends(door: Door, end: str) -> None:
    streams = Streams(door.table)
    for _ in range(20):
        served = await streams.begin(6)
        assert overloaded(served) == 0
        for stream_id, stream in zip(range(1, 12, 2), served.handler.requests, strict=True):
            if end == "answer":
                stream.answer(200, [], b"ok")
            elif end == "abort":
                stream.abort()
            elif end == "reset":
                served.peer.h2.reset_stream(stream_id)
        if end == "lost":
            served.connection.connection_lost(None)
        await served.exchange()
        door.table.discard(served.connection)


async def test_a_peer_that_opens_no_window_of_its_answers_is_behind_as_one_that_reads_nothing(door: Door) -> None:
    served = H2Served(opens=False, connections=door.table, extra={"peername": ("192.0.2.1", 1234)})
    served.peer.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 0})
    for _ in range(2):
        served.begin(ASKS, ends=True)
    await served.exchange()
    for stream in served.handler.requests:
        assert served.connection.behind_since is None
        stream.answer(200, [], b"ok")
        await served.exchange()
    door.clock.now += 9.0
    assert door.evict()
    assert served.transport.aborted


async def test_while_memory_is_short_answers_that_are_not_taken_go_and_no_other_of_their_connection(door: Door) -> None:
    served = H2Served(opens=False, connections=door.table, extra={"peername": ("192.0.2.1", 1234)})
    served.peer.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 0})
    ids = [served.begin(ASKS, ends=True) for _ in range(3)]
    await served.exchange()
    stuck, slow, other = served.handler.requests
    stuck.answer(200, [], b"ok")
    await served.exchange()
    door.clock.now += 2.0
    slow.answer(200, [], b"ok")
    await served.exchange()
    door.table.relieve_memory()
    await served.exchange()
    assert [served.peer.answer(one).reset for one in ids] == [ErrorCodes.CANCEL, None, None]
    door.clock.now += 0.2
    door.table.relieve_memory(slow_ones=True)
    await served.exchange()
    assert [served.peer.answer(one).reset for one in ids] == [ErrorCodes.CANCEL, ErrorCodes.CANCEL, None]
    assert (other.gone, served.transport.aborted, served.connection.waits_since) == (False, False, None)


# --- answers that wait for their peer


class Unread:
    """An answer that its peer does not read, until it does."""

    behind = True


async def test_a_peer_has_so_many_unread_answers_and_others_have_their_own() -> None:
    door = Door(max_waiting_per_peer=2)
    waiting = [Unread(), Unread()]
    assert all(door.table.begin_waiting("spiffe://a/one", one) for one in [*waiting, *waiting])
    assert not door.table.begin_waiting("spiffe://a/one", Unread())
    assert door.table.begin_waiting("spiffe://a/two", Unread())
    assert all(door.table.begin_waiting("192.0.2.1", Unread()) for _ in range(9))  # bounded by its connections
    waiting[0].behind = False
    assert door.table.begin_waiting("spiffe://a/one", Unread())
    door.table.end_waiting("spiffe://a/one", waiting[1])
    assert door.table.begin_waiting("spiffe://a/one", Unread())


async def test_who_had_too_many_unread_answers_has_few_requests_until_it_reads() -> None:
    door = Door(max_waiting_per_peer=2)
    one = "spiffe://a/one"
    assert all(door.table.begin_stream(one) for _ in range(5))
    for _ in range(3):
        door.table.begin_waiting(one, Unread())
    assert not door.table.begin_stream(one)
    assert door.table.begin_stream("spiffe://a/two")
    for _ in range(4):
        door.table.end_stream(one)
    assert [door.table.begin_stream(one) for _ in range(2)] == [True, False]
    door.clock.now += 29
    door.table.note_unread(one)
    door.clock.now += 29
    assert not door.table.begin_stream(one)
    door.clock.now += 2
    door.table.note_unread(one)
    assert door.table.begin_stream(one)


async def test_the_connections_of_such_a_peer_are_held_to_as_few(monkeypatch: pytest.MonkeyPatch) -> None:
    peers, door = peers_of(monkeypatch), Door(max_waiting_per_peer=2)
    peers.current = "spiffe://a/one"
    made = [door.connect()[0] for _ in range(4)]
    assert all(one.handler is door.handler for one in made)
    for _ in range(3):
        door.table.begin_waiting(peers.current, Unread())
    assert door.connect()[0].handler is door.shed
    peers.current = "spiffe://a/two"
    assert door.connect()[0].handler is door.handler


async def test_requests_of_a_peer_without_any_window_are_refused_above_what_may_wait_before_any_is_answered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each would hold a thread of the agent until the table saw its answer wait."""
    peers_of(monkeypatch).current = "spiffe://a/one"
    for window, began in ((0, 2), (1, 4)):
        door = Door(max_waiting_per_peer=2)
        served = H2Served(opens=False, connections=door.table, extra={"peername": ("192.0.2.1", 1234)})
        served.peer.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: window})
        for _ in range(4):
            served.begin(ASKS, ends=True)
        await served.exchange()
        assert len(served.handler.requests) == began
        assert len(served.handler.refused) == 4 - began
        door.table.discard(served.connection)
