from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Callable
from itertools import pairwise
from typing import Final

import pytest

from delegation_core.errors import Reason
from sidecar.identity.handshake_queue import MAX_BEGUN_PER_ITERATION, SILENT_PATIENCE_S, HandshakeQueue
from sidecar.identity.handshake_queue import PATIENCE_S as WITH_A_TALKER_S
from tests.calls import calls_of
from tests.identity.accepting import PATIENCE_S, Accepting, Goodbye, Hello, accepting, hello, wait_for_end
from tests.wire.bench import Clock

pytestmark = pytest.mark.integration

HELLO: Final = hello()


def address_of(client: socket.socket) -> str:
    return "{}:{}".format(*client.getsockname())


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110 - there is no event
            await asyncio.sleep(0.001)


async def stalled(running: Accepting, said: bytes = HELLO, host: str = "127.0.0.1") -> socket.socket:
    """Open a client that sends these bytes and no more."""
    client = await running.silent(host)
    client.send(said)
    return client


# --- before the handshake


@pytest.mark.parametrize("said", [b"", HELLO[:1], HELLO[:-1]], ids=["nothing", "a byte", "all but a byte"])
async def test_who_has_not_said_a_whole_client_hello_takes_no_handshake_from_others(said: bytes) -> None:
    async with accepting(most=1) as running:
        crowd = [await stalled(running, said) for _ in range(20)]
        for _ in range(2):
            assert await running.greeting() == b"hello\n"
        assert (running.handshakes.running, len(running.handshakes)) == (0, 20)
        crowd[0].send(HELLO[len(said) :])
        await until(lambda: running.handshakes.running == 1)
        assert running.given_up == []


@pytest.mark.parametrize("cuts", [[], [1], [4, 5, 6], [5], [100, 200]])
async def test_a_client_hello_may_come_in_pieces(cuts: list[int]) -> None:
    async with accepting() as running:
        client = await running.silent()
        for start, end in zip([0, *cuts], [*cuts, len(HELLO)], strict=True):
            client.send(HELLO[start:end])
            await asyncio.sleep(0.001)
        async with asyncio.timeout(PATIENCE_S):
            answer = await asyncio.get_running_loop().sock_recv(client, 3)
        assert answer == b"\x16\x03\x03"  # a ServerHello


@pytest.mark.parametrize("said", [b"GET / HTTP/1.1\r\n\r\n", b"\x15\x03\x03\x00\x02\x02\x28", b"\x00"])
async def test_what_begins_like_no_handshake_is_refused_without_one(said: bytes) -> None:
    async with accepting() as running:
        for client in (await stalled(running, said), await running.silent()):
            with contextlib.suppress(ConnectionError):
                client.send(said)  # when it was accepted, or later
            await wait_for_end(client)
            assert running.given_up[-1] == (Reason.TLS_VERSION, address_of(client))
        assert (running.refused, len(running.handshakes)) == ([], 0)
        assert await running.greeting() == b"hello\n"


async def test_one_more_than_there_is_room_for_makes_the_oldest_give_up() -> None:
    async with accepting(room=2) as running:
        clients = [await running.silent() for _ in range(3)]
        await wait_for_end(clients[0])
        assert await running.greeting() == b"hello\n"
        await wait_for_end(clients[1])
        assert len(running.handshakes) == 1
        assert running.given_up == [(Reason.OVERLOADED, address_of(client)) for client in clients[:2]]


async def test_while_all_are_young_who_comes_waits_in_the_queue_and_is_served() -> None:
    async with accepting(room=1) as running:
        await running.silent()
        assert running.handshakes.full
        assert await running.greeting() == b"hello\n"
        assert not running.handshakes.full


async def test_who_was_silent_in_the_queue_already_is_as_old_as_its_connection() -> None:
    """A silent client is recognised when it is accepted; one that has sent something has all its time."""
    async with accepting(room=2) as running:
        silent, speaking = (socket.create_connection(running.acceptor.address) for _ in range(2))
        running.clients += [silent, speaking]
        speaking.send(HELLO[:3])
        time.sleep(SILENT_PATIENCE_S + 0.05)  # noqa: ASYNC251 - the loop does not turn: nobody is accepted meanwhile
        await until(lambda: len(running.handshakes) == 2)
        assert not running.handshakes.full
        assert running.evict()
        assert not running.handshakes.full
        assert not running.evict()
        assert running.given_up == [(Reason.OVERLOADED, address_of(silent))]


async def test_the_oldest_of_one_host_makes_room_once_it_had_its_time() -> None:
    clock = Clock()
    async with accepting(clock=clock) as running:
        other, *clients = [await running.silent(host) for host in ("127.0.0.2", "127.0.0.1", "127.0.0.1")]
        handshakes = running.handshakes
        assert handshakes.first_to_evict() is None
        assert not running.evict("127.0.0.1")
        clock.now += SILENT_PATIENCE_S
        assert handshakes.first_to_evict() is not None
        assert not running.evict("127.0.0.3")
        assert running.evict("127.0.0.1")
        assert running.evict()
        assert running.given_up == [(Reason.OVERLOADED, address_of(client)) for client in (clients[0], other)]
        await wait_for_end(clients[0])


@pytest.mark.parametrize("said", [HELLO[:-1], HELLO], ids=["in part", "whole"])
async def test_who_has_said_something_has_more_time(said: bytes) -> None:
    clock = Clock()
    async with accepting(clock=clock) as running:
        await stalled(running, said)
        await until(lambda: len(running.handshakes._silent) == 0)
        clock.now += WITH_A_TALKER_S - 0.01
        assert not running.evict()
        clock.now += 0.01
        assert running.evict()


async def test_connections_are_counted_by_their_host() -> None:
    async with accepting() as running:
        clients = [await running.silent() for _ in range(3)]
        clients[0].send(HELLO[:1])
        clients[1].send(HELLO)
        handshakes = running.handshakes
        await until(lambda: handshakes.running == 1)
        assert (handshakes.of("127.0.0.1"), handshakes.of("127.0.0.2")) == (3, 0)
        assert 0.0 < handshakes.over(address_of(clients[1])) < PATIENCE_S
        assert (handshakes.of("127.0.0.1"), len(handshakes)) == (2, 2)
        await handshakes.close()
        assert handshakes.of("127.0.0.1") == 0


@pytest.mark.parametrize("said", [b"", HELLO[:-1], HELLO], ids=["silent", "in part", "whole"])
async def test_a_handshake_that_does_not_end_is_ended_in_time(said: bytes) -> None:
    async with accepting(timeout_s=0.1) as running:
        client = await stalled(running, said)
        await wait_for_end(client)
        await running.handshakes.close()
        assert len(running.handshakes) == 0
        assert running.given_up == [(Reason.TIMEOUT, address_of(client))]


async def test_who_came_together_is_not_ended_together() -> None:
    clock = Clock()
    async with accepting(timeout_s=8.0, clock=clock) as running:
        for _ in range(40):
            await running.silent()
        left_s = sorted(one.deadline - clock.now for one in running.handshakes._silent.in_order)
        assert 4.0 <= left_s[0] < left_s[20] < left_s[-1] <= 8.0
        assert left_s[-1] - left_s[0] > 2.0


@pytest.mark.parametrize("said", [b"", HELLO[:-1], HELLO], ids=["silent", "in part", "whole"])
async def test_who_leaves_inside_a_handshake_was_not_given_up(said: bytes) -> None:
    async with accepting() as running:
        (await stalled(running, said)).close()
        await until(lambda: len(running.handshakes) == 0)
        assert running.given_up == []


# --- the handshake


async def test_where_as_many_run_as_may_the_next_waits_for_the_oldest_to_end_or_to_have_had_its_time() -> None:
    async with accepting(most=2) as running:
        clients = [await stalled(running) for _ in range(2)]
        await until(lambda: running.handshakes.running == 2)
        assert await running.greeting() == b"hello\n"  # after a second
        assert running.given_up == [(Reason.OVERLOADED, address_of(clients[0]))]
        clients[1].close()
        assert await running.greeting() == b"hello\n"  # at once
        assert len(running.given_up) == 1


async def test_source_addresses_take_turns() -> None:
    """A flood from one address delays another address by at most one of its connections."""
    order: list[str] = []
    async with accepting(most=1) as running:
        blocking = await stalled(running)
        await until(lambda: running.handshakes.running == 1)
        crowd = [await stalled(running) for _ in range(5)]
        lawful = await stalled(running, host="127.0.0.2")
        await until(lambda: len(running.handshakes._ready) == 6)
        for client in (blocking, crowd[0]):
            client.close()
        await until(lambda: "127.0.0.2" in [one.host for one in running.handshakes._running.in_order])
        order += [one.address for one in running.handshakes._ready.in_order]
        assert order == [address_of(client) for client in crowd[1:]]
        lawful.close()


async def test_fewer_run_while_memory_is_short_and_then_as_many_as_ever() -> None:
    async with accepting(most=3) as running:
        running.handshakes.hold_to(1)
        for _ in range(4):
            await stalled(running)
        await until(lambda: len(running.handshakes._ready) == 3)
        assert running.handshakes.running == 1
        running.handshakes.hold_to(None)
        await until(lambda: running.handshakes.running == 3)
        running.handshakes.hold_to(9)
        assert len(running.handshakes._ready) == 1


async def test_a_few_begin_in_a_turn_of_the_loop() -> None:
    async with accepting() as running:
        clients = [socket.create_connection(running.acceptor.address) for _ in range(3 * MAX_BEGUN_PER_ITERATION)]
        running.clients += clients
        for client in clients:
            client.send(HELLO)
        begun = [0]
        async with asyncio.timeout(PATIENCE_S):
            while running.handshakes.running < len(clients):
                await asyncio.sleep(0)
                begun.append(running.handshakes.running)
        assert max(now - before for before, now in pairwise(begun)) <= MAX_BEGUN_PER_ITERATION


async def test_a_peer_that_does_not_say_goodbye_is_waited_for_as_long_as_was_said() -> None:
    async with accepting(closing_s=0.1) as running:
        goodbye = Goodbye()
        running.protocol = lambda: goodbye
        async with asyncio.timeout(PATIENCE_S):
            client = await running.silent()
            await running.shake_hands(client)
            await goodbye.lost.wait()


async def test_what_is_given_up_before_its_first_step_is_closed() -> None:
    handshakes = HandshakeQueue(None, most=1, timeout_s=60.0)
    pairs = [socket.socketpair() for _ in range(2)]
    for ours, _ in pairs:
        ours.setblocking(False)
        handshakes.start(ours, "a:1", asyncio.Protocol)
    await handshakes.close()
    assert [ours.fileno() for ours, _ in pairs] == [-1, -1]
    for _, theirs in pairs:
        theirs.close()


async def test_the_end_waits_for_handshakes_and_for_those_that_may_still_begin() -> None:
    async with accepting() as running:
        client = await running.silent()
        finishing = asyncio.ensure_future(running.handshakes.finish(PATIENCE_S))
        await asyncio.sleep(0)
        await running.shake_hands(client)
        running.handshakes.over(address_of(client))
        async with asyncio.timeout(PATIENCE_S):
            await finishing
        assert running.given_up == []


# --- cost


async def cost_with(count: int) -> dict[str, int]:
    """Return the cost of each step at this number of connections: a third each silent, partial and running."""
    clock = Clock()
    pairs = []

    def pair(said: bytes = b"") -> socket.socket:
        theirs, ours = socket.socketpair()
        pairs.append(theirs)
        ours.setblocking(False)
        theirs.send(said) if said else None
        return ours

    running = Accepting(tls=True, most=count // 3, room=count, clock=clock)
    handshakes = running.handshakes
    numbers = iter(range(count + 9))

    def come(ours: socket.socket) -> None:
        number = next(numbers)
        handshakes.start(ours, f"192.0.2.{number % 7}:{number}", Hello)

    try:
        for _ in range(count // 3):
            for said in (b"", HELLO[:-1], HELLO):
                come(pair(said))
        await until(lambda: handshakes.running == count // 3)
        clock.now += 9.0
        silent, whole = pair(), pair(HELLO)
        return {
            "full": calls_of(lambda: handshakes.full),
            "of": calls_of(lambda: handshakes.of("192.0.2.1")),
            "evict": calls_of(running.evict),
            "evict of a host": calls_of(lambda: running.evict("192.0.2.2")),
            "accept one that is silent": calls_of(lambda: come(silent)),
            "accept one that speaks": calls_of(lambda: come(whole)),
        }
    finally:
        await handshakes.close()
        for one in pairs:
            one.close()


async def test_a_step_costs_the_same_however_many_connections_there_are() -> None:
    few, many = await cost_with(30), await cost_with(120)
    a_timer = 16  # in the event loop's heap of them, at most
    assert many.keys() == few.keys()
    assert all(many[step] <= cost + a_timer for step, cost in few.items()), (few, many)
