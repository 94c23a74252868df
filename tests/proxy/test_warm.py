"""Both engines get the same bytes: nobody outside can tell which one served. And ghosts become what they stand for."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import cache
from itertools import islice, product
from pathlib import Path
from random import Random
from sys import getrefcount
from typing import Any, Final, cast

import pytest

from delegation_core.errors import Denied, Reason, Unavailable
from delegation_core.policy import Deny
from sidecar.engine import Engine
from sidecar.proxy.journeys import watch
from sidecar.proxy.journeys.snapshot import Snapshot
from sidecar.proxy.listening.listener import ShedHandler
from sidecar.proxy.native.ghosts import GhostEntry, GhostForwarding, GhostRequest, GhostStream
from sidecar.wire.h1_head import RequestGrammar, ResponseGrammar
from sidecar.wire.origin_pool import Waiter
from tests.core.world import NOW, PLANNER
from tests.corpus import Words, cases
from tests.fuzz.inbound_world import token
from tests.fuzz.mutate import Mutator
from tests.native import module, needs_native
from tests.proxy.engines import POLICY, EngineWorld, Outcome, warm_request
from tests.proxy.warm import ANSWER

pytestmark = needs_native

WARM: Final = warm_request(fields=f"traceparent: 00-{'a' * 32}-{'b' * 16}-01\r\nX-Own: 1\r\n")
MUTATED: Final = 3000
Event = Callable[[EngineWorld], None]


def worlds(folder: Path) -> tuple[EngineWorld, EngineWorld]:
    return EngineWorld("python", folder), EngineWorld("native", folder)


async def both(
    folder: Path, exchanges: Iterable[tuple[bytes, bytes, Event]], *, least_taken: int = 0
) -> tuple[list[Outcome], list[dict[str, Any]]]:
    """Let both engines serve the same; return what both did."""
    told: dict[Engine, tuple[list[Outcome], list[dict[str, Any]]]] = {}
    steps = list(exchanges)
    counted: list[object] = []
    for world in worlds(folder):
        outcomes = [world.exchange(data, answer, between) for data, answer, between in steps]
        told[world.engine] = outcomes, await world.records()
        counted.append(world.counted)
        assert len(world.handles) == 0, "a handle outlives its request"
        assert len(world.watch) == 0, "a forwarding outlives its request"
        assert not world.log.being_served(), "a record stays open"
        if world.engine == "native":
            assert world.taken >= least_taken, "the native engine took too little for this test to say anything"
    (outcomes, records), (also, as_well) = told["python"], told["native"]
    for number, (one, other) in enumerate(zip(outcomes, also, strict=True)):
        assert one == other, steps[number]
    assert records == as_well
    assert counted[0] == counted[1]
    return outcomes, records


def nothing(_world: EngineWorld) -> None:
    pass


@cache
def messages() -> list[bytes]:
    """Requests of the corpora, as they come to a route that permits them."""
    words = Words(path="/docs/a", escaped_path="/%64ocs/a", host="writer:7443", token=token().decode())
    found = []
    for file in ("requests", "inbound"):
        found += [one.message(words) for one in cases(file, "inbound")]
    return found


@cache
def answers() -> list[bytes]:
    """Answers of the corpus."""
    words = Words(path="/docs/a", escaped_path="/%64ocs/a", host="writer:7443", token=token().decode())
    return [words.fill(one.row["answer"]) for one in cases("answers", "inbound") if "answer" in one.row]


async def test_a_warm_request_is_served_alike(tmp_path: Path) -> None:
    outcomes, records = await both(tmp_path, [(WARM, ANSWER, nothing)] * 4, least_taken=3)
    assert outcomes[0].sent == outcomes[3].sent
    assert outcomes[3].sent.startswith(b"POST /search HTTP/1.1\r\nuser-agent: agent/1\r\n")
    assert b"authorization: Bearer HANDLE\r\n" in outcomes[3].sent
    assert [record["seq"] for record in records] == [1, 2, 3, 4]
    assert {record["decision"] for record in records} == {"allow"}


async def test_every_message_of_the_corpora_is_served_alike(tmp_path: Path) -> None:
    steps = [(data, ANSWER, nothing) for one in messages() for data in (warm_request("GET", "/docs/a"), one, one)]
    await both(tmp_path, steps, least_taken=len(messages()) - 1)


async def test_every_answer_of_the_corpus_is_passed_on_alike(tmp_path: Path) -> None:
    steps = [(WARM, answer, nothing) for one in answers() for answer in (ANSWER, one, one)]
    await both(tmp_path, steps, least_taken=len(answers()))


@pytest.mark.parametrize("seed", range(4))
async def test_what_is_near_a_request_is_served_alike(tmp_path: Path, seed: int) -> None:
    words = [
        b"\r\n",
        b"content-length: 3\r\n",
        b"Connection: keep-alive\r\n",
        b"Expect: 100-continue\r\n",
        b"%2e",
        b"//",
    ]
    bases = [WARM, warm_request("GET", "/docs/a?b=c"), warm_request("PUT", "/docs/a", "Content-Length: 3\r\n", b"abc")]
    near = islice(Mutator([*bases, *messages()], words, seed=seed), MUTATED // 4)
    await both(tmp_path, [(data, ANSWER, nothing) for data in [*bases, *near, *bases]], least_taken=5)


@pytest.mark.parametrize("seed", range(2))
async def test_what_is_near_an_answer_is_passed_on_alike(tmp_path: Path, seed: int) -> None:
    small = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 3\r\n\r\nabc"
    near = islice(Mutator([small, ANSWER, *answers()], [b"\r\n", b"close", b"chunked"], seed=seed), MUTATED // 4)
    await both(tmp_path, [(WARM, data, nothing) for data in [small, *near, small] if data], least_taken=100)


# --- readers by themselves


def test_a_head_that_is_read_natively_is_read_the_same_by_the_grammar() -> None:
    grammar = RequestGrammar(max_target_bytes=136, max_fields=12, proxy_form=False)
    taken = 0
    for data in [*messages(), *islice(Mutator([WARM, *messages()], [b"Host: a\r\n", b"\t"], seed=7), MUTATED)]:
        found = module().read_request(data, 800, 136, 12)
        if found is None:
            continue
        method, target, authority, names, values, length, size = found
        head = grammar.read(data[:size])
        assert (head.method, head.target, head.authority) == (method, target, authority)
        assert (head.layout.names, head.values, head.content_length) == (names, values, length)
        assert head.keep_alive == (head.one(b"connection") != b"close")
        assert (head.minor, head.expect, head.upgrade, head.listed) == (1, None, None, frozenset())
        taken += 1
    assert taken > 100


async def test_paths_that_differ_behind_what_decides_on_their_route_are_served_alike(tmp_path: Path) -> None:
    """The native engine asks for a route once for all of them, and tells their neighbours apart."""
    below = ["/docs/1", "/docs/2", "/docs/2/", "/docs/search", "/docs/1/2/3"]
    beside = ["/docs/", "/Docs/1", "/docs", "/search/", "/search/1", "/docsx/1", "/search", "/1/docs/2"]
    paths = [path for other in beside for path in (*below, other)]
    told = [(warm_request("GET", path), ANSWER, nothing) for path in [*paths, *reversed(paths)]]
    outcomes, _ = await both(tmp_path, told, least_taken=2 * len(beside) * (len(below) - 1))
    assert sum(b"HTTP/1.1 200 " in outcome.answered for outcome in outcomes) >= 2 * len(beside) * len(below)


def test_each_octet_at_each_place_of_a_value_is_taken_or_left_as_the_grammar_reads_it() -> None:
    """Values are looked at eight octets at a time."""
    grammar = RequestGrammar(max_target_bytes=136, max_fields=12, proxy_form=False)
    taken = 0
    for octet, place, size in product(range(256), range(18), (18, 19, 24)):
        value = (b"\t" * (place % 3) + b"v" * size)[:size]
        value = value[:place] + bytes([octet]) + value[place + 1 :]
        data = b"GET / HTTP/1.1\r\nHost: a\r\nX: v%bv\r\n\r\n" % value
        found = module().read_request(data, 800, 136, 12)
        is_text = octet == 9 or 0x20 <= octet <= 0x7E
        assert (found is not None) == is_text
        if found is not None:
            assert found[4] == grammar.read(data).values
            taken += 1
    assert taken == (95 + 1) * 18 * 3


def test_an_answer_that_is_read_natively_is_read_the_same_by_the_grammar() -> None:
    grammar = ResponseGrammar(max_fields=12)
    taken = 0
    for data in [*answers(), *islice(Mutator([ANSWER, *answers()], [b"Connection: close\r\n"], seed=8), MUTATED)]:
        found = module().read_answer(data, 8192, 12)
        if found is None:
            continue
        status, names, values, length, size = found
        head = grammar.read(data[:size])
        assert (head.status, head.layout.names, head.values, head.content_length) == (status, names, values, length)
        assert (head.keep_alive, head.minor, head.chunked) == (True, 1, False)
        taken += 1
    assert taken > 100


# --- what can happen between a request and its answer


def _watch_ticks(world: EngineWorld) -> None:
    def fail(_text: str, *_values: object, **_more: object) -> None:
        raise AssertionError("a fault, which the watch would only log")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(watch._log, "exception", fail)
        list(world.watch.steps(1))


def _sweeps(world: EngineWorld) -> None:
    world.clock.now += 0.25
    world.server.sweep(world.clock.now)
    world.agent.sweep(world.clock.now)


def _lasts(world: EngineWorld) -> None:
    world.clock.now += 1.5
    world.log.tell_lasting()


def _drains(world: EngineWorld) -> None:
    world.connections.drain(0.1)


def _stops(world: EngineWorld) -> None:
    world.server.stop(Unavailable(Reason.DRAINING, "it took longer than the drain"))


def _vanishes(world: EngineWorld) -> None:
    world.server.connection_lost(None)


def _agent_closes(world: EngineWorld) -> None:
    world.agent.eof_received()
    world.agent.connection_lost(None)


def _agent_is_silent(world: EngineWorld) -> None:
    world.clock.now += 61
    world.agent.sweep(world.clock.now)


def _more_arrives(world: EngineWorld) -> None:
    world.server.data_received(WARM[:40])


def _is_looked_at(world: EngineWorld) -> None:
    for entry in world.log.being_served():
        assert (entry.peer, entry.method, entry.path, entry.decision) == (PLANNER, "POST", "/search", "allow")
        assert entry.trace_id == "a" * 32


def _is_denied(world: EngineWorld) -> None:
    denied = replace(POLICY, number=2, deny=Deny(subjects=frozenset({(None, "alice")})))
    snapshot: Snapshot = replace(world.snapshots.current, policy=denied)
    world.snapshots.current = snapshot
    list(world.watch.steps(1))


def _is_distrusted(world: EngineWorld) -> None:
    world.guard.error = Denied(Reason.SVID_EXPIRED, "its certificate has expired")
    world.source.current = object()
    list(world.watch.steps(1))


def _pauses(world: EngineWorld) -> None:
    world.server.pause_writing()
    world.server.resume_writing()


def _agent_pauses(world: EngineWorld) -> None:
    world.agent.pause_writing()
    world.agent.resume_writing()


def _half_an_answer(world: EngineWorld) -> None:
    world.agent.data_received(ANSWER[:30])


def _calls_out(world: EngineWorld) -> None:
    for handle in world.handles.alive:
        served = world.handles.resolve(handle)
        assert (served.delegation.token.subject, served.calls_left, served.linger_s) == ("alice", 64, 0.0)
        assert served.count_call() is None


def _calls_out_too_late(world: EngineWorld) -> None:
    before, world.now = world.now, float(NOW + 10_000)
    for handle in list(world.handles.alive):
        with pytest.raises(Denied, match="has ended"):
            world.handles.resolve(handle)
    world.now = before


EVENTS: Final[list[Event]] = [
    _watch_ticks,
    _sweeps,
    _lasts,
    _drains,
    _stops,
    _vanishes,
    _agent_closes,
    _agent_is_silent,
    _more_arrives,
    _is_looked_at,
    _is_denied,
    _is_distrusted,
    _pauses,
    _agent_pauses,
    _half_an_answer,
    _calls_out,
    _calls_out_too_late,
]
HARMLESS: Final = [one for one in EVENTS if one not in (_drains, _is_denied, _is_distrusted)]  # to requests after it


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.__name__)
async def test_what_happens_meanwhile_ends_alike(tmp_path: Path, event: Event) -> None:
    steps = [(WARM, ANSWER, nothing), (WARM, ANSWER, nothing), (WARM, ANSWER, event)]
    await both(tmp_path, steps, least_taken=2)


@pytest.mark.parametrize("seed", range(6))
async def test_many_things_that_happen_end_alike(tmp_path: Path, seed: int) -> None:
    random = Random(seed)
    steps = [(WARM, random.choice([ANSWER, *answers()]), random.choice([nothing, *HARMLESS])) for _ in range(150)]
    await both(tmp_path, [(WARM, ANSWER, nothing), *steps], least_taken=20)


@pytest.mark.parametrize(
    ("answer", "what"),
    [
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", "chunked"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", "no content"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\nabc", "its last"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabcd", "one byte too many"),
        (b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", "an interim one"),
        (b"HTTP/1.1 299 Of ours\r\nContent-Length: 3\r\nDelegation-Subject: mallory\r\n\r\nabc", "a foreign name"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_other_answers_are_passed_on_alike(tmp_path: Path, answer: bytes, what: str) -> None:
    await both(tmp_path, [(WARM, ANSWER, nothing), (WARM, answer, nothing), (WARM, ANSWER, nothing)], least_taken=2)


@pytest.mark.parametrize("engine", ["python", "native"])
async def test_a_connection_to_the_agent_that_has_aged_while_it_was_asked_is_not_kept(
    tmp_path: Path, engine: Engine
) -> None:
    world = EngineWorld(engine, tmp_path)
    world.exchange(WARM)
    agent, transport = world.agent, world.agent_transport

    def age(world: EngineWorld) -> None:
        world.clock.now = agent.ages_at

    assert world.exchange(WARM, between=age).answered.startswith(b"HTTP/1.1 200 OK\r\n")
    assert (agent.usable, transport.is_closing(), world.origin_pool.idle) == (False, True, [])
    await world.log.close()


@pytest.mark.parametrize("engine", ["python", "native"])
async def test_a_connection_that_was_handed_over_is_served_by_its_new_handler(tmp_path: Path, engine: Engine) -> None:
    world = EngineWorld(engine, tmp_path)
    world.exchange(WARM)
    world.server.hand_over(ShedHandler(world.log, "inbound"))
    outcome = world.exchange(WARM)
    assert (outcome.sent, outcome.open) == (b"", False)
    assert outcome.answered.startswith(b"HTTP/1.1 503 ")
    assert [record["reason"] for record in await world.records()] == ["ok", "overloaded"]


@pytest.mark.parametrize("event", [nothing, _half_an_answer, _pauses, _drains, _sweeps, _more_arrives, _vanishes])
async def test_the_last_request_of_a_connection_is_served_natively_and_ends_it_alike(
    tmp_path: Path, event: Event
) -> None:
    last = warm_request(fields="Connection: close\r\n")
    steps = [(WARM, ANSWER, nothing), (last, ANSWER, event), (last, ANSWER, nothing), (WARM, ANSWER, nothing)]
    outcomes, _ = await both(tmp_path, steps, least_taken=2)
    assert [outcome.open for outcome in outcomes[:2]] == [True, False]


@pytest.mark.parametrize("option", ["Close", "close, close", "close, keep-alive", "keep-alive, close", "closed"])
async def test_other_options_of_a_connection_are_left_to_python(tmp_path: Path, option: str) -> None:
    odd = warm_request(fields=f"Connection: {option}\r\n")
    world = EngineWorld("native", tmp_path)
    for data in (WARM, odd):
        world.exchange(data)
    assert world.taken == 0
    await world.log.close()
    world.lines.unlink()
    await both(tmp_path, [(WARM, ANSWER, nothing), (odd, ANSWER, nothing), (WARM, ANSWER, nothing)])


LARGE: Final = warm_request("PUT", "/docs/a", "Content-Length: 60000\r\n", b"x" * 60_000)


async def test_a_handle_works_from_the_moment_at_which_the_agent_gets_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A large request is written at once, and a write may end whatever waits for it."""
    for world in worlds(tmp_path):
        world.exchange(warm_request("PUT", "/docs/a"))
        alive: list[int] = []

        def write(_data: bytes, world: EngineWorld = world, alive: list[int] = alive) -> None:
            alive.append(len(world.handles))

        monkeypatch.setattr(world.agent_transport, "write", write)
        world.exchange(LARGE)
        assert (alive, world.taken) == ([1], world.engine == "native")
        world.server.connection_lost(None)
        await world.log.close()


async def test_a_large_body_is_not_held_until_its_answer(tmp_path: Path) -> None:
    held: dict[Engine, int] = {}
    for world in worlds(tmp_path):
        data = bytes(bytearray(LARGE))
        free = getrefcount(data)

        def look(world: EngineWorld, data: bytes = data, free: int = free) -> None:
            world.agent_transport.settle()
            held[world.engine] = getrefcount(data) - free

        world.exchange(warm_request("PUT", "/docs/a"))
        world.exchange(data, between=look)
        assert world.taken == (world.engine == "native")
        await world.log.close()
    assert held["native"] <= held["python"]
    await both(tmp_path, [(LARGE, ANSWER, event) for event in (nothing, nothing, _half_an_answer, _vanishes)])


# --- every fact that ends a permit ends it here too


async def served_again(world: EngineWorld, change: Event) -> dict[str, Any]:
    """Serve the same request three times, the last one after a change; return its record."""
    world.exchange(WARM)
    world.exchange(WARM)
    taken = world.taken
    assert taken == 1
    change(world)
    world.exchange(WARM)
    assert world.taken == taken, "the native engine served what has ended"
    return (await world.records())[-1]


def _expired(world: EngineWorld) -> None:
    world.now = float(NOW + 10_000)


def _before(world: EngineWorld) -> None:
    world.now = float(NOW - 10_000)


def _other_policy(world: EngineWorld) -> None:
    denied = replace(POLICY, number=2, deny=Deny(subjects=frozenset({(None, "alice")})))
    world.snapshots.current = replace(world.snapshots.current, policy=denied)


def _no_identity(world: EngineWorld) -> None:
    world.snapshots.now = _refuse
    world.snapshots.current = None


def _refuse() -> Snapshot:
    raise Unavailable(Reason.NOT_READY, "this workload has no identity")


def _closed(world: EngineWorld) -> None:
    world.snapshots.now = _refuse
    world.snapshots.closed = "a way around"


def _untrusted(world: EngineWorld) -> None:
    world.guard.error = Denied(Reason.SVID_EXPIRED, "its certificate has expired")
    world.source.current = object()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (_expired, "token_expired"),
        (_before, "token_not_yet_valid"),
        (_other_policy, "policy_denied"),
        (_no_identity, "not_ready"),
        (_closed, "not_ready"),
        (_untrusted, "svid_expired"),
    ],
    ids=lambda value: value if isinstance(value, str) else value.__name__,
)
async def test_a_permit_that_has_ended_is_not_used(tmp_path: Path, change: Event, reason: str) -> None:
    record = await served_again(EngineWorld("native", tmp_path), change)
    assert (record["decision"], record["reason"]) == ("deny", reason)


async def test_new_keys_end_every_permit(tmp_path: Path) -> None:
    world = EngineWorld("native", tmp_path)
    world.exchange(WARM)
    world.exchange(WARM)
    world.snapshots.current.keys.generation = 2
    world.exchange(WARM)
    assert world.taken == 1
    assert [record["decision"] for record in await world.records()] == ["allow"] * 3


async def test_another_certificate_of_the_peer_finds_no_permit(tmp_path: Path) -> None:
    world = EngineWorld("native", tmp_path)
    world.exchange(WARM)
    world.guard.peer = replace(world.guard.peer, fingerprint="1" * 64)
    world.connect()
    world.exchange(WARM)
    assert world.taken == 0


async def test_without_room_for_a_record_nothing_is_taken(tmp_path: Path) -> None:
    world = EngineWorld("native", tmp_path)
    world.exchange(WARM)
    world.log.writer.reliable_until = 0.0
    outcome = world.exchange(WARM)
    assert (world.taken, outcome.sent) == (0, b"")
    assert outcome.answered.startswith(b"HTTP/1.1 503 ")


async def test_without_a_free_connection_nothing_is_taken(tmp_path: Path) -> None:
    world = EngineWorld("native", tmp_path)
    world.exchange(WARM)
    world.agent_transport.closed = True
    world.origin_pool.idle[:] = [world.agent]
    assert world._warm is not None
    assert not world._warm(world.server, WARM)
    assert world.origin_pool.idle == [world.agent]


async def test_a_connection_that_is_promised_to_a_call_that_waits_is_not_taken(tmp_path: Path) -> None:
    world = EngineWorld("native", tmp_path)
    world.exchange(WARM)
    waiting = cast("Waiter", object())
    world.origin_pool.usual[waiting] = None
    assert world._warm is not None
    assert not world._warm(world.server, WARM)
    assert world.origin_pool.idle == [world.agent]
    del world.origin_pool.usual[waiting]
    assert world._warm(world.server, WARM)
    world.server.connection_lost(None)
    await world.log.close()


async def test_a_connection_that_is_left_over_by_calls_that_wait_is_taken_alike(tmp_path: Path) -> None:
    left: list[int] = []
    for world in worlds(tmp_path):
        world.exchange(WARM)
        promised, waiting = world.agent, cast("Waiter", object())
        world.agent_connects()
        world.origin_pool.idle.insert(0, promised)
        world.origin_pool.usual[waiting] = None
        assert world.exchange(WARM).sent
        left.append(world.taken)
        assert promised in world.origin_pool.idle
        await world.log.close()
    assert left == [0, 1]


# --- ghosts


async def test_a_request_in_flight_is_a_ghost_until_somebody_looks(tmp_path: Path) -> None:
    world = EngineWorld("native", tmp_path)
    world.exchange(WARM)
    kinds: list[set[type]] = []

    def look(world: EngineWorld) -> None:
        _sweeps(world)
        (handle,) = world.handles.alive
        (entry,) = world.log.being_served()
        (forwarding,) = world.watch.young
        parts: list[object] = [world.server.stream, entry, forwarding, world.handles.alive[handle]]
        kinds.append({type(part) for part in parts})
        assert entry.decision == "allow"
        kinds.append({type(part) for part in parts})

    world.exchange(WARM, between=look)
    assert kinds[0] == {GhostStream, GhostEntry, GhostForwarding, GhostRequest}
    assert kinds[1].isdisjoint(kinds[0] - {GhostRequest})
    await world.log.close()


def test_a_panic_is_an_error_that_names_its_place_and_quotes_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(RuntimeError, match=r"^a bug in the native engine, at src/guarded\.rs:[0-9]+$"):
        module().panic_on_purpose("a secret")
    assert "secret" not in "".join(capfd.readouterr())
