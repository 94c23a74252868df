"""Lists of MCP over real sockets: they hold what their reader may call, and what cannot be read is refused."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random
from typing import Any

import aiohttp
import pytest

from tests.integration.test_mcp_sessions import OWN
from tests.integration.test_observe import SOON
from tests.integration.test_operations import JSON, Peer, mcp_settings, peer_of, tool
from tests.integration.test_reload import Reloadable
from tests.integration.world import FRONT, PATIENCE_S, PLANNER, WRITER, Answer, World, bearer, calling, mint, ok

pytestmark = pytest.mark.integration

NAMES = ("search", "drop", "delete", "Search", "é", "a:b")
LIST = {"jsonrpc": "2.0", "id": "l-1", "method": "tools/list"}
POLICY: list[dict[str, Any]] = [
    {"allow": ["tools/list", "prompts/list", "resources/list", "tools/call:search", "resources/read:file:///a"]},
    {"allow": ["tools/call:drop"], "scopes": ["crm.read"]},
]


def listed(*names: str, member: str = "tools", by: str = "name", **more: Any) -> bytes:
    items = [{by: name, "title": name} for name in names]
    return json.dumps({"jsonrpc": "2.0", "id": "l-1", "result": {member: items, **more}}).encode()


def names_in(message: bytes, member: str = "tools", by: str = "name") -> list[str]:
    return [item[by] for item in json.loads(message)["result"][member]]


def as_json(body: bytes, *fields: bytes) -> bytes:
    return ok(body, b"content-type: application/json", *fields)


def chunked(kind: bytes, *pieces: bytes) -> bytes:
    head = b"HTTP/1.1 200 OK\r\ncontent-type: %b\r\ntransfer-encoding: chunked\r\n\r\n" % kind
    return head + b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


async def filtering(world: World, *operations: dict[str, Any], **route: Any) -> Peer:
    return await peer_of(world, mcp_settings(world, *(operations or POLICY), filter_lists=True, **route))


def answers(world: World, raw: bytes) -> None:
    world.agent.script = lambda _head, _body: raw


def unchunked(answer: Answer) -> bytes:
    """Return the content of an answer whose end is the connection's, or that came in chunks."""
    if answer.headers.get("transfer-encoding") != "chunked":
        return answer.body
    body, rest = b"", answer.body
    while (size := int(rest.partition(b"\r\n")[0], 16)) > 0:
        rest = rest.partition(b"\r\n")[2]
        body, rest = body + rest[:size], rest[size + 2 :]
    return body


@asynccontextmanager
async def stream_of_events(
    world: World, **route: Any
) -> AsyncIterator[tuple[Peer, asyncio.Queue[bytes], aiohttp.ClientResponse]]:
    """Ask for a list; yield the peer, the chunks that the agent sends, and the answer."""
    more: asyncio.Queue[bytes] = asyncio.Queue()

    async def agent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        while data := await more.get():
            writer.write(b"%x\r\n%b\r\n" % (len(data), data))
        writer.close()

    settings = mcp_settings(world, *POLICY, filter_lists=True, **route)
    settings["inbound"]["agent"] = f"http://127.0.0.1:{await world.listen(agent)}"
    peer = await peer_of(world, settings)
    async with (
        asyncio.timeout(PATIENCE_S),
        aiohttp.ClientSession() as client,
        client.post(
            f"https://127.0.0.1:{peer.sidecar.inbound}/mcp",
            data=json.dumps(LIST),
            ssl=peer.tls,
            server_hostname="sidecar",
            headers=dict([*bearer(mint()), JSON]),
        ) as answer,
    ):
        yield peer, more, answer
    more.put_nowait(b"")


@pytest.mark.parametrize("way", ["length", "chunks", "events", "events-at-once"])
async def test_a_list_holds_what_its_reader_may_call(world: World, way: str) -> None:
    peer = await filtering(world)
    body = listed(*NAMES, nextCursor="n-1")
    noise = b': hello\n\nid: 1\ndata:\n\ndata: {"jsonrpc":"2.0","method":"notifications/message"}\n\n'
    events = noise + b"id: 2\r\nevent: message\r\ndata: " + body + b"\r\n\r\n"
    answers(world, {
        "length": as_json(body, b"ETag: x", b"Content-Digest: y", b"x-of: agent"),
        "chunks": chunked(b"application/json; charset=utf-8", body[:9], body[9:]),
        "events": chunked(b"text/event-stream", events[:50], events[50:99], events[99:]),
        "events-at-once": ok(events, b"content-type: text/event-stream"),
    }[way])  # fmt: skip
    for token, allowed in ((mint(), ["search", "drop"]), (mint({"scope": "docs.write"}), ["search"])):
        answer = await peer.send(LIST, JSON, ("Accept-Encoding", "gzip"), ("If-None-Match", "x"), token=token)
        content = unchunked(answer)
        assert answer.status == 200
        if way.startswith("events"):
            assert content.startswith(noise)
            assert content.removeprefix(noise).startswith(b"data: {")
            assert b"\r\nid: 2\r\nevent: message\r\n\r\n" in content
            content = content.removeprefix(noise).removeprefix(b"data: ").partition(b"\r\n")[0]
        message = json.loads(content)
        assert (names_in(content), message["id"], message["result"]["nextCursor"]) == (allowed, "l-1", "n-1")
        if way == "length":
            assert answer.headers["x-of"] == "agent"
            assert not {"etag", "content-digest"} & answer.headers.keys()
        asked = world.agent.headers()
        assert (asked["accept-encoding"], "if-none-match" in asked) == ("identity", False)
    assert (await peer.last(2))["reason"] == "ok"


async def test_lists_are_whole_where_the_route_does_not_filter(world: World) -> None:
    peer = await peer_of(world, mcp_settings(world, *POLICY))
    answers(world, as_json(listed(*NAMES)))
    answer = await peer.send(LIST, JSON, ("Accept-Encoding", "gzip"))
    assert answer.body == listed(*NAMES)
    assert world.agent.headers()["accept-encoding"] == "gzip"


async def test_prompts_and_resources_are_filtered_and_other_answers_are_not(world: World) -> None:
    peer = await filtering(world)
    answers(world, as_json(listed("a", "b", member="prompts")))
    assert names_in((await peer.send({**LIST, "method": "prompts/list"})).body, "prompts") == []
    answers(world, as_json(listed("file:///a", "file:///b", member="resources", by="uri")))
    answer = await peer.send({**LIST, "method": "resources/list"})
    assert names_in(answer.body, "resources", "uri") == ["file:///a"]
    answers(world, as_json(b'{"result":{"tools":["x"]}}', b"content-encoding: x"))
    assert (await peer.send(tool("search"))).body == b'{"result":{"tools":["x"]}}'


@pytest.mark.parametrize("version", ["2025-06-18", "2025-11-25", "2026-07-28"])
async def test_lists_are_filtered_in_every_revision(world: World, version: str) -> None:
    peer = await filtering(world)
    fields = [("MCP-Protocol-Version", version)]
    asked: dict[str, Any] = dict(LIST)
    if version == "2026-07-28":
        asked["params"] = {"_meta": {"io.modelcontextprotocol/protocolVersion": version}}
        fields.append(("Mcp-Method", "tools/list"))
    answers(world, as_json(listed(*NAMES, cacheScope="public", ttlMs=1000)))
    answer = await peer.send(asked, JSON, *fields)
    assert names_in(answer.body) == ["search", "drop"]
    assert json.loads(answer.body)["result"]["cacheScope"] == "private"


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(as_json(listed("drop"), b"content-encoding: gzip"), id="encoded"),
        pytest.param(as_json(listed(*map(str, range(200)))), id="long"),
        pytest.param(chunked(b"application/json", *[listed(*map(str, range(40)))] * 2), id="long-chunks"),
        pytest.param(as_json(b"[" + listed("drop") + b"]"), id="batch"),
        pytest.param(as_json(listed("drop").replace(b'"name"', b'"Name"')), id="spelling"),
        pytest.param(ok(listed("drop"), b"content-type: text/plain"), id="text"),
        pytest.param(ok(listed("drop")), id="no-type"),
        pytest.param(chunked(b"application/octet-stream", listed("drop")), id="octets"),
        pytest.param(as_json(listed("drop"), b"content-type: text/html"), id="two-types"),
        pytest.param(ok(b"data: rubbish\n\n", b"content-type: text/event-stream"), id="event"),
    ],
)
async def test_an_answer_that_could_list_anything_is_refused(world: World, raw: bytes) -> None:
    peer = await filtering(world, max_message_bytes=4096)
    answers(world, raw)
    answer = await peer.send(LIST)
    assert (answer.status, answer.reason) == (502, "list_unreadable")
    assert json.loads(answer.body)["id"] == "l-1"
    assert (await peer.last(1))["reason"] == "list_unreadable"
    answers(world, as_json(listed("search", "other")))
    assert names_in((await peer.send(LIST)).body) == ["search"]


@pytest.mark.parametrize("bad", [b"rubbish", b"x" * 5000, listed("drop").replace(b'"name"', b'"Name"')])
async def test_a_stream_that_becomes_unreadable_ends_with_an_error_that_says_why(world: World, bad: bytes) -> None:
    async with stream_of_events(world, max_message_bytes=4096) as (peer, more, answer):
        more.put_nowait(b": hello\n\n")
        assert await answer.content.readany() == b": hello\n\n"
        more.put_nowait(b"data: " + bad + b"\n\n")
        error = json.loads((await answer.content.read()).removeprefix(b"event: message\ndata: "))
        assert (error["id"], error["error"]["data"]["reason"]) == ("l-1", "list_unreadable")
    assert (await peer.last(1))["reason"] == "list_unreadable"


@pytest.mark.parametrize("status", ["202 Accepted", "204 No Content", "404 Not Found"])
async def test_an_answer_that_lists_nothing_passes(world: World, status: str) -> None:
    peer = await filtering(world)
    body = b"gone" if status.startswith("404") else b""
    length = b"" if status.startswith("204") else b"content-length: %d\r\n" % len(body)
    answers(world, b"HTTP/1.1 %b\r\n%b\r\n%b" % (status.encode(), length, body))
    answer = await peer.send(LIST)
    assert (answer.status, answer.body) == (int(status[:3]), body)


async def test_a_stream_that_is_resumed_repeats_no_more_than_may_be_called(world: World) -> None:
    peer = await filtering(world)
    answers(world, as_json(b"{}", b"mcp-session-id: s"))
    session = (await peer.send({**LIST, "method": "initialize"})).headers["mcp-session-id"]
    other = b'id: 1\ndata: {"jsonrpc":"2.0","id":4,"result":{"content":[]}}\n\n'
    answers(world, chunked(b"text/event-stream", other + b"data: " + listed(*NAMES) + b"\n\n"))
    begun = unchunked(await peer.send(b"", ("Mcp-Session-Id", session), method="GET"))
    event = begun.split(b"\n")[0].removeprefix(b"id: ")
    fields = ("Mcp-Session-Id", session), ("Last-Event-ID", event.decode())
    answer = await peer.send(b"", *fields, method="GET")
    first, second, end = unchunked(answer).split(b"\n\n")
    assert (first + b"\n\n", end) == (other.replace(b"id: 1", b"id: " + event), b"")
    assert event.endswith(b".1")
    assert world.agent.headers()["last-event-id"] == "1"
    assert names_in(second.removeprefix(b"data: ")) == ["search", "drop"]


async def test_an_event_passes_as_soon_as_it_is_complete(world: World) -> None:
    async with stream_of_events(world) as (peer, more, answer):
        for event in (b": ping\n\n", b'data: {"jsonrpc":"2.0","method":"x"}\n\n'):
            more.put_nowait(event)
            assert await answer.content.readany() == event
        more.put_nowait(b"data: " + listed(*NAMES))
        more.put_nowait(b"\n\n")
        assert names_in((await answer.content.readany()).removeprefix(b"data: ")) == ["search", "drop"]
    record = await peer.last(1)
    assert (record["reason"], record["detail"]) == ("ok", "its caller ended the stream")


async def test_a_list_is_cut_by_the_policy_that_is_in_force_when_it_comes(world: World) -> None:
    settings = mcp_settings(world, *POLICY, filter_lists=True)
    peer = await peer_of(world, settings)
    running = Reloadable(world, peer.sidecar, settings)
    later = asyncio.get_running_loop().create_future()
    world.agent.script = lambda _head, _body: later
    call = world.background(peer.send(LIST))
    async with asyncio.timeout(PATIENCE_S):
        await world.agent.arrived.wait()
    running.document["inbound"]["routes"][0]["operations"] = [{"allow": ["tools/list", "tools/call:delete"]}]
    await running.reload()
    later.set_result(as_json(listed(*NAMES)))
    assert names_in((await call).body) == ["delete"]


# --- equal to the policy of calls


def random_operations(random: Random, *, own: bool) -> list[dict[str, Any]]:
    """Return operations of MCP by chance: each name is listed once, or not, and perhaps all others are."""
    words = [f"tools/call:{name}" for name in NAMES if random.random() < 0.6]
    if "tools/call:Search" in words and "tools/call:search" in words and random.random() < 0.5:
        words.remove("tools/call:search")
    if random.random() < 0.3:
        words.append("tools/call:*")
    made: list[dict[str, Any]] = [{"allow": ["tools/list"], "allow_self": own}]
    for word in words:
        one: dict[str, Any] = {"allow": [word]}
        if random.random() < 0.4:
            one["scopes"] = ["crm.read"]
        if random.random() < 0.3:
            one["peers"] = [random.choice([PLANNER, FRONT])]
        if random.random() < 0.3:
            one["subjects"] = [random.choice(["alice", "bob"])]
        if random.random() < 0.2:
            one["human"] = {"max_age_s": 60}
        made.append(one)
    return made


@pytest.mark.timeout(120)
@pytest.mark.parametrize("observing", [False, True], ids=["enforcing", "observing"])
async def test_a_list_holds_exactly_what_can_be_called(world: World, observing: bool) -> None:
    random = Random(f"lists {observing}")
    settings = mcp_settings(world, filter_lists=True)
    (route,) = settings["inbound"]["routes"]
    settings["inbound"]["routes"] = [
        {
            **route,
            "name": f"r{number}",
            "match": {"path": f"/r{number}"},
            "scopes": [] if number % 2 else ["docs.write"],
            "allow_self": number % 3 == 0,
            "operations": random_operations(random, own=number % 3 == 0),
            **({"observe_until": SOON} if observing else {}),
        }
        for number in range(12)
    ]
    sidecar = await world.sidecar(WRITER, settings)
    peers = {one: Peer(world, sidecar, calling(await world.source(one), WRITER)) for one in (PLANNER, FRONT)}
    world.agent.script = lambda _head, body: as_json(listed(*NAMES, "") if b"tools/list" in body else b"{}")
    seen: set[tuple[str, ...]] = set()
    for number in range(12):
        for _ in range(2):
            who = random.choice([PLANNER, FRONT])
            claims: dict[str, Any] = {
                "sub": random.choice(["alice", "bob"]),
                "act": {"sub": who},
                "scope": random.choice(["docs.write", "docs.write crm.read"]),
                "auth_time": random.choice([None, 1, 4_000_000_000]),
            }
            claims |= {**OWN, "sub": who} if number % 3 == 0 and random.random() < 0.5 else {}
            token, peer, target = mint(claims), peers[who], f"/r{number}"
            answer = await peer.send(LIST, token=token, target=target)
            if answer.status != 200:
                assert not observing
                continue
            calls = [(await peer.send(tool(name), token=token, target=target)).status for name in NAMES]
            assert set(calls) <= {200, 401, 403}
            expected = [name for name, status in zip(NAMES, calls, strict=True) if status == 200]
            assert names_in(answer.body) == expected, (settings["inbound"]["routes"][number], claims)
            seen.add(tuple(expected))
    assert len(seen) > 8
