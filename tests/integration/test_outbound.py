"""The outbound journey over real sockets: one lawful call of the agent, and the same with one fact changed."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import pytest

from delegation_core.bearer import parse_bearer
from delegation_core.spiffe_id import SpiffeId
from sidecar.identity.tls import server_context
from tests.fakes.tokens import TokenMint, from_base64url
from tests.integration.hops import Headers, Held, Hops
from tests.integration.world import CRM, FRONT, ISSUER, PLANNER, WRITER, Agent, bearer, mint, ok, parse, until

pytestmark = pytest.mark.integration

LOGIN = TokenMint("https://login.acme.example", key=5)


def claims_of(token: str) -> dict[str, Any]:
    return dict(parse_bearer(token).claims)


def by_authorization(held: Held) -> Headers:
    return [("Authorization", f"Bearer {held.handle}")]


def by_delegation_handle(held: Held) -> Headers:
    return [("Delegation-Handle", held.handle)]


def beside_its_own_key(held: Held) -> Headers:
    return [("Delegation-Handle", held.handle), ("Authorization", "Bearer sk-agents-own-key")]


def beside_basic(held: Held) -> Headers:
    return [("Delegation-Handle", held.handle), ("Authorization", "Basic dXNlcjpwYXNz")]


def twice_the_same(held: Held) -> Headers:
    return [("Delegation-Handle", held.handle), ("Authorization", f"bearer {held.handle}")]


@pytest.mark.parametrize(
    "shown", [by_authorization, by_delegation_handle, beside_its_own_key, beside_basic, twice_the_same]
)
async def test_a_call_with_its_requests_handle_leaves_with_a_token_for_exactly_its_target(
    hops: Hops, shown: Any
) -> None:
    await hops.start()
    token = mint({"sub": "alice", "jti": "j1", "txn": "t1"})
    async with hops.serving(token=token) as held:
        answer = await hops.call(shown(held), "/crm/customers?q=1")
        assert (answer.status, answer.body) == (200, b"done")

    head, _ = hops.crm.requests[0]
    assert head.startswith(b"GET /customers?q=1 HTTP/1.1\r\n")
    headers = hops.crm.headers()
    issued = headers["authorization"].removeprefix("Bearer ")
    claims = claims_of(issued)
    assert (claims["iss"], claims["sub"], claims["aud"]) == (ISSUER, "alice", CRM)
    assert claims["scope"] == "crm.read"
    assert claims["act"] == {"sub": WRITER, "act": {"sub": PLANNER, "act": {"sub": FRONT}}}
    for secret in (held.handle, token, "sk-agents-own-key", "dXNlcjpwYXNz"):
        assert secret.encode() not in head
    assert [name for name in headers if name.startswith("delegation-")] == ["delegation-call"]

    (form,) = hops.sts.forms
    assert form["subject_token"] == token
    assert (form["audience"], form["scope"]) == (CRM, "crm.read")
    actor = json.loads(from_base64url(form["actor_token"].split(".")[1]))
    assert (actor["sub"], actor["aud"]) == (WRITER, [ISSUER])

    (record,) = await hops.outbound_records(1)
    (served,) = [r for r in await hops.writer.wait_for_records(2) if r["direction"] == "inbound"]
    assert (record["decision"], record["reason"], record["status"]) == ("allow", "ok", 200)
    assert (record["peer"], record["subject"], record["actor"], record["audience"]) == (CRM, "alice", WRITER, CRM)
    assert record["chain"] == [WRITER, PLANNER, FRONT]
    assert (record["jti_in"], record["jti_out"], record["parent_jti"]) == ("j1", "issued-1", "j1")
    assert record["call_in"] == served["call_in"]
    assert record["call_in"] is not None
    assert record["call_out"] == headers["delegation-call"]
    assert (record["path"], record["route"], record["after_request"]) == ("/crm/customers", "crm", False)


Change = dict[str, Any]

REFUSALS = [
    pytest.param({"shown": lambda _: []}, 403, "no_request_context", id="no handle"),
    pytest.param({"shown": lambda _: bearer("x" * 43)}, 403, "no_request_context", id="a made-up handle"),
    pytest.param({"shown": lambda _: bearer("sk-own-key")}, 403, "no_request_context", id="a key of its own"),
    pytest.param({"shown": lambda h: bearer(h.handle[:-1])}, 403, "no_request_context", id="a handle cut short"),
    pytest.param({"shown": lambda h: bearer(h.handle.swapcase())}, 403, "no_request_context", id="in another case"),
    pytest.param({"shown": lambda h: [("authorization", h.handle)]}, 403, "no_request_context", id="no scheme"),
    pytest.param(
        {"shown": lambda h: [("authorization", f"Basic {h.handle}")]}, 403, "no_request_context", id="another scheme"
    ),
    pytest.param({"shown": lambda h: [("cookie", h.handle)]}, 403, "no_request_context", id="another carrier"),
    pytest.param(
        {"shown": lambda h: [*h.shown, ("delegation-handle", "y" * 43)]},
        403,
        "no_request_context",
        id="two different handles",
    ),
    pytest.param(
        {"shown": lambda h: [("delegation-handle", h.handle), ("delegation-handle", "y" * 43)]},
        403,
        "no_request_context",
        id="two different handles in one name",
    ),
    pytest.param({"shown": lambda h: [*h.shown, *h.shown]}, 400, "header_malformed", id="doubled Authorization"),
    pytest.param({"shown": lambda _: bearer(mint())}, 403, "not_an_entry", id="the token instead of the handle"),
    pytest.param(
        {"shown": lambda _: bearer(LOGIN.mint({"iss": LOGIN.issuer, "sub": "alice", "exp": 1}))},
        403,
        "not_an_entry",
        id="a login token where nobody logs in",
    ),
    pytest.param({"target": "/files/x"}, 403, "target_denied", id="a prefix without route"),
    pytest.param({"target": "/crmx"}, 403, "target_denied", id="a longer segment"),
    pytest.param({"host": "evil.example"}, 403, "target_denied", id="a host without route"),
    pytest.param(
        {"target": "http://evil.example/", "host": "evil.example"}, 403, "target_denied", id="proxy form, no route"
    ),
    pytest.param({"target": "/crm/../mail/x"}, 400, "path_refused", id="a path with two meanings"),
    pytest.param({"target": "/mail/x"}, 403, "call_not_allowed", id="a route this request may not call"),
    pytest.param({"target": "https://crm.mesh/", "host": "crm.mesh"}, 400, "path_refused", id="proxy form over https"),
    pytest.param(
        {"target": "http://crm.mesh/", "host": "other.mesh"}, 400, "bad_request", id="proxy form and another Host"
    ),
    pytest.param(
        {"target": "evil.example:443", "host": "evil.example:443", "method": "CONNECT"},
        403,
        "target_denied",
        id="CONNECT",
    ),
    pytest.param(
        {"target": "evil.example:443", "host": "crm.mesh", "method": "CONNECT"},
        400,
        "bad_request",
        id="CONNECT and another Host",
    ),
]


@pytest.mark.parametrize(("change", "status", "reason"), REFUSALS)
async def test_with_one_fact_changed_nothing_leaves_and_the_next_call_is_served(
    hops: Hops, change: Change, status: int, reason: str
) -> None:
    await hops.start()
    async with hops.serving() as held:
        shown = change.get("shown", lambda h: h.shown)(held)
        options = {name: value for name, value in change.items() if name in {"target", "host", "method"}}
        refused = await hops.call(shown, **options)
        assert (refused.status, refused.reason) == (status, reason)
        assert refused.headers["content-type"] == "application/problem+json"
        assert hops.crm.requests == hops.mail.requests == []
        assert hops.sts.forms == []
        assert (await hops.call(held.shown)).status == 200
    records = await hops.outbound_records(2)
    assert [(r["decision"], r["reason"], r["status"]) for r in records] == [
        ("deny", reason, status),
        ("allow", "ok", 200),
    ]


@pytest.mark.parametrize(
    ("target", "host"),
    [
        pytest.param("http://crm.mesh/customers", "crm.mesh", id="proxy form"),
        pytest.param("http://CRM.mesh:80/customers", "crm.MESH:80", id="proxy form, default port, other case"),
        pytest.param("/customers", "crm.mesh", id="by Host"),
        pytest.param("/crm/customers", None, id="by prefix on our own listener"),
    ],
)
async def test_a_target_is_named_by_host_or_by_prefix(hops: Hops, target: str, host: str | None) -> None:
    await hops.start()
    async with hops.serving() as held:
        assert (await hops.call(held.shown, target, host=host)).status == 200
    head = hops.crm.requests[0][0]
    assert head.startswith(b"GET /customers HTTP/1.1\r\n")
    assert hops.crm.headers()["host"] == f"127.0.0.1:{hops.ports['crm']}"


async def test_an_ambiguous_request_ends_its_connection_and_any_other_refusal_does_not(hops: Hops) -> None:
    await hops.start()
    async with hops.serving() as held, hops.world.kept(hops.writer.outbound) as kept:
        refused = await kept.ask("/x", headers=bearer("x" * 43), host="crm.mesh")
        assert refused.status == 403
        assert "connection" not in refused.headers
        assert (await kept.ask("/x", headers=held.shown, host="crm.mesh")).status == 200
        doubled = await kept.ask("/x", headers=[*held.shown, *held.shown], host="crm.mesh")
        assert (doubled.status, doubled.headers["connection"]) == (400, "close")
        assert await kept.wait_for_end() == b""


async def test_a_handle_dies_with_its_request(hops: Hops) -> None:
    await hops.start()
    async with hops.serving() as held:
        assert (await hops.call(held.shown)).status == 200
    ended = await hops.call(held.shown)
    assert (ended.status, ended.reason) == (403, "no_request_context")
    assert len(hops.crm.requests) == 1


async def test_a_handle_is_worth_nothing_at_another_sidecar(hops: Hops) -> None:
    await hops.start()
    other = await hops.world.sidecar(WRITER, hops.settings())
    async with hops.serving() as held, hops.serving(sidecar=other) as elsewhere:
        foreign = await hops.call(elsewhere.shown)
        assert (foreign.status, foreign.reason) == (403, "no_request_context")
        assert (await hops.call(held.shown)).status == 200


async def test_a_lingering_handle_serves_after_its_request_and_is_recorded_so(hops: Hops) -> None:
    await hops.start(route={"linger_s": 60})
    async with hops.serving() as held:
        pass
    assert (await hops.call(held.shown)).status == 200
    (record,) = await hops.outbound_records(1)
    assert (record["after_request"], record["decision"]) == (True, "allow")


async def test_a_handle_that_has_lingered_long_enough_is_forgotten(hops: Hops) -> None:
    await hops.start(route={"linger_s": 0.1})
    async with hops.serving():
        pass
    handles = hops.writer.server.parts.handles
    await until(lambda: len(handles) == 0)


async def test_a_new_request_of_its_chain_lets_a_handle_linger_on_and_one_of_another_does_not(hops: Hops) -> None:
    await hops.start(route={"linger_s": 2.0, "max_calls": 100_000})
    async with hops.serving({"txn": "long"}) as long, hops.serving({"txn": "short"}) as short:
        pass
    calls = 2
    while (ended := await hops.call(short.shown)).status == 200:
        calls += 1
        async with hops.serving({"txn": "long"}):
            pass
    assert ended.reason == "no_request_context"
    assert (await hops.call(long.shown)).status == 200
    records = await hops.outbound_records(calls)
    assert {record["after_request"] for record in records if record["txn"] == "long"} == {True}


async def test_no_handle_outlives_its_token_however_long_it_may_linger(hops: Hops) -> None:
    await hops.start(route={"linger_s": 60})
    async with hops.serving({"exp": int(time.time()) - 1}) as held:  # within the leeway: served, but no exchange
        during = await hops.call(held.shown)
    after = await hops.call(held.shown)
    assert (during.reason, after.reason) == ("no_request_context", "no_request_context")
    assert hops.sts.forms == []


async def test_a_request_makes_no_more_calls_than_its_route_allows(hops: Hops) -> None:
    await hops.start(route={"max_calls": 2})
    async with hops.serving() as held, hops.serving() as other:
        answers = [await hops.call(held.shown) for _ in range(3)]
        assert [answer.status for answer in answers] == [200, 200, 403]
        assert answers[2].reason == "calls_exhausted"
        assert (await hops.call(other.shown)).status == 200


async def test_what_only_a_sidecar_says_is_not_taken_from_an_agent(hops: Hops) -> None:
    await hops.start()
    forged = [
        ("Delegation-Call", "0" * 32),
        ("delegation_subject", "mallory"),
        ("X-Forwarded-Client-Cert", "mallory"),
        ("x-own", "kept"),
    ]
    async with hops.serving() as held:
        assert (await hops.call([*held.shown, *forged])).status == 200
    head = hops.crm.requests[0][0]
    assert b"0" * 32 not in head
    assert b"mallory" not in head
    assert hops.crm.headers()["x-own"] == "kept"


async def test_what_speaks_of_one_connection_stays_there(hops: Hops) -> None:
    await hops.start()
    hops.crm.script = lambda _head, _body: ok(b"", b"connection: x-theirs", b"x-theirs: 1", b"keep-alive: timeout=5")
    named = [
        ("connection", "x-mine, delegation-call"),
        ("x-mine", "1"),
        ("proxy-authorization", "Basic eA=="),
        ("te", "x"),
    ]
    async with hops.serving() as held:
        answer = await hops.call([*held.shown, *named])
    passed = hops.crm.headers()
    assert passed.keys().isdisjoint({"x-mine", "proxy-authorization", "te", "keep-alive"})
    assert "delegation-call" in passed
    assert answer.headers.keys().isdisjoint({"x-theirs", "keep-alive"})


async def test_the_body_and_the_answer_pass_whole(hops: Hops) -> None:
    big = bytes(range(256)) * 4096
    hops.crm.script = lambda _head, body: ok(body, b"x-crm: 1")
    await hops.start()
    async with hops.serving() as held:
        answer = await hops.call(held.shown, "/crm/notes", method="POST", body=big)
    assert answer.body == big
    assert answer.headers["x-crm"] == "1"


async def test_scope_is_planned_from_what_came_in_and_what_the_route_allows(hops: Hops) -> None:
    await hops.start()
    async with hops.serving({"scope": "docs.write"}) as held:
        refused = await hops.call(held.shown)
        assert (refused.status, refused.reason) == (403, "insufficient_scope")
    assert hops.sts.forms == []


# --- the next hop


async def test_only_the_workload_that_the_route_names_is_spoken_to(hops: Hops) -> None:
    impostor = Agent()
    tls = server_context(await hops.world.source(SpiffeId("spiffe://acme.example/tool/crm2")))
    port = await hops.world.listen(impostor.serve, ssl=tls)
    settings = hops.settings()
    settings["outbound"]["routes"][1] = hops.route("crm-by-host", CRM, {"host": "crm.mesh"}, port)
    hops.writer = await hops.world.sidecar(WRITER, settings)
    async with hops.serving() as held:
        refused = await hops.call(held.shown, "/x", host="crm.mesh")
        assert (refused.status, refused.reason) == (502, "upstream_identity")
        assert impostor.requests == []
        assert (await hops.call(held.shown)).status == 200


@pytest.mark.parametrize(
    ("answer", "status", "reason"),
    [
        pytest.param(b"", 503, "upstream_unreachable", id="nothing"),
        pytest.param(b"SSH-2.0-x\r\n\r\n", 502, "upstream_bad_response", id="no HTTP"),
        pytest.param(b"HTTP/1.1 200 OK\r\ncontent-le", 502, "upstream_bad_response", id="half a head"),
        pytest.param(
            b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nx",
            502,
            "upstream_bad_response",
            id="two lengths",
        ),
        pytest.param(
            b"HTTP/1.1 101 Sure\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n", 502, "upstream_bad_response", id="101"
        ),
    ],
)
async def test_a_next_hop_that_does_not_speak_http_is_refused(
    hops: Hops, answer: bytes, status: int, reason: str
) -> None:
    await hops.start()
    hops.crm.say_and_hang_up(answer)
    async with hops.serving() as held:
        refused = await hops.call(held.shown, method="POST")
        assert (refused.status, refused.reason) == (status, reason)
        hops.crm.script = None
        assert (await hops.call(held.shown, method="POST")).status == 200
    records = await hops.outbound_records(2)
    assert [(r["decision"], r["reason"]) for r in records] == [("allow", reason), ("allow", "ok")]


async def test_a_next_hop_that_is_silent_is_given_up(hops: Hops) -> None:
    await hops.start(limits={"first_byte_timeout_s": 0.2})
    hops.crm.script = lambda _head, _body: hops.crm.never()
    async with hops.serving() as held:
        answer = await hops.call(held.shown)
    assert (answer.status, answer.reason) == (504, "upstream_timeout")


async def test_a_next_hop_that_is_down_is_told(hops: Hops) -> None:
    hops.ports["crm"] = 1
    await hops.start()
    async with hops.serving() as held:
        answer = await hops.call(held.shown)
    assert (answer.status, answer.reason, answer.headers["retry-after"]) == (503, "upstream_unreachable", "1")


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n",
    ],
    ids=["length", "chunked"],
)
async def test_a_truncated_answer_looks_truncated_and_is_recorded_so(hops: Hops, head: bytes) -> None:
    await hops.start()
    hops.crm.say_and_hang_up(head)
    async with hops.serving() as held:
        request = f"GET /x HTTP/1.1\r\nhost: crm.mesh\r\nauthorization: Bearer {held.handle}\r\n\r\n"
        raw = await hops.world.exchange(hops.writer.outbound, None, request.encode())
    answer = parse(raw)
    assert answer.status == 200
    assert b"half" in answer.body
    assert not raw.endswith(b"0\r\n\r\n")
    assert len(answer.body) < 10 or "transfer-encoding" in answer.headers
    (record,) = await hops.outbound_records(1)
    assert (record["decision"], record["reason"], record["upstream_status"]) == ("allow", "upstream_aborted", 200)


@pytest.mark.both_loops
@pytest.mark.parametrize(("in_order", "reason"), [(True, "ok"), (False, "upstream_aborted")])
async def test_an_answer_without_a_length_is_whole_only_if_tls_ended_in_order(
    hops: Hops, *, in_order: bool, reason: str
) -> None:
    end = asyncio.Event()

    async def answer_half(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n\r\nhalf")
        await end.wait()
        if not in_order:
            writer.transport.abort()  # as if the process had died, or somebody on the path had ended the connection
        writer.close()

    port = await hops.world.listen(answer_half, ssl=server_context(await hops.world.source(CRM)))
    settings = hops.settings()
    settings["outbound"]["routes"][1] = hops.route("crm-by-host", CRM, {"host": "crm.mesh"}, port)
    hops.writer = await hops.world.sidecar(WRITER, settings)
    async with hops.serving() as held, hops.world.kept(hops.writer.outbound) as kept:
        kept.send("/x", host="crm.mesh", headers=[*held.shown, ("connection", "close")])
        await kept.reader.readuntil(b"half\r\n")
        end.set()
        rest = await kept.wait_for_end()
    assert (rest == b"0\r\n\r\n") is in_order
    (record,) = await hops.outbound_records(1)
    assert record["reason"] == reason
