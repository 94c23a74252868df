"""Tasks, notifications and streams of A2A over real sockets: each lawful call beside the same one refused."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.integration.features.a2a.test_agent_cards import a2a_settings
from tests.integration.hops import Held, Hops
from tests.integration.test_operations import JSON, Peer
from tests.integration.world import (
    CRM,
    FRONT,
    ISSUER,
    PATIENCE_S,
    PLANNER,
    WRITER,
    Answer,
    World,
    bearer,
    calling,
    mint,
    ok,
    until,
)

pytestmark = pytest.mark.integration

V1, V03 = ("A2A-Version", "1.0"), ("A2A-Version", "0.3")
OPERATIONS = {
    "allow": [
        "SendMessage",
        "SendStreamingMessage",
        "GetTask",
        "CancelTask",
        "SubscribeToTask",
        "CreateTaskPushNotificationConfig",
        "GetTaskPushNotificationConfig",
    ]
}
BOB: dict[str, Any] = {"sub": "bob"}


def settings_of(world: World, **rules: Any) -> dict[str, Any]:
    return a2a_settings(world, operations=[OPERATIONS], peers=[PLANNER, FRONT], **({"a2a": rules} if rules else {}))


def rpc(method: str, **params: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}


def sent(method: str = "SendMessage", **message: Any) -> dict[str, Any]:
    return rpc(method, message={"messageId": "m", "parts": [{"text": "hello"}], **message})


async def peer_of(world: World, **rules: Any) -> Peer:
    sidecar = await world.sidecar(WRITER, settings_of(world, **rules))
    return Peer(world, sidecar, calling(await world.source(PLANNER), WRITER))


async def ask(peer: Peer, message: object, *fields: tuple[str, str], **options: Any) -> Answer:
    return await peer.send(message, JSON, *(fields or (V1,)), **{"target": "/a2a", **options})


def answer_with(world: World, shown: object, *fields: bytes) -> None:
    """Have the agent answer each request with a result, or with the same by HTTP+JSON."""

    def script(head: bytes, body: bytes) -> bytes:
        by_rpc = b'"jsonrpc"' in body
        document = json.dumps({"jsonrpc": "2.0", "id": 1, "result": shown} if by_rpc else shown).encode()
        if b"accept: text/event-stream" in head.lower():
            return ok(b"data: " + document + b"\r\n\r\n", b"content-type: text/event-stream")
        return ok(document, b"content-type: application/json", *fields)

    world.agent.script = script


@pytest.mark.parametrize(
    ("made_by", "shown", "version"),
    [
        (sent(), {"task": {"id": "7"}}, V1),
        (sent("message/send"), {"kind": "task", "id": "7"}, V03),
        (sent("SendStreamingMessage"), {"statusUpdate": {"taskId": "7"}}, V1),
    ],
)
async def test_a_task_is_for_the_user_and_the_peer_that_it_was_made_for(
    world: World, made_by: dict[str, Any], shown: dict[str, Any], version: tuple[str, str]
) -> None:
    peer = await peer_of(world)
    answer_with(world, shown)
    stream = () if made_by["method"] != "SendStreamingMessage" else (("Accept", "text/event-stream"),)
    assert (await ask(peer, made_by, version, *stream)).status == 200
    assert (await ask(peer, rpc("GetTask", id="7"))).status == 200
    by_path = await peer.send(b"", V1, target="/a2a/tasks/7", method="GET")
    assert by_path.status == 200
    before = len(world.agent.requests)

    refused = await ask(peer, rpc("GetTask", id="7"), token=mint(BOB))
    assert (refused.status, refused.reason) == (200, "task_unknown")  # as an agent of A2A says it by JSON-RPC
    assert json.loads(refused.body)["error"]["code"] == -32001
    for method, message in (
        ("tasks/cancel", rpc("tasks/cancel", id="7")),
        ("SubscribeToTask", rpc("SubscribeToTask", id="7")),
        ("config", rpc("GetTaskPushNotificationConfig", taskId="7", id="c")),
        ("send", sent(taskId="7")),
        ("refer", sent(referenceTaskIds=["7"])),
    ):
        answer = await ask(peer, message, token=mint(BOB))
        assert answer.reason == "task_unknown", method
    by_path = await peer.send(b"", V1, target="/a2a/tasks/7", method="GET", token=mint(BOB))
    error = json.loads(by_path.body)["error"]
    assert (by_path.status, error["status"], error["details"][0]["reason"]) == (404, "NOT_FOUND", "TASK_NOT_FOUND")
    front = Peer(world, peer.sidecar, calling(await world.source(FRONT), WRITER))
    other_peer = mint({"act": {"sub": FRONT}, "client_id": FRONT})
    assert (await ask(front, rpc("GetTask", id="7"), token=other_peer)).reason == "task_unknown"
    assert len(world.agent.requests) == before
    records = [one for one in await peer.sidecar.wait_for_records(11) if one["reason"] == "task_unknown"]
    assert {(one["decision"], one["subject"]) for one in records} == {("deny", "bob"), ("deny", "alice")}


async def test_a_task_that_was_not_seen_passes_and_the_record_says_so_unless_the_route_is_strict(world: World) -> None:
    peer = await peer_of(world)
    answer_with(world, {"id": "8"})
    assert (await ask(peer, rpc("GetTask", id="8"))).status == 200
    record = (await peer.sidecar.wait_for_records(1))[-1]
    assert (record["decision"], record["detail"]) == ("allow", "names a task that was not seen made here")

    strict = await peer_of(world, tasks="strict")
    count = len(world.agent.requests)
    for message in (rpc("GetTask", id="8"), rpc("GetTask"), sent(taskId="8"), sent(referenceTaskIds=["8"])):
        assert (await ask(strict, message)).reason == "task_unknown"
    assert len(world.agent.requests) == count
    answer_with(world, {"task": {"id": "8"}})
    assert (await ask(strict, sent())).status == 200
    assert (await ask(strict, rpc("GetTask", id="8"))).status == 200
    assert (await strict.sidecar.wait_for_records(6))[-1]["detail"] is None


async def test_a_message_to_a_task_of_somebody_else_does_not_make_it_ones_own(world: World) -> None:
    peer = await peer_of(world)
    answer_with(world, {"task": {"id": "7"}})
    assert (await ask(peer, sent(taskId="7"), token=mint(BOB))).status == 200  # not seen made, so it passes
    assert (await ask(peer, rpc("GetTask", id="7"))).status == 200  # and is nobody's still


async def test_a_task_is_found_in_both_names_of_its_member_and_refused_in_a_third_or_in_two(world: World) -> None:
    peer = await peer_of(world)
    answer_with(world, {"task": {"id": "7"}})
    await ask(peer, sent())
    bob = mint(BOB)
    assert (await ask(peer, sent(task_id="7"), token=bob)).reason == "task_unknown"
    rest = ("Content-Type", "application/a2a+json")
    body = {"request": {"content": [], "task_id": "7"}}  # as the official client of 0.3 writes it
    answer = await peer.send(body, rest, V03, target="/a2a/v1/message:send", token=bob)
    assert (answer.status, answer.reason) == (404, "task_unknown")
    for message in (sent(TaskId="7"), sent(taskId="8", task_id="7")):
        answer = await ask(peer, message, token=bob)
        assert (answer.status, answer.reason) == (200, "operation_malformed")
        assert json.loads(answer.body)["error"]["code"] == -32600
    assert len(world.agent.requests) == 1


@pytest.mark.parametrize("encoding", [b"content-encoding: gzip"])
async def test_an_answer_that_cannot_be_read_passes_and_binds_nothing(world: World, encoding: bytes) -> None:
    peer = await peer_of(world)
    world.agent.script = lambda _head, _body: ok(b"\x1f\x8b", encoding)
    assert (await ask(peer, sent(), V1, ("Accept-Encoding", "gzip"))).body == b"\x1f\x8b"
    assert b"accept-encoding" not in world.agent.requests[0][0].lower()
    assert (await ask(peer, rpc("GetTask", id="7"), token=mint(BOB))).status == 200


@pytest.mark.parametrize("url", ["https://evil.example/a2a", "https://hooks.acme.example/a2ab"])
async def test_notifications_go_to_listed_urls_only_and_no_record_holds_one(world: World, url: str) -> None:
    peer = await peer_of(world, push_urls=["https://hooks.acme.example/a2a"])
    answer_with(world, {})
    listed = "https://hooks.acme.example/a2a/7"
    messages: list[Callable[[str], dict[str, Any]]] = [
        lambda to: rpc("CreateTaskPushNotificationConfig", taskId="7", url=to),
        lambda to: rpc("tasks/pushNotificationConfig/set", taskId="7", pushNotificationConfig={"url": to}),
        lambda to: {**sent(), "params": {"message": {}, "configuration": {"taskPushNotificationConfig": {"url": to}}}},
        lambda to: {**sent(), "params": {"message": {}, "configuration": {"pushNotificationConfig": {"url": to}}}},
    ]
    for message in messages:
        assert (await ask(peer, message(listed))).status == 200
        refused = await ask(peer, message(url))
        assert (refused.status, refused.reason) == (200, "push_url_refused")
        assert json.loads(refused.body)["error"]["data"][0]["metadata"]["reason"] == "push_url_refused"
    rest = ("Content-Type", "application/a2a+json")
    path = "/a2a/tasks/7/pushNotificationConfigs"
    assert (await peer.send({"url": listed}, rest, V1, target=path)).status == 200
    refused = await peer.send({"url": url}, rest, V1, target=path)
    why = json.loads(refused.body)["error"]["details"][0]["metadata"]["reason"]
    assert (refused.status, why) == (403, "push_url_refused")
    assert len(world.agent.requests) == 5
    records = json.dumps(await peer.sidecar.wait_for_records(10))
    assert "hooks" not in records
    assert "evil" not in records


async def test_an_operation_that_is_refused_is_an_error_of_json_rpc_and_the_record_says_deny(world: World) -> None:
    peer = await peer_of(world)
    answer_with(world, {"id": "7"})
    assert (await ask(peer, rpc("GetTask", id="7"))).reason is None
    narrow = mint({"scope": "crm.read"})
    for number, (message, token, reason) in enumerate(
        (
            (rpc("ListTasks"), None, "operation_refused"),
            (rpc("GetTask", id="7"), narrow, "insufficient_scope"),
            (rpc("GetTask", id="7"), mint({"act": {"sub": FRONT}, "client_id": FRONT}), "actor_mismatch"),
        )
    ):
        answer = await ask(peer, message, token=token)
        error = json.loads(answer.body)
        assert (answer.status, answer.reason, error["id"], error["error"]["code"]) == (200, reason, 1, -32004)
        assert f"({reason})" in error["error"]["message"]
        record = (await peer.sidecar.wait_for_records(number + 2))[-1]
        assert (record["decision"], record["reason"], record["status"]) == ("deny", reason, 200)
        assert record["upstream_status"] is None
    counted = peer.sidecar.server.metrics.requests
    assert counted["inbound", "agent", "deny", "operation_refused"] == 1
    assert counted["inbound", "agent", "allow", "ok"] == 1
    version = await ask(peer, rpc("GetTask", id="7"), ("A2A-Version", "7.0"))
    assert (version.status, json.loads(version.body)["id"], version.reason) == (200, 1, "protocol_version")
    assert len(world.agent.requests) == 1


@pytest.mark.parametrize("body", [rpc("GetTask", id="7"), {**rpc("GetTask", id="7"), "x": "y" * 20_000}])
async def test_a_message_without_a_valid_token_keeps_the_status_of_that(world: World, body: dict[str, Any]) -> None:
    peer = await peer_of(world)
    answer = await ask(peer, body, token=mint(key=1))
    assert (answer.status, answer.reason) == (401, "bad_signature")
    assert "www-authenticate" in answer.headers
    assert world.agent.requests == []


async def test_a_token_that_is_not_for_the_route_is_told_in_the_answer_to_a_short_message(world: World) -> None:
    settings, other = settings_of(world), "https://other.acme.example"
    settings["issuers"].append({**settings["issuers"][0], "issuer": other})
    settings["inbound"]["routes"][0]["issuers"] = [ISSUER]
    peer = Peer(world, await world.sidecar(WRITER, settings), calling(await world.source(PLANNER), WRITER))
    answer_with(world, {"id": "7"})
    assert (await ask(peer, rpc("GetTask", id="7"))).reason is None
    refused = await ask(peer, rpc("GetTask", id="7"), token=mint({"iss": other}))
    assert (refused.status, refused.reason, json.loads(refused.body)["id"]) == (200, "issuer_not_for_route", 1)
    long = await ask(peer, rpc("GetTask", id="7", metadata="x" * 17_000), token=mint({"iss": other}))
    assert (long.status, long.reason) == (403, "issuer_not_for_route")  # nobody waits for a long one
    assert len(world.agent.requests) == 1


async def test_without_a_list_no_url_passes(world: World) -> None:
    peer = await peer_of(world)
    refused = await ask(peer, rpc("CreateTaskPushNotificationConfig", taskId="7", url="https://hooks.acme.example/a2a"))
    assert (refused.status, refused.reason) == (200, "push_url_refused")
    assert world.agent.requests == []


class Streaming:
    """An agent that answers with a stream of events, each when the test says so."""

    def __init__(self) -> None:
        self.events: asyncio.Queue[bytes] = asyncio.Queue()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        await reader.readexactly(length)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        while event := await self.events.get():
            writer.write(b"%x\r\n%b\r\n" % (len(event), event))
        writer.write(b"0\r\n\r\n")
        await writer.drain()
        writer.close()


@pytest.mark.parametrize("method", ["SendStreamingMessage", "SubscribeToTask"])
async def test_a_stream_passes_event_by_event_and_its_task_is_bound_from_the_first(world: World, method: str) -> None:
    agent = Streaming()
    world.agent.port = await world.listen(agent.serve)
    peer = await peer_of(world)
    message = sent(method) if method == "SendStreamingMessage" else rpc(method, id="7")
    body = json.dumps(message).encode()
    head = [
        "POST /a2a HTTP/1.1", "host: writer", f"content-length: {len(body)}", "content-type: application/json",
        "a2a-version: 1.0", "accept: text/event-stream", f"authorization: Bearer {mint()}",
    ]  # fmt: skip
    async with world.kept(peer.sidecar.inbound, peer.tls) as line:
        line.writer.write("\r\n".join([*head, "", ""]).encode() + body)
        for number in range(3):
            task = {"task": {"id": "7"}} if number == 0 else {"statusUpdate": {"taskId": "7"}}
            event = b"data: " + json.dumps({"jsonrpc": "2.0", "id": 1, "result": task}).encode() + b"\n\n"
            agent.events.put_nowait(event)
            async with asyncio.timeout(PATIENCE_S):
                await line.reader.readuntil(event)  # before the next one is made
            if number == 0 and method == "SendStreamingMessage":
                assert (await ask(peer, rpc("CancelTask", id="7"), token=mint(BOB))).reason == "task_unknown"
        agent.events.put_nowait(b"")
        async with asyncio.timeout(PATIENCE_S):
            await line.reader.readuntil(b"0\r\n\r\n")
    await until(lambda: any(one["op"] == method for one in peer.sidecar.records()))
    (record,) = [one for one in peer.sidecar.records() if one["op"] == method]
    assert (record["decision"], record["reason"], record["status"]) == ("allow", "ok", 200)


async def test_a_task_that_goes_on_after_the_answer_keeps_its_authority_for_linger_s(hops: Hops) -> None:
    settings = hops.settings(route={})
    settings["inbound"]["routes"] = a2a_settings(hops.world, may_call=["crm"], linger_s=60)["inbound"]["routes"]
    hops.writer = await hops.world.sidecar(WRITER, settings)
    hops.crm.script = lambda _head, _body: ok(b"found")
    body = json.dumps(sent()).encode()
    held: list[Held] = []

    def answer(head: bytes, body: bytes) -> bytes:
        held.append(Held(head, body))
        return ok(json.dumps({"jsonrpc": "2.0", "id": 1, "result": {"task": {"id": "7"}}}).encode())

    hops.agent.script = answer

    async def send() -> Answer:
        headers = [*bearer(mint()), JSON, V1]
        return await hops.world.call(hops.writer.inbound, hops.planner, "/a2a", headers=headers, body=body)

    assert (await send()).status == 200
    assert (await hops.call(held[0].shown)).status == 200  # the answer is out, and the task works on
    (record,) = await hops.outbound_records(1)
    assert (record["after_request"], record["subject"]) == (True, "alice")

    settings["inbound"]["routes"][0]["linger_s"] = 0
    hops.writer = await hops.world.sidecar(WRITER, settings)
    assert (await send()).status == 200
    refused = await hops.call(held[1].shown)
    assert (refused.status, refused.reason) == (403, "no_request_context")


async def test_a_refusal_of_the_next_hop_is_no_call_that_went_well(hops: Hops) -> None:
    settings = hops.settings(route={"may_call": ["crm"]})
    settings["outbound"]["routes"] = [hops.route("crm", CRM, {"prefix": "/crm"}) | {"protocol": "a2a"}]
    hops.writer = await hops.world.sidecar(WRITER, settings)
    body = json.dumps(sent()).encode()
    error = json.dumps({"jsonrpc": "2.0", "id": 1, "error": {"code": -32004, "message": "no"}}).encode()
    unknown = "it says no reason that is known here"
    for fields, reason, detail in (
        ([], "ok", None),
        ([b"Delegation-Reason: operation_refused"], "next_hop_refused", "it says operation_refused"),
        ([b"Delegation-Reason: <b>"], "next_hop_refused", unknown),
        ([b"Delegation-Reason: revoked", b"Delegation-Reason: no_token"], "next_hop_refused", unknown),
    ):
        hops.crm.script = lambda _head, _body, fields=fields: ok(error, *fields)
        before = len(hops.writer.records())
        async with hops.serving() as held:
            answer = await hops.call([*held.shown, JSON, V1], "/crm/a2a", method="POST", body=body)
        assert (answer.status, answer.body) == (200, error)
        await until(lambda before=before: len(hops.writer.records()) == before + 2)  # type: ignore[misc]
        (record,) = [one for one in hops.writer.records()[before:] if one["direction"] == "outbound"]
        assert (record["decision"], record["reason"], record["detail"]) == ("allow", reason, detail)
        assert (record["status"], record["upstream_status"]) == (200, 200)
    hops.crm.script = lambda _head, _body: (
        b"HTTP/1.1 403 Forbidden\r\nDelegation-Reason: revoked\r\ncontent-length: 0\r\n\r\n"
    )
    async with hops.serving() as held:
        assert (await hops.call([*held.shown, JSON, V1], "/crm/a2a", method="POST", body=body)).status == 403
    record = (await hops.outbound_records(5))[-1]
    assert (record["reason"], record["status"]) == ("ok", 403)  # the status says it
    counted = hops.writer.server.metrics.requests
    assert counted["outbound", "crm", "allow", "next_hop_refused"] == 3
    assert counted["outbound", "crm", "allow", "ok"] == 2
