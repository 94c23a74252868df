from __future__ import annotations

import resource
from collections.abc import AsyncIterator

import pytest

from sidecar.errors import Reason, Unavailable
from sidecar.proxy.admission import MAX_CONNECTIONS, Admission, ConnectionLimits
from sidecar.wire.h1_server import ServerConnection, ServerLimits
from tests.wire.bench import Clock, Handler, RecordingTransport, answer_ok

GET = b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n"


class Door:
    """An admission with a clock set by hand, and connections from any host."""

    def __init__(self, **limits: int | float) -> None:
        self.clock = Clock()
        self.shed = Handler()
        self.admission = Admission(ConnectionLimits(**limits), shed=self.shed)  # type: ignore[arg-type]
        self.admission.clock = self.clock
        self.handler = Handler(answer_ok)

    def connect(self, host: str = "192.0.2.1") -> tuple[ServerConnection, RecordingTransport]:
        connection = ServerConnection(self.handler, ServerLimits(), self.admission)
        transport = RecordingTransport(peername=(host, 1234))
        connection.connection_made(transport)
        return connection, transport


@pytest.fixture
async def door() -> AsyncIterator[Door]:
    door = Door(max_connections=8)
    yield door
    for connection in door.admission:
        door.admission.discard(connection)


async def test_connections_are_counted_by_their_source_address(door: Door) -> None:
    (first, _), _, _ = door.connect(), door.connect(), door.connect("192.0.2.2")
    assert (door.admission.of("192.0.2.1"), door.admission.of("192.0.2.2"), len(door.admission)) == (2, 1, 3)
    first.connection_lost(None)
    first.connection_lost(None)
    assert (door.admission.of("192.0.2.1"), door.admission.of("192.0.2.3"), len(door.admission)) == (1, 0, 2)


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
    assert door.admission.make_room()
    assert (busy_transport.aborted, silent.aborted, slow_transport.aborted) == (False, True, False)
    assert door.admission.make_room()
    assert slow_transport.aborted
    ((_, error),) = door.handler.refused
    assert error.reason is Reason.OVERLOADED
    assert not door.admission.make_room()
    assert not busy_transport.aborted


async def test_who_came_just_now_stays_and_one_that_was_served_may_rest_a_while(door: Door) -> None:
    kept, kept_transport = door.connect()
    door.clock.now += 1
    kept.data_received(GET)
    _, young = door.connect()
    door.clock.now += 0.04
    assert not door.admission.make_room()
    door.clock.now += 0.2
    assert door.admission.make_room()
    assert (kept_transport.aborted, young.aborted) == (False, True)
    door.clock.now += 0.5
    assert not door.admission.make_room()
    door.clock.now += 0.5
    assert door.admission.make_room()
    assert kept_transport.aborted


async def test_a_search_in_vain_is_not_repeated_at_once(door: Door) -> None:
    door.connect()
    door.clock.now += 0.09
    assert not door.admission.make_room()
    door.clock.now += 0.015
    assert not door.admission.make_room()
    door.clock.now += 0.015
    assert door.admission.make_room()


async def test_room_is_near_while_all_who_wait_are_young_and_none_is_there_yet(door: Door) -> None:
    assert not door.admission.room_is_near()
    kept, _ = door.connect()
    door.clock.now += 0.01
    kept.data_received(GET)
    assert not door.admission.room_is_near()  # it may rest: there is no room to wait for
    door.connect()
    assert door.admission.room_is_near()
    door.clock.now += 0.11
    assert not door.admission.room_is_near()
    assert door.admission.make_room()


async def test_an_address_competes_with_its_own_connections_only(door: Door) -> None:
    _, other = door.connect("192.0.2.2")
    door.clock.now += 1
    _, own = door.connect()
    door.clock.now += 1
    assert door.admission.make_room_at("192.0.2.1")
    assert (own.aborted, other.aborted) == (True, False)
    assert not door.admission.make_room_at("192.0.2.1")


def test_one_peer_has_three_quarters_unless_told_and_never_more_than_there_are() -> None:
    limits = ConnectionLimits(max_connections=100)
    assert (limits.in_all, limits.of_one_address, limits.of_one_peer) == (100, 75, 75)
    limits = ConnectionLimits(max_connections=100, max_per_address=10, max_per_peer=1000)
    assert (limits.of_one_address, limits.of_one_peer) == (10, 100)
    limits = ConnectionLimits(max_connections=1)
    assert (limits.in_all, limits.of_one_address, limits.of_one_peer) == (1, 1, 1)


def test_without_a_number_the_descriptors_decide() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, before[1]))
        assert ConnectionLimits().in_all == 12
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert ConnectionLimits().in_all <= MAX_CONNECTIONS


async def test_giving_way_twice_does_no_harm(door: Door) -> None:
    connection, transport = door.connect()
    for _ in range(2):
        connection.give_way(Unavailable(Reason.OVERLOADED))
    connection.connection_lost(None)
    assert transport.aborted
    assert len(door.admission) == 0
