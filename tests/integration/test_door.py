"""The door of an entry over real sockets: login tokens for exactly it, listed routes only, each beside its twin."""

from __future__ import annotations

import asyncio
import json
import re
import ssl
import tempfile
import warnings
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import aiohttp
import pytest

from delegation_core.bearer import parse_bearer
from sidecar.file_watch import FileWatcher
from sidecar.proxy.listening.status import SettingsState, status_of
from sidecar.reload import Reload
from sidecar.status.command import _rows
from sidecar.status.troubles import Grade, troubles
from tests.integration.door_world import (
    DROP,
    HOST,
    IDE,
    PAGE,
    RESOURCE,
    TOOLS,
    DoorWorld,
    open_door_world,
    open_people_world,
)
from tests.integration.entry_world import CLIENTS, CUSTOMERS, STAFF
from tests.integration.test_reload import load_here
from tests.integration.world import FRONT, PLANNER, Answer, bearer, loaded_from, mint, ok, until

pytestmark = pytest.mark.integration

WELL_KNOWN = "/.well-known/oauth-protected-resource"
METADATA = f'resource_metadata="{RESOURCE}{WELL_KNOWN}"'
LIST = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
HELLO = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {"protocolVersion": "2025-11-25"}}
ASK = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}


def call(tool: str) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": {"name": tool, "arguments": {"q": "s3cret"}}}


@pytest.fixture
async def door() -> AsyncIterator[DoorWorld]:
    with tempfile.TemporaryDirectory(prefix="sc-") as folder:
        async with open_door_world(Path(folder)) as opened:
            yield opened


async def test_a_users_client_calls_a_tool_and_the_chain_names_the_entry(door: DoorWorld) -> None:
    answer = await door.send(call("search"))
    assert (answer.status, json.loads(answer.body)["id"]) == (200, 7), answer
    claims = parse_bearer(door.world.agent.headers()["delegation-token"]).claims
    assert (claims["sub"], claims["act"]) == ("staff:alice", {"sub": FRONT})
    record = await door.last(1)
    told = ("decision", "reason", "direction", "route", "op", "subject", "subject_iss", "client_id", "source", "peer")
    assert [record[key] for key in told] == [
        "allow", "ok", "outbound", "tools", "tools/call:search", "staff:alice", door.issuer, FRONT, "127.0.0.1", PLANNER
    ]  # fmt: skip
    assert record["call_out"] is not None
    assert "s3cret" not in json.dumps(record)
    await until(lambda: len(door.sts_records()) == 1)
    (inbound,) = await door.planner.wait_for_records(1)
    assert (inbound["peer"], inbound["subject"], inbound["call_in"]) == (FRONT, "staff:alice", record["call_out"])


TOKENS: list[tuple[str, dict[str, Any], str]] = [
    ("the apps", {"aud": "https://api.example", "client_id": CLIENTS[STAFF.issuer]}, "wrong_audience"),
    ("for the app", {"aud": CLIENTS[STAFF.issuer]}, "wrong_audience"),
    ("for two", {"aud": [RESOURCE, "https://api.example"]}, "wrong_audience"),
    ("another spelling", {"aud": f"{RESOURCE}/tools"}, "wrong_audience"),
    ("another door", {"aud": "https://other.acme.example"}, "wrong_audience"),
    ("for nobody", {"aud": None}, "wrong_audience"),
    ("another issuers", {"iss": "https://else.example"}, "wrong_issuer"),
    ("expired", {"exp": 1_700_000_000}, "token_expired"),
    ("it names an actor", {"act": {"sub": FRONT}}, "token_type"),
    ("an ID token", {"nonce": "n"}, "token_type"),
    ("bound to a key", {"cnf": {"jkt": "x"}}, "cnf_mismatch"),
]


async def test_a_token_for_anything_else_opens_nothing(door: DoorWorld) -> None:
    for what, changes, reason in TOKENS:
        refused = await door.send(LIST, token=door.token(**changes))
        assert (what, refused.status, refused.reason) == (what, 401, reason)
        assert METADATA in refused.headers["www-authenticate"]
        assert 'scope="assistant"' in refused.headers["www-authenticate"]
    assert door.world.agent.requests == []
    assert (await door.send(LIST)).status == 200


async def test_another_user_issuer_of_the_entry_shows_id_tokens_and_is_not_for_the_door(door: DoorWorld) -> None:
    refused = await door.send(LIST, token=door.token(CUSTOMERS))
    assert (refused.status, refused.reason) == (401, "wrong_issuer")
    assert (await door.send(LIST, token=door.token(STAFF))).status == 200


async def test_a_token_of_the_mesh_opens_nothing_here(door: DoorWorld) -> None:
    assert (await door.send(LIST, token=mint())).reason == "wrong_issuer"
    assert (await door.send(LIST)).status == 200
    passed_on = door.world.agent.headers()["delegation-token"]
    assert (await door.send(LIST, token=passed_on)).reason == "wrong_issuer"


@pytest.mark.parametrize("client", [IDE, CLIENTS[STAFF.issuer]])
async def test_a_token_for_the_door_opens_nothing_else(door: DoorWorld, client: str) -> None:
    token = door.token(client_id=client)
    assert (await door.ask(door.front, bearer(token))).reason == "wrong_audience"
    assert (await door.trade(token)).reason == "wrong_audience"
    assert door.sts_records() == []
    assert (await door.send(LIST, token=token)).status == 200
    assert (await door.ask(door.front, bearer(door.log_in()))).status == 200


async def test_without_a_token_the_client_learns_where_to_get_one(door: DoorWorld) -> None:
    refused = await door.send(LIST, token="")
    assert (refused.status, refused.reason) == (401, "no_token")
    assert refused.headers["www-authenticate"] == f'Bearer scope="assistant", {METADATA}'
    record = await door.last(1)
    assert (record["decision"], record["source"], record["subject"]) == ("deny", "127.0.0.1", None)


@pytest.mark.parametrize("fields", [[("delegation-handle", "h" * 43)], []], ids=["beside a token", "as the token"])
async def test_a_handle_is_not_accepted(door: DoorWorld, fields: list[tuple[str, str]]) -> None:
    traded = await door.trade(door.log_in())
    handle = json.loads(traded.body)["handle"]
    assert (await door.ask(door.front, bearer(handle))).status == 200
    if fields:
        refused = await door.send(LIST, ("delegation-handle", handle))
        assert (refused.status, refused.reason) == (403, "no_request_context")
    else:
        refused = await door.send(LIST, token=handle)
        assert (refused.status, refused.reason) == (401, "malformed_token")
    assert (await door.send(LIST)).status == 200


PLACES = [
    "/hidden/mcp",  # a route that the door does not list
    "/planner/plan",  # the front apps route
    "/.sidecar/subject",  # the sidecars own path
    "/.sidecar/logins",  # a login
    "/",  # nothing
    "/toolsmith/mcp",  # a longer name
    "/readyz",  # a probe
]


async def test_nothing_but_listed_routes_exists(door: DoorWorld) -> None:
    for target in PLACES:
        for token in (None, ""):
            refused = await door.send(LIST, token=token, target=target)
            assert (target, refused.status, refused.reason) == (target, 404, "no_route")
    assert door.world.agent.requests == []
    assert (await door.send(LIST)).status == 200


FORMS = [
    pytest.param({"method": "PUT"}, 405, "method_refused", id="PUT"),
    pytest.param({"method": "HEAD"}, 405, "method_refused", id="HEAD"),
    pytest.param({"method": "OPTIONS"}, 405, "method_refused", id="OPTIONS of no page"),
    pytest.param({"method": "CONNECT", "target": f"{HOST}:443"}, 405, "method_refused", id="CONNECT"),
    pytest.param({"target": f"http://{HOST}/tools/mcp"}, 400, "path_refused", id="absolute form"),
    pytest.param({"target": f"https://{HOST}/tools/mcp"}, 400, "path_refused", id="absolute form, https"),
    pytest.param({"target": "/tools/../tools/mcp"}, 400, "path_refused", id="dots"),
    pytest.param({"host": "crm.mesh"}, 403, "target_denied", id="another host"),
    pytest.param({"host": "127.0.0.1"}, 403, "target_denied", id="its address"),
]


@pytest.mark.parametrize(("changes", "status", "reason"), FORMS)
async def test_a_request_has_one_form(door: DoorWorld, changes: dict[str, str], status: int, reason: str) -> None:
    refused = await door.send(LIST, **changes)
    assert (refused.status, refused.reason) == (status, reason)
    assert door.world.agent.requests == []
    record = await door.last(1)
    assert (record["decision"], record["reason"], record["source"]) == ("deny", reason, "127.0.0.1")
    assert (await door.send(LIST, host=f"{HOST}:443")).status == 200


async def test_the_message_is_judged_as_on_any_route_of_mcp(door: DoorWorld) -> None:
    refused = await door.send(call("drop-everything"))
    assert (refused.status, refused.reason) == (403, "operation_refused")
    assert json.loads(refused.body)["id"] == 7
    assert (await door.send(b"[1]")).reason == "operation_malformed"
    assert (await door.send(call("drop"))).status == 200
    record = (await door.front.wait_for_records(3))[0]
    assert (record["op"], record["subject"], record["verified"]) == ("tools/call:other", "alice", True)


async def test_a_message_of_a_stranger_is_not_read(door: DoorWorld) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", door.port, ssl=door.tls, server_hostname=HOST)
    head = (
        f"POST /tools/mcp HTTP/1.1\r\nhost: {HOST}\r\ncontent-type: application/json\r\ncontent-length: 500000\r\n\r\n"
    )
    writer.write(head.encode())
    assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 401 ")
    writer.close()


async def test_metadata_says_who_issues_tokens_for_the_door(door: DoorWorld) -> None:
    answer = await door.send(b"", token="", target=WELL_KNOWN, method="GET")
    assert (answer.status, json.loads(answer.body)) == (
        200,
        {
            "resource": RESOURCE,
            "authorization_servers": [STAFF.issuer],
            "scopes_supported": ["assistant"],
            "bearer_methods_supported": ["header"],
        },
    )
    record = await door.last(1)
    assert (record["decision"], record["op"], record["route"], record["call_in"]) == ("allow", "metadata", None, None)
    refused = await door.send(b"", token="", target=WELL_KNOWN, method="DELETE")
    assert (refused.status, refused.headers["allow"]) == (405, "GET")
    assert (await door.send(b"", token="", target=f"{WELL_KNOWN}/else", method="GET")).status == 404
    assert (await door.send(b"", token="", target=WELL_KNOWN, method="GET", host="else.example")).status == 403


async def test_a_scope_that_a_login_lacks_is_asked_for(door: DoorWorld) -> None:
    refused = await door.send(LIST, token=door.token(scope="openid"))
    assert (refused.status, refused.reason) == (403, "insufficient_scope")
    challenge = refused.headers["www-authenticate"]
    assert 'error="insufficient_scope"' in challenge
    assert 'scope="assistant"' in challenge
    assert METADATA in challenge
    assert (await door.send(LIST)).status == 200


async def test_the_pages_that_are_listed_may_call(door: DoorWorld) -> None:
    asked = await door.send(b"", ("Origin", PAGE), *ASK.items(), token="", method="OPTIONS")
    assert (asked.status, asked.body) == (204, b"")
    assert asked.headers["access-control-allow-origin"] == PAGE
    assert "POST" in asked.headers["access-control-allow-methods"]
    assert "Authorization" in asked.headers["access-control-allow-headers"]
    assert (await door.last(1))["op"] == "preflight"
    door.world.agent.script = lambda _head, _body: ok(
        b"{}", b"access-control-allow-origin: *", b"www-authenticate: Bearer", b"set-cookie: a=b"
    )
    answer = await door.send(LIST, ("Origin", PAGE), ("Cookie", "a=b"))
    assert answer.status == 200
    shown = {name: answer.headers.get(name) for name in ("access-control-allow-origin", "vary", "set-cookie")}
    assert shown == {"access-control-allow-origin": PAGE, "vary": "Origin", "set-cookie": None}
    assert "www-authenticate" not in answer.headers
    exposed = answer.headers["access-control-expose-headers"]
    assert "Mcp-Session-Id" in exposed
    assert "WWW-Authenticate" in exposed
    assert {"origin", "cookie"}.isdisjoint(door.world.agent.headers())
    refused = await door.send(LIST, ("Origin", PAGE), token="")
    assert (refused.status, refused.headers["access-control-allow-origin"]) == (401, PAGE)
    told = await door.send(b"", ("Origin", PAGE), token="", target=WELL_KNOWN, method="GET")
    assert told.headers["access-control-allow-origin"] == PAGE


@pytest.mark.parametrize("method", ["POST", "OPTIONS", "GET"])
async def test_other_pages_get_nothing(door: DoorWorld, method: str) -> None:
    target = WELL_KNOWN if method == "GET" else "/tools/mcp"
    for origin in ("https://evil.example", f"{PAGE}:8443", "null", f"{PAGE}.evil.example", ""):
        refused = await door.send(
            LIST if method == "POST" else b"", ("Origin", origin), *ASK.items(), method=method, target=target
        )
        assert (refused.status, refused.reason) == (403, "origin_refused")
        assert "access-control-allow-origin" not in refused.headers
    assert door.world.agent.requests == []
    lawful = await door.send(LIST, ("Origin", PAGE))
    assert lawful.status == 200


def opens_sessions(door: DoorWorld, session: str = "agents-own", event: str = "7") -> None:
    def answer(head: bytes, body: bytes) -> bytes:
        if head.startswith(b"GET"):
            return ok(b"id: " + event.encode() + b"\ndata: {}\n\n", b"content-type: text/event-stream")
        return ok(b"{}", *([b"mcp-session-id: " + session.encode()] if b'"initialize"' in body else []))

    door.world.agent.script = answer


@pytest.mark.parametrize("sessions", ["per_subject", "per_actor"])
async def test_a_session_is_its_users_even_where_the_tool_server_shares_it(sessions: str, tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="sc-") as folder:
        async with open_door_world(Path(folder), sessions=sessions) as door:
            await own_session(door)


async def own_session(door: DoorWorld) -> None:
    opens_sessions(door)
    opened = await door.send(HELLO)
    session = ("Mcp-Session-Id", opened.headers["mcp-session-id"])
    assert session[1] != "agents-own"
    assert (await door.send(LIST, session)).status == 200
    assert door.world.agent.headers()["mcp-session-id"] == "agents-own"
    for method, message in (("POST", LIST), ("GET", b""), ("DELETE", b"")):
        refused = await door.send(message, session, token=door.token(sub="bob"), method=method)
        assert (refused.status, refused.reason) == (404, "session_unknown")
        assert "mcp-session-id" not in refused.headers
    stream = await door.send(b"", session, method="GET")
    event = ("Last-Event-ID", stream.body.partition(b"\n")[0].removeprefix(b"id: ").decode())
    assert event[1].endswith(".7")
    his = ("Mcp-Session-Id", (await door.send(HELLO, token=door.token(sub="bob"))).headers["mcp-session-id"])
    for fields, token in (
        ((his, event), door.token(sub="bob")),
        ((session, ("Last-Event-ID", "7")), None),
        ((event,), None),
    ):
        refused = await door.send(b"", *fields, method="GET", **({} if token is None else {"token": token}))
        assert (refused.status, refused.reason) == (404, "session_unknown")
    assert (await door.send(b"", session, event, method="GET")).status == 200
    assert door.world.agent.headers()["last-event-id"] == "7"
    assert (await door.send(LIST, token=door.token(sub="bob"))).status == 200
    assert (await door.send(b"", session, method="DELETE")).status == 200


@pytest.mark.parametrize(("session", "event"), [(1, 1), (991, 991), (992, 992), (1024, 1024)])
async def test_ids_as_long_as_a_server_may_make_them_pass_the_door(door: DoorWorld, session: int, event: int) -> None:
    opens_sessions(door, "s" * session, "e" * event)
    opened = await door.send(HELLO)
    shown = ("Mcp-Session-Id", opened.headers["mcp-session-id"])
    assert len(shown[1]) == session + 2 * 33  # the door's MAC, and that of the tool server's own sidecar
    assert (await door.send(LIST, shown)).status == 200
    assert door.world.agent.headers()["mcp-session-id"] == "s" * session
    stream = await door.send(b"", shown, method="GET")
    resumed = ("Last-Event-ID", stream.body.partition(b"\n")[0].removeprefix(b"id: ").decode())
    assert (await door.send(b"", shown, resumed, method="GET")).status == 200
    assert door.world.agent.headers()["last-event-id"] == "e" * event
    refused = await door.send(LIST, shown, token=door.token(sub="bob"))
    assert (refused.status, refused.reason) == (404, "session_unknown")


@pytest.mark.parametrize(("session", "event"), [(1025, 1), (1, 1025)])
async def test_longer_ids_are_refused_by_the_tool_servers_own_sidecar(
    door: DoorWorld, session: int, event: int
) -> None:
    opens_sessions(door, "s" * session, "e" * event)
    answer = await door.send(HELLO)
    if session == 1:
        answer = await door.send(b"", ("Mcp-Session-Id", answer.headers["mcp-session-id"]), method="GET")
    assert (answer.status, answer.reason) == (502, "upstream_bad_response")
    record = (await door.planner.wait_for_records(2 if session == 1 else 1))[-1]
    assert (record["reason"], "too long" in record["detail"]) == ("upstream_bad_response", True)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_any_client_of_the_web_can_connect(door: DoorWorld, version: ssl.TLSVersion) -> None:
    context = ssl.create_default_context(cafile=str(door.certificates.ca))
    context.minimum_version = context.maximum_version = version
    reader, writer = await asyncio.open_connection("127.0.0.1", door.port, ssl=context, server_hostname=HOST)
    for _ in range(2):
        writer.write(f"GET {WELL_KNOWN} HTTP/1.1\r\nhost: {HOST}\r\n\r\n".encode())
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 ")
        await reader.readexactly(int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0]))
    writer.close()


async def test_old_tls_and_clear_text_are_refused_and_recorded(door: DoorWorld) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    assert await door.world.hears_nothing(door.port, context)
    with suppress(ConnectionError):
        await door.world.exchange(door.port, None, b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
    await until(lambda: len(door.front.records("connection.refused")) == 2)
    reasons = {(one["reason"], one["direction"]) for one in door.front.records("connection.refused")}
    assert reasons == {("tls_version", "outbound")}
    assert (await door.send(LIST)).status == 200


async def test_connections_of_strangers_outlive_looks_at_trust(door: DoorWorld) -> None:
    listener = next(one for one in door.front.server.parts.listeners if one.door)
    async with door.world.kept(door.port, door.tls) as kept:
        assert (await kept.ask(WELL_KNOWN, host=HOST)).status == 200
        await door.front.server._sweep_slowly()
        assert (await kept.ask(WELL_KNOWN, host=HOST)).status == 200
        assert len(listener.connections) == 1


async def test_status_shows_the_door(door: DoorWorld) -> None:
    settings = SettingsState(loaded_at=0)
    status = status_of(door.front.server, settings, since=0, now=0)
    assert status["door"] == {
        "resource": RESOURCE,
        "routes": ["tools"],
        "certificate_not_after": status["door"]["certificate_not_after"],
        "error": None,
    }
    assert [one["door"] for one in status["listeners"]] == [True, False]
    lines = dict(_rows(status))
    assert lines["door"].startswith(f"{RESOURCE} to tools, certificate for ")
    assert not [one for one in troubles(status) if one.what == "door"]
    expired = {**status, "now": status["door"]["certificate_not_after"]}
    assert [one.what for one in troubles(expired) if one.what == "door"] == ["door"]
    broken = {**status, "door": {**status["door"], "error": "tls.key is missing"}}
    assert [one.grade for one in troubles(broken) if one.what == "door"] == [Grade.NOTE]
    assert status_of(door.planner.server, settings, since=0, now=0)["door"] is None


async def test_a_renewed_certificate_is_shown_to_new_connections(door: DoorWorld) -> None:
    def shown() -> object:
        return door.front.server.parts.door and door.front.server.parts.door.not_after

    certificate = door.front.server.parts.door
    assert certificate is not None
    before = certificate.fingerprint()
    door.certificates.issue("renewed.acme.example")
    assert certificate.fingerprint() != before
    certificate.load()
    reader, writer = await asyncio.open_connection("127.0.0.1", door.port, ssl=door.tls, server_hostname="any")
    assert ("DNS", "renewed.acme.example") in writer.get_extra_info("peercert")["subjectAltName"]
    writer.close()
    del reader
    assert shown()
    assert (await door.send(LIST)).status == 200


async def test_records_of_strangers_have_a_rate_and_those_of_users_have_none(door: DoorWorld) -> None:
    suppressed = door.front.server.metrics
    for _ in range(70):
        assert (await door.send(b"", token="", target=WELL_KNOWN, method="GET")).status == 200
    for _ in range(10):
        assert (await door.send(call("nothing"))).reason == "operation_refused"
    await until(lambda: suppressed.records_suppressed > 0)
    records = door.front.records()
    assert len([record for record in records if record["op"] == "metadata"]) < 70
    await until(lambda: sum(record["op"] == "tools/call:other" for record in door.front.records()) == 10)


async def test_a_client_that_knows_only_the_url_logs_its_user_in_by_code_and_pkce(tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="sc-") as folder:
        async with open_people_world(Path(folder)) as door, aiohttp.ClientSession() as web:
            tls = ssl.create_default_context(cafile=str(door.certificates.ca))  # it compares the host's name too
            url, verifier = f"{door.resource}/tools/mcp", "v" * 43
            async with web.post(url, json=LIST, ssl=tls) as refused:
                assert refused.status == 401
                challenge = refused.headers["www-authenticate"]
            told, scope = (re.findall(f'{name}="([^"]*)"', challenge)[0] for name in ("resource_metadata", "scope"))
            async with web.get(told, ssl=tls) as answer:
                metadata = await answer.json()
            assert metadata["resource"] == door.resource
            (issuer,) = metadata["authorization_servers"]
            async with web.get(f"{issuer}/.well-known/openid-configuration") as answer:
                endpoints = await answer.json()
            asked = {
                "response_type": "code", "client_id": IDE, "redirect_uri": "http://127.0.0.1:1/back", "scope": scope,
                "code_challenge": urlsafe_b64encode(sha256(verifier.encode()).digest()).rstrip(b"=").decode(),
                "code_challenge_method": "S256", "resource": metadata["resource"], "state": "s",
            }  # fmt: skip
            user = {"username": "alice"}
            at = f"{endpoints['authorization_endpoint']}?{urlencode(asked)}"
            async with web.post(at, data=user, allow_redirects=False) as back:
                code = parse_qs(urlsplit(back.headers["location"]).query)["code"][0]
            form = {
                "grant_type": "authorization_code", "code": code, "client_id": IDE, "code_verifier": verifier,
                "redirect_uri": asked["redirect_uri"], "resource": metadata["resource"],
            }  # fmt: skip
            async with web.post(endpoints["token_endpoint"], data=form) as answer:
                token = (await answer.json())["access_token"]
            shown = {"Authorization": f"Bearer {token}"}
            async with web.post(url, json=call("search"), headers=shown, ssl=tls) as answer:
                assert answer.status == 200, await answer.text()
            assert door.world.agent.headers()["delegation-subject"] == "people:alice"
            async with web.post(url.replace("tools", "hidden"), json=LIST, headers=shown, ssl=tls) as answer:
                assert answer.status == 404
            assert (await door.ask(door.front, bearer(token))).reason == "wrong_audience"


@pytest.mark.parametrize("operations", [(TOOLS, DROP), ()], ids=["the entry lacks it", "the tool server says so"])
async def test_the_challenge_names_what_the_operation_needs(operations: Sequence[dict[str, Any]]) -> None:
    with tempfile.TemporaryDirectory(prefix="sc-") as folder:
        async with open_people_world(Path(folder), operations=operations) as door:

            async def ask(tool: str, scope: str) -> Answer:
                return await door.send(call(tool), token=door.token_of(scope), host=f"localhost:{door.port}")

            refused = await ask("drop", "search")
            assert (refused.status, refused.reason) == (403, "insufficient_scope")
            asked = refused.headers["www-authenticate"]
            assert 'error="insufficient_scope"' in asked
            assert ('scope="drop"' if operations else 'scope="drop search"') in asked
            assert f'resource_metadata="{door.resource}{WELL_KNOWN}"' in asked
            assert (await ask("search", "search")).status == 200
            assert (await ask("drop", "drop search")).status == 200


async def test_the_files_are_followed_and_the_listener_needs_a_restart(door: DoorWorld) -> None:
    server, loaded = door.front.server, loaded_from(door.front.settings_path)
    reload = Reload(loaded, {}, server, load_here)
    watcher = asyncio.ensure_future(FileWatcher(reload.all_watched(), server.parts.log, poll_s=0.02).run())
    try:
        door.certificates.issue("followed.acme.example")
        await until(lambda: any("certificate" in one["detail"] for one in door.front.records("config.reloaded")))
        door.certificates.key.write_text("rubbish")
        await until(lambda: len(door.front.records("config.refused")) > 0)
    finally:
        watcher.cancel()
    _, writer = await asyncio.open_connection("127.0.0.1", door.port, ssl=door.tls, server_hostname="any")
    assert ("DNS", "followed.acme.example") in writer.get_extra_info("peercert")["subjectAltName"]
    writer.close()
    settings = loaded.settings
    assert settings.door is not None
    for other in (None, replace(settings.door, listen=settings.probe)):
        assert [one.field for one in settings.needs_restart(replace(settings, door=other))] == ["entry.door"]
    assert settings.needs_restart(settings) == []


async def test_strangers_are_counted_by_address_and_the_agent_is_not(door: DoorWorld) -> None:
    async with door.world.kept(door.port, door.tls) as kept:
        assert (await kept.ask(WELL_KNOWN, host=HOST)).status == 200
        counted = {one.door: one._count_from("127.0.0.1") for one in door.front.server.parts.listeners}
    assert counted == {True: 1, False: None}


async def test_a_door_with_a_path_is_its_path_alone() -> None:
    resource = f"{RESOURCE}/tools/mcp"
    with tempfile.TemporaryDirectory(prefix="sc-") as folder:
        async with open_door_world(Path(folder), resource) as door:
            assert (await door.send(LIST)).status == 200
            assert (await door.send(LIST, target="/tools/other")).status == 404
            for target in (f"{WELL_KNOWN}/tools/mcp", WELL_KNOWN):
                answer = await door.send(b"", token="", target=target, method="GET")
                assert json.loads(answer.body)["resource"] == resource
            assert (await door.send(LIST, token=door.token(aud=RESOURCE))).reason == "wrong_audience"
