"""Peers' messages of MCP and A2A by both engines: nobody outside can tell which one served."""

from __future__ import annotations

import json
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any, Final, cast

import pytest

from delegation_core.bounded import BoundedCache
from delegation_core.mcp_session import Holder, Session, SessionIds
from sidecar.engine import Engine
from sidecar.features.a2a.task_bindings import Principal
from sidecar.features.a2a.warm import GhostTaskForwarding
from sidecar.features.mcp.warm import GhostMcpForwarding
from sidecar.proxy.journeys.inbound import Inbound
from sidecar.proxy.native.ghosts import GhostForwarding
from tests.core.world import PLANNER, STS
from tests.fuzz.inbound_world import token
from tests.fuzz.mutate import Mutator
from tests.native import needs_native
from tests.proxy.engines import EngineWorld, Outcome
from tests.proxy.messages import (
    EVENTS,
    FOUND,
    TASK,
    a2a,
    answer,
    from_peer,
    mcp,
    old_tool,
    say,
    tool,
)
from tests.proxy.test_warm import EVENTS as MEANWHILE
from tests.proxy.test_warm import HARMLESS, Event, _is_looked_at, answers, both, nothing
from tests.proxy.warm import ANSWER

pytestmark = needs_native

HARMLESS_TO_MESSAGES: Final = [one for one in HARMLESS if one is not _is_looked_at]
ALICE: Final = Principal(STS, "alice", PLANNER)
SESSION: Final = SessionIds(bytes(32)).give("tools", Session(Holder("subject", PLANNER, STS, "alice"), "s1"))
TOLD: Final = SessionIds(bytes(32)).give("told", Session(Holder("subject", PLANNER, STS, "alice"), "s1"))
MALLORYS: Final = SessionIds(bytes(32)).give("tools", Session(Holder("subject", PLANNER, STS, "mallory"), "s1"))
SEARCH: Final = from_peer("/mcp", tool()[0], *tool()[1])
OLD: Final = from_peer("/mcp", old_tool()[0], *old_tool()[1])
IN_SESSION: Final = from_peer("/mcp", old_tool()[0], *old_tool()[1], f"Mcp-Session-Id: {SESSION}")
SAY: Final = from_peer("/a2a", say()[0], *say()[1])
GET_TASK: Final = from_peer("/a2a", a2a("GetTask", {"id": "t1"})[0], "A2A-Version: 1.0")
REST: Final = from_peer(
    "/a2a/message:send", b'{"message": {"messageId": "m", "role": "ROLE_USER", "parts": []}}', "A2A-Version: 1.0"
)
INITIALIZE: Final = from_peer(
    "/mcp", json.dumps({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {}}).encode()
)
WARM: Final = [
    SEARCH,
    OLD,
    IN_SESSION,
    from_peer("/mcp", tool("named")[0], *tool("named")[1]),
    from_peer("/mcp", tool()[0], *tool()[1], "Mcp-Session-Id: ends-here"),
    from_peer("/cut", tool()[0], *tool()[1]),
    from_peer("/told", tool()[0], *tool()[1], "X-Forwarded-For: made.up"),
    from_peer("/told", old_tool()[0], *old_tool()[1], f"Mcp-Session-Id: {TOLD}"),
    INITIALIZE,
    SAY,
    REST,
]
WORDS: Final = [
    b'"tools/call"', b'"SendMessage"', b"Mcp-Name: search\r\n", b"Mcp-Session-Id: a\r\n", b"A2A-Version: 0.3\r\n", b"{",
    f"Mcp-Session-Id: {SESSION}\r\n".encode(), b"mcp_session_id: x\r\n", b"Last-Event-ID: 1\r\n", b'"name"',
    b"Content-Type: text/plain\r\n", b"tasks/get", b'"id": 1', b"MCP-Protocol-Version: 2025-06-18\r\n",
    b'"contextId": "c1"', b'"taskId": "t1"',
]  # fmt: skip


@pytest.mark.parametrize("data", WARM, ids=range(len(WARM)))
async def test_a_message_is_served_alike_and_natively(tmp_path: Path, data: bytes) -> None:
    _, records = await both(tmp_path, [(data, FOUND, nothing)] * 3, least_taken=2)
    assert {record["decision"] for record in records} == {"allow"}


async def test_a_record_names_the_operation_as_far_as_the_settings_do(tmp_path: Path) -> None:
    sent = [from_peer("/mcp", tool(name)[0], *tool(name)[1]) for name in ("search", "unlisted", "named")]
    _, records = await both(tmp_path, [(data, FOUND, nothing) for data in [*sent, *sent]], least_taken=3)
    named = ["tools/call:search", "tools/call:other", "tools/call:named"]
    assert [record["op"] for record in records] == named * 2


REFUSED: Final = [
    from_peer("/mcp", tool()[0].replace(b"tools/call", b"tools/drop"), *tool()[1]),
    from_peer("/mcp", tool()[0], *tool("other")[1]),
    from_peer("/mcp", tool()[0][:-1], *tool()[1]),
    from_peer("/mcp", b"[" + tool()[0] + b"]", *tool()[1]),
    from_peer("/mcp", tool()[0], *tool()[1], "Content-Encoding: gzip"),
    from_peer("/mcp", old_tool()[0], *old_tool()[1], f"Mcp-Session-Id: {MALLORYS}"),
    from_peer("/mcp", old_tool()[0], *old_tool()[1], "Mcp-Session-Id: s1"),
    from_peer("/mcp", old_tool()[0], *old_tool()[1], f"Mcp-Session-Id: {SESSION}", f"Mcp-Session-Id: {SESSION}"),
    from_peer("/mcp", old_tool()[0], *old_tool()[1], f"Mcp-Session-Id: {SESSION}", "Last-Event-ID: 7"),
    from_peer("/cut", old_tool()[0], *old_tool()[1], f"Mcp-Session-Id: {SESSION}"),
    from_peer("/a2a", say()[0], "A2A-Version: 9.0"),
    from_peer("/a2a", say(taskId="a", task_id="b")[0], "A2A-Version: 1.0"),
    from_peer("/a2a/.well-known/agent-card.json", say()[0], *say()[1]),
    from_peer("/a2a", a2a("DeleteTask", {"id": "t1"})[0], "A2A-Version: 1.0"),
]


@pytest.mark.parametrize("data", REFUSED, ids=range(len(REFUSED)))
async def test_a_message_that_is_refused_is_refused_alike_and_never_sent(tmp_path: Path, data: bytes) -> None:
    warm = [SEARCH, OLD, SAY, from_peer("/cut", old_tool()[0], *old_tool()[1])]
    steps = [(one, FOUND, nothing) for one in [*warm, data, *warm]]
    outcomes, records = await both(tmp_path, steps, least_taken=4)
    assert outcomes[4].sent == b""
    assert records[4]["decision"] == "deny"


async def test_an_agent_is_told_the_token_and_the_way_of_the_call_where_its_route_says_so(tmp_path: Path) -> None:
    data = from_peer("/told", tool()[0], *tool()[1])
    outcomes, _ = await both(tmp_path, [(data, FOUND, nothing)] * 2 + [(SEARCH, FOUND, nothing)] * 2, least_taken=2)
    for outcome in outcomes[:2]:
        assert b"\r\ndelegation-token: " + token() + b"\r\nx-forwarded-proto: https\r\n" in outcome.sent
        assert b"\r\nx-forwarded-host: writer:7443\r\n" in outcome.sent
    for outcome in outcomes[2:]:
        assert b"delegation-token" not in outcome.sent
        assert b"x-forwarded" not in outcome.sent


# --- sessions of MCP


async def test_a_session_is_shown_to_each_side_by_its_own_id(tmp_path: Path) -> None:
    found = answer({}, "Mcp-Session-Id: s1")
    outcomes, _ = await both(tmp_path, [(IN_SESSION, found, nothing)] * 3, least_taken=2)
    for outcome in outcomes:
        assert b"mcp-session-id: s1\r\n" in outcome.sent
        assert SESSION.encode() not in outcome.sent
        assert f"mcp-session-id: {SESSION}\r\n".encode() in outcome.answered


async def test_a_session_that_an_answer_opens_is_bound(tmp_path: Path) -> None:
    outcomes, _ = await both(tmp_path, [(INITIALIZE, answer({}, "Mcp-Session-Id: s1"), nothing)] * 2, least_taken=1)
    assert f"mcp-session-id: {SESSION}\r\n".encode() in outcomes[1].answered


@pytest.mark.parametrize(
    "fields",
    [
        ["Mcp-Session-Id: another"],
        ["Mcp-Session-Id: s1", "Mcp-Session-Id: s1"],
        ["Mcp-Session-Id: not an id"],
        ["mcp_session_id: s1"],
        [f"Mcp-Session-Id: {MALLORYS}"],
    ],
)
@pytest.mark.parametrize("data", [IN_SESSION, OLD, SEARCH, INITIALIZE], ids=["in one", "in none", "stateless", "opens"])
async def test_a_session_that_an_answer_names_is_passed_on_alike(
    tmp_path: Path, data: bytes, fields: list[str]
) -> None:
    steps = [(data, FOUND, nothing), (data, answer({}, *fields), nothing), (data, FOUND, nothing)]
    outcomes, _ = await both(tmp_path, steps, least_taken=2)
    assert b": s1\r\n" not in outcomes[1].answered


async def test_a_list_that_is_cut_is_left_to_python(tmp_path: Path) -> None:
    message, fields = mcp("tools/list", {})
    found = answer({"tools": [{"name": "search", "inputSchema": {}}]})
    for path, least in (("/mcp", 2), ("/cut", 0)):
        world = EngineWorld("native", tmp_path)
        for _ in range(3):
            world.exchange(from_peer(path, message, *fields), found)
        assert world.taken == least
        await world.log.close()
        world.lines.unlink()
        await both(tmp_path, [(from_peer(path, message, *fields), found, nothing)] * 3)
        for engine in ("python", "native"):
            (tmp_path / f"records-{engine}").unlink()


# --- tasks and contexts of A2A


def _bound(world: EngineWorld) -> list[tuple[object, ...]]:
    bindings = world.bindings
    return [(key, *one) for table in (bindings.tasks, bindings.contexts) for key, one in table._bound.items()]


async def both_bind(
    folder: Path, steps: Iterable[tuple[bytes, bytes]], *, least_taken: int, between: Event = nothing
) -> tuple[list[Outcome], list[dict[str, Any]], EngineWorld]:
    """Let both engines serve the same, and compare what they have bound too."""
    told = []
    engines: tuple[Engine, ...] = ("python", "native")
    steps = list(steps)
    for engine in engines:
        world = EngineWorld(engine, folder)
        outcomes = [world.exchange(data, found, between) for data, found in steps]
        told.append((outcomes, await world.records(), _bound(world), world.counted))
    assert world.taken >= least_taken
    assert told[0] == told[1]
    return told[1][0], told[1][1], world


async def test_a_task_that_an_answer_shows_is_bound(tmp_path: Path) -> None:
    _, _, world = await both_bind(tmp_path, [(SAY, FOUND), (SAY, TASK)], least_taken=1)
    assert world.bindings.tasks.owner("t1") == world.bindings.contexts.owner("c1") == ALICE


@pytest.mark.parametrize(
    "found",
    [
        EVENTS,
        answer({"task": {"id": "t1"}}, status="201 Created"),
        answer({"task": {"id": "t1"}}, status="400 Bad Request"),
        TASK.replace(b'"result"', b'"error"'),
        TASK.replace(b"application/json", b"text/plain"),
        TASK.replace(b"Content-Type", b"Content-Encoding: gzip\r\nContent-Type"),
        answer({"task": {"id": "t1"}}).replace(b'{"jsonrpc"', b' "jsonrpc"'),
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 63\r\n\r\n"
        b'data: {"jsonrpc":"2.0","id":1,"result":{"task":{"id":"t1"}}}\r\n\r\n'[:-1],
    ],
    ids=range(8),
)
async def test_what_an_answer_shows_is_bound_alike(tmp_path: Path, found: bytes) -> None:
    steps = [(SAY, FOUND), (SAY, found), (REST, FOUND), (REST, found), (SAY, TASK)]
    await both_bind(tmp_path, steps, least_taken=3)


async def test_a_known_task_and_context_are_named_natively_and_an_unknown_one_by_python(tmp_path: Path) -> None:
    within = from_peer("/a2a", say(2, contextId="c1", taskId="t1")[0], "A2A-Version: 1.0")
    beside = from_peer("/a2a", say(3, contextId="c1")[0], "A2A-Version: 1.0")
    unknown = from_peer("/a2a", say(4, contextId="c9")[0], "A2A-Version: 1.0")
    steps = [(GET_TASK, FOUND), (SAY, FOUND), (SAY, TASK), (within, TASK), (beside, TASK), (GET_TASK, TASK)]
    _, records, world = await both_bind(tmp_path, [*steps, (unknown, TASK)], least_taken=4)
    assert world.taken == 4
    assert [bool(record["detail"]) for record in records] == [True, False, False, False, False, False, True]


async def test_a_task_of_another_user_is_refused_whichever_engine_begins(tmp_path: Path) -> None:
    def taken_over(world: EngineWorld) -> None:
        world.bindings.tasks.bind("t1", ALICE._replace(subject="mallory"))

    steps = [(SAY, FOUND), (SAY, FOUND), (GET_TASK, TASK)]
    outcomes, records, _ = await both_bind(tmp_path, steps, least_taken=1, between=taken_over)
    assert outcomes[2].sent == b""
    assert (records[2]["decision"], records[2]["reason"]) == ("deny", "task_unknown")


async def test_a_strict_route_refuses_an_unknown_task_whichever_engine_begins(tmp_path: Path) -> None:
    say_there = from_peer("/strict", say()[0], *say()[1])
    unknown = from_peer("/strict", a2a("GetTask", {"id": "t9"})[0], "A2A-Version: 1.0")
    known = from_peer("/strict", a2a("GetTask", {"id": "t1"})[0], "A2A-Version: 1.0")
    steps = [(say_there, FOUND), (say_there, TASK), (known, TASK), (known, TASK), (unknown, TASK)]
    outcomes, records, _ = await both_bind(tmp_path, steps, least_taken=2)
    assert outcomes[-1].sent == b""
    assert records[-1]["reason"] == "task_unknown"


# --- what can happen between a message and its answer


@pytest.mark.parametrize("data", [IN_SESSION, SAY], ids=["mcp", "a2a"])
@pytest.mark.parametrize("event", [one for one in MEANWHILE if one is not _is_looked_at], ids=lambda one: one.__name__)
async def test_what_happens_meanwhile_ends_alike(tmp_path: Path, event: Event, data: bytes) -> None:
    found = answer({"task": {"id": "t1", "contextId": "c1"}}, "Mcp-Session-Id: s1")
    await both(tmp_path, [(data, FOUND, nothing), (data, found, nothing), (data, found, event)], least_taken=2)


@pytest.mark.parametrize("seed", range(4))
async def test_many_things_that_happen_end_alike(tmp_path: Path, seed: int) -> None:
    random = Random(seed)
    found = [FOUND, FOUND, TASK, EVENTS, ANSWER, answer({}, "Mcp-Session-Id: s1"), *answers()]
    events = [nothing, *HARMLESS_TO_MESSAGES]
    steps = [(random.choice([*WARM, GET_TASK]), random.choice(found), random.choice(events)) for _ in range(150)]
    await both(tmp_path, [*[(one, FOUND, nothing) for one in WARM], *steps], least_taken=20)


@pytest.mark.parametrize("seed", range(4))
async def test_what_is_near_a_message_is_served_alike(tmp_path: Path, seed: int) -> None:
    near = islice(Mutator([*WARM, GET_TASK], WORDS, seed=seed), 500)
    await both(tmp_path, [(data, FOUND, nothing) for data in [*WARM, *near, *WARM]], least_taken=10)


@pytest.mark.parametrize("cut", [1, 40, 400, -1, -60])
@pytest.mark.parametrize("data", [SEARCH, SAY], ids=["mcp", "a2a"])
async def test_a_message_in_two_pieces_is_served_alike(tmp_path: Path, data: bytes, cut: int) -> None:
    counted = []
    engines: tuple[Engine, ...] = ("python", "native")
    for engine in engines:
        world = EngineWorld(engine, tmp_path)
        outcomes = [world.exchange((data[:cut], data[cut:]), FOUND) for _ in range(3)]
        counted.append((outcomes, await world.records(), world.counted))
        if engine == "native" and cut < 0:
            assert world.taken == 2
    assert counted[0] == counted[1]


@pytest.mark.parametrize(
    ("data", "kind"),
    [(SEARCH, GhostMcpForwarding), (SAY, GhostTaskForwarding), (GET_TASK, GhostForwarding)],
    ids=["mcp", "a2a", "of a task"],
)
async def test_a_message_in_flight_is_a_ghost_until_somebody_looks(
    tmp_path: Path, data: bytes, kind: type[Any]
) -> None:
    world = EngineWorld("native", tmp_path)
    world.exchange(SAY, TASK)
    world.exchange(data, FOUND)
    kinds: list[type] = []

    def look(world: EngineWorld) -> None:
        (forwarding,) = world.watch.young
        (entry,) = world.log.being_served()
        kinds.append(type(forwarding))
        assert entry.op == entry.operation
        kinds.append(type(forwarding))

    world.exchange(data, FOUND, look)
    assert kinds == [kind, kind.__base__]
    await world.log.close()


async def test_after_an_answer_that_was_handed_over_python_begins_some_messages(tmp_path: Path) -> None:
    class Usual(EngineWorld):
        pythons = 2

    world = Usual("native", tmp_path)
    taken = []
    for found in (FOUND, FOUND, EVENTS, FOUND, FOUND, FOUND):
        world.exchange(SEARCH, found)
        taken.append(world.taken)
    assert taken == [0, 1, 2, 2, 2, 3]
    await world.log.close()


# --- a message is read only once its token was verified


@pytest.mark.parametrize("keeps_permits", [False, True])
async def test_a_message_whose_token_is_not_verified_any_more_is_left_to_python(
    tmp_path: Path, keeps_permits: bool
) -> None:
    world = EngineWorld("native", tmp_path)
    world.exchange(SEARCH, FOUND)
    world.exchange(SEARCH, FOUND)
    assert world.taken == 1
    if keeps_permits:
        BoundedCache.drop(world.verdicts, next(iter(world.verdicts.entries)))
    else:
        world.verdicts.clear()
    assert (len(world.verdicts), len(cast("Inbound", world.handler).permits)) == (0, keeps_permits)
    world.exchange(SEARCH, FOUND)
    assert world.taken == 1
    await world.log.close()
