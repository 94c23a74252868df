"""Requests on a route that only observes, one fact at a time: each that passes beside the same one refused."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from delegation_core.errors import Denied, SidecarError
from delegation_core.human import Human
from delegation_core.inbound_routes import InboundRoutes
from delegation_core.policy import Deny, Policy
from delegation_core.revocation import InForce, Kind
from delegation_core.revocations_kept import Revocation, Revocations
from delegation_core.route import InboundRoute
from sidecar.features.observing import shown_credentials
from sidecar.observe.scrape import render
from sidecar.observe.secret_names import secret_fingerprint
from sidecar.proxy.journeys.handles import ServedRequest
from tests.core.world import (
    FRONT,
    INBOUND_CLAIMS,
    NOW,
    PLANNER,
    POLICY,
    SEARCH,
    STS,
    STS_TRUST,
    delegation,
    signed,
    without,
)
from tests.proxy.peer_calls import OBSERVED_UNTIL, OBSERVING, PeerCalls, bearer
from tests.proxy.warm import ANSWER


@pytest.fixture
async def calls(tmp_path: Path) -> PeerCalls:
    return PeerCalls(tmp_path)


def token(**changes: Any) -> tuple[str, str]:
    return bearer(signed({**INBOUND_CLAIMS, **changes}).raw)


def routed(route: InboundRoute, **changes: Any) -> Policy:
    return replace(POLICY, inbound=InboundRoutes([route]), **changes)


LONG_KEY = "sk-live-1-and-long"
IMPERSONATION = bearer(signed(without(INBOUND_CLAIMS, "act")).raw)
CASES = {
    "no-token": ([], OBSERVING, "no_token"),
    "another-scheme": ([("authorization", "Basic dXNlcjpwdw==")], OBSERVING, "no_token"),
    "static-key": ([bearer("sk-live-1")], OBSERVING, "malformed_token"),
    "act_missing": ([IMPERSONATION], OBSERVING, "act_missing"),
    "actor_mismatch": ([token(act={"sub": str(FRONT)})], OBSERVING, "actor_mismatch"),
    "wrong_audience": ([token(aud="https://api.acme.example")], OBSERVING, "wrong_audience"),
    "several-audiences": ([token(aud=["account", "api"])], OBSERVING, "wrong_audience"),
    "insufficient_scope": ([token(scope="crm.read")], OBSERVING, "insufficient_scope"),
    "policy_denied": ([token()], replace(OBSERVING, peers=frozenset({FRONT})), "policy_denied"),
}
CASE = pytest.mark.parametrize(("fields", "route", "reason"), CASES.values(), ids=CASES)


@CASE
async def test_what_the_list_relaxes_passes_with_its_own_credential_and_without_a_name(
    calls: PeerCalls, fields: list[tuple[str, str]], route: InboundRoute, reason: str
) -> None:
    calls.policy = routed(route)
    assert calls.call(*fields) == (200, None)
    arrived = calls.arrived.decode().lower()
    for name, value in fields:
        assert f"{name}: {value}".lower() in arrived
    assert arrived.count("authorization:") == len(fields)
    assert "delegation-request-id: " in arrived
    for name in ("subject", "subject-issuer", "actor", "scope", "handle", "token"):
        assert f"delegation-{name}:" not in arrived
    assert len(calls.warm.handles) == 0
    (record,) = await calls.records()
    told = ("decision", "reason", "route", "peer", "status", "scope_needed")
    assert [record[key] for key in told] == ["observed_deny", reason, "search", str(PLANNER), 200, ["docs.read"]]
    metrics = render(calls.warm.log.metrics).decode()
    assert f'sidecar_observed_denials_total{{reason="{reason}"}} 1.0' in metrics


@CASE
@pytest.mark.parametrize(
    ("route_change", "later_s"),
    [({"observe_until": 0}, 0), ({}, OBSERVED_UNTIL - NOW)],
    ids=["enforcing", "the-day-is-over"],
)
async def test_the_same_request_is_refused_where_the_route_does_not_observe(
    calls: PeerCalls,
    fields: list[tuple[str, str]],
    route: InboundRoute,
    reason: str,
    route_change: dict[str, Any],
    later_s: int,
) -> None:
    calls.policy = routed(replace(route, **route_change))
    calls.warm.now += later_s
    status, told = calls.call(*fields)
    assert status in (401, 403)
    assert told == (reason if not later_s or reason in ("no_token", "malformed_token") else "token_expired")
    assert calls.arrived == b""
    (record,) = await calls.records()
    assert record["decision"] == "deny"


async def test_a_permitted_request_is_permitted_as_ever(calls: PeerCalls) -> None:
    assert calls.call(token()) == (200, None)
    assert b"delegation-subject: alice" in calls.arrived.lower()
    (record,) = await calls.records()
    assert (record["decision"], record["reason"]) == ("allow", "ok")


def flipped(raw: str) -> str:
    head, _, signature = raw.rpartition(".")
    return f"{head}.{'A' if signature[0] != 'A' else 'B'}{signature[1:]}"


NEVER = {
    "signature": (lambda: bearer(flipped(signed(INBOUND_CLAIMS).raw)), "bad_signature"),
    "issuer": (lambda: token(iss="https://else.example"), "wrong_issuer"),
    "algorithm": (lambda: bearer("eyJhbGciOiJub25lIiwidHlwIjoiYXQrand0In0.eyJpc3MiOiJ4In0."), "alg_not_allowed"),
    "type": (lambda: bearer(signed(INBOUND_CLAIMS, typ="JWT").raw), "token_type"),
    "expired": (lambda: token(exp=NOW - 60, iat=NOW - 120), "token_expired"),
    "not-yet": (lambda: token(nbf=NOW + 120), "token_not_yet_valid"),
    "broken-jwt": (lambda: bearer(signed(INBOUND_CLAIMS).raw + ".x"), "malformed_token"),
    "broken-act": (lambda: token(act="x"), "act_malformed"),
    "ceiling": (lambda: token(scope="docs.read admin"), "scope_above_ceiling"),
    "key-binding": (lambda: token(cnf={"x5t#S256": "x"}), "cnf_mismatch"),
    "header": (lambda: ("authorization", "Bearer"), "header_malformed"),
}


@pytest.mark.parametrize(("field", "reason"), NEVER.values(), ids=NEVER)
async def test_nothing_else_is_relaxed(calls: PeerCalls, field: Callable[[], tuple[str, str]], reason: str) -> None:
    status, told = calls.call(field())
    assert (status >= 400, told) == (True, reason)
    assert calls.arrived == b""


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"iss": "https://else.example"}, "wrong_issuer"),
        ({"exp": NOW - 60, "iat": NOW - 120}, "token_expired"),
        ({"scope": "docs.read admin"}, "scope_above_ceiling"),
        ({"cnf": {"x5t#S256": "x"}}, "cnf_mismatch"),
        ({"act": "x"}, "act_malformed"),
        ({"sub": 1}, "malformed_token"),
    ],
)
@pytest.mark.parametrize("relaxed", [{"aud": "https://api.acme.example"}, {"aud": ["a", "b"]}])
async def test_a_second_fault_refuses_what_one_would_not(
    calls: PeerCalls, changes: dict[str, Any], relaxed: dict[str, Any], reason: str
) -> None:
    assert calls.call(token(**relaxed)) == (200, None)
    before = calls.arrived
    assert calls.call(token(**relaxed, **changes))[1] == reason
    assert calls.arrived == before


async def test_a_login_that_is_too_old_is_not_relaxed(calls: PeerCalls) -> None:
    calls.policy = routed(replace(OBSERVING, human=Human(max_age_s=60)))
    fault = {"scope": "crm.read"}
    assert calls.call(token(**fault, auth_time=NOW - 30)) == (200, None)
    assert calls.call(token(**fault, auth_time=NOW - 90)) == (401, "step_up_required")
    assert calls.call(token(**fault)) == (401, "step_up_required")


async def test_two_credentials_in_one_request_are_refused(calls: PeerCalls) -> None:
    assert calls.call(bearer("sk-live-1"), bearer("sk-live-2")) == (400, "header_malformed")


async def test_a_path_or_method_without_a_route_is_refused(calls: PeerCalls) -> None:
    assert calls.call(target="/other") == (404, "no_route")
    assert calls.call(target="/search%2f..")[0] == 400


@pytest.mark.parametrize(
    "deny",
    [
        Deny(subjects=frozenset({(STS, "alice")})),
        Deny(txns=frozenset({"txn-1"})),
        Deny(jtis=frozenset({"token-2"})),
        Deny(actors=frozenset({str(PLANNER)})),
        Deny(actors=frozenset({str(FRONT)})),
    ],
    ids=["subject", "txn", "jti", "peer", "actor"],
)
async def test_the_deny_list_holds_on_a_route_that_observes(calls: PeerCalls, deny: Deny) -> None:
    field = token(act={"sub": str(FRONT)})
    assert calls.call(field) == (200, None)
    calls.policy = routed(OBSERVING, number=2, deny=deny)
    assert calls.call(field) == (403, "policy_denied")


REVOKED = Revocations(
    in_force={
        "1": Revocation(id="1", kind=Kind.ACTOR, value=str(PLANNER), expires_at=NOW + 60),
        "2": Revocation(id="2", kind=Kind.TXN, value="txn-1", expires_at=NOW + 60),
    }
)


@pytest.mark.parametrize("field", [[], [token(act={"sub": str(FRONT)})]], ids=["without-token", "with-token"])
async def test_revocations_hold_on_a_route_that_observes(calls: PeerCalls, field: list[tuple[str, str]]) -> None:
    assert calls.call(*field) == (200, None)
    in_force = InForce(lists={STS: REVOKED}, own=frozenset({STS}))
    calls.policy = routed(OBSERVING, number=2, deny=Deny(revoked=in_force))
    assert calls.call(*field)[1] == "revoked"
    calls.policy = routed(OBSERVING, number=3, deny=Deny(revoked=replace(in_force, lists={}, stale=frozenset({STS}))))
    assert calls.call(*field)[1] == "revocations_stale"


async def test_a_workload_on_the_deny_list_does_not_pass_without_a_token(calls: PeerCalls) -> None:
    calls.policy = routed(OBSERVING, number=2, deny=Deny(actors=frozenset({str(PLANNER)})))
    assert calls.call() == (403, "policy_denied")


@pytest.mark.parametrize("field", ["authorization", "x-api-key"])
async def test_a_live_handle_does_not_reach_the_agent(
    calls: PeerCalls, field: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shown_credentials, "MIN_BYTES", 1000)  # no call waits for a fingerprint
    value = "Bearer " if field == "authorization" else ""
    assert calls.call((field, f"{value}{'x' * 43}")) == (200, None)
    before = calls.arrived
    live = calls.warm.handles.open(ServedRequest(delegation(), None, 0.0, "c1"))
    assert calls.call((field, f"{value}{live}"))[0] == 401
    assert calls.arrived == before


@pytest.mark.parametrize(
    ("credential", "told"),
    [
        (bearer("sk-live-1"), "observed:bearer"),
        (("x-api-key", "sk-live-1"), "observed:x-api-key"),
        (bearer(LONG_KEY), f"observed:bearer:{secret_fingerprint(LONG_KEY.encode())}"),
        (("x-api-key", LONG_KEY), f"observed:x-api-key:{secret_fingerprint(LONG_KEY.encode())}"),
        (("authorization", "Basic dXNlcjpwdw=="), "observed:basic"),
        (token(scope="crm.read"), None),
    ],
)
async def test_the_record_names_a_static_credential_by_its_fingerprint(
    calls: PeerCalls, credential: tuple[str, str], told: str | None
) -> None:
    calls.warm.snapshots.setup = SimpleNamespace(plain_until=0)
    calls.send(credential)
    async with asyncio.timeout(5):
        while not calls.arrived:  # a long one waits for its fingerprint
            await asyncio.sleep(0.001)
            calls.warm.pool.connections.writes.write_all()
    calls.warm.pool.agent.data_received(ANSWER)
    calls.warm.writes.write_all()
    (record,) = await calls.records()
    assert record["credential"] == told
    assert "sk-live-1" not in str(record)
    assert record["verified"] is (told is None)
    assert record["subject"] == ("alice" if told is None else None)


def under_way(calls: PeerCalls) -> Any:
    (forwarding,) = calls.warm.watch.young
    return forwarding


@pytest.mark.parametrize("field", [None, token(scope="crm.read")], ids=["without-token", "with-token"])
@pytest.mark.parametrize(
    ("policy", "reason"),
    [
        pytest.param(routed(SEARCH, number=2), "no_token|insufficient_scope", id="enforces-now"),
        pytest.param(
            routed(replace(SEARCH, observe_until=NOW + 99), number=2), "no_token|insufficient_scope", id="observes-less"
        ),
        pytest.param(routed(replace(SEARCH, path="/else"), number=2), "no_route", id="route-gone"),
        pytest.param(
            routed(OBSERVING, number=2, deny=Deny(actors=frozenset({str(PLANNER)}))), "policy_denied", id="denied"
        ),
    ],
)
async def test_a_request_under_way_ends_with_what_let_it_pass(
    calls: PeerCalls, field: tuple[str, str] | None, policy: Policy, reason: str
) -> None:
    calls.send(*([] if field is None else [field]))
    forwarding = under_way(calls)
    forwarding.judge(NOW)
    assert forwarding.token_expires_at == (OBSERVED_UNTIL if field is None else NOW + 290)
    calls.policy = routed(replace(SEARCH, name="other", observe_until=OBSERVED_UNTIL + 86_400), number=2)
    forwarding.judge(NOW)
    calls.policy = policy
    with pytest.raises(SidecarError, match=reason):
        forwarding.judge(NOW)


async def test_a_request_under_way_ends_with_the_trust_in_its_token(calls: PeerCalls) -> None:
    calls.send(token(scope="crm.read"))
    calls.policy = routed(OBSERVING, number=2, deny=Deny(subjects=frozenset({(STS, "alice")})))
    with pytest.raises(Denied, match="policy_denied"):
        under_way(calls).judge(NOW)
    narrower = replace(STS_TRUST, scopes=frozenset({"docs.read"}))
    calls.policy = routed(OBSERVING, number=3, issuers={STS: narrower})
    with pytest.raises(Denied, match="scope_above_ceiling"):
        under_way(calls).judge(NOW)


async def test_a_later_failure_leaves_the_reason_and_is_a_detail(calls: PeerCalls) -> None:
    calls.send()
    calls.warm.pool.agent.data_received(b"HTTP/9 nonsense\r\n\r\n")
    calls.warm.writes.write_all()
    (record,) = await calls.records()
    told = ("decision", "reason", "status")
    assert [record[key] for key in told] == ["observed_deny", "no_token", 502]
    assert record["detail"].startswith("then upstream_bad_response")
