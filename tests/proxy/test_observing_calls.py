"""Calls of the agent on routes that only observe, one fact at a time: each that passes beside the same one refused."""

from __future__ import annotations

import base64
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from delegation_core.errors import Denied, Reason, SidecarError
from delegation_core.outbound_routes import OutboundRoutes
from delegation_core.policy import Deny, Policy
from delegation_core.revocation import InForce, Kind
from delegation_core.revocations_kept import Revocation, Revocations
from sidecar.observe.secret_names import secret_fingerprint
from sidecar.proxy.journeys.workload_handle import WorkloadHandle
from tests.core.test_outside import HOOK, KEY, MODEL
from tests.core.world import (
    CRM,
    IDP,
    INBOUND_CLAIMS,
    LOGIN_CLAIMS,
    NOW,
    POLICY,
    STS,
    TO_CRM,
    WRITER,
    signed,
)
from tests.proxy.agent_calls import OWN, AgentCalls, Fields, bearer

UNTIL = NOW + 86_400
DAY_OVER = NOW - 1
CRM_OBSERVES = replace(TO_CRM, observe_until=UNTIL)
HOOK_OBSERVES = replace(HOOK, observe_until=UNTIL)
PLATFORM_IDP = "https://login.platform.example"
TO_HOOK = {"target": "/hook/v1/messages", "host": OWN}
MESH_TOKEN = signed(INBOUND_CLAIMS).raw
LOGIN = signed(LOGIN_CLAIMS, typ="JWT").raw
FOREIGN = signed({**INBOUND_CLAIMS, "iss": "https://else.example"}).raw


def policy_of(*routes: Any, **changes: Any) -> Policy:
    given = {"entry": None, "platform_issuers": frozenset({PLATFORM_IDP, IDP}), **changes}
    return replace(POLICY, outbound=OutboundRoutes(routes), **given)


@pytest.fixture
async def calls(tmp_path: Path) -> AgentCalls:
    calls = AgentCalls(tmp_path)
    calls.policy = policy_of(CRM_OBSERVES, HOOK_OBSERVES)
    return calls


async def refused(calls: AgentCalls, fields: Fields, **target: str) -> str | None:
    before = calls.left
    answer = await calls.call(fields, **target)
    assert answer.status >= 400
    assert calls.left == before
    return answer.reason


def basic(value: str) -> str:
    return "Basic " + base64.b64encode(f"user:{value}".encode()).decode()


OWN_CREDENTIALS: dict[str, tuple[Fields, str]] = {
    "none": ([], "none"),
    "static-key": (bearer("sk-live-1"), "bearer"),
    "dotted-key": (bearer("SG.abc.def"), "bearer"),
    "as-long-as-a-handle": (bearer("x" * 43), f"bearer:{secret_fingerprint(b'x' * 43)}"),
    "api-key": ([("x-api-key", "sk-live-1")], "x-api-key"),
    "basic": ([("authorization", basic("pw"))], "basic"),
    "foreign-token": (bearer(FOREIGN), f"bearer:{secret_fingerprint(FOREIGN.encode())}"),
}
CREDENTIAL = pytest.mark.parametrize(("fields", "told"), OWN_CREDENTIALS.values(), ids=OWN_CREDENTIALS)


@CREDENTIAL
async def test_a_call_without_a_handle_goes_to_the_peer_with_its_own_credential(
    calls: AgentCalls, fields: Fields, told: str
) -> None:
    assert (await calls.call(fields)).status == 200
    left = calls.left.decode()
    for name, value in fields:
        assert f"{name}: {value}" in left
    assert left.lower().count("authorization:") == sum(name == "authorization" for name, _ in fields)
    assert "delegation-call: " in left.lower()
    assert calls.tokens.asked == []
    (record,) = await calls.records()
    assert record["reason"] == ("not_an_entry" if "foreign" in told or fields == bearer(FOREIGN) else record["reason"])
    names = ("decision", "route", "peer", "status", "credential", "jti_out", "call_in", "verified", "host")
    assert [record[name] for name in names] == [
        "observed_deny", "crm", str(CRM), 200, f"observed:{told}", None, None, False, None
    ]  # fmt: skip
    assert record["reason"] in ("no_request_context", "not_an_entry", "malformed_token")
    assert "sk-live-1" not in str(record)


@CREDENTIAL
@pytest.mark.parametrize("until", [0, DAY_OVER], ids=["enforcing", "the-day-is-over"])
async def test_the_same_call_is_refused_where_the_route_does_not_observe(
    calls: AgentCalls, fields: Fields, told: str, until: int
) -> None:
    calls.policy = policy_of(replace(TO_CRM, observe_until=until), replace(HOOK, observe_until=until))
    assert await refused(calls, fields) in ("no_request_context", "not_an_entry", "malformed_token")
    assert await refused(calls, fields, **TO_HOOK) == "no_request_context"


async def test_a_call_with_a_handle_is_made_for_its_request_as_ever(calls: AgentCalls) -> None:
    assert (await calls.call(bearer(calls.handle()))).status == 200
    assert len(calls.tokens.asked) == 1
    assert await refused(calls, bearer(calls.handle(may_call=frozenset()))) == "call_not_allowed"


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param(bearer(MESH_TOKEN), id="delegated-token"),
        pytest.param(bearer(LOGIN), id="login-token"),
        pytest.param(bearer(signed({**LOGIN_CLAIMS, "iss": PLATFORM_IDP}).raw), id="login-issuer-of-the-platform"),
        pytest.param([("x-token", MESH_TOKEN)], id="in-another-field"),
        pytest.param([("cookie", f"session={LOGIN}; a=b")], id="in-a-cookie"),
        pytest.param([("authorization", basic(MESH_TOKEN))], id="in-basic"),
        pytest.param([("authorization", f"Token {MESH_TOKEN}")], id="another-scheme"),
        pytest.param([("x-token", MESH_TOKEN.rpartition(".")[0] + ".x")], id="signature-changed"),
    ],
)
async def test_a_token_of_an_issuer_that_means_something_here_never_leaves(calls: AgentCalls, fields: Fields) -> None:
    assert await refused(calls, fields) in ("no_request_context", "not_an_entry", "malformed_token")
    assert await refused(calls, fields, **TO_HOOK) == "no_request_context"
    (first, *_) = await calls.records()
    assert first["decision"] == "deny"


async def test_towards_the_mesh_a_broken_jwt_is_none_of_the_agent_s_own_credentials(calls: AgentCalls) -> None:
    assert (await calls.call(bearer(FOREIGN))).status == 200
    assert await refused(calls, bearer(FOREIGN + ".x")) == "malformed_token"


async def test_such_a_token_in_the_target_never_leaves(calls: AgentCalls) -> None:
    assert await refused(calls, [], target=f"/tool?access_token={MESH_TOKEN}") == "no_request_context"
    assert (await calls.call([], target=f"/tool?access_token={FOREIGN}")).status == 200


async def test_at_an_entry_a_login_token_is_a_login_and_not_a_credential_to_pass(calls: AgentCalls) -> None:
    calls.policy = policy_of(CRM_OBSERVES, entry=POLICY.entry, platform_issuers=frozenset())
    calls.keys.gone.add("k1")
    assert await refused(calls, bearer(LOGIN)) == "unknown_key"
    assert (await calls.call(bearer(FOREIGN))).status == 200


@pytest.mark.parametrize("target", [{}, TO_HOOK], ids=["mesh", "outside"])
async def test_a_handle_never_leaves(calls: AgentCalls, target: dict[str, str]) -> None:
    live = calls.handle()
    for fields in (
        [("x-api-key", live)],
        [("authorization", basic(live))],
        [("cookie", f"h={live}")],
        [("delegation-handle", "x" * 43)],
        [("delegation-handle", "")],
    ):
        assert await refused(calls, fields, **target) == "no_request_context"
    assert (await calls.call([("x-api-key", "x" * 43)], **target)).status == 200


@pytest.mark.parametrize(
    ("refusal", "told"), [(Reason.REVOKED, "revoked"), (Reason.UNTRUSTED_CHAIN, "no_request_context")]
)
@pytest.mark.parametrize("target", [{}, TO_HOOK], ids=["mesh", "outside"])
async def test_a_handle_whose_request_was_stopped_does_not_leave_at_the_second_call_either(
    calls: AgentCalls, target: dict[str, str], refusal: Reason, told: str
) -> None:
    live = calls.handle()
    calls.withdrawn = Denied(refusal)
    calls.handles.suspect()
    shown = [("delegation-handle", live)] if target else bearer(live)
    assert await refused(calls, shown, **target) == told
    for fields in (bearer(live), [("x-api-key", live)], [("authorization", basic(live))]):
        assert await refused(calls, fields, **target) == "no_request_context"


@CREDENTIAL
async def test_a_host_outside_the_mesh_is_called_without_a_handle_while_its_route_observes(
    calls: AgentCalls, fields: Fields, told: str
) -> None:
    assert (await calls.call(fields, **TO_HOOK)).status == 200
    assert b"delegation-" not in calls.left.lower()
    (record,) = await calls.records()
    names = ("decision", "reason", "route", "peer", "credential")
    assert [record[name] for name in names] == [
        "observed_deny", "no_request_context", "hook", None, f"observed:{told}"
    ]  # fmt: skip


@pytest.mark.parametrize("target", [{}, TO_HOOK], ids=["mesh", "outside"])
async def test_the_workload_handle_never_leaves(calls: AgentCalls, target: dict[str, str]) -> None:
    calls.handles.own = WorkloadHandle(bytes(32), 300.0, monotonic=lambda: 0.0)
    shown = calls.handles.own.current.handle
    for fields in (bearer(shown), [("x-api-key", shown)], [("authorization", basic(shown))]):
        assert await refused(calls, fields, **target) in ("no_request_context", "own_authority_refused")


async def test_observing_opens_no_other_path_method_or_host(calls: AgentCalls) -> None:
    assert await refused(calls, [], target="/hook/else", host=OWN) == "target_denied"
    assert await refused(calls, [], method="DELETE", **TO_HOOK) == "method_refused"
    assert await refused(calls, [], host="evil.example") == "target_denied"


async def test_two_credentials_of_one_kind_say_nothing(calls: AgentCalls) -> None:
    assert await refused(calls, [*bearer("sk-1"), *bearer("sk-2")]) == "header_malformed"
    assert await refused(calls, [("x-api-key", "sk-1"), ("x-api-key", "sk-2")]) == "header_malformed"


REVOKED = Revocations(in_force={"1": Revocation(id="1", kind=Kind.ACTOR, value=str(WRITER), expires_at=NOW + 60)})


@pytest.mark.parametrize(
    ("deny", "reason"),
    [
        (Deny(actors=frozenset({str(WRITER)})), "policy_denied"),
        (Deny(revoked=InForce(lists={STS: REVOKED}, own=frozenset({STS}))), "revoked"),
        (Deny(revoked=InForce(own=frozenset({STS}), stale=frozenset({STS}))), "revocations_stale"),
    ],
)
async def test_a_stopped_workload_calls_nobody(calls: AgentCalls, deny: Deny, reason: str) -> None:
    assert (await calls.call([])).status == 200
    calls.policy = policy_of(CRM_OBSERVES, HOOK_OBSERVES, deny=deny, number=2)
    assert await refused(calls, []) == reason
    assert await refused(calls, [], **TO_HOOK) == reason


@pytest.mark.parametrize("target", [{}, TO_HOOK], ids=["mesh", "outside"])
async def test_a_call_under_way_ends_with_what_let_it_pass(calls: AgentCalls, target: dict[str, str]) -> None:
    calls.answer_of_next_hop = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nbegun"
    assert (await calls.call([], **target)).status == 200
    under_way: Any = calls.watch.young
    (forwarding,) = under_way
    forwarding.judge(NOW)
    assert forwarding.token_expires_at == UNTIL
    later, earlier = UNTIL + 86_400, UNTIL - 1
    more = replace(CRM_OBSERVES, scopes=frozenset({"x"}), observe_until=later)
    calls.policy = policy_of(more, replace(HOOK, observe_until=later))
    forwarding.judge(NOW)
    elsewhere = replace(CRM_OBSERVES, upstream=replace(TO_CRM.upstream, host="elsewhere.internal"))
    less_long = policy_of(replace(TO_CRM, observe_until=earlier), replace(HOOK, observe_until=earlier))
    for policy, reason in (
        (policy_of(TO_CRM, HOOK, number=2), "no_request_context"),
        (less_long, "no_request_context"),
        (policy_of(number=3), "target_denied"),
        (policy_of(elsewhere, replace(HOOK_OBSERVES, path_prefixes=frozenset({"/h"}))), "target_denied"),
        (policy_of(CRM_OBSERVES, HOOK_OBSERVES, deny=Deny(actors=frozenset({str(WRITER)}))), "policy_denied"),
    ):
        calls.policy = policy
        with pytest.raises(SidecarError, match=reason):
            forwarding.judge(NOW)


def test_neither_a_key_of_the_sidecar_nor_a_next_hop_without_a_name_is_observed() -> None:
    with pytest.raises(ValueError, match="observe_until"):
        replace(MODEL, key=KEY, observe_until=UNTIL)
    with pytest.raises(ValueError, match="observe_until"):
        replace(TO_CRM, peer=None, observe_until=UNTIL)
