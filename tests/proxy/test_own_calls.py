"""Calls of an agent for itself, by the workload handle: each lawful call beside the same call refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from delegation_core.errors import Denied, Reason
from delegation_core.outbound_routes import OutboundRoutes
from delegation_core.policy import Deny
from sidecar.observe.secret_names import secret_fingerprint
from sidecar.proxy.journeys.workload_handle import OVERLAP_S, WorkloadHandle
from tests.core.test_outside import HOOK, KEY, MODEL, OPEN
from tests.core.world import POLICY, TO_CRM, WRITER
from tests.proxy.agent_calls import OWN, AgentCalls, Fields, bearer

SECRET = "sk-secret-of-the-sidecar"
TO_MODEL = {"target": "/model/v1/messages", "host": OWN}
TO_HOOK = {"target": "/hook/v1/messages", "host": OWN}
ROTATE_S = 300.0


class OwnCalls(AgentCalls):
    """An agent that has the workload handle; it opens ``model`` and ``hook``."""

    def __init__(self, folder: Path) -> None:
        self.at = 0.0
        self.own = WorkloadHandle(bytes(32), ROTATE_S, monotonic=lambda: self.at)
        super().__init__(folder)
        self.handles.own = self.own
        file = folder / "key"
        file.write_text(f"{SECRET}\n")
        file.chmod(0o600)
        route = replace(MODEL, key=replace(KEY, file=str(file)))
        self.policy = replace(
            POLICY, outbound=OutboundRoutes([TO_CRM, route, HOOK]), own_may_call=frozenset({"model", "hook"})
        )

    @property
    def shown(self) -> str:
        """The workload handle."""
        return self.own.current.handle


@pytest.fixture
async def calls(tmp_path: Path) -> OwnCalls:
    return OwnCalls(tmp_path)


def own(value: str) -> Fields:
    return [("Delegation-Handle", value)]


async def refused(calls: OwnCalls, fields: Fields, **target: str) -> str | None:
    """Make a call that must not leave; return its reason."""
    answer = await calls.call(fields, **{**TO_MODEL, **target})
    assert answer.status >= 400
    assert calls.left == b""
    return answer.reason


async def test_the_workload_handle_opens_a_route_that_it_lists_and_the_record_names_no_user(calls: OwnCalls) -> None:
    assert (await calls.call(bearer(calls.shown), **TO_MODEL)).status == 200
    assert b"x-api-key: " + SECRET.encode() in calls.left.lower()
    assert calls.shown.encode() not in calls.left
    assert calls.log.metrics.own_calls == 1
    (record,) = await calls.records()
    told = ("decision", "reason", "op", "route", "credential", "subject", "actor", "chain", "call_in", "verified")
    assert [record[key] for key in told] == [
        "allow", "ok", "own", "model", f"inject:{secret_fingerprint(SECRET.encode())}", None, None, None, None, False,
    ]  # fmt: skip


async def test_a_passthrough_route_takes_it_in_its_own_field_alone(calls: OwnCalls) -> None:
    credential = ("authorization", "Bearer my-own-key")
    assert (await calls.call([*own(calls.shown), credential], **TO_HOOK)).status == 200
    assert b"delegation-" not in calls.left.lower()
    (record,) = await calls.records()
    assert (record["op"], record["credential"]) == ("own", "passthrough:bearer")


@pytest.mark.parametrize("glued", ["sk-{}", "{}x"])
async def test_glued_to_other_text_it_refuses_the_call(calls: OwnCalls, glued: str) -> None:
    stray = ("x-key", glued.replace("{}", calls.shown))
    assert await refused(calls, [*own(calls.handle(may_call=OPEN)), stray], **TO_HOOK) == "no_request_context"


async def test_in_another_field_of_a_passthrough_call_it_refuses_the_call(calls: OwnCalls) -> None:
    assert await refused(calls, bearer(calls.shown), **TO_HOOK) == "no_request_context"


async def test_a_route_that_it_does_not_list_stays_closed(calls: OwnCalls) -> None:
    calls.policy = replace(calls.policy, own_may_call=frozenset({"hook"}))
    assert await refused(calls, bearer(calls.shown)) == "call_not_allowed"
    assert calls.log.metrics.own_calls == 0
    (record,) = await calls.records()
    assert (record["decision"], record["op"], record["subject"]) == ("deny", "own", None)


@pytest.mark.parametrize("shown", [bearer, own], ids=["authorization", "delegation-handle"])
async def test_it_never_opens_an_exchange_route_even_if_listed(calls: OwnCalls, shown: Callable[[str], Fields]) -> None:
    calls.policy = replace(calls.policy, own_may_call=frozenset({"crm"}))
    reason = await refused(calls, shown(calls.shown), target="/tool", host="crm.mesh")
    assert reason == "own_authority_refused"
    assert (await calls.call(bearer(calls.handle()))).status == 200
    first, _ = await calls.records()
    assert (first["op"], first["subject"]) == ("own", None)


async def test_what_it_lists_opens_nothing_to_a_request(calls: OwnCalls) -> None:
    assert await refused(calls, bearer(calls.handle())) == "call_not_allowed"
    assert (await calls.call(bearer(calls.handle(may_call=OPEN)), **TO_MODEL)).status == 200
    _, record = await calls.records()
    assert (record["op"], record["subject"]) == (None, "alice")


async def test_a_call_that_shows_a_request_s_handle_too_is_refused(calls: OwnCalls) -> None:
    request = calls.handle(may_call=OPEN)
    assert await refused(calls, [*own(calls.shown), *bearer(request)]) == "no_request_context"
    assert await refused(calls, [*own(calls.shown), ("x-note", request)]) == "no_request_context"
    assert await refused(calls, [*own(request), ("x-note", calls.shown)]) == "no_request_context"
    assert (await calls.call([*own(calls.shown), ("x-note", "x" * 43)], **TO_MODEL)).status == 200


async def test_it_ends_with_its_period_and_the_overlap(calls: OwnCalls) -> None:
    before = calls.shown
    calls.at += ROTATE_S + OVERLAP_S - 1
    assert (await calls.call(bearer(before), **TO_MODEL)).status == 200
    calls.at += 1
    assert (await calls.call(bearer(before), **TO_MODEL)).reason == "no_request_context"
    assert (await calls.call([*own(calls.shown), ("x-note", before)], **TO_MODEL)).status == 200


async def test_a_workload_on_the_deny_list_does_not_act_for_itself(calls: OwnCalls) -> None:
    calls.policy = replace(calls.policy, deny=Deny(actors=frozenset({WRITER})))
    assert await refused(calls, bearer(calls.shown)) == "policy_denied"


async def test_without_the_setting_no_such_handle_exists(calls: OwnCalls, tmp_path: Path) -> None:
    (tmp_path / "without").mkdir()
    without = AgentCalls(tmp_path / "without")
    without.policy = calls.policy
    answer = await without.call(bearer(calls.shown), **TO_MODEL)
    assert (answer.reason, without.left) == ("no_request_context", b"")


async def test_an_attempt_to_leave_with_it_still_lists_the_requests_in_progress(calls: OwnCalls) -> None:
    calls.handle()
    assert await refused(calls, bearer(calls.shown), host="evil.example") == "target_denied"
    (record,) = await calls.records()
    assert [record[key] for key in ("host", "op", "subject", "candidates")] == ["evil.example", "own", None, ["c1"]]


SELF = replace(TO_CRM, token="self")


@pytest.fixture
async def for_itself(tmp_path: Path) -> OwnCalls:
    calls = OwnCalls(tmp_path)
    calls.policy = replace(POLICY, outbound=OutboundRoutes([SELF, HOOK]), own_may_call=frozenset({"crm"}))
    return calls


async def test_a_self_route_gets_a_token_of_the_workload_s_own(for_itself: OwnCalls) -> None:
    answer = await for_itself.call(bearer(for_itself.shown))
    assert answer.status == 200
    (asked,) = for_itself.tokens.asked
    assert (asked.delegation, asked.expected_subject, asked.audience) == (None, str(WRITER), SELF.audience)
    assert b"authorization: Bearer ey" in for_itself.left
    assert for_itself.shown.encode() not in for_itself.left
    assert for_itself.log.metrics.own_calls == 1
    (record,) = await for_itself.records()
    told = ("decision", "op", "subject", "actor", "chain", "jti_in", "jti_out", "txn", "call_in", "verified")
    assert [record[key] for key in told] == [
        "allow", "own", str(WRITER), None, None, None, "own-1", "txn-own", None, True,
    ]  # fmt: skip


async def test_a_request_never_takes_a_self_route_even_if_its_route_lists_it(for_itself: OwnCalls) -> None:
    reason = await refused(for_itself, bearer(for_itself.handle()), target="/tool", host="crm.mesh")
    assert reason == "own_authority_refused"
    assert for_itself.tokens.asked == []


async def test_a_self_route_that_is_not_listed_stays_closed(for_itself: OwnCalls) -> None:
    for_itself.policy = replace(for_itself.policy, own_may_call=frozenset({"hook"}))
    reason = await refused(for_itself, bearer(for_itself.shown), target="/tool", host="crm.mesh")
    assert reason == "call_not_allowed"


async def test_a_self_call_with_a_request_s_handle_in_any_field_is_refused(for_itself: OwnCalls) -> None:
    request = for_itself.handle()
    for fields in ([*own(for_itself.shown), *bearer(request)], [*own(for_itself.shown), ("x-note", request)]):
        assert await refused(for_itself, fields, target="/tool", host="crm.mesh") == "no_request_context"
    assert (await for_itself.call([*own(for_itself.shown), ("x-note", "x" * 43)])).status == 200


async def test_without_any_handle_a_self_route_is_closed(for_itself: OwnCalls) -> None:
    assert await refused(for_itself, [], target="/tool", host="crm.mesh") == "no_request_context"


async def test_the_token_service_s_refusal_is_recorded_as_one_of_the_workload_s_own(for_itself: OwnCalls) -> None:
    for_itself.tokens.refusal = Denied(Reason.EXCHANGE_DENIED)
    assert await refused(for_itself, bearer(for_itself.shown), target="/tool", host="crm.mesh") == "exchange_denied"
    (record,) = await for_itself.records()
    assert [record[key] for key in ("decision", "op", "subject")] == ["deny", "own", None]
