"""Agent cards through a sidecar over real sockets: what peers and agents get, and the same refused by one fact."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from tests.integration.hops import Hops
from tests.integration.test_operations import JSON, Peer, mcp_settings
from tests.integration.world import (
    CRM,
    FRONT,
    PLANNER,
    WRITER,
    Agent,
    Answer,
    Sidecar,
    World,
    bearer,
    calling,
    ok,
    until,
)

pytestmark = pytest.mark.integration

CARD = "/.well-known/agent-card.json"
OLD_CARD = "/.well-known/agent.json"
JSON_ANSWER = b"content-type: application/json"
V1: dict[str, Any] = {
    "name": "writer",
    "version": "1",
    "supportedInterfaces": [
        {"url": "http://127.0.0.1:8080/a2a", "protocolBinding": "JSONRPC", "protocolVersion": "1.0"},
        {"url": "127.0.0.1:9090", "protocolBinding": "GRPC", "protocolVersion": "1.0"},
    ],
    "securitySchemes": {"login": {"openIdConnectSecurityScheme": {"openIdConnectUrl": "https://idp.example/x"}}},
    "securityRequirements": [{"schemes": {"login": {"list": []}}}],
    "skills": [],
}
V03: dict[str, Any] = {"name": "writer", "url": "http://127.0.0.1:8080/a2a", "additionalInterfaces": [], "skills": []}
SIGNED = {**V1, "signatures": [{"protected": "e30", "signature": "c2ln"}]}


def a2a_settings(world: World, **route: Any) -> dict[str, Any]:
    settings = mcp_settings(world, {"allow": ["SendMessage", "GetTask", "GetExtendedAgentCard"]})
    settings["inbound"]["routes"][0] |= {
        "name": "agent",
        "match": {"path_prefix": "/a2a"},
        "protocol": "a2a",
        "peers": [PLANNER],
        **route,
    }
    return settings


def serve_cards(agent: Agent, cards: dict[str, object]) -> None:
    """Have an agent serve cards by path, and 404 anywhere else."""

    def script(head: bytes, _body: bytes) -> bytes:
        card = cards.get(head.split(b" ")[1].decode())
        if card is None:
            return b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n"
        return card if isinstance(card, bytes) else ok(json.dumps(card).encode(), JSON_ANSWER)

    agent.script = script


async def asked(
    world: World, sidecar: Sidecar, tls: Any, target: str = CARD, *, method: str = "GET", **options: Any
) -> Answer:
    return await world.call(sidecar.inbound, tls, target, method=method, **options)


async def test_a_peer_gets_the_card_without_a_token_and_none_of_its_request_reaches_the_agent(world: World) -> None:
    serve_cards(world.agent, {CARD: V1, OLD_CARD: V03})
    sidecar = await world.sidecar(WRITER, a2a_settings(world))
    planner = calling(await world.source(PLANNER), WRITER)
    answer = await asked(
        world, sidecar, planner, f"{CARD}?secret=1", host="writer.mesh:7443", headers=[("X-Mark", "m")]
    )
    assert answer.status == 200
    card = json.loads(answer.body)
    assert card["supportedInterfaces"] == [
        {"url": "https://writer.mesh:7443/a2a", "protocolBinding": "JSONRPC", "protocolVersion": "1.0"}
    ]
    assert set(card["securitySchemes"]) == {"mtls", "delegation"}
    other = json.loads((await asked(world, sidecar, planner, OLD_CARD, host="10.0.0.7:7443")).body)
    assert (other["url"], other["security"]) == ("https://10.0.0.7:7443/a2a", [{"mtls": [], "delegation": []}])
    ((head, body), (_, _)) = world.agent.requests
    assert head.startswith(f"GET {CARD} HTTP/1.1\r\n".encode())
    assert body == b""
    assert b"x-mark" not in head.lower()
    assert b"secret" not in head
    records = await sidecar.wait_for_records(2)
    for record in records:
        assert (record["op"], record["decision"], record["peer"]) == ("GetAgentCard", "allow", str(PLANNER))
        assert (record["route"], record["subject"], record["status"]) == ("agent", None, 200)


async def test_a_head_request_has_no_body_and_other_methods_are_refused(world: World) -> None:
    serve_cards(world.agent, {CARD: V1})
    sidecar = await world.sidecar(WRITER, a2a_settings(world))
    planner = calling(await world.source(PLANNER), WRITER)
    head = await asked(world, sidecar, planner, method="HEAD")
    assert (head.status, head.body) == (200, b"")
    assert int(head.headers["content-length"]) > 0
    posted = await asked(world, sidecar, planner, method="POST", body=b"{}")
    assert (posted.status, posted.reason, posted.headers["allow"]) == (405, "method_refused", "GET, HEAD")


async def test_a_workload_that_no_route_lists_gets_no_card(world: World) -> None:
    serve_cards(world.agent, {CARD: V1})
    sidecar = await world.sidecar(WRITER, a2a_settings(world))
    refused = await asked(world, sidecar, calling(await world.source(FRONT), WRITER))
    assert (refused.status, refused.reason) == (403, "policy_denied")
    assert world.agent.requests == []
    (record,) = await sidecar.wait_for_records(1)
    assert (record["op"], record["decision"], record["peer"]) == ("GetAgentCard", "deny", str(FRONT))


async def test_a_workload_on_the_deny_list_gets_no_card(world: World) -> None:
    serve_cards(world.agent, {CARD: V1})
    settings = a2a_settings(world)
    settings["deny"] = [{"actor": str(PLANNER)}]
    sidecar = await world.sidecar(WRITER, settings)
    refused = await asked(world, sidecar, calling(await world.source(PLANNER), WRITER))
    assert (refused.status, refused.reason) == (403, "policy_denied")


async def test_peers_that_ask_again_and_again_get_the_same_copy(world: World) -> None:
    serve_cards(world.agent, {CARD: V1})
    sidecar = await world.sidecar(WRITER, a2a_settings(world))
    planner = calling(await world.source(PLANNER), WRITER)
    answers = await asyncio.gather(*(asked(world, sidecar, planner) for _ in range(8)))
    assert {answer.status for answer in answers} == {200}
    assert len(world.agent.requests) == 1
    assert answers[0].headers["cache-control"] == "private, max-age=30"


async def test_a_peer_that_hangs_up_causes_no_second_fetch_and_a_late_card_is_refused_to_all(world: World) -> None:
    world.agent.script = lambda _head, _body: world.agent.never()
    sidecar = await world.sidecar(WRITER, a2a_settings(world))
    planner = calling(await world.source(PLANNER), WRITER)
    async with world.kept(sidecar.inbound, planner) as line:
        line.send(CARD)
        await world.agent.arrived.wait()
    refused = await asked(world, sidecar, planner)
    assert (refused.status, refused.reason) == (504, "upstream_timeout")
    assert len(world.agent.requests) == 1
    assert [record["reason"] for record in await sidecar.wait_for_records(2)] == ["peer_gone", "upstream_timeout"]


@pytest.mark.parametrize(
    ("card", "status", "reason"),
    [
        pytest.param(None, 404, "no_route", id="none-there"),
        pytest.param(SIGNED, 502, "card_refused", id="signed"),
        pytest.param(ok(b'{"name":"a","name":"b"}'), 502, "card_refused", id="ambiguous"),
        pytest.param(ok(b"<html>"), 502, "card_refused", id="no-json"),
        pytest.param(ok(b"\x1f\x8b", b"content-encoding: gzip"), 502, "card_refused", id="encoded"),
        pytest.param(ok(b'{"x":"' + b"y" * 300_000 + b'"}'), 502, "card_refused", id="too-large"),
        pytest.param(
            b"HTTP/1.1 302 Found\r\nlocation: http://evil.example/\r\ncontent-length: 0\r\n\r\n",
            502,
            "card_refused",
            id="redirect",
        ),
        pytest.param(
            {**V1, "supportedInterfaces": [{"url": "http://a/elsewhere", "protocolBinding": "JSONRPC"}]},
            502,
            "card_refused",
            id="on-no-route",
        ),
    ],
)
async def test_a_card_that_cannot_be_passed_on_is_refused(world: World, card: Any, status: int, reason: str) -> None:
    serve_cards(world.agent, {} if card is None else {CARD: card})
    sidecar = await world.sidecar(WRITER, a2a_settings(world))
    planner = calling(await world.source(PLANNER), WRITER)
    refused = await asked(world, sidecar, planner)
    assert (refused.status, refused.reason) == (status, reason)
    (record,) = await sidecar.wait_for_records(1)
    assert (record["op"], record["decision"], record["reason"]) == ("GetAgentCard", "deny", reason)
    if isinstance(card, dict):  # it is kept as long as any card that was read
        return
    serve_cards(world.agent, {CARD: V1})  # a failure is not kept for long
    async with asyncio.timeout(10):
        while (await asked(world, sidecar, planner)).status != 200:
            pass


async def test_a_signature_is_dropped_where_the_route_says_so_and_the_record_tells(world: World) -> None:
    serve_cards(world.agent, {CARD: SIGNED})
    sidecar = await world.sidecar(WRITER, a2a_settings(world, a2a={"rewrite_signed": True}))
    answer = await asked(world, sidecar, calling(await world.source(PLANNER), WRITER))
    assert answer.status == 200
    assert "signatures" not in json.loads(answer.body)
    (record,) = await sidecar.wait_for_records(1)
    assert record["detail"] == "the signature of the card was dropped"


async def test_the_address_of_the_interfaces_may_be_configured(world: World) -> None:
    serve_cards(world.agent, {CARD: V1})
    sidecar = await world.sidecar(WRITER, a2a_settings(world, a2a={"card_url": "https://writer.acme.example"}))
    answer = await asked(world, sidecar, calling(await world.source(PLANNER), WRITER), host="anything")
    assert json.loads(answer.body)["supportedInterfaces"][0]["url"] == "https://writer.acme.example/a2a"


async def test_a_route_of_its_own_may_have_a_card_below_its_path(world: World) -> None:
    serve_cards(world.agent, {f"/a2a{CARD}": V1})
    sidecar = await world.sidecar(WRITER, a2a_settings(world))
    planner = calling(await world.source(PLANNER), WRITER)
    assert (await asked(world, sidecar, planner, f"/a2a{CARD}")).status == 200
    assert (await asked(world, sidecar, planner, CARD)).status == 404


async def test_an_extended_card_needs_a_token_and_is_rewritten_in_both_bindings(world: World) -> None:
    extended = {**V1, "skills": [{"id": "secret", "name": "Secret"}]}
    sidecar = await world.sidecar(WRITER, a2a_settings(world))
    planner = calling(await world.source(PLANNER), WRITER)
    peer = Peer(world, sidecar, planner)
    message = {"jsonrpc": "2.0", "id": 7, "method": "GetExtendedAgentCard", "params": {}}
    rpc_answer = {"jsonrpc": "2.0", "id": 7, "result": extended}
    world.agent.script = lambda _head, body: ok(json.dumps(rpc_answer if body else extended).encode(), JSON_ANSWER)
    version = ("A2A-Version", "1.0")
    by_rpc = await peer.send(message, JSON, version, ("Accept-Encoding", "gzip"), target="/a2a", host="writer.mesh")
    card = json.loads(by_rpc.body)["result"]
    assert card["supportedInterfaces"][0]["url"] == "https://writer.mesh/a2a"
    assert (card["skills"][0]["id"], json.loads(by_rpc.body)["id"]) == ("secret", 7)
    assert b"accept-encoding" not in world.agent.requests[0][0].lower()
    by_path = await peer.send(b"", version, target="/a2a/extendedAgentCard", method="GET", host="writer.mesh")
    assert json.loads(by_path.body) == card
    refused = await world.call(sidecar.inbound, planner, "/a2a/extendedAgentCard", method="GET", headers=[version])
    assert (refused.status, refused.reason) == (401, "no_token")
    assert len(world.agent.requests) == 2


@pytest.mark.parametrize(
    ("answered", "status", "reason"),
    [
        (ok(json.dumps({"jsonrpc": "2.0", "id": 7, "result": SIGNED}).encode()), 502, "card_refused"),
        (ok(json.dumps({"jsonrpc": "2.0", "id": 7, "result": 1}).encode()), 502, "card_refused"),
        (
            ok(json.dumps({"jsonrpc": "2.0", "id": 7, "result": V1}).encode(), b"content-encoding: br"),
            502,
            "card_refused",
        ),
        (ok(b"x" * 300_000), 502, "card_refused"),
        (ok(json.dumps({"jsonrpc": "2.0", "id": 7, "error": {"code": -32007, "message": "m"}}).encode()), 200, None),
        (b"HTTP/1.1 500 X\r\ncontent-length: 2\r\n\r\nno", 500, None),
    ],
)
async def test_an_extended_card_that_cannot_be_read_is_refused_and_an_error_passes(
    world: World, answered: bytes, status: int, reason: str | None
) -> None:
    sidecar = await world.sidecar(WRITER, a2a_settings(world))
    peer = Peer(world, sidecar, calling(await world.source(PLANNER), WRITER))
    message = {"jsonrpc": "2.0", "id": 7, "method": "GetExtendedAgentCard"}
    world.agent.script = lambda _head, _body: answered
    answer = await peer.send(message, JSON, ("A2A-Version", "1.0"), target="/a2a")
    assert (answer.status, answer.reason) == (status, reason)
    if reason is None:
        assert answer.body == answered.partition(b"\r\n\r\n")[2]


def a2a_route(hops: Hops, match: dict[str, str], **rules: Any) -> dict[str, Any]:
    return hops.route("crm", CRM, match) | {"protocol": "a2a", **rules}


async def start_writer(hops: Hops, *routes: dict[str, Any]) -> None:
    settings = hops.settings(route={"may_call": [route["name"] for route in routes]})
    settings["outbound"]["routes"] = list(routes)
    hops.writer = await hops.world.sidecar(WRITER, settings)


@pytest.mark.parametrize(
    ("match", "target", "host", "address"),
    [
        ({"prefix": "/crm"}, f"/crm{CARD}", None, "http://127.0.0.1:{port}/crm/a2a"),
        ({"host": "crm.mesh"}, CARD, "crm.mesh", "http://crm.mesh/a2a"),
        ({"host": "crm.mesh"}, f"http://crm.mesh{CARD}", "crm.mesh", "http://crm.mesh/a2a"),
    ],
)
async def test_the_agent_gets_a_card_whose_addresses_lead_through_its_sidecar(
    hops: Hops, match: dict[str, str], target: str, host: str | None, address: str
) -> None:
    serve_cards(hops.crm, {CARD: V1 | V03})
    await start_writer(hops, a2a_route(hops, match))
    login = ("Authorization", "Bearer a-login-of.some.user")
    answer = await hops.call([login, ("X-Mark", "m")], target, host=host)
    assert answer.status == 200
    card = json.loads(answer.body)
    expected = address.format(port=hops.writer.outbound)
    assert [one["url"] for one in card["supportedInterfaces"]] == [expected]
    assert card["url"] == expected
    assert not card.keys() & {"security", "securitySchemes", "securityRequirements"}
    ((head, _),) = hops.crm.requests
    assert head.startswith(f"GET {CARD} HTTP/1.1\r\n".encode())
    assert b"authorization" not in head.lower()
    assert b"x-mark" not in head.lower()
    (record,) = await hops.outbound_records(1)
    assert (record["op"], record["decision"], record["peer"]) == ("GetAgentCard", "allow", str(CRM))
    assert record["jti_out"] is None


async def test_a_signed_card_of_a_next_hop_is_refused_unless_the_route_drops_the_signature(hops: Hops) -> None:
    serve_cards(hops.crm, {CARD: SIGNED})
    dropping = a2a_route(hops, {"prefix": "/unsigned"}, a2a={"rewrite_signed": True}) | {"name": "unsigned"}
    await start_writer(hops, a2a_route(hops, {"prefix": "/crm"}), dropping)
    refused = await hops.call([], f"/crm{CARD}")
    assert (refused.status, refused.reason) == (502, "card_refused")
    answer = await hops.call([], f"/unsigned{CARD}")
    assert "signatures" not in json.loads(answer.body)
    assert [record["detail"] for record in await hops.outbound_records(2)] == [
        "the card is signed, and rewrite_signed is not set",
        "the signature of the card was dropped",
    ]


async def test_nothing_but_the_card_is_open_without_a_handle(hops: Hops) -> None:
    serve_cards(hops.crm, {CARD: V1, f"/x{CARD}": V1})
    await start_writer(hops, a2a_route(hops, {"prefix": "/crm"}))
    message = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "SendMessage", "params": {}}).encode()
    sent = await hops.call([JSON, ("A2A-Version", "1.0")], "/crm/a2a", method="POST", body=message)
    assert (sent.status, sent.reason) == (200, "no_request_context")  # an error of JSON-RPC
    for target in (f"/crm/x{CARD}", f"/crm{CARD}/"):  # a path of the agent's own would carry its data
        assert (await hops.call([], target)).status != 200
    assert (await hops.call([], f"/crm{CARD}", method="POST")).reason == "method_refused"
    assert hops.crm.requests == []
    assert (await hops.call([], f"/crm{CARD}")).status == 200


async def test_a_next_hop_that_proves_another_identity_gives_no_card(hops: Hops) -> None:
    serve_cards(hops.mail, {CARD: V1})
    route = a2a_route(hops, {"prefix": "/crm"}) | {"upstream": f"https://127.0.0.1:{hops.ports['mail']}"}
    await start_writer(hops, route)
    refused = await hops.call([], f"/crm{CARD}")
    assert (refused.status, refused.reason) == (502, "upstream_identity")
    assert hops.mail.requests == []


async def test_an_extended_card_of_a_next_hop_is_rewritten_for_the_agent(hops: Hops) -> None:
    await start_writer(hops, a2a_route(hops, {"prefix": "/crm"}))
    message = json.dumps({"jsonrpc": "2.0", "id": "x", "method": "agent/getAuthenticatedExtendedCard"}).encode()
    hops.crm.script = lambda _head, _body: ok(json.dumps({"jsonrpc": "2.0", "id": "x", "result": V1}).encode())
    async with hops.serving() as held:
        answer = await hops.call([*held.shown, JSON], "/crm/a2a", method="POST", body=message)
    card = json.loads(answer.body)["result"]
    assert card["supportedInterfaces"][0]["url"] == f"http://127.0.0.1:{hops.writer.outbound}/crm/a2a"
    assert "securitySchemes" not in card


async def test_a_call_that_follows_a_card_nobody_rewrote_is_refused_where_it_reaches_a_sidecar(hops: Hops) -> None:
    """The agent has the address of the next hop itself, from a card that came by another way."""
    serve_cards(hops.crm, {CARD: V1})
    await start_writer(hops, a2a_route(hops, {"prefix": "/crm"}))
    message = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "message/send", "params": {"message": {}}}).encode()
    elsewhere = f"127.0.0.1:{hops.ports['crm']}"
    async with hops.serving() as held:
        by_proxy = await hops.call([*held.shown, JSON], "/a2a", method="POST", body=message, host=elsewhere)
        assert (by_proxy.status, by_proxy.reason) == (403, "target_denied")
        assert (await hops.call([*held.shown, JSON], "/crm/a2a", method="POST", body=message)).reason is None
    hops.writer = await hops.world.sidecar(WRITER, a2a_settings(hops.world))
    direct = await hops.world.call(hops.writer.inbound, hops.planner, "/a2a", headers=[JSON], body=message)
    assert (direct.status, direct.reason) == (401, "no_token")
    as_user = await hops.world.call(
        hops.writer.inbound, hops.planner, "/a2a", headers=[*bearer("x.y.z"), JSON], body=message
    )
    assert as_user.status == 401
    await until(lambda: len(hops.crm.requests) == 1)
