"""Answers that come in pieces: the native engine waits a moment for the rest, and nobody can tell."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from itertools import islice, pairwise
from pathlib import Path
from random import Random
from typing import Any, Final

import pytest

from sidecar.proxy.journeys.forward import Forwarding
from sidecar.proxy.native.ghosts import GhostStream
from sidecar.wire import h1_client
from tests.fuzz.mutate import Mutator
from tests.native import needs_native
from tests.proxy.engines import EngineWorld, OutboundWorld, Outcome
from tests.proxy.test_warm import (
    EVENTS,
    WARM,
    Event,
    _agent_is_silent,
    _drains,
    _is_denied,
    _is_distrusted,
    _lasts,
    _sweeps,
    _vanishes,
    _watch_ticks,
    answers,
    nothing,
)
from tests.proxy.test_warm import both as both_inbound
from tests.proxy.test_warm_outbound import _EVENTS as EVENTS_OUTBOUND
from tests.proxy.test_warm_outbound import NAMED
from tests.proxy.test_warm_outbound import both as both_outbound
from tests.proxy.warm import ANSWER

pytestmark = needs_native

Steps = Iterable[tuple[bytes, bytes, Event]]
Both = Callable[..., Awaitable[tuple[list[Outcome], list[dict[str, Any]]]]]
SIDES: Final = [pytest.param(both_inbound, WARM, id="inbound"), pytest.param(both_outbound, NAMED, id="outbound")]

SMALL: Final = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nabcde"


# Time passes in these, more than anybody waits for a rest.
_LAST: Final = (_sweeps, _lasts, _agent_is_silent)
# In these the answer's first piece counts as one that comes after them.
_AT_ONCE: Final = (_drains, _vanishes)


def cut(answer: bytes, *at: int, then: Event = nothing) -> tuple[bytes, Event]:
    """Return the last piece of an answer, and the event that the others arrive, and that something happens then."""
    places = [0, *at]

    def event(world: EngineWorld) -> None:
        for begin, end in pairwise(places):
            world.agent.data_received(answer[begin:end])
        if then in _LAST:
            world.agent._leave_early()
        then(world)

    return answer[at[-1] :], event


def _a_moment_passes(world: EngineWorld) -> None:
    world.clock.now += 0.001


def is_ghost(world: EngineWorld) -> bool:
    """Tell if the native engine has the request in progress."""
    return type(world.server.stream) is GhostStream


@pytest.mark.parametrize(("both", "data"), SIDES)
async def test_an_answer_in_two_pieces_is_passed_on_alike(tmp_path: Path, both: Both, data: bytes) -> None:
    steps = [(data, *cut(SMALL, at)) for at in range(1, len(SMALL))]
    await both(tmp_path, [(data, SMALL, nothing), *steps], least_taken=len(steps))


@pytest.mark.parametrize(("both", "data"), SIDES)
async def test_an_answer_in_many_pieces_is_passed_on_alike(tmp_path: Path, both: Both, data: bytes) -> None:
    head = ANSWER.index(b"\r\n\r\n") + 4
    cuts = [
        (head,),
        (head, head + 1, head + 2),
        (head + 500,),
        (head, len(ANSWER) - 1),
        (10, head),
        (head - 1, head + 9),
    ]
    steps = [(data, *cut(ANSWER, *at)) for at in cuts]
    await both(tmp_path, [(data, ANSWER, nothing), *steps], least_taken=len(steps))


@pytest.mark.parametrize(("kind", "data"), [(EngineWorld, WARM), (OutboundWorld, NAMED)])
async def test_what_waits_for_its_rest_stays_with_the_native_engine(
    tmp_path: Path, kind: type[EngineWorld], data: bytes
) -> None:
    world = kind("native", tmp_path)
    world.exchange(data)
    rest, part = cut(SMALL, -3)
    ghosts: list[bool] = []

    def look(world: EngineWorld) -> None:
        part(world)
        ghosts.append(is_ghost(world))

    outcome = world.exchange(data, rest, look)
    assert ghosts == [True]
    assert outcome.answered.endswith(b"\r\n\r\nabcde")
    await world.log.close()


@pytest.mark.parametrize(
    ("answer", "what"),
    [
        (SMALL.replace(b"text/plain", b"Text/Event-Stream; charset=utf-8"), "a stream of events"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 70000\r\n\r\n" + b"x" * 70_000, "a large one"),
        (SMALL.replace(b"200 OK", b"401 Unauthorized"), "of a token that the next hop refuses"),
        (SMALL.replace(b"Content-Length: 5", b"Transfer-Encoding: chunked"), "a chunked one"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
@pytest.mark.parametrize(("kind", "data"), [(EngineWorld, WARM), (OutboundWorld, NAMED)])
async def test_nothing_else_waits(
    tmp_path: Path, kind: type[EngineWorld], data: bytes, answer: bytes, what: str
) -> None:
    world = kind("native", tmp_path)
    world.exchange(data)
    ghosts: list[bool] = []
    _, part = cut(answer, answer.index(b"\r\n\r\n") + 5)

    def look(world: EngineWorld) -> None:
        part(world)
        ghosts.append(is_ghost(world))

    world.exchange(data, b"", look)
    assert ghosts == [False], what
    await world.log.close()


async def test_the_rest_is_waited_for_only_a_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(h1_client, "REST_S", 0)
    world = EngineWorld("native", tmp_path)
    world.exchange(WARM)
    told = len(world.transport.writes)
    world.server.data_received(WARM)
    world.agent.data_received(SMALL[:-3])
    assert is_ghost(world)
    passed = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_later(0, passed.set_result, None)
    await passed
    assert not is_ghost(world)
    assert b"".join(world.transport.writes[told:]).endswith(b"\r\n\r\nab")
    world.agent.data_received(SMALL[-3:])
    assert b"".join(world.transport.writes[told:]).endswith(b"\r\n\r\nabcde")
    assert [record["decision"] for record in await world.records()] == ["allow", "allow"]


@pytest.mark.parametrize(
    "event", [_a_moment_passes, *(one for one in EVENTS if one not in _AT_ONCE)], ids=lambda event: event.__name__
)
async def test_what_happens_between_two_pieces_ends_alike(tmp_path: Path, event: Event) -> None:
    steps = [(WARM, ANSWER, nothing)] * 2
    await both_inbound(tmp_path, [*steps, (WARM, *cut(ANSWER, 300, then=event))], least_taken=2)


@pytest.mark.parametrize(
    "event",
    [_a_moment_passes, *(one for one in EVENTS_OUTBOUND if one not in _AT_ONCE)],
    ids=lambda event: event.__name__,
)
async def test_what_happens_between_two_pieces_of_a_call_ends_alike(tmp_path: Path, event: Event) -> None:
    await both_outbound(tmp_path, [(NAMED, ANSWER, nothing), (NAMED, *cut(ANSWER, 300, then=event))], least_taken=2)


@pytest.mark.parametrize("seed", range(4))
async def test_what_is_near_an_answer_comes_in_pieces_alike(tmp_path: Path, seed: int) -> None:
    random = Random(seed)
    harmless = [one for one in EVENTS if one not in (*_AT_ONCE, _is_denied, _is_distrusted)]
    near = list(islice(Mutator([SMALL, ANSWER, *answers()], [b"\r\n", b"close", b"chunked"], seed=seed), 200))
    steps = []
    for one in [SMALL, ANSWER, *near, SMALL]:
        if len(one) > 2:
            at = sorted(random.sample(range(1, len(one)), min(random.randint(1, 3), len(one) - 1)))
            then = random.choice(harmless) if random.random() < 0.2 else nothing
            steps.append((WARM, *cut(one, *at, then=then)))
    await both_inbound(tmp_path, [(WARM, ANSWER, nothing), *steps], least_taken=50)


@pytest.mark.parametrize("event", _AT_ONCE, ids=lambda event: event.__name__)
@pytest.mark.parametrize(("kind", "data"), [(EngineWorld, WARM), (OutboundWorld, NAMED)])
async def test_an_answer_whose_rest_is_awaited_counts_as_one_that_comes_later(
    tmp_path: Path, kind: type[EngineWorld], data: bytes, event: Event
) -> None:
    python, native = kind("python", tmp_path), kind("native", tmp_path)
    for world in (python, native):
        world.exchange(data)
    rest, pieces = cut(SMALL, -3, then=event)
    assert native.exchange(data, rest, pieces) == python.exchange(data, SMALL, event)
    assert await native.records() == await python.records()


async def test_an_answer_that_begins_while_its_request_is_watched_leaves_nothing_to_watch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Forwarding, "max_stream_s", 60.0)
    world = EngineWorld("native", tmp_path)
    world.exchange(WARM)
    world.exchange(WARM, *cut(ANSWER, 300, then=_watch_ticks))
    assert world.taken == 1
    assert (len(world.watch), world.watch._wheel._places) == (0, {})
    await world.log.close()
