"""The agent's calls by both engines: nobody outside can tell which one served."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any, Final

import pytest

from delegation_core.errors import Denied, Reason
from delegation_core.policy import Deny
from sidecar.engine import Engine
from tests.corpus import Words, cases
from tests.fuzz.mutate import Mutator
from tests.native import needs_native
from tests.proxy.engines import HANDLE, EngineWorld, OutboundWorld, Outcome, warm_call
from tests.proxy.test_warm import (
    EVENTS,
    Event,
    _agent_closes,
    _calls_out,
    _calls_out_too_late,
    _is_denied,
    _is_distrusted,
    _is_looked_at,
    answers,
    nothing,
)
from tests.proxy.warm import ANSWER

pytestmark = needs_native

MUTATED: Final = 1500
# What is of requests of peers alone.
_OF_PEERS: Final = (_is_looked_at, _calls_out, _calls_out_too_late, _is_distrusted, _is_denied)
_EVENTS: Final = [one for one in EVENTS if one not in _OF_PEERS]
HARMLESS: Final = [one for one in _EVENTS if one.__name__ != "_drains"]


def calls() -> list[bytes]:
    """Calls of the corpora, by a route that permits them."""
    words = Words(path="/a", escaped_path="/%61", host="crm.mesh", token=HANDLE)
    return [one.message(words) for file in ("requests", "outbound") for one in cases(file, "outbound")]


def call(target: str = "http://crm.mesh/tool", fields: str = "", body: bytes = b"") -> bytes:
    head = f"POST {target} HTTP/1.1\r\nHost: crm.mesh\r\nUser-Agent: agent/1\r\n{fields}"
    return head.encode() + b"Authorization: Bearer %b\r\n\r\n" % HANDLE.encode() + body


CALL: Final = call(fields=f"traceparent: 00-{'a' * 32}-{'b' * 16}-01\r\nDelegation-Subject: mallory\r\n")
# As the libraries for agents name the request that is served.
NAMED: Final = CALL.replace(b"Authorization: Bearer ", b"Delegation-Handle: ")


async def both(
    folder: Path, exchanges: Iterable[tuple[bytes, bytes, Event]], *, least_taken: int = 0, most_taken: int = 10**6
) -> tuple[list[Outcome], list[dict[str, Any]]]:
    """Let both engines serve the same; return what both did."""
    told: dict[Engine, tuple[list[Outcome], list[dict[str, Any]]]] = {}
    steps = list(exchanges)
    counted: list[object] = []
    engines: tuple[Engine, ...] = ("python", "native")
    for engine in engines:
        world = OutboundWorld(engine, folder)
        outcomes = [world.exchange(data, answer, between) for data, answer, between in steps]
        told[engine] = outcomes, await world.records()
        counted.append(world.counted)
        assert len(world.watch) == 0, "a forwarding outlives its call"
        assert not world.log.being_served(), "a record stays open"
        if engine == "native":
            assert world.taken >= least_taken, "the native engine took too little for this test to say anything"
            assert world.taken <= most_taken, "the native engine took what is not certain"
    (outcomes, records), (also, as_well) = told["python"], told["native"]
    for number, (one, other) in enumerate(zip(outcomes, also, strict=True)):
        assert one == other, steps[number]
    assert records == as_well
    assert counted[0] == counted[1]
    return outcomes, records


async def test_a_warm_call_is_served_alike(tmp_path: Path) -> None:
    outcomes, records = await both(tmp_path, [(CALL, ANSWER, nothing)] * 3, least_taken=3)
    assert outcomes[0].sent.startswith(b"POST /tool HTTP/1.1\r\nuser-agent: agent/1\r\nhost: 127.0.0.1:8080\r\n")
    assert b"mallory" not in outcomes[0].sent
    assert HANDLE.encode() not in outcomes[0].sent
    assert {(record["decision"], record["call_in"]) for record in records} == {("allow", "c" * 32)}


async def test_every_call_of_the_corpora_is_served_alike(tmp_path: Path) -> None:
    steps = [(data, ANSWER, nothing) for one in calls() for data in (CALL, one, one)]
    await both(tmp_path, steps, least_taken=len(calls()))


async def test_every_answer_of_the_corpus_is_passed_on_alike(tmp_path: Path) -> None:
    steps = [(CALL, answer, nothing) for one in answers() for answer in (ANSWER, one, one)]
    await both(tmp_path, steps, least_taken=len(answers()))


@pytest.mark.parametrize("seed", range(3))
async def test_what_is_near_a_call_is_served_alike(tmp_path: Path, seed: int) -> None:
    words = [
        b"\r\n",
        b"Delegation-Handle: x\r\n",
        b"Host: crm.mesh\r\n",
        b"http://crm.mesh",
        b"/.sidecar/",
        HANDLE.encode(),
    ]
    bases = [CALL, NAMED, call("/tool?a=b"), call(fields="Content-Length: 3\r\n", body=b"abc")]
    near = islice(Mutator([*bases, *calls()], words, seed=seed), MUTATED // 3)
    await both(tmp_path, [(data, ANSWER, nothing) for data in [*bases, *near, *bases]], least_taken=5)


@pytest.mark.parametrize("data", [CALL, NAMED], ids=["authorization", "delegation-handle"])
@pytest.mark.parametrize("event", _EVENTS, ids=lambda event: event.__name__)
async def test_what_happens_meanwhile_ends_alike(tmp_path: Path, event: Event, data: bytes) -> None:
    await both(tmp_path, [(data, ANSWER, nothing), (data, ANSWER, event)], least_taken=2)


@pytest.mark.parametrize("seed", range(3))
async def test_many_things_that_happen_end_alike(tmp_path: Path, seed: int) -> None:
    random = Random(seed)
    choices = [ANSWER, ANSWER, *answers()]
    steps = [
        (random.choice([CALL, NAMED]), random.choice(choices), random.choice([nothing, *HARMLESS])) for _ in range(100)
    ]
    await both(tmp_path, steps, least_taken=20)


async def test_an_answer_of_401_ends_the_token_by_either_engine(tmp_path: Path) -> None:
    refused = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 3\r\n\r\nabc"
    world = OutboundWorld("native", tmp_path)
    kept = len(world.tokens.tokens)
    world.exchange(warm_call(world), refused)
    assert world.taken == 1
    assert len(world.tokens.tokens) == kept - 1
    await world.log.close()


def _is_over(world: OutboundWorld) -> None:
    world.handles.end(world.handle)


def _is_withdrawn(world: OutboundWorld) -> None:
    def refuse(_served: object) -> None:
        raise Denied(Reason.POLICY_DENIED, "the subject is on the deny list")

    world.handles._judge = refuse
    world.handles.suspect()


def _has_no_calls_left(world: OutboundWorld) -> None:
    world.served.calls_left = 0


def _expires(world: OutboundWorld) -> None:
    world.now += 1_000_000


def _policy_denies(world: OutboundWorld) -> None:
    policy = world.snapshots.current.policy
    denied = replace(policy, number=2, deny=Deny(subjects=frozenset({(None, "alice")})))
    world.snapshots.current = replace(world.snapshots.current, policy=denied)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (_is_over, "no_request_context"),
        (_is_withdrawn, "policy_denied"),
        (_has_no_calls_left, "calls_exhausted"),
        (_expires, "no_request_context"),
        (_policy_denies, "policy_denied"),
    ],
    ids=lambda value: value if isinstance(value, str) else value.__name__,
)
async def test_an_authority_that_has_ended_is_not_used(tmp_path: Path, change: Event, reason: str) -> None:
    world = OutboundWorld("native", tmp_path)
    world.exchange(warm_call(world))
    assert world.taken == 1
    change(world)
    outcome = world.exchange(warm_call(world))
    assert (world.taken, outcome.sent) == (1, b"")
    record = (await world.records())[-1]
    assert (record["decision"], record["reason"]) == ("deny", reason)


async def test_calls_are_counted_by_either_engine(tmp_path: Path) -> None:
    world = OutboundWorld("native", tmp_path)
    world.served.calls_left = 2
    outcomes = [world.exchange(warm_call(world)) for _ in range(3)]
    assert [bool(outcome.sent) for outcome in outcomes] == [True, True, False]
    await world.log.close()


def _stays_paused(world: EngineWorld) -> None:
    world.agent.pause_writing()


def _forgets_the_token(world: EngineWorld) -> None:
    assert isinstance(world, OutboundWorld)
    world.tokens.tokens.clear()


@pytest.mark.parametrize("meanwhile", [nothing, _stays_paused, _forgets_the_token, _agent_closes])
async def test_a_look_up_is_counted_once_whichever_engine_goes_on(tmp_path: Path, meanwhile: Event) -> None:
    counted: dict[Engine, object] = {}
    engines: tuple[Engine, ...] = ("python", "native")
    for engine in engines:
        world = OutboundWorld(engine, tmp_path)
        plans = world.plans
        for event in (nothing, meanwhile, nothing):
            world.exchange(CALL, between=event)
        kept, counts = world.tokens.tokens, world.log.metrics.token_cache
        counted[engine] = plans.hits, plans.misses, kept.hits, kept.misses, dict(counts)
        await world.log.close()
    assert counted["native"] == counted["python"]
