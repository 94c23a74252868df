"""The inbound journey over real TLS: one lawful call, and the same call refused with one fact changed."""

from __future__ import annotations

import asyncio
import hashlib
import ssl
from typing import Any

import pytest

from delegation_core.spiffe_id import SpiffeId
from tests.fakes.tokens import base64url
from tests.integration.world import (
    CRM,
    FRONT,
    PLANNER,
    WRITER,
    Sidecar,
    World,
    bearer,
    calling,
    mint,
    ok,
    parse,
    until,
)

pytestmark = pytest.mark.integration


async def test_a_delegated_call_reaches_the_agent_with_a_handle_instead_of_its_token(world: World) -> None:
    sidecar = await world.sidecar(WRITER, world.settings())
    planner = calling(await world.source(PLANNER), WRITER)
    token = mint({"sub": "alice", "jti": "j1"})
    answer = await world.call(sidecar.inbound, planner, headers=bearer(token), body=b"hello")
    assert (answer.status, answer.reason, answer.body) == (200, None, b"done")

    head, body = world.agent.requests[0]
    assert head.startswith(b"POST /draft HTTP/1.1\r\n")
    assert body == b"hello"
    assert token.encode() not in head
    headers = world.agent.headers()
    assert headers["delegation-subject"] == "alice"
    assert headers["delegation-subject-issuer"] == "https://sts.acme.example"
    assert headers["delegation-actor"] == PLANNER
    assert headers["delegation-scope"] == "crm.read docs.write"
    assert len(headers["authorization"].removeprefix("Bearer ")) == 43

    (record,) = await sidecar.wait_for_records(1)
    assert (record["decision"], record["reason"], record["workload"]) == ("allow", "ok", WRITER)
    assert (record["peer"], record["subject"], record["actor"]) == (PLANNER, "alice", PLANNER)
    assert record["chain"] == [PLANNER, FRONT]
    assert (record["jti_in"], record["txn"], record["route"]) == ("j1", "t1", "draft")
    assert (record["status"], record["upstream_status"], record["verified"]) == (200, 200, True)
    assert record["request_id"] == headers["delegation-request-id"]


@pytest.mark.parametrize("forwarded", [True, False])
async def test_an_agent_is_told_how_a_call_came_by_us_or_by_nobody(world: World, *, forwarded: bool) -> None:
    settings = world.settings()
    settings["inbound"]["routes"][0]["forwarded"] = forwarded
    sidecar = await world.sidecar(WRITER, settings)
    planner = calling(await world.source(PLANNER), WRITER)
    forged = [("X-Forwarded-Proto", "gopher"), ("X-Forwarded-For", "203.0.113.9"), ("Forwarded", "for=203.0.113.9")]
    answer = await world.call(sidecar.inbound, planner, headers=[*bearer(mint()), *forged], host="Writer.Example:7443")
    assert answer.status == 200
    told = {name: value for name, value in world.agent.headers().items() if "forwarded" in name}
    ours = {
        "x-forwarded-proto": "https",
        "x-forwarded-host": "writer.example:7443",
        "x-forwarded-for": "127.0.0.1",
    }
    assert told == (ours if forwarded else {})


Changes = dict[str, Any]

REFUSALS = [
    pytest.param({"token": None}, 401, "no_token", id="no token"),
    pytest.param({"claims": {"act": None}}, 401, "act_missing", id="impersonation: no act"),
    pytest.param({"claims": {"act": {"sub": FRONT}}}, 403, "actor_mismatch", id="another actor"),
    pytest.param(
        {"claims": {"act": {"sub": FRONT, "act": {"sub": PLANNER}}}}, 403, "actor_mismatch", id="the peer inside only"
    ),
    pytest.param({"claims": {"aud": CRM}}, 401, "wrong_audience", id="for another audience"),
    pytest.param({"claims": {"exp": 1}}, 401, "token_expired", id="expired"),
    pytest.param({"claims": {"iss": "https://other.example"}}, 401, "wrong_issuer", id="of another issuer"),
    pytest.param({"claims": {"scope": "crm.read"}}, 403, "insufficient_scope", id="without the scope"),
    pytest.param(
        {"claims": {"scope": "docs.write admin"}}, 403, "scope_above_ceiling", id="above the issuer's ceiling"
    ),
    pytest.param({"key": 1}, 401, "bad_signature", id="signed by another key"),
    pytest.param({"header": {"kid": "k9"}}, 401, "unknown_key", id="signed by an unknown key"),
    pytest.param({"header": {"alg": "none"}}, 401, "alg_not_allowed", id="alg none"),
    pytest.param({"header": {"typ": "JWT"}}, 401, "token_type", id="no access token"),
    pytest.param({"token": "x.y"}, 401, "malformed_token", id="no JWT"),
    pytest.param({"target": "/other"}, 404, "no_route", id="another path"),
    pytest.param({"target": "/draft/../draft"}, 400, "path_refused", id="a path with two meanings"),
    pytest.param({"method": "DELETE"}, 405, "method_refused", id="another method"),
    pytest.param({"method": "post"}, 405, "method_refused", id="the method in lower case"),
    pytest.param({"method": "FETCH"}, 405, "method_refused", id="a method that nobody knows"),
    pytest.param({"method": "FETCH", "target": "/other"}, 404, "no_route", id="such a method on another path"),
    pytest.param({"headers": [("authorization", "Bearer x")]}, 400, "header_malformed", id="two tokens"),
    pytest.param({"peer": FRONT}, 403, "actor_mismatch", id="the token in other hands"),
    pytest.param(
        {"peer": FRONT, "claims": {"act": {"sub": FRONT}, "client_id": FRONT}}, 403, "policy_denied", id="no such peer"
    ),
]


@pytest.mark.parametrize(("changes", "status", "reason"), REFUSALS)
async def test_with_one_fact_changed_the_call_is_refused_and_the_next_one_served(
    world: World, changes: Changes, status: int, reason: str
) -> None:
    sidecar = await world.sidecar(WRITER, world.settings())
    planner = calling(await world.source(PLANNER), WRITER)
    peer: SpiffeId | None = changes.get("peer")
    caller = planner if peer is None else calling(await world.source(peer), WRITER)
    token = changes.get("token", mint(changes.get("claims"), changes.get("header"), key=changes.get("key", 0)))
    refused = await world.call(
        sidecar.inbound,
        caller,
        changes.get("target", "/draft"),
        method=changes.get("method", "POST"),
        headers=[*(bearer(token) if token else []), *changes.get("headers", [])],
    )
    assert (refused.status, refused.reason) == (status, reason)
    assert refused.headers["content-type"] == "application/problem+json"
    assert ("www-authenticate" in refused.headers) == (status in (400, 401) or reason == "insufficient_scope")
    assert world.agent.requests == []

    lawful = await world.call(sidecar.inbound, planner, headers=bearer(mint()))
    assert lawful.status == 200
    records = await sidecar.wait_for_records(2)
    assert [(r["decision"], r["reason"], r["status"]) for r in records] == [
        ("deny", reason, status),
        ("allow", "ok", 200),
    ]
    assert records[0]["peer"] == (peer or PLANNER)


@pytest.mark.parametrize(
    ("changes", "verified"),
    [
        ({"key": 1}, False),
        ({"claims": {"exp": 1}}, False),
        ({"claims": {"iss": "https://other.example"}}, False),
        ({"claims": {"scope": "crm.read"}}, True),
        ({"peer": FRONT}, True),
    ],
    ids=["bad signature", "expired", "of another issuer", "without the scope", "in other hands"],
)
async def test_the_record_of_a_refusal_says_whose_token_it_was_and_whether_that_is_proven(
    world: World, changes: Changes, verified: bool
) -> None:
    sidecar = await world.sidecar(WRITER, world.settings())
    caller = calling(await world.source(changes.get("peer", PLANNER)), WRITER)
    token = mint({"jti": "j1", **changes.get("claims", {})}, key=changes.get("key", 0))
    await world.call(sidecar.inbound, caller, headers=bearer(token))
    (record,) = await sidecar.wait_for_records(1)
    assert (record["decision"], record["verified"]) == ("deny", verified)
    assert (record["subject"], record["actor"], record["jti_in"]) == ("alice", PLANNER, "j1")


async def test_a_refused_method_is_told_which_ones_are_taken(world: World) -> None:
    sidecar = await world.sidecar(WRITER, world.settings())
    planner = calling(await world.source(PLANNER), WRITER)
    for method in ("DELETE", "FETCH"):
        refused = await world.call(sidecar.inbound, planner, method=method, headers=bearer(mint()))
        assert refused.headers["allow"] == "GET, HEAD, POST"


async def test_a_route_may_take_any_method(world: World) -> None:
    settings = world.settings()
    settings["inbound"]["routes"][0]["match"]["methods"] = ["FETCH"]
    sidecar = await world.sidecar(WRITER, settings)
    planner = calling(await world.source(PLANNER), WRITER)
    answer = await world.call(sidecar.inbound, planner, method="FETCH", headers=bearer(mint()), body=b"hello")
    assert answer.status == 200
    head, body = world.agent.requests[0]
    assert head.startswith(b"FETCH /draft HTTP/1.1\r\n")
    assert body == b"hello"


async def test_the_second_call_with_a_token_is_judged_anew(world: World) -> None:
    sidecar = await world.sidecar(WRITER, world.settings())
    planner = calling(await world.source(PLANNER), WRITER)
    token = mint()
    assert (await world.call(sidecar.inbound, planner, headers=bearer(token))).status == 200
    again = await world.call(sidecar.inbound, planner, "/other", headers=bearer(token))
    assert again.reason == "no_route"
    front = calling(await world.source(FRONT), WRITER)
    stolen = await world.call(sidecar.inbound, front, headers=bearer(token))
    assert stolen.reason == "actor_mismatch"


SPELLINGS = ["Delegation-Subject", "delegation_subject", "DELEGATION-SUBJECT", "Delegation.Subject", "delegation-foo"]


@pytest.mark.parametrize("name", [*SPELLINGS, "X-Forwarded-Client-Cert", "Client_Cert", "X-HTTP-Method-Override"])
async def test_what_a_peer_claims_in_a_header_of_ours_counts_for_nothing(world: World, name: str) -> None:
    sidecar = await world.sidecar(WRITER, world.settings())
    planner = calling(await world.source(PLANNER), WRITER)
    headers = [*bearer(mint()), (name, "mallory"), ("x-other", "kept")]
    assert (await world.call(sidecar.inbound, planner, headers=headers)).status == 200
    head = world.agent.requests[0][0]
    assert b"mallory" not in head
    assert b"x-other: kept" in head


async def test_connection_cannot_remove_what_we_set(world: World) -> None:
    sidecar = await world.sidecar(WRITER, world.settings())
    planner = calling(await world.source(PLANNER), WRITER)
    raw = (
        f"GET /draft HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {mint()}\r\n"
        "connection: close, delegation-subject, authorization, x-mine\r\nx-mine: 1\r\n\r\n"
    )
    assert parse(await world.exchange(sidecar.inbound, planner, raw.encode())).status == 200
    headers = world.agent.headers()
    assert headers["delegation-subject"] == "alice"
    assert headers["authorization"].startswith("Bearer ")
    assert "x-mine" not in headers


async def test_a_subject_that_could_break_a_header_is_encoded(world: World) -> None:
    sidecar = await world.sidecar(WRITER, world.settings())
    planner = calling(await world.source(PLANNER), WRITER)
    answer = await world.call(sidecar.inbound, planner, headers=bearer(mint({"sub": "a b%ü,;"})))
    assert answer.status == 200
    assert world.agent.headers()["delegation-subject"] == "a%20b%25%C3%BC%2C%3B"


async def test_an_agent_cannot_speak_in_the_sidecars_name(world: World) -> None:
    world.agent.script = lambda _head, _body: ok(b"", b"delegation-reason: act_missing", b"x-own: 1")
    sidecar = await world.sidecar(WRITER, world.settings())
    planner = calling(await world.source(PLANNER), WRITER)
    answer = await world.call(sidecar.inbound, planner, headers=bearer(mint()))
    assert answer.reason is None
    assert answer.headers["x-own"] == "1"


async def test_peers_without_an_identity_of_the_mesh_get_no_handshake(world: World) -> None:
    sidecar = await world.sidecar(WRITER, world.settings())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    assert await world.hears_nothing(sidecar.inbound, context)
    (event,) = await sidecar.wait_for_records(1, "connection.refused")
    assert event["reason"] == "no_client_cert"
    assert event["source"].startswith("127.0.0.1:")
    assert sidecar.records() == []


async def test_a_partners_workload_is_let_in_and_then_judged_by_the_route(world: World) -> None:
    sidecar = await world.sidecar(WRITER, world.settings())
    stranger = SpiffeId("spiffe://partner.example/agent/planner")
    caller = calling(await world.source(stranger), WRITER)
    answer = await world.call(sidecar.inbound, caller, headers=bearer(mint({"act": {"sub": stranger}})))
    assert (answer.status, answer.reason) == (403, "policy_denied")


async def test_an_agent_that_is_down_is_told_and_recorded(world: World) -> None:
    settings = world.settings()
    settings["inbound"]["agent"] = "http://127.0.0.1:1"
    sidecar = await world.sidecar(WRITER, settings)
    planner = calling(await world.source(PLANNER), WRITER)
    answer = await world.call(sidecar.inbound, planner, headers=bearer(mint()))
    assert (answer.status, answer.reason, answer.headers["retry-after"]) == (503, "upstream_unreachable", "1")
    (record,) = await sidecar.wait_for_records(1)
    assert (record["decision"], record["reason"]) == ("allow", "upstream_unreachable")


async def test_a_peer_that_leaves_ends_the_work_and_leaves_one_record(world: World) -> None:
    never: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
    world.agent.script = lambda _head, _body: never
    sidecar = await world.sidecar(WRITER, world.settings())
    planner = calling(await world.source(PLANNER), WRITER)
    _, writer = await asyncio.open_connection("127.0.0.1", sidecar.inbound, ssl=planner, server_hostname="a")
    writer.write(f"GET /draft HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {mint()}\r\n\r\n".encode())
    await asyncio.wait_for(world.agent.arrived.wait(), 5)
    writer.transport.abort()
    (record,) = await sidecar.wait_for_records(1)
    assert (record["reason"], record["status"]) == ("peer_gone", None)
    never.cancel()


async def test_while_the_sink_takes_no_records_the_sidecar_is_not_ready_and_says_why(world: World) -> None:
    folder = world.folder / "records"
    folder.mkdir()
    settings = world.settings(records={"sink": {"file": str(folder)}})
    sidecar = await world.sidecar(WRITER, settings, wait=False)
    await until(lambda: sidecar.server.missing() == ["records: the sink accepts none"])
    assert not sidecar.server.ready.is_set()
    folder.rmdir()
    async with asyncio.timeout(5):
        await sidecar.server.ready.wait()


async def test_without_the_issuers_keys_the_sidecar_is_not_ready_and_says_why(world: World) -> None:
    keys, world.keys = world.keys, {"keys": []}
    sidecar = await world.sidecar(WRITER, world.settings(), wait=False)
    await until(lambda: sidecar.server.missing() == ["keys of https://sts.acme.example (the key set is empty)"])
    assert not sidecar.server.ready.is_set()
    world.keys = keys
    async with asyncio.timeout(10):
        await sidecar.server.ready.wait()


async def test_a_token_bound_to_a_certificate_is_good_with_that_certificate_only(world: World) -> None:
    sidecar = await world.sidecar(WRITER, world.settings())
    source = await world.source(PLANNER)
    planner = calling(source, WRITER)
    assert source.current is not None
    own = hashlib.sha256(source.current.svid.chain[0]).digest()
    bound = bearer(mint({"cnf": {"x5t#S256": base64url(own)}}))
    elsewhere = bearer(mint({"cnf": {"x5t#S256": base64url(bytes(32))}}))
    for _ in range(2):  # verified, then cached
        assert (await world.call(sidecar.inbound, planner, headers=bound)).status == 200
        refused = await world.call(sidecar.inbound, planner, headers=elsewhere)
        assert (refused.status, refused.reason) == (401, "cnf_mismatch")


async def test_a_peer_that_leaves_while_a_key_is_fetched_leaves_one_record(world: World) -> None:
    sidecar = await world.sidecar(WRITER, world.settings())
    planner = calling(await world.source(PLANNER), WRITER)
    world.keys_asked.clear()
    world.keys_wait = asyncio.Event()
    async with world.kept(sidecar.inbound, planner) as kept:
        kept.send(headers=bearer(mint(header={"kid": "k9"})))
        await world.keys_asked.wait()
        (opened,) = await sidecar.wait_for_records(1, "request.opened")
    assert (opened["verified"], opened["subject"]) == (False, "alice")
    (record,) = await sidecar.wait_for_records(1)
    assert (record["decision"], record["reason"], record["status"]) == ("deny", "peer_gone", None)
    assert (record["verified"], record["subject"]) == (False, "alice")
    await until(lambda: len(sidecar.server.parts.tasks) == 0)
    world.keys_wait.set()


async def test_large_bodies_stream_both_ways(world: World) -> None:
    big = bytes(range(256)) * 32768
    world.agent.script = lambda _head, body: ok(body)
    sidecar = await world.sidecar(WRITER, world.settings())
    planner = calling(await world.source(PLANNER), WRITER)
    answer = await world.call(sidecar.inbound, planner, headers=bearer(mint()), body=big)
    assert answer.body == big


async def test_requests_on_one_connection_are_each_judged_alone(world: World) -> None:
    sidecar: Sidecar = await world.sidecar(WRITER, world.settings())
    planner = calling(await world.source(PLANNER), WRITER)
    tokens = [mint({"sub": "alice"}), mint({"sub": "bob", "act": None}), mint({"sub": "carol"})]
    raw = b"".join(
        f"GET /draft HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {token}\r\n{'connection: close' if last else 'x: y'}"
        "\r\n\r\n".encode()
        for token, last in zip(tokens, (False, False, True), strict=True)
    )
    answer = await world.exchange(sidecar.inbound, planner, raw)
    assert [part.split(b" ", 1)[0] for part in answer.split(b"HTTP/1.1 ")[1:]] == [b"200", b"401", b"200"]
    records = await sidecar.wait_for_records(3)
    by_start = sorted(records, key=lambda record: str(record["ts"]))
    assert [r["subject"] for r in by_start] == ["alice", "bob", "carol"]
