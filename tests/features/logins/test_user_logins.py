"""The front app's requests about logins, one fact at a time; each lawful request beside the same one refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlencode

import pytest

from delegation_core.decide import accept_issued
from delegation_core.errors import Denied, Reason, SidecarError, Unavailable
from delegation_core.login import LoginPlan, accept_login
from delegation_core.outbound_routes import OutboundRoutes
from delegation_core.plan import plan_outbound
from delegation_core.policy import Deny, Entry, Policy
from delegation_core.revocation import InForce
from sidecar.exchange.adapters.login import Started, StillPending, WantedLogin
from sidecar.exchange.cache import Issued
from sidecar.exchange.failover import Unsent
from sidecar.exchange.login_conversation import Begun
from sidecar.exchange.sts_settings import ExchangeSettings
from sidecar.features.logins.pending_logins import LIFE_S
from sidecar.proxy.journeys.handles import MAX_PER_SUBJECT
from tests.core.test_login import GRANTED, ROUTE, allowing
from tests.core.world import CRM, NOW, STS, WRITER, Claims, signed, verification_key
from tests.exchange.world import Clock
from tests.proxy.agent_calls import OWN, AgentCalls, Answer, Fields, bearer

ALICE, MALLORY = "session-of-alice-1", "session-of-mallory"
BACK = "https://app.example/back"
JSON: Fields = [("content-type", "application/json")]
SETTINGS = ExchangeSettings(issuer=STS, token_endpoint="http://127.0.0.1/token")


class Logins:
    """The token service: a user who grants ``claims``, through the browser or elsewhere."""

    def __init__(self) -> None:
        self.settings = SETTINGS
        self.browser = True
        self.begun: list[tuple[LoginPlan, str | None, str]] = []
        self.codes: list[str | None] = []
        self.claims: Claims = GRANTED
        self.failing: SidecarError | None = None
        self.pending: list[StillPending] = []
        self.meanwhile: Callable[[], None] = lambda: None

    async def begin(self, plan: LoginPlan, *, redirect_uri: str | None, reason: str) -> Begun:
        self.begun.append((plan, redirect_uri, reason))
        if self.failing is not None:
            raise self.failing
        state = f"state-{len(self.begun)}"
        wanted = WantedLogin(plan=plan, client_id="c", options={}, reason=reason, state=state, verifier="v")
        started = Started(url=f"https://l.example/?{state}") if self.browser else Started(code="r", poll_s=2)
        return Begun(wanted=wanted, started=started, names_issuer=True)

    async def complete(
        self, begun: Begun, code: str | None, *, plan: LoginPlan, policy: Policy
    ) -> Issued | StillPending:
        self.codes.append(code)
        self.meanwhile()
        if self.failing is not None:
            raise self.failing
        if self.pending:
            return self.pending.pop()
        granted = signed(self.claims)
        delegation = accept_login(granted, plan=plan, key=verification_key(), policy=policy, now=NOW)
        call = plan_outbound(delegation, plan.route, policy=policy, now=NOW)
        permit = accept_issued(granted, plan=call, key=verification_key(), policy=policy, now=NOW)
        return Issued(permit, usable_until=NOW + 290, refresh_at=NOW + 290)


class LoginCalls(AgentCalls):
    """A front app's requests."""

    def __init__(self, folder: Path, **options: Any) -> None:
        self.monotonic = Clock(1000.0)
        super().__init__(folder, monotonic=self.monotonic, **options)
        lawful = allowing()
        assert lawful.entry is not None
        self.policy = replace(lawful, entry=replace(lawful.entry, redirect_uris=frozenset({BACK})))
        self.logins = Logins()
        self.tokens.logins = self.logins

    async def post(self, path: str, members: object, fields: Fields = JSON, **where: Any) -> Answer:
        body = members if isinstance(members, bytes) else json.dumps(members).encode()
        lawful = {"method": "POST", "target": f"/.sidecar/logins{path}", "host": OWN}
        return await self.send(body, fields, **{**lawful, **where})

    async def begin(self, session: str = ALICE, **members: str) -> dict[str, Any]:
        answer = await self.post("", {"route": "crm", "session": session, **members})
        assert answer.status == 201, answer
        return dict(json.loads(answer.body))

    async def go_on(self, login: str, callback: str | None = None, session: str = ALICE) -> Answer:
        more = {} if callback is None else {"callback": callback}
        return await self.post(f"/{login}", {"session": session, **more})


def back(number: int = 1, **changes: str | None) -> str:
    members = {"code": f"code-{number}", "state": f"state-{number}", "iss": STS, **changes}
    return urlencode({name: value for name, value in members.items() if value is not None})


@pytest.fixture
async def calls(tmp_path: Path) -> LoginCalls:
    return LoginCalls(tmp_path)


async def test_a_login_ends_with_a_handle_for_its_route(calls: LoginCalls) -> None:
    begun = await calls.begin()
    assert begun == {
        "login": begun["login"],
        "status": "pending",
        "expires_in": 600,
        "url": "https://l.example/?state-1",
    }
    assert json.loads((await calls.go_on(begun["login"])).body) == begun
    done = await calls.go_on(begun["login"], back())
    assert (done.status, done.headers["cache-control"]) == (200, "no-store")
    told = json.loads(done.body)
    handle = told.pop("handle")
    assert told == {
        "login": begun["login"], "status": "complete", "expires_in": 300,
        "subject": "alice", "subject_issuer": STS, "scope": "crm.read",
    }  # fmt: skip
    assert calls.logins.codes == ["code-1"]
    ((plan, redirect_uri, reason),) = calls.logins.begun
    assert (plan.actor, redirect_uri, reason) == (WRITER, BACK, f"{WRITER} asks for access to {CRM}")
    served = calls.handles.resolve(handle)
    assert (served.delegation.may_call, served.delegation.granted) == (frozenset({"crm"}), True)
    records = await calls.records()
    told_of = ("decision", "reason", "op", "route", "status", "subject")
    assert [[record[key] for key in told_of] for record in records] == [
        ["allow", "ok", "login", "crm", 201, None],
        ["allow", "ok", "login", "crm", 200, None],
        ["allow", "ok", "login", "crm", 200, "alice"],
    ]


async def test_the_handle_calls_with_the_granted_token_and_exchanges_nothing(calls: LoginCalls) -> None:
    begun = await calls.begin()
    handle = json.loads((await calls.go_on(begun["login"], back())).body)["handle"]
    delegation = calls.handles.resolve(handle).delegation
    plan = plan_outbound(delegation, calls.policy.outbound.routes[0], policy=calls.policy, now=NOW)
    permit = accept_issued(signed(GRANTED), plan=plan, key=verification_key(), policy=calls.policy, now=NOW)
    calls.tokens.kept = Issued(permit, usable_until=NOW + 200, refresh_at=NOW + 200)
    assert (await calls.call(bearer(handle))).status == 200
    assert permit.token.raw.encode() in calls.left
    refused = await calls.call(bearer(handle), host="mail.mesh")
    assert (refused.status, refused.reason) == (403, "call_not_allowed")
    calls.now += 300
    refused = await calls.call(bearer(handle))
    assert (refused.status, refused.reason) == (403, "no_request_context")
    assert calls.tokens.asked == []


# --- the form of a request

FORMS: dict[str, tuple[object, Fields, dict[str, Any], int, str]] = {
    "no JSON": (b"x=1", JSON, {}, 400, "login_malformed"),
    "a list": ([], JSON, {}, 400, "login_malformed"),
    "a page's form": ({}, [("content-type", "text/plain")], {}, 400, "login_malformed"),
    "no type": ({}, [], {}, 400, "login_malformed"),
    "two types": ({}, JSON * 2, {}, 400, "login_malformed"),
    "a member twice": (b'{"route":"crm","route":"mail"}', JSON, {}, 400, "login_malformed"),
    "an unknown member": ({"scope": "x"}, JSON, {}, 400, "login_malformed"),
    "no route": ({"route": None}, JSON, {}, 400, "login_malformed"),
    "no session": ({"session": None}, JSON, {}, 400, "login_malformed"),
    "a session that can be guessed": ({"session": "s" * 15}, JSON, {}, 400, "login_malformed"),
    "a session without end": ({"session": "s" * 513}, JSON, {}, 400, "login_malformed"),
    "a reason of two lines": ({"reason": "a\nb"}, JSON, {}, 400, "login_malformed"),
    "a reason without end": ({"reason": "a" * 201}, JSON, {}, 400, "login_malformed"),
    "another redirect URI": ({"redirect_uri": f"{BACK}/"}, JSON, {}, 400, "login_malformed"),
    "another route": ({"route": "files"}, JSON, {}, 403, "call_not_allowed"),
    "GET": ({}, JSON, {"method": "GET"}, 405, "method_refused"),
    "a query": ({}, JSON, {"target": "/.sidecar/logins?x"}, 400, "path_refused"),
    "another path": ({}, JSON, {"target": "/.sidecar/loginsx"}, 404, "no_route"),
    "a handle": ({}, [*JSON, ("delegation-handle", "h" * 43)], {}, 403, "no_request_context"),
    "a token": ({}, [*JSON, ("authorization", "Bearer x")], {}, 403, "no_request_context"),
    "another host": ({}, JSON, {"host": "files.mesh"}, 403, "target_denied"),
    "too long": ({"session": "s" * 17_000}, JSON, {}, 413, "too_large"),
}


@pytest.mark.parametrize(("changes", "fields", "where", "status", "reason"), FORMS.values(), ids=FORMS.keys())
async def test_a_request_has_one_form(
    calls: LoginCalls, changes: object, fields: Fields, where: dict[str, Any], status: int, reason: str
) -> None:
    lawful = {"route": "crm", "session": ALICE}
    members = {**lawful, **changes} if isinstance(changes, dict) else changes
    if isinstance(members, dict):
        members = {name: value for name, value in members.items() if value is not None}
    refused = await calls.post("", members, fields, **where)
    assert (refused.status, refused.reason) == (status, reason)
    assert (calls.logins.begun, calls.left) == ([], b"")
    assert (await calls.post("", lawful)).status == 201


async def test_where_there_is_no_entry_nobody_logs_in(calls: LoginCalls) -> None:
    calls.policy = replace(calls.policy, entry=None)
    for path in ("", "/x"):
        refused = await calls.post(path, {"route": "crm", "session": ALICE})
        assert (refused.status, refused.reason) == (403, "not_an_entry")


async def test_among_several_workers_nobody_logs_in(tmp_path: Path) -> None:
    calls = LoginCalls(tmp_path, remote_handles=cast("Any", object()))
    refused = await calls.post("", {"route": "crm", "session": ALICE})
    assert (refused.status, refused.reason) == (403, "call_not_allowed")


async def test_a_login_that_cannot_begin_leaves_nothing(calls: LoginCalls) -> None:
    calls.logins.failing = Unavailable(Reason.STS_TIMEOUT)
    refused = await calls.post("", {"route": "crm", "session": ALICE})
    assert (refused.status, refused.reason) == (504, "sts_timeout")
    assert len(calls.outbound.features["user_logins"].pending) == 0


@pytest.mark.parametrize("second_begins", [True, False])
async def test_a_login_ends_the_one_before_it_only_if_it_begins(calls: LoginCalls, second_begins: bool) -> None:
    login = (await calls.begin())["login"]
    calls.logins.failing = None if second_begins else Unavailable(Reason.STS_UNAVAILABLE)
    told = await calls.post("", {"route": "crm", "session": ALICE})
    assert told.status == (201 if second_begins else 503)
    calls.logins.failing = None
    answer = await calls.go_on(login, back())
    assert (answer.status, answer.reason) == ((403, "login_used") if second_begins else (200, None))


# --- whose login it is


async def test_a_login_is_its_session_s_alone(calls: LoginCalls) -> None:
    login = (await calls.begin())["login"]
    for callback in (None, back()):
        refused = await calls.go_on(login, callback, MALLORY)
        assert (refused.status, refused.reason) == (403, "login_session_mismatch")
    assert (await calls.go_on("x" * 43, back())).reason == "login_unknown"
    assert (await calls.go_on(login, back())).status == 200


ANSWERS: dict[str, tuple[str, int, str, bool]] = {
    "another state": (back(state="state-2"), 403, "login_state_mismatch", True),
    "no state": (back(state=None), 403, "login_state_mismatch", True),
    "a parameter twice": (f"{back()}&code=x", 400, "login_malformed", True),
    "no code": (back(code=None), 400, "login_malformed", True),
    "another issuer": (back(iss="https://else.example"), 403, "login_issuer_mismatch", False),
    "no issuer": (back(iss=None), 403, "login_issuer_mismatch", False),
    "a refusal": (back(code=None, error="access_denied"), 403, "login_denied", False),
    "a refusal of another state": (back(code=None, error="x", state="y"), 403, "login_state_mismatch", True),
}


@pytest.mark.parametrize(("callback", "status", "reason", "lives"), ANSWERS.values(), ids=ANSWERS.keys())
async def test_an_answer_that_is_not_this_logins_redeems_nothing(
    calls: LoginCalls, callback: str, status: int, reason: str, lives: bool
) -> None:
    login = (await calls.begin())["login"]
    refused = await calls.go_on(login, callback)
    assert (refused.status, refused.reason, calls.logins.codes) == (status, reason, [])
    again = await calls.go_on(login, back())
    assert again.status == (200 if lives else 403)


async def test_an_answer_is_used_once_whatever_comes_of_it(calls: LoginCalls) -> None:
    for number, failing in enumerate((None, Denied(Reason.EXCHANGE_DENIED), Unavailable(Reason.STS_TIMEOUT)), 1):
        calls.logins.failing = None
        login = (await calls.begin())["login"]
        calls.logins.failing = failing
        await calls.go_on(login, back(number))
        again = await calls.go_on(login, back(number))
        assert (again.status, again.reason) == (403, "login_used")
        assert len(calls.logins.codes) == number


async def test_an_answer_that_has_not_left_can_be_given_again_until_the_deadline(calls: LoginCalls) -> None:
    login = (await calls.begin())["login"]
    calls.logins.failing = Unsent(Reason.STS_UNAVAILABLE)
    for _ in range(2):
        refused = await calls.go_on(login, back())
        assert (refused.status, refused.reason) == (503, "sts_unavailable")
    calls.logins.failing = None
    assert (await calls.go_on(login, back(), MALLORY)).reason == "login_session_mismatch"
    assert (await calls.go_on(login, back(state="x"))).reason == "login_state_mismatch"
    assert (await calls.go_on(login, back())).status == 200
    assert (await calls.go_on(login, back())).reason == "login_used"
    assert calls.logins.codes == ["code-1"] * 3


async def test_too_many_logins_at_once_are_told_when_to_come_again(calls: LoginCalls) -> None:
    calls.logins.failing = Unsent(Reason.OVERLOADED)
    refused = await calls.post("", {"route": ROUTE.name, "session": ALICE})
    assert (refused.status, refused.reason, refused.headers["retry-after"]) == (503, "overloaded", "1")
    calls.logins.failing = None
    login = (await calls.begin())["login"]
    calls.logins.failing = Unsent(Reason.OVERLOADED)
    refused = await calls.go_on(login, back(2))
    assert (refused.status, refused.reason, refused.headers["retry-after"]) == (503, "overloaded", "1")
    calls.logins.failing = None
    assert (await calls.go_on(login, back(2))).status == 200


async def test_an_answer_that_has_not_left_outlives_no_deadline(calls: LoginCalls) -> None:
    login = (await calls.begin())["login"]
    calls.logins.failing = Unsent(Reason.STS_UNAVAILABLE)
    await calls.go_on(login, back())
    calls.logins.failing = None
    calls.monotonic.now += LIFE_S
    refused = await calls.go_on(login, back())
    assert (refused.reason, calls.logins.codes) == ("login_expired", ["code-1"])


async def test_an_answer_that_has_not_left_is_over_if_the_session_begins_another(calls: LoginCalls) -> None:
    login = (await calls.begin())["login"]
    pending = calls.outbound.features["user_logins"].pending

    def begin_another() -> None:
        assert found is not None
        first = pending.reserve(ALICE, calls.logins.begun[0][0], SETTINGS)
        pending.open(first, found)

    found = pending.find(login, ALICE).begun
    assert found is not None
    calls.logins.meanwhile, calls.logins.failing = begin_another, Unsent(Reason.STS_UNAVAILABLE)
    await calls.go_on(login, back())
    assert (await calls.go_on(login, back())).reason == "login_used"


async def test_a_poll_that_ends_after_the_session_has_begun_another_leaves_its_login_over(calls: LoginCalls) -> None:
    calls.logins.browser = False
    login = (await calls.begin())["login"]
    pending = calls.outbound.features["user_logins"].pending
    found = pending.find(login, ALICE).begun
    assert found is not None
    calls.logins.pending = [StillPending()]
    calls.logins.meanwhile = lambda: pending.open(pending.reserve(ALICE, found.wanted.plan, SETTINGS), found)
    calls.monotonic.now += 2
    assert (await calls.go_on(login)).reason == "login_used"


async def test_an_answer_that_comes_while_its_login_is_redeemed_is_a_second_one(calls: LoginCalls) -> None:
    login = (await calls.begin())["login"]
    found: list[Reason] = []

    def second() -> None:
        with pytest.raises(Denied) as caught:
            calls.outbound.features["user_logins"].pending.find(login, ALICE)
        found.append(caught.value.reason)

    calls.logins.meanwhile = second
    assert (await calls.go_on(login, back())).status == 200
    assert found == [Reason.LOGIN_USED]


async def test_a_login_is_not_long(calls: LoginCalls) -> None:
    login = (await calls.begin())["login"]
    calls.monotonic.now += LIFE_S
    refused = await calls.go_on(login, back())
    assert (refused.status, refused.reason, calls.logins.codes) == (403, "login_expired", [])


AT_ANOTHER = replace(ROUTE, audience="spiffe://acme.example/tool/crm2")
CHANGES: dict[str, tuple[Callable[[LoginCalls], None], int, str]] = {
    "the user is denied": (
        lambda calls: setattr(calls, "policy", replace(calls.policy, deny=Deny(subjects=frozenset({(STS, "alice")})))),
        403,
        "policy_denied",
    ),
    "the entry opens it no more": (
        lambda calls: setattr(calls, "policy", allowing(entry=Entry(issuers={}, may_call=frozenset({"mail"})))),
        403,
        "call_not_allowed",
    ),
    "the route leads to another": (
        lambda calls: setattr(calls, "policy", replace(calls.policy, outbound=OutboundRoutes([AT_ANOTHER]))),
        403,
        "login_expired",
    ),
    "the token service is another": (
        lambda calls: setattr(calls.logins, "settings", replace(SETTINGS, token_endpoint="http://127.0.0.1/other")),
        403,
        "login_expired",
    ),
}


async def test_a_list_of_revocations_that_is_stale_for_a_while_ends_no_login(calls: LoginCalls) -> None:
    login = (await calls.begin())["login"]
    before = calls.policy
    calls.policy = replace(before, deny=Deny(revoked=InForce(own=frozenset({STS}), stale=frozenset({STS}))))
    refused = await calls.go_on(login, back())
    assert (refused.status, refused.reason, calls.logins.codes) == (503, "revocations_stale", [])
    calls.policy = before
    assert (await calls.go_on(login, back())).status == 200


@pytest.mark.parametrize(("change", "status", "reason"), CHANGES.values(), ids=CHANGES.keys())
async def test_what_changes_under_a_login_ends_it(
    calls: LoginCalls, change: Callable[[LoginCalls], None], status: int, reason: str
) -> None:
    login = (await calls.begin())["login"]
    before = calls.policy, calls.logins.settings
    change(calls)
    refused = await calls.go_on(login, back())
    assert (refused.status, refused.reason) == (status, reason)
    calls.policy, calls.logins.settings = before
    assert (await calls.go_on(login, back())).reason == "login_used"


async def test_a_token_that_proves_no_grant_gives_no_handle(calls: LoginCalls) -> None:
    login = (await calls.begin())["login"]
    calls.logins.claims = {**GRANTED, "sub": str(WRITER)}
    refused = await calls.go_on(login, back())
    assert (refused.status, refused.reason, len(calls.handles)) == (502, "sts_subject_mismatch", 0)


async def test_a_user_has_so_many_handles_and_no_more(calls: LoginCalls) -> None:
    for number in range(1, MAX_PER_SUBJECT + 1):
        calls.logins.claims = {**GRANTED, "jti": f"granted-{number}"}
        login = (await calls.begin())["login"]
        assert (await calls.go_on(login, back(number))).status == 200
    calls.logins.claims = {**GRANTED, "jti": "one-more"}
    login = (await calls.begin())["login"]
    refused = await calls.go_on(login, back(MAX_PER_SUBJECT + 1))
    assert (refused.status, refused.reason) == (503, "overloaded")


# --- without a browser


async def test_a_user_who_is_asked_elsewhere_is_polled_for_no_sooner_than_told(calls: LoginCalls) -> None:
    calls.logins.browser = False
    calls.logins.pending = [StillPending(), StillPending(5)]
    begun = await calls.begin()
    assert (begun["poll_after_s"], "url" in begun) == (2, False)
    login = begun["login"]
    for after_s, asked, next_s in ((1, 0, 1), (1, 1, 7), (6, 1, 1), (1, 2, 7)):
        calls.monotonic.now += after_s
        told = json.loads((await calls.go_on(login)).body)
        assert (told["status"], len(calls.logins.codes), told["poll_after_s"]) == ("pending", asked, next_s)
    calls.monotonic.now += 7
    assert json.loads((await calls.go_on(login)).body)["status"] == "complete"
    assert (await calls.go_on(login)).reason == "login_used"
    assert calls.logins.codes == [None] * 3


async def test_an_outage_while_polling_ends_no_login_and_a_refusal_does(calls: LoginCalls) -> None:
    calls.logins.browser = False
    login = (await calls.begin())["login"]
    for failing, reason in (
        (Unavailable(Reason.STS_UNAVAILABLE), "sts_unavailable"),
        (Denied(Reason.LOGIN_DENIED), "login_denied"),
    ):
        calls.monotonic.now += 5
        calls.logins.failing = failing
        assert (await calls.go_on(login)).reason == reason
    assert (await calls.go_on(login)).reason == "login_used"


async def test_nothing_comes_back_through_the_browser_from_it(calls: LoginCalls) -> None:
    calls.logins.browser = False
    login = (await calls.begin())["login"]
    refused = await calls.go_on(login, back())
    assert (refused.status, refused.reason, calls.logins.codes) == (400, "login_malformed", [])
