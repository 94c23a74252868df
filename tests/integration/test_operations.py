"""Routes of MCP and A2A over real sockets: a lawful operation, and the same call refused with one fact changed."""

from __future__ import annotations

import json
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from tests.integration.hops import Held, Hops
from tests.integration.test_reload import Reloadable
from tests.integration.world import (
    CRM,
    FRONT,
    PLANNER,
    WRITER,
    Answer,
    Sidecar,
    World,
    bearer,
    calling,
    mint,
    ok,
    until,
)

pytestmark = pytest.mark.integration

LEEWAY_S = 30
JSON = ("Content-Type", "application/json")
SEARCH = {"jsonrpc": "2.0", "id": "s-1", "method": "tools/call", "params": {"name": "search", "arguments": {"q": 1}}}


def tool(name: str) -> dict[str, Any]:
    return {**SEARCH, "params": {"name": name}}


def mcp_settings(world: World, *operations: dict[str, Any], **route: Any) -> dict[str, Any]:
    settings = world.settings()
    settings["inbound"]["routes"] = [
        {
            "name": "tools",
            "match": {"path": "/mcp"},
            "protocol": "mcp",
            "scopes": ["docs.write"],
            "peers": [PLANNER, FRONT],
            "operations": list(operations)
            or [{"allow": ["tools/list", "tools/call:search"]}, {"allow": ["tools/call:drop"], "scopes": ["crm.read"]}],
            **route,
        }
    ]
    return settings


class Peer:
    """The planner at the writer's sidecar."""

    def __init__(self, world: World, sidecar: Sidecar, tls: Any) -> None:
        self.world, self.sidecar, self.tls = world, sidecar, tls

    async def send(
        self, message: object, *fields: tuple[str, str], token: str | None = None, target: str = "/mcp", **options: Any
    ) -> Answer:
        body = message if isinstance(message, bytes) else json.dumps(message).encode()
        headers = [*bearer(token or mint()), *(fields or (JSON,))]
        return await self.world.call(self.sidecar.inbound, self.tls, target, headers=headers, body=body, **options)

    async def last(self, count: int) -> dict[str, Any]:
        return (await self.sidecar.wait_for_records(count))[-1]


async def peer_of(world: World, settings: dict[str, Any]) -> Peer:
    sidecar = await world.sidecar(WRITER, settings)
    return Peer(world, sidecar, calling(await world.source(PLANNER), WRITER))


async def test_the_record_names_the_tool_and_the_agent_gets_the_judged_bytes(world: World) -> None:
    peer = await peer_of(world, mcp_settings(world))
    body = json.dumps(SEARCH, indent=1).encode()
    answer = await peer.send(body)
    assert (answer.status, world.agent.requests[0][1]) == (200, body)
    record = await peer.last(1)
    assert (record["route"], record["op"], record["decision"]) == ("tools", "tools/call:search", "allow")
    assert "q" not in json.dumps(record["op"])


async def test_another_tool_is_refused_by_an_error_that_an_sdk_shows(world: World) -> None:
    peer = await peer_of(world, mcp_settings(world))
    answer = await peer.send(tool("delete"))
    assert (answer.status, answer.reason) == (403, "operation_refused")
    assert ("content-type", "application/json") in {(k.lower(), v) for k, v in answer.headers.items()}
    error = json.loads(answer.body)
    record = await peer.last(1)
    assert (error["id"], error["error"]["data"]["reason"]) == ("s-1", "operation_refused")
    assert error["error"]["data"]["request_id"] == record["request_id"]
    assert "operation_refused" in error["error"]["message"]
    assert (record["op"], record["reason"]) == ("tools/call:other", "operation_refused")
    assert (record["subject"], record["actor"], record["verified"]) == ("alice", PLANNER, False)
    assert world.agent.requests == []
    token = mint()
    assert (await peer.send(SEARCH, token=token)).status == 200
    assert (await peer.send(tool("delete"), token=token)).status == 403
    assert [(await peer.last(3))[key] for key in ("subject", "chain", "verified")] == ["alice", [PLANNER, FRONT], True]


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        pytest.param(json.dumps([SEARCH]).encode(), (JSON,), id="batch"),
        pytest.param(
            b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"search","name":"drop"}}',
            (JSON,),
            id="twice",
        ),
        pytest.param(
            b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"search"},"Params":{"name":"drop"}}',
            (JSON,),
            id="by-case",
        ),
        pytest.param(json.dumps(SEARCH).encode("utf-16"), (JSON,), id="utf-16"),
        pytest.param(json.dumps(SEARCH).encode(), (JSON, ("Content-Encoding", "gzip")), id="encoded"),
        pytest.param(
            json.dumps(SEARCH).encode(), (("Content-Type", "application/json; charset=utf-7"),), id="another-charset"
        ),
        pytest.param(json.dumps(SEARCH).encode(), (("Content-Type", "text/plain"),), id="text"),
        pytest.param(json.dumps(SEARCH).encode(), (JSON, ("Mcp-Name", "drop")), id="another-name-in-a-field"),
        pytest.param(json.dumps(SEARCH).encode() * 2, (JSON,), id="two-documents"),
        pytest.param(b"", (JSON,), id="nothing"),
    ],
)
async def test_a_message_that_could_be_read_in_two_ways_never_reaches_the_agent(
    world: World, body: bytes, fields: tuple[tuple[str, str], ...]
) -> None:
    peer = await peer_of(world, mcp_settings(world))
    answer = await peer.send(body, *fields)
    assert (answer.status, answer.reason) == (400, "operation_malformed")
    assert json.loads(answer.body)["error"]["code"] == (-32020 if fields[-1][0] == "Mcp-Name" else -32600)
    assert world.agent.requests == []
    assert (await peer.send(SEARCH)).status == 200


NEW = {"_meta": {"io.modelcontextprotocol/protocolVersion": "2026-07-28"}}


@pytest.mark.parametrize(
    ("params", "version", "method", "status", "code"),
    [
        pytest.param(NEW, "2026-07-28", "no/method", 404, -32601, id="unknown-method"),
        pytest.param({}, "2025-11-25", "no/method", 403, -32601, id="unknown-method-in-a-session"),
        pytest.param(NEW, "2026-07-28", "tools/list", 400, -32020, id="another-method-in-its-field"),
        pytest.param({}, "2026-07-28", "no/method", 400, -32602, id="no-version-in-the-message"),
        pytest.param(NEW, "v9", "no/method", 400, -32022, id="unknown-version"),
        pytest.param(NEW, "2026-07-28", "tasks/get", 403, -32050, id="not-listed"),
        pytest.param(NEW, "2026-07-28", "ping", 404, -32601, id="removed"),
        pytest.param({}, "2025-11-25", "logging/setLevel", 403, -32050, id="the-level-of-logs-is-not-listed"),
    ],
)
async def test_a_refusal_has_the_code_and_the_status_of_its_revision(
    world: World, params: dict[str, Any], version: str, method: str, status: int, code: int
) -> None:
    peer = await peer_of(world, mcp_settings(world))
    asked = "no/method" if method == "tools/list" else method
    message = {"jsonrpc": "2.0", "id": 7, "method": asked, "params": params}
    answer = await peer.send(message, JSON, ("MCP-Protocol-Version", version), ("Mcp-Method", method))
    error = json.loads(answer.body)
    assert (answer.status, error["id"], error["error"]["code"]) == (status, 7, code)
    assert error["error"]["data"]["status"] == (await peer.last(1))["status"] == status
    assert error["error"]["data"].get("supported") == (["2026-07-28"] if code == -32022 else None)
    assert world.agent.requests == []


IN_EU = {"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": {"name": "search", "arguments": {"region": "eu"}}}
BASE64_EU = "=?base64?ZXU=?="


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        pytest.param([("Mcp-Param-Region", "eu")], 200, id="the-argument"),
        pytest.param([("mcp-param-region", BASE64_EU)], 200, id="encoded"),
        pytest.param([("Mcp-Param-My_Region", "eu")], 200, id="a-name-with-an-underscore"),
        pytest.param([("Mcp-Param-Region", "us")], 400, id="another-value"),
        pytest.param([("Mcp-Param-Region", "=?base64?dXM=?=")], 400, id="another-value-encoded"),
        pytest.param([("Mcp-Param-Tenant", "acme")], 400, id="no-argument"),
        pytest.param([("Mcp-Param-Region", "eu"), ("Mcp-Param-Region", "eu")], 400, id="twice"),
        pytest.param([("Mcp-Param-Region", "us"), ("MCP-PARAM-REGION", "eu")], 400, id="twice-by-case"),
        pytest.param([("Mcp-Param-My-Region", "eu"), ("Mcp-Param-My_Region", "eu")], 400, id="twice-to-cgi"),
    ],
)
@pytest.mark.parametrize("version", ["2026-07-28", "2025-11-25"])
async def test_the_agent_sees_no_field_that_says_otherwise_than_the_arguments(
    world: World, version: str, fields: list[tuple[str, str]], status: int
) -> None:
    peer = await peer_of(world, mcp_settings(world))
    stateless = version == "2026-07-28"
    message = {**IN_EU, "params": {**IN_EU["params"], **(NEW if stateless else {})}}  # type: ignore[dict-item]
    repeated = [("Mcp-Method", "tools/call"), ("Mcp-Name", "search")] if stateless else []
    answer = await peer.send(message, JSON, ("MCP-Protocol-Version", version), *repeated, *fields)
    assert (answer.status, answer.reason) == (status, "operation_malformed" if status == 400 else None)
    if status == 400:
        assert json.loads(answer.body)["error"]["code"] == -32020
        assert world.agent.requests == []
    else:
        head = world.agent.requests[0][0]
        assert f"{fields[0][0]}: {fields[0][1]}".lower() in str(head).lower()


async def test_an_operation_may_need_more_scopes_than_its_route(world: World) -> None:
    peer = await peer_of(world, mcp_settings(world))
    assert (await peer.send(tool("drop"))).status == 200
    narrow = mint({"scope": "docs.write"})
    answer = await peer.send(tool("drop"), token=narrow)
    assert (answer.status, answer.reason) == (403, "insufficient_scope")
    assert 'scope="crm.read docs.write"' in answer.headers["www-authenticate"]
    assert json.loads(answer.body)["error"]["data"]["reason"] == "insufficient_scope"
    assert (await peer.send(SEARCH, token=narrow)).status == 200
    assert (await peer.send(tool("drop"), token=narrow)).status == 403  # what was remembered is of another operation


@pytest.mark.parametrize(("method", "by_default"), [("ping", 200), ("logging/setLevel", 403)])
async def test_a_method_of_a_session_is_listed_to_allow_or_to_narrow_it(
    world: World, method: str, by_default: int
) -> None:
    message = {"jsonrpc": "2.0", "id": 7, "method": method, "params": {}}
    listed = [None, {"allow": [method]}, {"allow": [method], "peers": []}]
    for one, status in zip(listed, (by_default, 200, 403), strict=True):
        operations = [{"allow": ["tools/call:search"]}, *([] if one is None else [one])]
        peer = await peer_of(world, mcp_settings(world, *operations))
        assert (await peer.send(message)).status == status


@pytest.mark.parametrize("limit", [{"peers": [FRONT]}, {"subjects": ["bob"]}])
async def test_an_operation_may_be_for_fewer_peers_and_subjects(world: World, limit: dict[str, Any]) -> None:
    peer = await peer_of(
        world, mcp_settings(world, {"allow": ["tools/call:search"]}, {"allow": ["tools/call:drop"], **limit})
    )
    assert (await peer.send(SEARCH)).status == 200
    answer = await peer.send(tool("drop"))
    assert (answer.status, answer.reason) == (403, "policy_denied")
    if "subjects" in limit:
        assert (await peer.send(tool("drop"), token=mint({"sub": "bob"}))).status == 200


async def test_own_authority_opens_a_session_and_calls_no_tool(world: World) -> None:
    peer = await peer_of(world, mcp_settings(world, allow_self=True))
    own = mint({"sub": PLANNER, "act": None})
    hello = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {"protocolVersion": "2025-11-25"}}
    assert (await peer.send(hello, token=own)).status == 200
    answer = await peer.send(SEARCH, token=own)
    assert (answer.status, answer.reason) == (401, "act_missing")
    assert len(world.agent.requests) == 1


async def send_slowly(
    peer: Peer, token: str, *, first: bytes, rest: Callable[[], Awaitable[bytes]], size: int | None = None
) -> Answer:
    """Send the head of a request, and its body in two parts. Returns the answer, at whatever time it comes."""
    world, port = peer.world, peer.sidecar.inbound
    async with world.kept(port, peer.tls) as connection:
        size = size or len(first) + len(json.dumps(SEARCH).encode())
        lines = ["POST /mcp HTTP/1.1", "host: a", f"content-length: {size}", "content-type: application/json"]
        lines.append(f"authorization: Bearer {token}")
        connection.writer.write("\r\n".join([*lines, "", ""]).encode() + first)
        connection.writer.write(await rest())
        return await connection.receive()


async def test_no_long_body_is_awaited_from_a_peer_without_a_valid_token(world: World) -> None:
    peer = await peer_of(world, mcp_settings(world))

    async def nothing() -> bytes:
        return b""

    invalid = ((mint(key=1), "bad_signature"), (mint({"aud": CRM}), "wrong_audience"), ("x", "malformed_token"))
    for token, reason in invalid:
        answer = await send_slowly(peer, token, first=b" ", rest=nothing, size=16 * 1024 + 1)
        assert (answer.status, answer.reason) == (401, reason)
        short = await peer.send(tool("delete"), token=token)
        assert (short.status, short.reason, json.loads(short.body)["id"]) == (401, reason, "s-1")
    long = {**SEARCH, "params": {"name": "search", "arguments": {"q": "x" * 20_000}}}
    assert (await peer.send(long)).status == 200


async def test_a_token_that_expires_while_the_body_comes_is_refused(world: World) -> None:
    peer = await peer_of(world, mcp_settings(world))
    expires_at = int(time.time()) - LEEWAY_S + 2

    async def late() -> bytes:
        await until(lambda: time.time() >= expires_at + LEEWAY_S)
        return json.dumps(SEARCH).encode()

    async def at_once() -> bytes:
        return json.dumps(SEARCH).encode()

    token = mint({"exp": expires_at})
    assert (await send_slowly(peer, token, first=b" ", rest=at_once)).status == 200
    answer = await send_slowly(peer, token, first=b" ", rest=late)
    assert (answer.status, answer.reason) == (401, "token_expired")
    assert len(world.agent.requests) == 1


async def test_a_message_longer_than_the_limit_is_refused(world: World) -> None:
    peer = await peer_of(world, mcp_settings(world, max_message_bytes=2048))
    long = {**SEARCH, "params": {"name": "search", "arguments": {"q": "x" * 2048}}}
    answer = await peer.send(long)
    assert (answer.status, answer.reason) == (413, "too_large")
    assert json.loads(answer.body)["id"] == SEARCH["id"]
    assert (await peer.send(SEARCH)).status == 200


async def test_an_operation_that_is_no_longer_listed_ends(world: World) -> None:
    settings = mcp_settings(world)
    peer = await peer_of(world, settings)
    running = Reloadable(world, peer.sidecar, settings)
    world.agent.script = lambda _head, _body: world.agent.never()
    call = world.background(peer.send(tool("drop")))
    other = world.background(peer.send(SEARCH))
    await until(lambda: len(world.agent.requests) == 2)
    running.document["inbound"]["routes"][0]["operations"] = [{"allow": ["tools/call:search"]}]
    await running.reload()
    assert ((await call).status, (await call).reason) == (403, "operation_refused")
    assert not other.done()


def a2a_settings(world: World, match: dict[str, str]) -> dict[str, Any]:
    settings = mcp_settings(world, {"allow": ["SendMessage", "tasks/get"]})
    settings["inbound"]["routes"][0] |= {"name": "agent", "match": match, "protocol": "a2a"}
    return settings


async def test_an_operation_of_a2a_has_one_name_in_both_bindings_and_versions(world: World) -> None:
    peer = await peer_of(world, a2a_settings(world, {"path_prefix": "/a2a"}))
    one = ("A2A-Version", "1.0")
    old = {"jsonrpc": "2.0", "id": 1, "method": "message/send", "params": {"message": {}}}
    assert (await peer.send(old, target="/a2a")).status == 200
    assert (await peer.send({**old, "method": "SendMessage"}, JSON, one, target="/a2a")).status == 200
    rest = ("Content-Type", "application/a2a+json")
    assert (await peer.send({"message": {}}, rest, one, target="/a2a/message:send")).status == 200
    assert (await peer.send(b"", one, target="/a2a/tasks/7", method="GET")).status == 200
    records = await peer.sidecar.wait_for_records(4)
    assert [record["op"] for record in records] == ["SendMessage"] * 3 + ["GetTask"]
    cancel = {"jsonrpc": "2.0", "id": 1, "method": "tasks/cancel", "params": {"id": "7"}}
    hidden = await peer.send(cancel, rest, one, target="/a2a/message:send")  # to a handler of JSON-RPC at any path
    assert (hidden.status, hidden.reason) == (400, "operation_malformed")
    assert len(world.agent.requests) == 4
    refused = await peer.send({}, rest, one, target="/a2a/tasks/7:cancel")
    assert (refused.status, refused.reason) == (403, "operation_refused")
    error = json.loads(refused.body)["error"]
    assert (error["code"], error["status"]) == (403, "PERMISSION_DENIED")
    assert error["details"][0]["metadata"]["reason"] == "operation_refused"


async def test_what_the_agent_may_ask_for_is_decided_before_anything_leaves(hops: Hops) -> None:
    route = hops.route("tools", CRM, {"prefix": "/tools"}) | {
        "protocol": "mcp",
        "operations": [{"allow": ["tools/call:search"]}],
    }
    settings = hops.settings(route={"may_call": ["tools"]})
    settings["outbound"]["routes"] = [route]
    hops.writer = await hops.world.sidecar(WRITER, settings)
    body = json.dumps(SEARCH).encode()
    hops.crm.script = lambda _head, _body: ok(b"found")
    async with hops.serving() as held:
        await call_two_tools(hops, held, body)


async def call_two_tools(hops: Hops, held: Held, body: bytes) -> None:
    assert (await hops.call([*held.shown, JSON], "/tools/mcp", method="POST", body=body)).status == 200
    assert hops.crm.requests[0][1] == body
    refused = await hops.call(
        [*held.shown, JSON], "/tools/mcp", method="POST", body=json.dumps(tool("delete")).encode()
    )
    assert (refused.status, refused.reason) == (403, "operation_refused")
    assert json.loads(refused.body)["id"] == "s-1"
    assert len(hops.crm.requests) == 1
    records = await hops.outbound_records(2)
    assert [record["op"] for record in records] == ["tools/call:search", "tools/call:other"]
    served, tried = ([record["subject"], record["call_in"]] for record in records)
    assert served == tried  # refused before anything leaves, and still recorded for whom
    assert records[1]["chain"] == records[0]["chain"][1:]  # no token names the writer as an actor: none was asked for
    nobody = await hops.call([JSON], "/tools/mcp", method="POST", body=json.dumps(tool("delete")).encode())
    assert nobody.reason == "operation_refused"
    refused_record = (await hops.outbound_records(3))[-1]
    assert (refused_record["subject"], refused_record["candidates"]) == (None, [tried[1]])
