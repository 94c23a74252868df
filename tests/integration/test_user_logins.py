"""Users who agree at a token service, over real sockets: the front app sees a handle and never a token."""

from __future__ import annotations

import asyncio
import copy
import json
import time
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import jwt
import pytest
from aiohttp import web

from delegation_core.bearer import parse_bearer
from sidecar.cli import main
from sidecar.proxy.listening.status import SettingsState, status_of
from tests.config.documents import written
from tests.fakes.tokens import TokenMint
from tests.features.logins.test_settings import LOGINS
from tests.integration.login_world import CALLBACK, SCOPES, SESSION, LoginWorld, asked_in, in_browser, open_login_world
from tests.integration.world import FRONT, PLANNER, Sidecar, until

pytestmark = pytest.mark.integration


@pytest.fixture
async def logins() -> AsyncIterator[LoginWorld]:
    async with open_login_world() as opened:
        await opened.start()
        yield opened


def received(logins: LoginWorld) -> dict[str, Any]:
    """Return the claims of the token that reached the planner; its route passes them."""
    return dict(parse_bearer(logins.world.agent.headers()["delegation-token"]).claims)


async def test_a_user_agrees_to_this_agent_and_the_front_app_gets_a_handle(logins: LoginWorld) -> None:
    begun = await logins.begin(redirect_uri=CALLBACK)
    assert begun.keys() == {"login", "status", "url", "expires_in"}
    assert (begun["status"], 590 < begun["expires_in"] <= 600) == ("pending", True)
    asked = asked_in(begun["url"])
    assert (len(asked.pop("state")), len(asked.pop("code_challenge"))) == (43, 43)
    assert asked == {
        "response_type": "code",
        "client_id": FRONT,
        "redirect_uri": CALLBACK,
        "scope": "crm.read docs.write",
        "code_challenge_method": "S256",
        "requested_actor": FRONT,
        "resource": PLANNER,
    }
    callback = await in_browser(begun["url"])
    done = await logins.go_on(begun["login"], callback)
    told = json.loads(done.body)
    assert (done.status, done.headers["cache-control"]) == (200, "no-store")
    assert told.keys() == {"login", "status", "handle", "expires_in", "subject", "subject_issuer", "scope"}
    assert [told[name] for name in ("status", "subject", "subject_issuer", "scope")] == [
        "complete", "alice", logins.server.issuer, "crm.read docs.write"
    ]  # fmt: skip
    assert (await logins.ask(told["handle"])).status == 200
    claims = received(logins)
    assert (claims["sub"], claims["aud"], claims["act"]) == ("alice", PLANNER, {"sub": FRONT})


async def test_the_code_is_redeemed_once_with_our_verifier_and_our_actor_token(logins: LoginWorld) -> None:
    begun = await logins.begin()
    callback = await in_browser(begun["url"])
    assert (await logins.go_on(begun["login"], callback)).status == 200
    ((path, form),) = logins.server.forms
    assert path == "/token"
    challenge = urlsafe_b64encode(sha256(form.pop("code_verifier").encode()).digest()).rstrip(b"=").decode()
    assert challenge == asked_in(begun["url"])["code_challenge"]
    for name in ("actor_token", "client_assertion"):
        assert jwt.decode(form.pop(name), options={"verify_signature": False})["sub"] == FRONT
    assert form.pop("code")
    assert form == {
        "grant_type": "authorization_code",
        "client_id": FRONT,
        "redirect_uri": CALLBACK,
        "resource": PLANNER,
        "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
    }


async def test_records_tell_of_the_login_and_of_calls_by_it(logins: LoginWorld) -> None:
    handle = await logins.handle()
    assert (await logins.ask(handle)).status == 200
    began, ended, called = await logins.front.wait_for_records(3)
    keys = ("decision", "reason", "op", "route", "subject", "status")
    assert [began[key] for key in keys] == ["allow", "ok", "login", "planner", None, 201]
    assert [ended[key] for key in keys] == ["allow", "ok", "login", "planner", "alice", 200]
    assert [called[key] for key in keys] == ["allow", "ok", None, "planner", "alice", 200]
    assert (called["jti_in"], called["jti_out"] is not None, called["chain"]) == (None, True, [FRONT])
    (issued,) = await logins.front.wait_for_records(1, "token.exchanged")
    assert (issued["jti_in"], issued["jti_out"], issued["subject"]) == (None, called["jti_out"], "alice")
    assert issued["adapter"] == "obo-draft-02"
    everything = logins.front.records_path.read_text()
    (_, form), (token,) = logins.server.forms[0], logins.server.issued
    for secret in (handle, form["code"], form["code_verifier"], form["actor_token"], token, SESSION):
        assert secret not in everything


async def test_each_user_has_a_handle_and_many_calls_need_no_other_token(logins: LoginWorld) -> None:
    users = {name: await logins.handle(f"browser-session-of-{name}", name) for name in ("alice", "bob")}
    for name, handle in [*users.items(), *users.items()]:
        assert (await logins.ask(handle)).status == 200
        assert received(logins)["sub"] == name
    assert logins.server.tokens_asked == 2


async def test_the_user_may_grant_less(logins: LoginWorld) -> None:
    handle = await logins.handle(scope="docs.write")
    assert (await logins.ask(handle)).status == 200
    assert received(logins)["scope"] == "docs.write"


async def test_the_user_may_refuse(logins: LoginWorld) -> None:
    begun = await logins.begin()
    refused = await logins.go_on(begun["login"], await in_browser(begun["url"], allow=False))
    assert (refused.status, refused.reason) == (403, "login_denied")
    again = await logins.go_on(begun["login"])
    assert (again.status, again.reason) == (403, "login_used")
    assert logins.server.forms == []
    records = await logins.front.wait_for_records(3)
    assert [record["reason"] for record in records] == ["ok", "login_denied", "login_used"]


# --- attacks through the browser


async def test_a_login_of_another_session_is_worth_nothing(logins: LoginWorld) -> None:
    """Session fixation, and code injection: mallory's own code, sent to alice's browser."""
    hers, his = await logins.begin(), await logins.begin(session="browser-session-of-mallory")
    callback = await in_browser(his["url"], "mallory")
    for login, session, reason in (
        (hers["login"], SESSION, "login_state_mismatch"),
        (his["login"], SESSION, "login_session_mismatch"),
        (hers["login"], "browser-session-of-mallory", "login_session_mismatch"),
    ):
        refused = await logins.go_on(login, callback, session=session)
        assert (refused.status, refused.reason) == (403, reason)
    assert logins.server.forms == []
    assert (await logins.go_on(hers["login"], await in_browser(hers["url"]))).status == 200


async def test_a_code_of_another_login_is_refused_by_its_verifier(logins: LoginWorld) -> None:
    """Code injection with the victim's own state: PKCE binds the code to the login that it was asked for."""
    hers, his = await logins.begin(), await logins.begin(session="browser-session-of-mallory")
    stolen = dict(pair.split("=") for pair in (await in_browser(his["url"], "mallory")).split("&"))
    state = asked_in(hers["url"])["state"]
    callback = "&".join(f"{name}={value}" for name, value in {**stolen, "state": state}.items())
    refused = await logins.go_on(hers["login"], callback)
    assert (refused.status, refused.reason) == (403, "exchange_denied")
    assert logins.server.refused == ["invalid_grant"]
    assert (await logins.go_on(hers["login"], callback)).reason == "login_used"


async def test_an_answer_is_used_once(logins: LoginWorld) -> None:
    begun = await logins.begin()
    callback = await in_browser(begun["url"])
    answers = await asyncio.gather(*(logins.go_on(begun["login"], callback) for _ in range(5)))
    assert sorted(answer.status for answer in answers) == [200, 403, 403, 403, 403]
    assert {answer.reason for answer in answers} == {None, "login_used"}
    assert logins.server.tokens_asked == 1


async def test_an_answer_of_another_token_service_is_refused(logins: LoginWorld) -> None:
    begun = await logins.begin()
    callback = await in_browser(begun["url"])
    mixed_up = callback.replace("iss=http", "iss=https")
    assert mixed_up != callback
    refused = await logins.go_on(begun["login"], mixed_up)
    assert (refused.status, refused.reason) == (403, "login_issuer_mismatch")
    assert (await logins.go_on(begun["login"], callback)).reason == "login_used"
    unnamed = await logins.begin()
    callback = await in_browser(unnamed["url"])
    without = "&".join(pair for pair in callback.split("&") if not pair.startswith("iss="))
    assert (await logins.go_on(unnamed["login"], without)).reason == "login_issuer_mismatch"
    assert logins.server.forms == []


async def test_a_second_login_of_the_session_ends_the_first(logins: LoginWorld) -> None:
    first, second = await logins.begin(), await logins.begin()
    refused = await logins.go_on(first["login"], await in_browser(first["url"]))
    assert (refused.status, refused.reason) == (403, "login_used")
    assert (await logins.go_on(second["login"], await in_browser(second["url"]))).status == 200


async def test_status_counts_the_logins_that_wait(logins: LoginWorld) -> None:
    def told(of: Sidecar) -> Any:
        return status_of(of.server, SettingsState(loaded_at=0), since=0, now=0)["logins"]

    lawful = {"pending": 0, "max_pending": 4096, "pending_bytes": 0, "max_bytes": 16 << 20}
    assert (told(logins.front), told(logins.planner)) == (lawful, None)
    begun = await logins.begin()
    await logins.begin(session=f"{SESSION}-of-another")
    found = told(logins.front)
    assert (found["pending"], 4096 < found["pending_bytes"] < 16384) == (2, True)
    assert (await logins.go_on(begun["login"], await in_browser(begun["url"]))).status == 200
    assert told(logins.front)["pending"] == 1


LAWFUL = {"route": "planner", "session": SESSION}
REQUESTS: dict[str, tuple[dict[str, Any], list[tuple[str, str]], int, str]] = {
    "no JSON": ({"members": b"route=planner"}, [], 400, "login_malformed"),
    "a page's form": ({}, [("content-type", "text/plain")], 400, "login_malformed"),
    "a member twice": ({"members": b'{"session":"x","session":"y"}'}, [], 400, "login_malformed"),
    "an unknown member": ({"members": {**LAWFUL, "scope": "x"}}, [], 400, "login_malformed"),
    "no session": ({"members": {"route": "planner"}}, [], 400, "login_malformed"),
    "a session that can be guessed": ({"members": {**LAWFUL, "session": "1"}}, [], 400, "login_malformed"),
    "a number": ({"members": {**LAWFUL, "session": 1}}, [], 400, "login_malformed"),
    "an unlisted redirect URI": ({"members": {**LAWFUL, "redirect_uri": f"{CALLBACK}/"}}, [], 400, "login_malformed"),
    "a reason of several lines": ({"members": {**LAWFUL, "reason": "a\nb"}}, [], 400, "login_malformed"),
    "another route": ({"members": {**LAWFUL, "route": "crm"}}, [], 403, "call_not_allowed"),
    "GET": ({"method": "GET"}, [], 405, "method_refused"),
    "a query": ({"path": "/.sidecar/logins?x=1"}, [], 400, "path_refused"),
    "another path": ({"path": "/.sidecar/loginsx"}, [], 404, "no_route"),
    "a login that nobody began": (
        {"path": "/.sidecar/logins/x", "members": {"session": SESSION}}, [], 404, "login_unknown"
    ),
    "a handle beside it": ({}, [("delegation-handle", "h" * 43)], 403, "no_request_context"),
    "a token beside it": ({}, [("authorization", "Bearer a.b.c")], 403, "no_request_context"),
    "another host": ({"host": "planner.mesh"}, [], 403, "target_denied"),
    "too long": ({"members": {**LAWFUL, "session": "s" * 16_500}}, [], 413, "too_large"),
}  # fmt: skip


@pytest.mark.parametrize(("changes", "fields", "status", "reason"), REQUESTS.values(), ids=REQUESTS.keys())
async def test_a_request_about_a_login_has_one_form(
    logins: LoginWorld, changes: dict[str, Any], fields: list[tuple[str, str]], status: int, reason: str
) -> None:
    lawful: dict[str, Any] = {"path": "/.sidecar/logins", "members": LAWFUL}
    asked = {**lawful, **changes}
    path, members = asked.pop("path"), asked.pop("members")
    if fields[:1] == [("content-type", "text/plain")]:
        refused = await logins.world.call(
            logins.front.outbound, None, path, headers=fields, body=json.dumps(members).encode()
        )
    else:
        refused = await logins.post(path, members, *fields, **asked)
    assert (refused.status, refused.reason) == (status, reason)
    (record,) = await logins.front.wait_for_records(1)
    assert (record["decision"], record["reason"]) == ("deny", reason)
    assert (await logins.post("/.sidecar/logins", lawful["members"])).status == 201


# --- the end of a handle


async def test_a_handle_opens_nothing_but_its_route(logins: LoginWorld) -> None:
    settings = logins.settings()
    other = {**settings["outbound"]["routes"][0], "name": "second", "match": {"prefix": "/second"}}
    settings["outbound"]["routes"].append(other)
    await logins.reload({**settings, "entry": {**settings["entry"], "may_call": ["planner", "second"]}})
    handle = await logins.handle()
    refused = await logins.ask(handle, "/second/plan")
    assert (refused.status, refused.reason) == (403, "call_not_allowed")
    assert (await logins.ask(handle)).status == 200


async def test_a_handle_ends_with_its_token(logins: LoginWorld) -> None:
    logins.server.life_s = 3
    handle = await logins.handle()
    assert (await logins.ask(handle)).status == 200
    ends_at = parse_bearer(logins.server.issued[0]).claims["exp"]
    await until(lambda: time.time() >= float(str(ends_at)))
    refused = await logins.ask(handle)
    assert (refused.status, refused.reason) == (403, "no_request_context")


async def test_a_handle_ends_with_the_key_of_its_token(logins: LoginWorld) -> None:
    handle = await logins.handle()
    logins.server.mint = TokenMint(logins.server.issuer, kid="u2", key=5)
    later = await logins.handle("browser-session-of-bob", "bob")  # makes the sidecar fetch the keys again
    refused = await logins.ask(handle)
    assert (refused.status, refused.reason) == (502, "sts_signature")
    assert (await logins.ask(later)).status == 200


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"deny": [{"subject": "alice"}]}, "policy_denied"),
        ({"entry": {"may_call": []}}, "call_not_allowed"),
        ({"entry": None}, "not_an_entry"),
        ({"scopes": ["crm.read"]}, "policy_denied"),
        ({"name": "elsewhere"}, "call_not_allowed"),
    ],
)
async def test_a_handle_ends_with_what_a_reload_takes_away_and_returns_with_it(
    logins: LoginWorld, change: dict[str, Any], reason: str
) -> None:
    handle, before = await logins.handle(), logins.settings()
    after = copy.deepcopy(before)
    route = after["outbound"]["routes"][0]
    name = change.get("name", "planner")
    route |= {"name": name, "scopes": change.get("scopes", SCOPES)}
    after |= {"deny": change.get("deny", []), "entry": {**after["entry"], "may_call": [name]}}
    if "entry" in change:
        del after["entry"]
        route["token"] = "exchange"
        after["exchange"] = {"issuer": logins.server.issuer, "client_auth": "jwt-svid"}
        if change["entry"] is not None:
            user = {"issuer": "https://idp.example", "jwks": before["issuers"][0]["jwks"], "profile": "oidc-id-token"}
            users = [{**user, "client_id": "x", "scope_from": {"claim": "groups", "map": {"a": ["crm.read"]}}}]
            after["entry"] = {"issuers": users, "may_call": []}
    assert (await logins.ask(handle)).status == 200
    await logins.reload(after)
    refused = await logins.ask(handle)
    assert (refused.status, refused.reason) == (403, reason)
    await logins.reload(before)
    assert (await logins.ask(handle)).status == 200
    assert logins.server.tokens_asked == 1


async def test_a_login_under_way_ends_with_the_settings_it_began_under(logins: LoginWorld) -> None:
    begun = await logins.begin()
    callback = await in_browser(begun["url"])
    settings = logins.settings()
    settings["exchange"]["options"] = {"target": "none"}
    await logins.reload(settings)
    refused = await logins.go_on(begun["login"], callback)
    assert (refused.status, refused.reason) == (403, "login_expired")
    assert logins.server.forms == []


async def test_a_login_under_way_outlives_a_reload_that_does_not_touch_it(logins: LoginWorld) -> None:
    begun = await logins.begin()
    await logins.reload({**logins.settings(), "deny": [{"subject": "mallory"}]})
    assert (await logins.go_on(begun["login"], await in_browser(begun["url"]))).status == 200
    again = await logins.begin()
    refused = await logins.go_on(again["login"], await in_browser(again["url"], "mallory"))
    assert (refused.status, refused.reason) == (403, "policy_denied")


# --- a token service that lies


TOKENS: dict[str, tuple[dict[str, object], int, str]] = {
    "no actor": ({"act": None}, 502, "sts_no_act"),
    "another actor": ({"act": {"sub": PLANNER}}, 502, "sts_actor_mismatch"),
    "a chain": ({"act": {"sub": FRONT, "act": {"sub": PLANNER}}}, 502, "sts_chain_broken"),
    "our own token": ({"sub": FRONT}, 502, "sts_subject_mismatch"),
    "another audience": ({"aud": "https://else.example"}, 502, "sts_audience_mismatch"),
    "a wider scope": ({"scope": "docs.write admin"}, 502, "sts_scope_widened"),
    "an hour": ({"exp": int(time.time()) + 3600}, 502, "sts_lifetime"),
    "another issuer": ({"iss": "https://else.example"}, 502, "sts_issuer"),
}


@pytest.mark.parametrize(("claims", "status", "reason"), TOKENS.values(), ids=TOKENS.keys())
async def test_a_token_that_proves_no_grant_gives_no_handle(
    logins: LoginWorld, claims: dict[str, object], status: int, reason: str
) -> None:
    logins.server.claims = claims
    begun = await logins.begin()
    refused = await logins.go_on(begun["login"], await in_browser(begun["url"]))
    assert (refused.status, refused.reason) == (status, reason)
    assert b"handle" not in refused.body
    assert len(logins.front.server.parts.handles) == 0
    (event,) = await logins.front.wait_for_records(1, "token.exchange_refused")
    assert (event["reason"], event["route"], event["actor"]) == (reason, "planner", FRONT)
    logins.server.claims = {}
    assert await logins.handle()


METADATA: dict[str, tuple[dict[str, object], int, str]] = {
    "another issuer's": ({"issuer": "https://else.example"}, 502, "sts_issuer"),
    "no PKCE": ({"code_challenge_methods_supported": ["plain"]}, 502, "sts_bad_response"),
    "nowhere to log in": ({"authorization_endpoint": None}, 502, "sts_bad_response"),
    "a login without TLS": ({"authorization_endpoint": "http://login.example/a"}, 502, "sts_bad_response"),
    "a script": ({"authorization_endpoint": "javascript:alert(1)"}, 502, "sts_bad_response"),
}


@pytest.mark.parametrize(("members", "status", "reason"), METADATA.values(), ids=METADATA.keys())
async def test_metadata_that_cannot_be_used_begins_no_login(
    logins: LoginWorld, members: dict[str, object], status: int, reason: str
) -> None:
    logins.server.metadata = members
    refused = await logins.post("/.sidecar/logins", {"route": "planner", "session": SESSION})
    assert (refused.status, refused.reason) == (status, reason)
    logins.server.metadata = {}
    assert (await logins.begin())["status"] == "pending"


async def test_a_redirect_of_the_token_endpoint_is_not_followed(logins: LoginWorld) -> None:
    logins.server.lie = lambda _form: web.Response(status=307, headers={"Location": f"{logins.server.issuer}/token"})
    begun = await logins.begin()
    refused = await logins.go_on(begun["login"], await in_browser(begun["url"]))
    assert (refused.status, refused.reason, logins.server.tokens_asked) == (502, "sts_redirect", 1)


def test_a_sidecar_of_several_processes_takes_no_logins(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(tmp_path, LOGINS)
    assert main(["run", "--config", str(path), "--workers", "2"]) == 2
    assert "outbound.routes.token: is login, whose users come back to the process" in capsys.readouterr().err
