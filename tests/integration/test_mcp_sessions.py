"""Sessions of MCP over real sockets: whoever opened one uses it, and the same call by anybody else is no session."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.config.documents import written
from tests.integration.process import process
from tests.integration.test_observe import SOON
from tests.integration.test_operations import JSON, SEARCH, Peer, mcp_settings
from tests.integration.test_reload import Reloadable
from tests.integration.world import FRONT, PLANNER, WRITER, Answer, World, bearer, calling, free_port, mint, ok, until

pytestmark = pytest.mark.integration

HELLO = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {"protocolVersion": "2025-11-25"}}
RESULT = {"jsonrpc": "2.0", "id": 9, "result": {"action": "accept"}}
FIELD = "Mcp-Session-Id"
OWN = {"sub": PLANNER, "act": None}
STATELESS = {"_meta": {"io.modelcontextprotocol/protocolVersion": "2026-07-28"}}


class Sessions:
    """An agent that opens a new session at each ``initialize``, and names the session of a request in each answer."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.opened: list[str] = []
        self.always: bytes | None = None
        world.agent.script = self.answer

    def answer(self, head: bytes, body: bytes) -> bytes:
        if self.always is not None:
            return ok(b"{}", *([b"mcp-session-id: " + self.always] if self.always else []))
        if b'"initialize"' in body:
            self.opened.append(f"agent~{len(self.opened)}.!")
            return ok(b"{}", b"Mcp-Session-Id: " + self.opened[-1].encode())
        if head.startswith(b"GET"):
            return ok(b": hello\nid: 7\ndata: {}\n\n", b"content-type: text/event-stream")
        shown = self.world.agent.headers().get("mcp-session-id")
        return ok(b"{}", *([] if shown is None else [b"MCP-SESSION-ID: " + shown.encode()]))

    def shown(self) -> str | None:
        """Return the id that the last request showed to the agent."""
        return self.world.agent.headers().get("mcp-session-id")


class Caller(Peer):
    """A peer, with ways to name a session."""

    async def open(self, token: str | None = None) -> str:
        answer = await self.send(HELLO, token=token)
        assert answer.status == 200
        return answer.headers["mcp-session-id"]

    async def ask(
        self, session: str, message: object = SEARCH, *fields: tuple[str, str], token: str | None = None
    ) -> Answer:
        return await self.send(message, JSON, (FIELD, session), *fields, token=token)

    async def event(self, session: str, token: str | None = None) -> str:
        """Return the id of an event in a stream of the session, as the agent's peer gets it."""
        answer = await self.method("GET", (FIELD, session), token=token)
        begun, shown, data = answer.body.split(b"\n", 2)
        assert (answer.status, begun, data) == (200, b": hello", b"data: {}\n\n")
        assert shown.startswith(b"id: ")
        assert shown.endswith(b".7")
        return shown.removeprefix(b"id: ").decode()

    async def method(self, method: str, *fields: tuple[str, str], token: str | None = None) -> Answer:
        return await self.send(b"", *(fields or (("accept", "text/event-stream"),)), token=token, method=method)


async def caller_of(world: World, **route: Any) -> tuple[Caller, Sessions]:
    sidecar = await world.sidecar(WRITER, mcp_settings(world, **route))
    return Caller(world, sidecar, calling(await world.source(PLANNER), WRITER)), Sessions(world)


async def front(world: World, caller: Caller) -> Caller:
    return Caller(world, caller.sidecar, calling(await world.source(FRONT), WRITER))


def unknown(answer: Answer) -> bool:
    return (answer.status, answer.reason) == (404, "session_unknown")


async def test_the_client_shows_a_bound_id_and_the_agent_its_own(world: World) -> None:
    caller, agent = await caller_of(world)
    session = await caller.open()
    assert agent.opened[0] in session
    assert session != agent.opened[0]
    answer = await caller.ask(session)
    assert (answer.status, answer.headers["mcp-session-id"]) == (200, session)
    assert agent.shown() == agent.opened[0]
    assert (await caller.send(RESULT, JSON, (FIELD, session))).status == 200
    for method in ("GET", "DELETE"):
        assert (await caller.method(method, (FIELD, session))).status == 200
        assert agent.shown() == agent.opened[0]


async def test_a_session_that_its_caller_has_ended_is_none_whatever_the_agent_does_with_it(world: World) -> None:
    caller, agent = await caller_of(world)
    ended, kept = await caller.open(), await caller.open()
    assert (await caller.method("DELETE", (FIELD, ended))).status == 200
    heard = len(world.agent.requests)
    assert unknown(await caller.ask(ended))
    assert unknown(await caller.send(RESULT, JSON, (FIELD, ended)))
    for method in ("GET", "DELETE"):
        assert unknown(await caller.method(method, (FIELD, ended)))
    assert len(world.agent.requests) == heard
    assert (await caller.ask(kept)).status == 200
    assert agent.shown() == agent.opened[1]


async def test_a_session_whose_end_the_agent_refused_goes_on(world: World) -> None:
    caller, agent = await caller_of(world)
    session = await caller.open()
    script = agent.answer
    world.agent.script = lambda _head, _body: b"HTTP/1.1 405 Method Not Allowed\r\ncontent-length: 0\r\n\r\n"
    assert (await caller.method("DELETE", (FIELD, session))).status == 405
    world.agent.script = script
    assert (await caller.ask(session)).status == 200


@pytest.mark.parametrize(
    ("method", "fields"),
    [
        ("GET", [("accept", "text/event-stream")]),
        ("GET", [("mcp-protocol-version", "2025-11-25")]),
        ("GET", [("mcp-protocol-version", "2026-07-28")]),
        ("DELETE", [("mcp-protocol-version", "2026-07-28")]),
    ],
)
async def test_without_a_session_there_is_no_stream_and_no_end(
    world: World, method: str, fields: list[tuple[str, str]]
) -> None:
    caller, _ = await caller_of(world)
    answer = await caller.method(method, *fields)
    assert (answer.status, answer.reason, answer.headers["allow"]) == (405, "method_refused", "POST")
    assert world.agent.requests == []


@pytest.mark.parametrize("how", ["POST", "GET", "DELETE", "response", "resume"])
@pytest.mark.parametrize("who", ["subject", "issuers-subject", "peer", "itself"])
async def test_nobody_else_uses_a_session_or_ends_it(world: World, how: str, who: str) -> None:
    caller, agent = await caller_of(world, allow_self=True)
    session = await caller.open()
    other = await front(world, caller) if who == "peer" else caller
    token = {
        "subject": mint({"sub": "bob"}),
        "issuers-subject": mint({"sub": "alice "}),
        "peer": mint({"act": {"sub": FRONT}}),
        "itself": mint(OWN),
    }[who]

    resume = [("Last-Event-ID", await caller.event(session))] if how == "resume" else []
    before = len(world.agent.requests)

    async def use(by: Caller, token: str) -> Answer:
        if how == "POST":
            ping = {"jsonrpc": "2.0", "id": 2, "method": "ping"}
            return await by.ask(session, ping, token=token)
        if how == "response":
            return await by.ask(session, RESULT, token=token)
        method = "GET" if how == "resume" else how
        return await by.method(method, (FIELD, session), *resume, token=token)

    refused = await use(other, token)
    assert unknown(refused)
    assert json.loads(refused.body)["error"]["data"]["reason"] == "session_unknown"
    assert len(world.agent.requests) == before
    record = await caller.last(before + 1)
    assert (record["decision"], record["reason"], record["route"]) == ("deny", "session_unknown", "tools")
    assert record["subject"] is not None
    assert (await use(caller, mint())).status == 200
    assert agent.shown() == agent.opened[0]


async def test_a_stream_is_resumed_in_its_own_session_alone(world: World) -> None:
    caller, _ = await caller_of(world)
    bob = mint({"sub": "bob"})
    hers, another, his = await caller.open(), await caller.open(), await caller.open(bob)
    event = await caller.event(hers)
    before = len(world.agent.requests)
    for session, token, shown in (
        (his, bob, event),
        (another, None, event),
        (hers, None, "7"),
        (hers, None, event + "8"),
        (hers, None, event[:-1]),
        (hers, None, hers),
        (hers, None, ""),
    ):
        assert unknown(await caller.method("GET", (FIELD, session), ("Last-Event-ID", shown), token=token))
    twice = await caller.method("GET", (FIELD, hers), ("Last-Event-ID", event), ("Last-Event-ID", event))
    assert (twice.status, twice.reason) == (400, "header_malformed")
    assert len(world.agent.requests) == before
    assert (await caller.method("GET", (FIELD, hers), ("Last-Event-ID", event))).status == 200
    assert world.agent.headers()["last-event-id"] == "7"


@pytest.mark.parametrize("spoil", ["agents", "cut", "mac", "id", "empty", "no-dot", "latin", "space", "long"])
async def test_what_is_no_id_of_ours_is_no_session(world: World, spoil: str) -> None:
    caller, agent = await caller_of(world)
    session = await caller.open()
    spoiled = {
        "agents": agent.opened[0],
        "cut": session[:-1],
        "mac": ("B" if session[0] == "A" else "A") + session[1:],
        "id": session + "x",
        "empty": "",
        "no-dot": session[:32] + session[33:],
        "latin": "\xe9" * 32 + session[32:],
        "space": session + " x",
        "long": session + "x" * 1024,
    }[spoil]
    assert unknown(await caller.ask(spoiled))
    assert unknown(await caller.method("DELETE", (FIELD, spoiled)))
    assert len(world.agent.requests) == 1
    assert (await caller.ask(session)).status == 200


async def test_a_session_is_named_once(world: World) -> None:
    caller, _ = await caller_of(world)
    session = await caller.open()
    answer = await caller.send(SEARCH, JSON, (FIELD, session), (FIELD, session))
    assert (answer.status, answer.reason) == (400, "header_malformed")
    odd = await caller.send(SEARCH, JSON, ("Mcp_Session_Id", "agent~0.!"))
    assert odd.status == 200
    assert "mcp_session_id" not in world.agent.headers()


async def test_a_response_an_end_and_a_resumed_stream_need_a_session(world: World) -> None:
    caller, _ = await caller_of(world)
    assert unknown(await caller.send(RESULT))
    assert unknown(await caller.method("DELETE"))
    assert unknown(await caller.method("GET", ("Last-Event-ID", "7")))
    assert world.agent.requests == []
    assert (await caller.method("GET")).status == 405


async def test_a_session_of_another_route_is_no_session(world: World) -> None:
    settings = mcp_settings(world)
    (route,) = settings["inbound"]["routes"]
    settings["inbound"]["routes"].append({**route, "name": "second", "match": {"path": "/second"}})
    sidecar = await world.sidecar(WRITER, settings)
    caller, _ = Caller(world, sidecar, calling(await world.source(PLANNER), WRITER)), Sessions(world)
    session = await caller.open()
    assert unknown(await caller.send(SEARCH, JSON, (FIELD, session), target="/second"))
    assert (await caller.ask(session)).status == 200


async def test_a_session_survives_a_reload_and_no_restart(world: World) -> None:
    settings = mcp_settings(world)
    sidecar = await world.sidecar(WRITER, settings)
    tls = calling(await world.source(PLANNER), WRITER)
    caller, _ = Caller(world, sidecar, tls), Sessions(world)
    session = await caller.open()
    running = Reloadable(world, sidecar, settings)
    running.document["inbound"]["routes"][0]["max_calls"] = 3
    await running.reload()
    assert (await caller.ask(session)).status == 200
    later = Caller(world, await world.sidecar(WRITER, settings), tls)
    assert unknown(await later.ask(session))
    assert (await later.ask(await later.open())).status == 200


async def test_users_of_one_peer_share_a_session_where_the_route_says_so(world: World) -> None:
    caller, agent = await caller_of(world, sessions="per_actor")
    session = await caller.open()
    bob = mint({"sub": "bob"})
    assert (await caller.ask(session, token=bob)).status == 200
    assert agent.shown() == agent.opened[0]
    assert (await caller.ask(session, RESULT, token=bob)).status == 200
    assert (await caller.method("DELETE", (FIELD, session), token=bob)).status == 200
    other = await front(world, caller)
    assert unknown(await other.ask(session, token=mint({"act": {"sub": FRONT}})))


@pytest.mark.parametrize("sessions", ["per_subject", "per_actor"])
async def test_calls_go_through_the_session_that_the_actor_opened_and_its_end_is_the_actors(
    world: World, sessions: str
) -> None:
    caller, agent = await caller_of(world, allow_self=True, sessions=sessions)
    own = mint(OWN)
    session = await caller.open(own)
    for subject in ("alice", "bob"):
        assert (await caller.ask(session, token=mint({"sub": subject}))).status == 200
        assert agent.shown() == agent.opened[0]
    narrow = await caller.ask(session, token=mint({"scope": "crm.read"}))
    assert (narrow.status, narrow.reason) == (403, "insufficient_scope")
    event = await caller.event(session, own)
    for token, holds in ((mint(), False), (own, True)):
        answers = [
            await caller.method("GET", (FIELD, session), token=token),
            await caller.method("GET", (FIELD, session), ("Last-Event-ID", event), token=token),
            await caller.ask(session, RESULT, token=token),
            await caller.method("DELETE", (FIELD, session), token=token),
        ]
        assert [answer.status for answer in answers] == [200 if holds else 404] * 4
        assert all(unknown(answer) for answer in answers) is not holds
    refused = await caller.ask(session, token=own)
    assert (refused.status, refused.reason) == (401, "act_missing")
    other = await front(world, caller)
    assert unknown(await other.ask(session, token=mint({"act": {"sub": FRONT}})))
    assert unknown(await other.ask(session, {**HELLO, "method": "ping"}, token=mint({"sub": FRONT, "act": None})))


async def test_2026_07_28_has_no_sessions_in_either_direction(world: World) -> None:
    caller, agent = await caller_of(world)
    session = await caller.open()
    call = {**SEARCH, "params": {"name": "search", **STATELESS}}
    fields = [("MCP-Protocol-Version", "2026-07-28"), ("Mcp-Method", "tools/call"), ("Mcp-Name", "search")]
    agent.always = b"agent~7"
    for shown in (session, "agent~0.!", "x"):
        answer = await caller.send(call, JSON, (FIELD, shown), *fields)
        assert answer.status == 200
        assert "mcp-session-id" not in answer.headers
        assert agent.shown() is None
    gone = await caller.method("GET", (FIELD, session), fields[0], ("Last-Event-ID", "1"))
    assert (gone.status, gone.headers["allow"]) == (405, "POST")


async def test_an_answer_names_the_session_of_its_request_or_none(world: World) -> None:
    caller, agent = await caller_of(world)
    session = await caller.open()
    agent.always = b"agent~of-somebody-else"
    assert "mcp-session-id" not in (await caller.ask(session)).headers
    assert "mcp-session-id" not in (await caller.send(SEARCH)).headers
    opened = (await caller.send(HELLO)).headers["mcp-session-id"]
    assert opened.endswith(".agent~of-somebody-else")
    agent.always = b""
    assert "mcp-session-id" not in (await caller.send(HELLO)).headers


@pytest.mark.parametrize(
    "named", [b"two\r\nMcp-Session-Id: three", b"a b", b"\xe9", b"x" * 1025], ids=["two", "space", "latin", "long"]
)
async def test_an_agents_id_that_cannot_be_one_refuses_the_answer(world: World, named: bytes) -> None:
    caller, agent = await caller_of(world)
    agent.always = named
    answer = await caller.send(HELLO)
    assert (answer.status, answer.reason) == (502, "upstream_bad_response")
    agent.always = b"x" * 1024
    assert (await caller.send(HELLO)).status == 200


async def test_an_agent_cannot_name_a_session_in_another_spelling(world: World) -> None:
    caller, _ = await caller_of(world)
    world.agent.script = lambda _head, _body: ok(b"{}", b"Mcp_Session_Id: 7", b"x-of: agent")
    answer = await caller.send(HELLO)
    assert (answer.headers["x-of"], "mcp_session_id" in answer.headers) == ("agent", False)


async def test_a_session_of_a_route_that_observes_is_its_peers(world: World) -> None:
    caller, agent = await caller_of(world, observe_until=SOON)
    session = await caller.open("a-static-key")
    assert (await caller.ask(session, token=mint({"sub": "bob"}))).status == 200
    assert agent.shown() == agent.opened[0]
    assert (await caller.method("DELETE", (FIELD, session), token="a-static-key")).status == 200
    other = await front(world, caller)
    assert unknown(await other.ask(session, token="another-key"))
    record = await caller.last(4)
    assert (record["decision"], record["reason"]) == ("observed_deny", "malformed_token")
    assert "session_unknown" in record["detail"]


async def test_a_caller_without_tls_has_sessions_of_its_own(world: World) -> None:
    settings = mcp_settings(world, observe_until=SOON)
    (issuer,) = settings["issuers"]
    port = free_port()
    settings["inbound"]["plain"] = {"listen": f"127.0.0.1:{port}", "until": SOON}
    ceiling: dict[str, object] = {"issuers": [issuer], "observe_until": True, "plain": True}
    platform = written(world.folder, ceiling)
    sidecar = await world.sidecar(WRITER, settings, platform=platform)
    caller, agent = Caller(world, sidecar, calling(await world.source(PLANNER), WRITER)), Sessions(world)

    async def plain(message: object, *fields: tuple[str, str]) -> Answer:
        body = json.dumps(message).encode()
        return await world.call(port, None, "/mcp", headers=[JSON, *fields], body=body)

    peers = await caller.open()
    refused = await plain(SEARCH, (FIELD, peers))
    assert unknown(refused)
    assert json.loads(refused.body)["id"] == SEARCH["id"]
    assert unknown(await plain(SEARCH, (FIELD, agent.opened[0])))
    session = (await plain(HELLO)).headers["mcp-session-id"]
    assert (await plain(SEARCH, (FIELD, session))).status == 200
    assert agent.shown() == agent.opened[1]
    assert unknown(await caller.ask(session))
    assert (await plain({**SEARCH, "params": {"name": "delete"}})).reason == "operation_refused"
    ops = [record["op"] for record in await sidecar.wait_for_records(7)]
    assert ops[3:] == ["initialize", "tools/call:search", "tools/call:search", "tools/call:other"]


@pytest.mark.timeout(120)
async def test_a_session_is_one_at_every_worker(world: World) -> None:
    planner, agent = calling(await world.source(PLANNER), WRITER), Sessions(world)
    async with process(world, mcp_settings(world), starts=3, workers=3) as sidecar:

        async def send(message: object, *fields: tuple[str, str], token: str | None = None) -> Answer:
            headers = [*bearer(token or mint()), JSON, *fields]
            return await world.call(sidecar.port, planner, "/mcp", headers=headers, body=json.dumps(message).encode())

        session = (await send(HELLO)).headers["mcp-session-id"]
        for _ in range(12):
            assert (await send(SEARCH, (FIELD, session))).status == 200
            assert agent.shown() == agent.opened[0]
            assert unknown(await send(SEARCH, (FIELD, session), token=mint({"sub": "bob"})))
        await until(lambda: len({one["run"] for one in sidecar.records() if one["event"] == "request"}) > 1)


@pytest.mark.timeout(120)
async def test_an_ended_session_is_the_servers_to_refuse_at_workers_that_did_not_see_its_end(world: World) -> None:
    planner, agent = calling(await world.source(PLANNER), WRITER), Sessions(world)
    async with process(world, mcp_settings(world), starts=3, workers=3) as sidecar:

        async def send(message: object, *fields: tuple[str, str], method: str = "POST") -> Answer:
            body = b"" if method == "DELETE" else json.dumps(message).encode()
            headers = [*bearer(mint()), *([JSON] if body else []), *fields]
            return await world.call(sidecar.port, planner, "/mcp", method=method, headers=headers, body=body)

        ended, kept = [(await send(HELLO)).headers["mcp-session-id"] for _ in range(2)]
        assert (await send(None, (FIELD, ended), method="DELETE")).status == 200
        script = agent.answer

        def without_the_ended(head: bytes, body: bytes) -> bytes:
            if agent.shown() == agent.opened[0]:
                return b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n"
            return script(head, body)

        world.agent.script = without_the_ended
        by: set[str | None] = set()
        for _ in range(64):
            answer = await send(SEARCH, (FIELD, ended))
            assert answer.status == 404
            by.add(answer.reason)
            assert (await send(SEARCH, (FIELD, kept))).status == 200
            if len(by) > 1:
                break
        assert by == {None, "session_unknown"}  # the server's answer, and that of the worker that saw the end
