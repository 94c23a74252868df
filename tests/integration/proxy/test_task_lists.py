"""Lists of A2A tasks over real sockets: each reader sees its own, and what cannot be read is refused."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.config.documents import written
from tests.integration.features.a2a.test_agent_cards import a2a_settings
from tests.integration.features.a2a.test_answers import BOB, V1, answer_with, ask, rpc, sent
from tests.integration.test_operations import JSON, Peer
from tests.integration.world import FRONT, PLANNER, WRITER, Answer, World, calling, free_port, mint, ok

pytestmark = pytest.mark.integration

LIST = {"allow": ["SendMessage", "GetTask", "ListTasks"]}


async def lister_of(world: World, *, rules: dict[str, Any] | None = None, **route: Any) -> Peer:
    """Run the sidecar of an agent with the tasks 1 of alice, 2 of bob, and 3 that was made before."""
    settings = a2a_settings(world, operations=[LIST], peers=[PLANNER, FRONT], a2a=rules or {}, **route)
    peer = Peer(world, await world.sidecar(WRITER, settings), calling(await world.source(PLANNER), WRITER))
    for task, token in (("1", mint()), ("2", mint(BOB))):
        answer_with(world, {"task": {"id": task}})
        assert (await ask(peer, sent(), token=token)).status == 200
    return peer


async def tasks_shown(peer: Peer, *, token: str | None = None, rest: bool = False) -> list[str]:
    if rest:
        answer = await peer.send(b"", V1, target="/a2a/tasks", method="GET", token=token)
    else:
        answer = await ask(peer, rpc("ListTasks"), token=token)
    assert answer.status == 200
    shown = json.loads(answer.body)
    listed = shown if rest else shown["result"]
    assert listed.get("totalSize", 0) == len(listed["tasks"])
    return [task["id"] for task in listed["tasks"]]


ALL: dict[str, Any] = {"tasks": [{"id": "1"}, {"id": "2"}, {"id": "3"}], "nextPageToken": "", "totalSize": 3}


@pytest.mark.parametrize("rest", [False, True])
async def test_a_list_shows_nobody_the_tasks_of_somebody_else(world: World, rest: bool) -> None:
    peer = await lister_of(world)
    answer_with(world, ALL)
    assert await tasks_shown(peer, rest=rest) == ["1", "3"]
    assert await tasks_shown(peer, token=mint(BOB), rest=rest) == ["2", "3"]
    assert await tasks_shown(peer, token=mint({"sub": "carol"}), rest=rest) == ["3"]
    front = Peer(world, peer.sidecar, calling(await world.source(FRONT), WRITER))
    other_peer = mint({"act": {"sub": FRONT}, "client_id": FRONT})
    assert await tasks_shown(front, token=other_peer, rest=rest) == ["3"]
    assert (await peer.sidecar.wait_for_records(6))[-1]["detail"] == "names a task that was not seen made here"
    assert b"accept-encoding" not in world.agent.requests[-1][0].lower()

    strict = await lister_of(world, rules={"tasks": "strict"})
    answer_with(world, ALL)
    assert await tasks_shown(strict, rest=rest) == ["1"]
    assert await tasks_shown(strict, token=mint({"sub": "carol"}), rest=rest) == []
    assert (await strict.sidecar.wait_for_records(4))[-1]["detail"] is None


@pytest.mark.parametrize(
    ("answer", "fields"),
    [
        pytest.param(b"\x1f\x8b", [b"content-encoding: gzip", b"content-type: application/json"], id="encoded"),
        pytest.param(json.dumps(ALL).encode(), [b"content-type: text/event-stream"], id="stream"),
        pytest.param(json.dumps(ALL).encode(), [], id="of-no-kind"),
        pytest.param(b'{"tasks": [], "tasks": [{"id": "2"}]}', [b"content-type: application/json"], id="twice"),
        pytest.param(b'{"tasks": [], "Tasks": [{"id": "2"}]}', [b"content-type: application/json"], id="by-case"),
        pytest.param(b'{"tasks": [{"Id": "2"}]}', [b"content-type: application/json"], id="no-id"),
        pytest.param(b'{"tasks": [' + b" " * 5000 + b"]}", [b"content-type: application/json"], id="too-long"),
    ],
)
async def test_a_list_that_cannot_be_read_shows_nothing(world: World, answer: bytes, fields: list[bytes]) -> None:
    peer = await lister_of(world, max_message_bytes=4096)
    world.agent.script = lambda _head, _body: ok(answer, *fields)
    refused = await peer.send(b"", V1, target="/a2a/tasks", method="GET")
    assert (refused.status, refused.reason) == (502, "list_unreadable")
    assert b"tasks" not in refused.body
    record = (await peer.sidecar.wait_for_records(3))[-1]
    assert (record["decision"], record["reason"], record["upstream_status"]) == ("allow", "list_unreadable", 200)
    answer_with(world, ALL)
    assert await tasks_shown(peer, rest=True) == ["1", "3"]


async def test_a_list_that_arrives_in_pieces_is_cut_too(world: World) -> None:
    peer = await lister_of(world)
    document = json.dumps(ALL).encode()
    pieces = b"".join(b"%x\r\n%b\r\n" % (1, document[at : at + 1]) for at in range(len(document)))
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\netag: x\r\ntransfer-encoding: chunked\r\n\r\n"
    world.agent.script = lambda _head, _body: head + pieces + b"0\r\n\r\n"
    answer = await peer.send(b"", V1, target="/a2a/tasks", method="GET")
    assert [task["id"] for task in json.loads(answer.body)["tasks"]] == ["1", "3"]
    assert "etag" not in answer.headers
    long = b"1000\r\n" + b" " * 4096 + b"\r\n"
    world.agent.script = lambda _head, _body: head + long * 257  # and no end
    endless = await peer.send(b"", V1, target="/a2a/tasks", method="GET")
    assert (endless.status, endless.reason) == (502, "list_unreadable")
    world.agent.script = lambda _head, _body: head + pieces + b"no size\r\n"
    broken = await peer.send(b"", V1, target="/a2a/tasks", method="GET")
    assert (broken.status, broken.reason) == (502, "upstream_bad_response")


async def test_an_error_in_place_of_a_list_passes(world: World) -> None:
    peer = await lister_of(world)
    error = {"code": 404, "status": "NOT_FOUND", "message": "no"}
    body = json.dumps({"error": error}).encode()
    world.agent.script = lambda _head, _body: (
        b"HTTP/1.1 404 Not Found\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)
    )
    answer = await peer.send(b"", V1, target="/a2a/tasks", method="GET")
    assert (answer.status, answer.body) == (404, body)
    by_rpc = {"jsonrpc": "2.0", "id": 1, "error": {"code": -32601, "message": "no"}}
    world.agent.script = lambda _head, _body: ok(json.dumps(by_rpc).encode(), b"content-type: application/json")
    assert json.loads((await ask(peer, rpc("ListTasks"))).body) == by_rpc


async def test_an_observed_request_sees_no_task_that_is_somebody_s(world: World) -> None:
    until = (datetime.now(UTC) + timedelta(days=2)).date().isoformat()
    peer = await lister_of(world, observe_until=until)
    answer_with(world, ALL)
    body = json.dumps(rpc("ListTasks")).encode()
    answer = await world.call(peer.sidecar.inbound, peer.tls, "/a2a", headers=[JSON, V1], body=body)
    assert [task["id"] for task in json.loads(answer.body)["result"]["tasks"]] == ["3"]
    body = json.dumps(rpc("GetTask", id="1")).encode()
    refused = await world.call(peer.sidecar.inbound, peer.tls, "/a2a", headers=[JSON, V1], body=body)
    assert refused.reason == "task_unknown"
    answer_with(world, {"task": {"id": "4", "contextId": "c"}})
    body = json.dumps(sent(contextId="c")).encode()
    assert (await world.call(peer.sidecar.inbound, peer.tls, "/a2a", headers=[JSON, V1], body=body)).status == 200
    assert (await ask(peer, rpc("GetTask", id="4"))).reason is None  # it is nobody's
    assert (await ask(peer, sent(contextId="c"))).reason is None
    records = await peer.sidecar.wait_for_records(7)
    assert [record["decision"] for record in records[2:5]] == ["observed_deny", "deny", "observed_deny"]


async def test_a_caller_without_tls_sees_no_task_that_is_somebody_s(world: World) -> None:
    until = (datetime.now(UTC) + timedelta(days=2)).date().isoformat()
    settings = a2a_settings(world, operations=[LIST], observe_until=until)
    port = free_port()
    settings["inbound"]["plain"] = {"listen": f"127.0.0.1:{port}", "until": until}
    platform = written(world.folder, {"issuers": settings["issuers"], "observe_until": True, "plain": True})
    sidecar = await world.sidecar(WRITER, settings, platform=platform)
    peer = Peer(world, sidecar, calling(await world.source(PLANNER), WRITER))
    answer_with(world, {"task": {"id": "1"}})
    assert (await ask(peer, sent())).status == 200
    answer_with(world, ALL)

    async def plainly(message: dict[str, Any]) -> Answer:
        return await world.call(port, None, "/a2a", headers=[JSON, V1], body=json.dumps(message).encode())

    shown = json.loads((await plainly(rpc("ListTasks"))).body)["result"]["tasks"]
    assert [task["id"] for task in shown] == ["2", "3"]
    assert (await plainly(rpc("GetTask", id="3"))).status == 200
    refused = await plainly(rpc("GetTask", id="1"))
    assert (refused.status, refused.reason) == (200, "task_unknown")
    assert (await ask(peer, rpc("GetTask", id="1"))).reason is None
    (record,) = [one for one in await peer.sidecar.wait_for_records(5) if one["reason"] == "task_unknown"]
    assert (record["decision"], record["peer"]) == ("deny", None)
