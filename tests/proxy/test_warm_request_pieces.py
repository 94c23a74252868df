"""Requests whose body comes after their head: the native engine waits a moment for it, if nothing else is missing."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from itertools import islice, pairwise
from pathlib import Path
from random import Random
from typing import Any, Final

import pytest

from delegation_core.errors import Reason, Unavailable
from sidecar.proxy.listening.listener import ShedHandler
from sidecar.wire import h1_server
from tests.fuzz.mutate import Mutator
from tests.native import needs_native
from tests.proxy.engines import EngineWorld, OutboundWorld, Outcome, warm_request
from tests.proxy.test_warm import Event, messages, nothing
from tests.proxy.test_warm import both as both_inbound
from tests.proxy.test_warm_outbound import both as both_outbound
from tests.proxy.test_warm_outbound import call, calls
from tests.proxy.warm import ANSWER

pytestmark = needs_native

Both = Callable[..., Awaitable[tuple[list[Outcome], list[dict[str, Any]]]]]

BODY: Final = b'{"a": 1}'
PUT: Final = warm_request("PUT", "/docs/a", f"Content-Length: {len(BODY)}\r\n", BODY)
CALL: Final = call(fields=f"Content-Length: {len(BODY)}\r\n", body=BODY)
SIDES: Final = [pytest.param(both_inbound, PUT, id="inbound"), pytest.param(both_outbound, CALL, id="outbound")]
KINDS: Final = [pytest.param(EngineWorld, PUT, id="inbound"), pytest.param(OutboundWorld, CALL, id="outbound")]


def cut(data: bytes, *at: int) -> tuple[bytes, ...]:
    """Return a request in pieces."""
    return tuple(data[begin:end] for begin, end in pairwise([0, *at, len(data)]))


def after_head(data: bytes) -> int:
    """Return the place of the body."""
    return data.index(b"\r\n\r\n") + 4


@pytest.mark.parametrize(("both", "data"), SIDES)
async def test_a_request_in_two_pieces_is_served_alike(tmp_path: Path, both: Both, data: bytes) -> None:
    head = after_head(data)
    pieces: list[Any] = [(cut(data, at), ANSWER, nothing) for at in range(1, len(data))]
    await both(tmp_path, [(data, ANSWER, nothing), *pieces], least_taken=len(data) - head)


@pytest.mark.parametrize(("both", "data"), SIDES)
async def test_a_body_in_many_pieces_is_served_alike(tmp_path: Path, both: Both, data: bytes) -> None:
    head = after_head(data)
    every = cut(data, *range(head, len(data)))
    await both(tmp_path, [(data, ANSWER, nothing), (every, ANSWER, nothing), (data, ANSWER, nothing)], least_taken=2)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("both", "data"), SIDES)
async def test_what_is_near_a_request_comes_in_pieces_alike(tmp_path: Path, both: Both, data: bytes, seed: int) -> None:
    random = Random(seed)
    others = messages() if both is both_inbound else calls()
    words = [b"\r\n", b"Content-Length: 9\r\n", b"Expect: 100-continue\r\n", b"Transfer-Encoding: chunked\r\n"]
    steps: list[Any] = []
    for one in [data, *islice(Mutator([data, data, *others], words, seed=seed), 200), data]:
        first = random.choice([1, max(1, one.find(b"\r\n\r\n") + 4)])
        places = range(first, len(one))
        at = sorted(random.sample(places, min(random.randint(1, 3), len(places))))
        steps += [(cut(data, after_head(data) + random.randrange(len(BODY))), ANSWER, nothing)]
        steps += [(cut(one, *at), ANSWER, nothing)]
    await both(tmp_path, [(data, ANSWER, nothing), *steps], least_taken=200)


@pytest.mark.parametrize(("kind", "data"), KINDS)
async def test_nothing_is_sent_before_the_body_has_come(tmp_path: Path, kind: type[EngineWorld], data: bytes) -> None:
    world = kind("native", tmp_path)
    world.exchange(data)
    heard, taken = len(world.agent_transport.writes), world.taken
    world.server.data_received(data[:-1])
    assert (world.server.stream, world.agent_transport.writes[heard:]) == (None, [])
    assert (world.server.receiving, world.server.kept) == (True, False)
    world.server.data_received(data[-1:])
    assert world.taken == taken + 1
    assert b"".join(world.agent_transport.writes[heard:]).endswith(b"\r\n\r\n" + BODY)
    world.agent.data_received(ANSWER)
    await world.log.close()


@pytest.mark.parametrize(("kind", "data"), KINDS)
async def test_a_body_is_waited_for_only_a_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type[EngineWorld], data: bytes
) -> None:
    monkeypatch.setattr(h1_server, "REST_S", 0)
    world = kind("native", tmp_path)
    world.exchange(data)
    heard, taken = len(world.agent_transport.writes), world.taken
    world.server.data_received(data[:-3])
    passed = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_later(0, passed.set_result, None)
    await passed
    assert b"".join(world.agent_transport.writes[heard:]).endswith(b"\r\n\r\n" + BODY[:-3])
    world.server.data_received(data[-3:])
    assert b"".join(world.agent_transport.writes[heard:]).endswith(b"\r\n\r\n" + BODY)
    world.agent.data_received(ANSWER)
    assert world.taken == taken
    assert [record["decision"] for record in await world.records()] == ["allow", "allow"]


@pytest.mark.parametrize(
    "data",
    [
        warm_request("PUT", "/docs/a", "Content-Length: 20000\r\n", b"x" * 20_000),
        warm_request("PUT", "/docs/a", "Content-Length: 8\r\nExpect: 100-continue\r\n", BODY),
        warm_request("PUT", "/docs/a", "Transfer-Encoding: chunked\r\n", b"1\r\na\r\n0\r\n\r\n"),
    ],
    ids=["a large one", "one that is asked for", "a chunked one"],
)
async def test_no_other_body_is_waited_for(tmp_path: Path, data: bytes) -> None:
    world = EngineWorld("native", tmp_path)
    world.exchange(PUT)
    world.server.data_received(data[: after_head(data) + 1])
    assert world.server.stream is not None
    world.server.connection_lost(None)
    await world.log.close()


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        (EngineWorld, warm_request("POST", "/docs/a", "Content-Length: 8\r\n", BODY)),
        (EngineWorld, warm_request("PUT", "/docs/a", "Content-Length: 8\r\n", BODY, shown=b"eyJh.eyJz.c2ln")),
        (OutboundWorld, CALL.replace(b"h" * 43, b"u" * 43)),
    ],
    ids=["a method that is refused", "another token", "an unknown handle"],
)
async def test_what_is_refused_is_refused_before_its_body_has_come(
    tmp_path: Path, kind: type[EngineWorld], data: bytes
) -> None:
    world = kind("native", tmp_path)
    told = len(world.transport.writes)
    world.server.data_received(data[: after_head(data)])
    assert b"".join(world.transport.writes[told:]).startswith(b"HTTP/1.1 40")
    world.server.connection_lost(None)
    await world.log.close()


@pytest.mark.parametrize(("kind", "data"), KINDS)
async def test_a_connection_that_is_too_old_is_not_closed_while_a_body_is_awaited(
    tmp_path: Path, kind: type[EngineWorld], data: bytes
) -> None:
    told: list[object] = []
    for engine in ("python", "native"):
        world = kind(engine, tmp_path)
        world.exchange(data)
        answered = len(world.transport.writes)
        world.clock.now = world.server.ages_at + 1
        world.agent_connects()
        world.server.data_received(data[:-3])
        world.server.sweep(world.clock.now)
        world.server.data_received(data[-3:])
        world.agent.data_received(ANSWER)
        sent = b"".join(world.agent_transport.writes)
        reply = b"".join(world.transport.writes[answered:])
        assert sent.endswith(BODY)
        assert reply.startswith(b"HTTP/1.1 200 OK\r\n")
        assert b"connection: close\r\n" in reply.lower()
        told.append((len(sent), reply, len(await world.records())))
    assert told[0] == told[1]


@pytest.mark.parametrize(("kind", "data"), KINDS)
async def test_the_wait_for_a_body_is_no_part_of_the_decisions_time(
    tmp_path: Path, kind: type[EngineWorld], data: bytes
) -> None:
    world = kind("native", tmp_path)
    world.exchange(data)
    taken = world.taken
    world.server.data_received(data[:-3])
    world.clock.now += 0.004
    world.server.data_received(data[-3:])
    world.agent.data_received(ANSWER)
    assert world.taken == taken + 1
    assert (await world.records())[-1]["decide_ms"] < 4


def _vanishes(world: EngineWorld) -> None:
    world.server.connection_lost(None)


def _ends_its_half(world: EngineWorld) -> None:
    world.server.eof_received()
    world.server.connection_lost(None)


def _is_stopped(world: EngineWorld) -> None:
    world.server.stop(Unavailable(Reason.DRAINING, "the sidecar stops"))


def _is_evicted(world: EngineWorld) -> None:
    world.server.give_way(Unavailable(Reason.OVERLOADED, "evicted for another connection"))


def _is_given_up(world: EngineWorld) -> None:
    world.server.give_up()


def _finishes(world: EngineWorld) -> None:
    world.server.finish()


def _is_not_to_be_used_again(world: EngineWorld) -> None:
    world.server.end_unused()


def _is_handed_over(world: EngineWorld) -> None:
    world.server.hand_over(ShedHandler(world.log, "inbound"))


EVENTS: Final[list[Event]] = [
    _vanishes, _ends_its_half, _is_stopped, _is_evicted, _is_given_up, _finishes, _is_not_to_be_used_again,
    _is_handed_over,
]  # fmt: skip


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.__name__)
@pytest.mark.parametrize("goes_on", [True, False], ids=["and its rest comes", "and no more comes"])
@pytest.mark.parametrize(("kind", "data"), KINDS)
async def test_what_happens_while_a_body_is_awaited_ends_alike(
    tmp_path: Path, kind: type[EngineWorld], data: bytes, event: Event, goes_on: bool
) -> None:
    told: list[object] = []
    python, native = kind("python", tmp_path), kind("native", tmp_path)
    for world in (python, native):
        world.exchange(data)
        heard, answered = len(world.agent_transport.writes), len(world.transport.writes)
        world.server.data_received(data[:-3])
        event(world)
        if goes_on and not world.transport.is_closing() and event not in (_vanishes, _ends_its_half):
            world.server.data_received(data[-3:])
        sent = b"".join(world.agent_transport.writes[heard:])
        if sent and not world.agent_transport.is_closing():
            world.agent.data_received(ANSWER)
        ended = world.transport.is_closing()
        world.server.connection_lost(None)
        told.append((sent.count(BODY), len(world.transport.writes[answered:]) > 0, ended))
        assert len(world.watch) == 0
        assert not world.log.being_served()
    assert told[1] == told[0]
    assert await native.records() == await python.records()
