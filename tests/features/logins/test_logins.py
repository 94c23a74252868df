"""Logins at an entry: traded for a handle or shown with a call, each lawful case beside those with one fact changed."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from delegation_core.decide import decide_entry
from delegation_core.login_issuer import ScopeFrom
from delegation_core.plan import Delegation
from delegation_core.policy import Deny, Entry
from sidecar.proxy.journeys.handles import MAX_PER_SUBJECT
from tests.core.world import ENTRY, FRONT, IDP, LOGIN_CLAIMS, NOW, POLICY, USERS, signed
from tests.proxy.agent_calls import OWN, AgentCalls, Answer, Fields, bearer

SALES_ONLY = replace(USERS, scope_from=ScopeFrom(claim="groups", map={"sales": frozenset({"crm.read"})}))


def raw_login(**changes: Any) -> str:
    return signed({**LOGIN_CLAIMS, **changes}, typ=None).raw


@pytest.fixture
async def calls(tmp_path: Path) -> AgentCalls:
    return AgentCalls(tmp_path)


async def trade(calls: AgentCalls, token: str, *fields: tuple[str, str], **changes: str) -> Answer:
    where = {"target": "/.sidecar/subject", "host": OWN, **changes}
    return await calls.call([*(bearer(token) if token else []), *fields], **where)


async def handle_of(calls: AgentCalls, token: str) -> str:
    answer = await trade(calls, token)
    assert answer.status == 200, answer
    return str(json.loads(answer.body)["handle"])


async def test_a_login_is_traded_for_a_handle_that_lives_as_long_as_it(calls: AgentCalls) -> None:
    answer = await trade(calls, raw_login())
    members = json.loads(answer.body)
    assert (answer.status, members["expires_in"], len(members["handle"])) == (200, 540, 43)
    assert (answer.headers["content-type"], answer.headers["cache-control"]) == ("application/json", "no-store")
    assert (calls.left, calls.tokens.asked) == (b"", [])  # nothing is fetched before it is needed
    (record,) = await calls.records()
    assert [record[key] for key in ("decision", "op", "route", "subject", "jti_in")] == [
        "allow", "login", None, "alice", "login-1"
    ]  # fmt: skip


async def test_the_handle_makes_calls_for_its_user_until_the_login_ends(calls: AgentCalls) -> None:
    handle = await handle_of(calls, raw_login())
    for _ in range(2):
        assert (await calls.call(bearer(handle))).status == 200
    assert [plan.delegation.token.jti for plan in calls.tokens.asked] == ["login-1"] * 2
    calls.now += 541
    refused = await calls.call(bearer(handle))
    assert (refused.status, refused.reason) == (403, "no_request_context")


FORM: dict[str, tuple[Fields, dict[str, str], int, str]] = {
    "GET": ([], {"method": "GET"}, 405, "method_refused"),
    "a query": ([], {"target": "/.sidecar/subject?x=1"}, 400, "path_refused"),
    "a slash more": ([], {"target": "/.sidecar/subject/"}, 404, "no_route"),
    "another path of ours": ([], {"target": "/.sidecar/subjects"}, 404, "no_route"),
    "a path with two meanings": ([], {"target": "/.sidecar/%73ubject%2f"}, 400, "path_refused"),
    "a handle beside it": ([("delegation-handle", "h" * 43)], {}, 403, "no_request_context"),
    "two logins": ([("authorization", "Bearer a.b.c")], {}, 400, "header_malformed"),
    "at another host": ([], {"host": "mail.mesh"}, 403, "target_denied"),
}


@pytest.mark.parametrize(("fields", "where", "status", "reason"), FORM.values(), ids=FORM.keys())
async def test_a_trade_has_one_form(
    calls: AgentCalls, fields: Fields, where: dict[str, str], status: int, reason: str
) -> None:
    refused = await trade(calls, raw_login(), *fields, **where)
    assert (refused.status, refused.reason) == (status, reason)
    assert refused.headers.get("allow") == ("POST" if status == 405 else None)
    assert (len(calls.handles), calls.left) == (0, b"")
    assert (await trade(calls, raw_login())).status == 200


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        pytest.param([], "no_token", id="none"),
        pytest.param([("authorization", "Basic YTpi")], "no_token", id="a password"),
        pytest.param(bearer("h" * 43), "malformed_token", id="a handle"),
    ],
)
async def test_a_trade_needs_a_login_token(calls: AgentCalls, fields: Fields, reason: str) -> None:
    refused = await trade(calls, "", *fields)
    assert (refused.status, refused.reason) == (401, reason)


LOGINS: dict[str, tuple[dict[str, Any], int, str]] = {
    "another client's": ({"aud": "other-app"}, 401, "wrong_audience"),
    "expired": ({"exp": NOW - 31}, 401, "token_expired"),
    "within the leeway after its end": ({"exp": NOW - 5}, 401, "token_expired"),
    "another issuer's": ({"iss": "https://else.example"}, 401, "wrong_issuer"),
    "worth nothing": ({"groups": ["guests"]}, 403, "insufficient_scope"),
    "it names an actor": ({"act": {"sub": str(FRONT)}}, 401, "token_type"),
    "a claim of another form": ({"groups": 7}, 401, "malformed_token"),
}


@pytest.mark.parametrize(("changes", "status", "reason"), LOGINS.values(), ids=LOGINS.keys())
async def test_a_login_that_is_no_good_gets_no_handle(
    calls: AgentCalls, changes: dict[str, Any], status: int, reason: str
) -> None:
    refused = await trade(calls, raw_login(**changes))
    assert (refused.status, refused.reason) == (status, reason)
    assert (b"handle" in refused.body, len(calls.handles)) == (False, 0)
    assert (await trade(calls, raw_login())).status == 200


async def test_a_workload_that_is_no_entry_trades_nothing(calls: AgentCalls) -> None:
    calls.policy = replace(POLICY, entry=None)
    for method, token in (("POST", raw_login()), ("POST", ""), ("GET", "")):
        refused = await trade(calls, token, method=method)
        assert (refused.status, refused.reason) == (403, "not_an_entry")


async def test_a_subject_has_so_many_handles_and_no_more(calls: AgentCalls) -> None:
    for number in range(MAX_PER_SUBJECT):
        await handle_of(calls, raw_login(jti=f"login-{number}"))
    refused = await trade(calls, raw_login(jti="one-more"))
    assert (refused.status, refused.reason) == (503, "overloaded")
    assert (await trade(calls, raw_login(sub="bob"))).status == 200


# --- keys


async def test_a_login_under_a_new_key_waits_for_the_key(calls: AgentCalls) -> None:
    calls.keys.late = {"k1"}
    assert (await trade(calls, raw_login())).status == 200


async def test_a_login_under_no_key_of_its_issuer_is_refused_with_its_claims_unproven(calls: AgentCalls) -> None:
    calls.keys.gone = {"k1"}
    refused = await trade(calls, raw_login())
    assert (refused.status, refused.reason) == (401, "unknown_key")
    (record,) = await calls.records()
    assert (record["verified"], record["subject"]) == (False, "alice")


async def test_a_login_that_was_judged_is_verified_again_only_after_a_change(
    calls: AgentCalls, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged: list[int] = []

    def counting(*arguments: Any, **options: Any) -> Delegation:
        judged.append(1)
        return decide_entry(*arguments, **options)

    monkeypatch.setattr("sidecar.features.logins.logins.decide_entry", counting)
    handle = await handle_of(calls, raw_login())
    assert len(judged) == 1
    await calls.call(bearer(handle))
    assert len(judged) == 1
    calls.keys.generation += 1
    await calls.call(bearer(handle))
    assert len(judged) == 2
    calls.policy = replace(POLICY, number=2)
    await calls.call(bearer(handle))
    assert len(judged) == 3


async def test_a_login_holds_only_as_it_was_judged_by_the_keys_and_policy_of_now(calls: AgentCalls) -> None:
    handle = await handle_of(calls, raw_login())
    login, logins = calls.handles.resolve(handle).delegation, calls.outbound.features["logins"]
    assert logins.holds(login, calls.outbound.snapshots.now())
    assert not logins.holds(replace(login), calls.outbound.snapshots.now())
    calls.keys.generation += 1
    assert not logins.holds(login, calls.outbound.snapshots.now())
    await calls.call(bearer(handle))  # judged again, by the new keys
    assert not logins.holds(login, calls.outbound.snapshots.now())


Change = Callable[[AgentCalls], None]


def key_withdrawn(calls: AgentCalls) -> None:
    calls.keys.generation += 1
    calls.keys.gone = {"k1"}


def user_denied(calls: AgentCalls) -> None:
    calls.policy = replace(POLICY, number=2, deny=Deny(subjects=frozenset({(None, "alice")})))


def issuer_removed(calls: AgentCalls) -> None:
    calls.policy = replace(POLICY, number=2, entry=replace(ENTRY, issuers={}))


def calls_closed(calls: AgentCalls) -> None:
    calls.policy = replace(POLICY, number=2, entry=Entry(issuers={IDP: USERS}, may_call=frozenset()))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        pytest.param(key_withdrawn, "unknown_key", id="its key"),
        pytest.param(user_denied, "policy_denied", id="its user"),
        pytest.param(issuer_removed, "wrong_issuer", id="its issuer"),
        pytest.param(calls_closed, "call_not_allowed", id="what entries may call"),
    ],
)
async def test_a_handle_ends_with_what_made_its_login_good(calls: AgentCalls, change: Change, reason: str) -> None:
    handle = await handle_of(calls, raw_login())
    assert (await calls.call(bearer(handle))).status == 200
    sent = calls.left
    change(calls)
    refused = await calls.call(bearer(handle))
    assert (refused.reason, calls.left) == (reason, sent)


async def test_a_handle_is_never_worth_more_than_when_it_was_made(calls: AgentCalls) -> None:
    calls.policy = replace(POLICY, entry=replace(ENTRY, issuers={IDP: SALES_ONLY}))
    handle = await handle_of(calls, raw_login())
    calls.policy = replace(POLICY, number=2)  # from now on the same login also gives docs.read
    assert (await calls.call(bearer(handle))).status == 200
    assert calls.tokens.asked[-1].delegation.scope == {"crm.read"}
    assert (await calls.call(bearer(raw_login(jti="later")))).status == 200
    assert calls.tokens.asked[-1].delegation.scope == {"crm.read", "docs.read"}


async def test_a_full_store_of_handles_refuses_the_next_login(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = AgentCalls(tmp_path)
    monkeypatch.setattr(calls.handles, "_logins", type(calls.handles._logins)(1))
    refused = await trade(calls, raw_login())
    assert (refused.status, refused.reason) == (503, "overloaded")
