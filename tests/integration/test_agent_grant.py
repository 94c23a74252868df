"""The Agent Authorization Grant behind the same front-app API: a user is asked elsewhere, and the app asks on."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web

from tests.integration.login_world import CALLBACK, SESSION, LoginWorld, in_browser, open_login_world
from tests.integration.world import FRONT, PLANNER, Answer

pytestmark = pytest.mark.integration

OF_A_USER = {"aut": "APPLICATION_USER"}  # a mark of tokens for users, which the client's own have not
BY_CLIENT = {
    "preset": "obo-draft-02",
    "actor": "client-table",
    "actor_table": [{"sub": FRONT, "spiffe_id": FRONT}],
    "required_values": {"aut": ["APPLICATION_USER"]},
}


@pytest.fixture
async def logins() -> AsyncIterator[LoginWorld]:
    async with open_login_world() as opened:
        yield opened


async def asked_until_told(logins: LoginWorld, login: str, session: str = SESSION) -> Answer:
    """Ask as the front app does, as often as it may, until the login is not pending any more."""
    async with asyncio.timeout(20):
        while True:
            answer = await logins.go_on(login, session=session)
            told = json.loads(answer.body)
            if told.get("status") != "pending":
                return answer
            await asyncio.sleep(told["poll_after_s"])


async def test_the_app_asks_until_the_user_has_agreed_elsewhere(logins: LoginWorld) -> None:
    await logins.start(logins.settings(adapter="agent-grant-draft"))
    begun = await logins.begin(redirect_uri=CALLBACK, reason="to plan Monday")
    assert begun.keys() == {"login", "status", "poll_after_s", "expires_in"}
    assert (begun["status"], begun["poll_after_s"], 290 < begun["expires_in"] <= 300) == ("pending", 1, True)
    ((path, form),) = logins.server.forms
    asked = {name: value for name, value in form.items() if not name.startswith("client_")}
    assert path == "/agent_authorization"
    assert asked == {
        "grant_type": "urn:ietf:params:oauth:grant-type:agent_authorization",
        "scope": "crm.read docs.write",
        "reason": "to plan Monday",
        "resource": PLANNER,
    }
    still = json.loads((await logins.go_on(begun["login"])).body)
    assert (still["status"], logins.server.tokens_asked) == ("pending", 0)  # asked too soon: nobody else is
    asking = asyncio.create_task(asked_until_told(logins, begun["login"]))
    await logins.server.polled.wait()
    logins.server.answer("alice")
    told = json.loads((await asking).body)
    assert (told["status"], told["subject"]) == ("complete", "alice")
    assert (await logins.ask(told["handle"])).status == 200
    again = await logins.go_on(begun["login"])
    assert (again.status, again.reason) == (403, "login_used")


async def test_a_refusal_of_the_user_ends_the_login(logins: LoginWorld) -> None:
    await logins.start(logins.settings(adapter="agent-grant-draft"))
    begun = await logins.begin()
    logins.server.answer("alice", denies=True)
    refused = await asked_until_told(logins, begun["login"])
    assert (refused.status, refused.reason) == (403, "login_denied")
    assert (await logins.go_on(begun["login"])).reason == "login_used"


async def test_a_request_that_nobody_answers_expires(logins: LoginWorld) -> None:
    await logins.start(logins.settings(adapter="agent-grant-draft"))
    logins.server.lie = expired
    begun = await logins.begin()
    refused = await asked_until_told(logins, begun["login"])
    assert (refused.status, refused.reason) == (403, "login_expired")


def expired(form: dict[str, str]) -> Any:
    if "device_code" not in form:
        return None
    return web.json_response({"error": "expired_token"}, status=400)


async def test_who_asks_too_often_asks_more_slowly(logins: LoginWorld) -> None:
    await logins.start(logins.settings(adapter="agent-grant-draft"))
    begun = await logins.begin()
    logins.server.lie = lambda _form: web.json_response({"error": "slow_down"}, status=400)
    await asyncio.sleep(begun["poll_after_s"])
    told = json.loads((await logins.go_on(begun["login"])).body)
    assert (told["status"], told["poll_after_s"]) == ("pending", 6)


async def test_another_session_is_told_nothing(logins: LoginWorld) -> None:
    await logins.start(logins.settings(adapter="agent-grant-draft"))
    begun = await logins.begin()
    logins.server.answer("alice")
    refused = await logins.go_on(begun["login"], session="browser-session-of-mallory")
    assert (refused.status, refused.reason) == (403, "login_session_mismatch")
    refused = await logins.go_on(begun["login"], "code=x&state=y")
    assert (refused.status, refused.reason) == (400, "login_malformed")
    assert (await asked_until_told(logins, begun["login"])).status == 200


async def test_a_token_without_an_actor_is_refused_unless_a_table_names_its_client(logins: LoginWorld) -> None:
    logins.server.names_actor = False
    await logins.start(logins.settings(adapter="agent-grant-draft"))
    begun = await logins.begin()
    logins.server.answer("alice")
    refused = await asked_until_told(logins, begun["login"])
    assert (refused.status, refused.reason) == (502, "sts_no_act")


async def test_the_client_is_the_actor_where_a_table_says_so(logins: LoginWorld) -> None:
    logins.server.names_actor, logins.server.claims = False, dict(OF_A_USER)
    settings = {**logins.settings(adapter="agent-grant-draft"), "issuers": logins.issuers(BY_CLIENT)}
    await logins.start(settings)
    begun = await logins.begin()
    logins.server.answer("alice")
    told = json.loads((await asked_until_told(logins, begun["login"])).body)
    assert (await logins.ask(told["handle"])).status == 200
    for claims, reason in (({**OF_A_USER, "azp": PLANNER}, "sts_actor_mismatch"), ({}, "sts_token_type")):
        logins.server.claims = dict(claims)
        begun = await logins.begin()
        logins.server.answer("alice")
        refused = await asked_until_told(logins, begun["login"])
        assert (refused.status, refused.reason) == (502, reason)


async def test_an_endpoint_on_another_host_is_not_asked(logins: LoginWorld) -> None:
    logins.server.metadata = {"agent_authorization_endpoint": "https://else.example/agent_authorization"}
    await logins.start(logins.settings(adapter="agent-grant-draft"))
    refused = await logins.post("/.sidecar/logins", {"route": "planner", "session": SESSION})
    assert (refused.status, refused.reason) == (502, "sts_bad_response")


# --- one line


async def log_in(logins: LoginWorld) -> str:
    """Log alice in as a front app does that knows neither adapter: this function is the same for both."""
    begun = await logins.begin(redirect_uri=CALLBACK)
    if "url" in begun:
        answer = await logins.go_on(begun["login"], await in_browser(begun["url"]))
    else:
        logins.server.answer("alice")
        answer = await asked_until_told(logins, begun["login"])
    told = json.loads(answer.body)
    assert (told["status"], told["subject"]) == ("complete", "alice")
    return str(told["handle"])


async def test_swapping_the_adapters_is_one_line_of_the_settings(logins: LoginWorld) -> None:
    await logins.start(logins.settings())
    first = await log_in(logins)
    assert (await logins.ask(first)).status == 200
    before = logins.front.settings_path.read_text()
    after = before.replace("adapter: obo-draft-02\n", "adapter: agent-grant-draft\n")
    changed = [pair for pair in zip(before.splitlines(), after.splitlines(), strict=True) if pair[0] != pair[1]]
    assert changed == [("  adapter: obo-draft-02", "  adapter: agent-grant-draft")]
    await logins.rewrite(after)
    second = await log_in(logins)
    assert [path for path, _ in logins.server.forms] == ["/token", "/agent_authorization", "/token"]
    for handle in (first, second):  # a handle does not depend on the way it was granted
        assert (await logins.ask(handle)).status == 200
