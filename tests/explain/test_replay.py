from dataclasses import replace
from typing import Any

import pytest

from delegation_core.inbound_routes import InboundRoutes
from delegation_core.outbound_routes import OutboundRoutes
from delegation_core.policy import Deny, Policy
from delegation_core.records.reading import Record
from sidecar.explain import replay as module
from sidecar.explain.replay import Change, Replay
from tests.core.world import FRONT, NOW, PLANNER, POLICY, SEARCH, STS, STS_TRUST, TO_CRM
from tests.explain.judged import inbound, outbound

WITHOUT_TOKEN: dict[str, Any] = {
    "decision": "observed_deny", "reason": "no_token", "subject": None, "subject_iss": None, "actor": None,
    "chain": None, "audience": None, "scope": None, "jti_in": None, "parent_jti": None, "txn": None, "fp": None,
    "verified": None,
}  # fmt: skip
OUTSIDER: dict[str, Any] = {"decision": "observed_deny", "reason": "policy_denied", "peer": str(FRONT)}


def with_route(policy: Policy = POLICY, **changes: Any) -> Policy:
    return replace(policy, inbound=InboundRoutes([replace(SEARCH, **changes)]))


def replayed(*records: Record, policy: Policy = POLICY, delegated: bool = False) -> Replay:
    replay = Replay(policy, delegated=delegated)
    for record in records:
        replay.add(record)
    return replay


def changed(record: Record, policy: Policy = POLICY, *, delegated: bool = False) -> tuple[str, str] | None:
    """Return the old and the new decision of one record; None if it is the same."""
    replay = replayed(record, policy=policy, delegated=delegated)
    assert replay.judged == 1
    return next(((change.old, change.new) for change in replay.changes), None)


def test_the_same_settings_decide_the_same() -> None:
    replay = replayed(inbound(), outbound(), inbound(decision="deny", reason="no_route", path="/x", route=None))
    assert (replay.judged, replay.different, replay.changes) == (3, 0, {})


def test_calls_of_one_kind_that_are_decided_differently_are_one_change() -> None:
    policy = with_route(path="/orders", prefix=True, peers=frozenset({FRONT}))
    replay = replayed(inbound(path="/orders/1"), inbound(path="/orders/2"), inbound(path="/orders"), policy=policy)
    where = {"direction": "inbound", "route": "search", "peer": str(PLANNER), "method": "POST"}
    found = {change: (one.count, one.example) for change, one in replay.sorted()}
    assert found == {
        Change(**where, path="/orders/*", old="allow", new="deny policy_denied"): (2, "r/1"),
        Change(**where, path="/orders", old="allow", new="deny policy_denied"): (1, "r/1"),
    }
    assert replay.different == 3


@pytest.mark.parametrize(
    ("record", "policy", "change"),
    [
        pytest.param(inbound(), with_route(peers=frozenset({FRONT})), ("allow", "deny policy_denied"), id="peer"),
        pytest.param(inbound(), with_route(methods=frozenset({"GET"})), ("allow", "deny method_refused"), id="method"),
        pytest.param(inbound(), with_route(path="/other"), ("allow", "deny no_route"), id="path"),
        pytest.param(
            inbound(), with_route(scopes=frozenset({"crm.write"})), ("allow", "deny insufficient_scope"), id="scope"
        ),
        pytest.param(
            inbound(), replace(POLICY, deny=Deny(txns=frozenset({"txn-1"}))), ("allow", "deny policy_denied"), id="deny"
        ),
        pytest.param(
            inbound(decision="deny", reason="insufficient_scope"), POLICY, ("deny insufficient_scope", "allow"),
            id="opened",
        ),
        pytest.param(inbound(**WITHOUT_TOKEN), POLICY, ("observed_deny no_token", "deny no_token"), id="enforced"),
        pytest.param(
            inbound(**OUTSIDER, actor=str(FRONT), chain=[str(FRONT)]), POLICY,
            ("observed_deny policy_denied", "deny policy_denied"), id="enforced-with-a-token",
        ),
    ],
)  # fmt: skip
def test_what_other_settings_decide_differently_is_found(
    record: Record, policy: Policy, change: tuple[str, str]
) -> None:
    assert changed(record, policy) == change


@pytest.mark.parametrize(
    "record",
    [
        pytest.param(inbound(**WITHOUT_TOKEN), id="without-a-token"),
        pytest.param(inbound(**OUTSIDER, actor=str(FRONT), chain=[str(FRONT)]), id="not-on-the-route"),
        pytest.param(inbound(**WITHOUT_TOKEN | {"peer": None}), id="without-a-peer"),
    ],
)
def test_a_route_that_observes_lets_pass_what_it_relaxes(record: Record) -> None:
    assert changed(record, with_route(observe_until=NOW + 9)) is None
    assert changed(record, with_route(observe_until=NOW)) is not None


def test_a_call_that_was_allowed_and_would_be_observed_is_different() -> None:
    policy = with_route(observe_until=NOW + 9, peers=frozenset({FRONT}))
    assert changed(inbound(), policy) == ("allow", "observed_deny policy_denied")


def test_a_route_that_observes_does_not_relax_the_deny_list() -> None:
    policy = with_route(replace(POLICY, deny=Deny(actors=frozenset({PLANNER}))), observe_until=NOW + 9)
    assert changed(inbound(**WITHOUT_TOKEN), policy) == ("observed_deny no_token", "deny no_token")


@pytest.mark.parametrize(
    ("changes", "policy", "new"),
    [
        pytest.param({}, POLICY, None, id="lawful"),
        pytest.param({"peer": str(FRONT)}, POLICY, "deny policy_denied", id="peer"),
        pytest.param({"method": "GET"}, POLICY, "deny method_refused", id="method"),
        pytest.param({"path": "/search/2"}, POLICY, "deny no_route", id="path"),
        pytest.param(
            {}, replace(POLICY, issuers={STS: replace(STS_TRUST, scopes=frozenset({"x"}))}), "deny scope_above_ceiling",
            id="ceiling",
        ),
        pytest.param(
            {}, replace(POLICY, deny=Deny(actors=frozenset({PLANNER}))), "deny policy_denied", id="deny-list"
        ),
    ],
)  # fmt: skip
def test_an_observed_call_passes_once_it_carries_a_delegated_token(
    changes: dict[str, Any], policy: Policy, new: str | None
) -> None:
    record = inbound(**WITHOUT_TOKEN | changes)
    assert changed(record, policy, delegated=True) == (None if new is None else ("observed_deny no_token", new))


def test_an_observed_call_of_the_agent_is_judged_with_a_delegated_token_too() -> None:
    record = outbound(**WITHOUT_TOKEN | {"reason": "no_request_context"})
    assert changed(record, delegated=True) is None
    gone = changed(replace(record, route="other", peer=str(FRONT)), delegated=True)
    assert gone == ("observed_deny no_request_context", "deny target_denied")


def test_a_caller_without_a_name_cannot_carry_a_token_and_is_counted() -> None:
    replay = replayed(inbound(**WITHOUT_TOKEN | {"peer": None}), delegated=True)
    assert (replay.judged, dict(replay.not_judged)) == (
        0, {"the caller has proven no name, so no token could name it": 1},
    )  # fmt: skip


def test_what_cannot_be_judged_is_counted_by_its_cause_and_what_is_told_too() -> None:
    replay = replayed(
        outbound(path="/.sidecar/subject"), inbound(decision=None), inbound(decision=None),
        inbound(decision="deny", reason="bad_signature", verified=False),
    )  # fmt: skip
    assert dict(replay.not_judged) == {
        "a login was shown here, and a record does not hold its claims": 1, "there was no decision yet": 2,
    }  # fmt: skip
    assert (replay.judged, replay.told, replay.different) == (1, 1, 0)


def test_a_call_refused_by_an_order_that_no_settings_hold_is_counted_apart() -> None:
    revoked = inbound(decision="deny", reason="revoked")
    replay = replayed(revoked, revoked, inbound())
    assert (replay.judged, replay.different, list(replay.not_judged.values())) == (1, 0, [2])
    replay = replayed(revoked, policy=with_route(path="/other"))  # an earlier check refuses it now
    assert (replay.judged, replay.different, list(replay.not_judged)) == (1, 1, [])


def test_no_text_of_a_record_reaches_the_result_as_it_is() -> None:
    token = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJhbGljZSJ9.c2lnbmF0dXJlLXNpZ25hdHVyZQ"
    record = inbound(path=f"/{token}", route="a\x1b[2J", method="x" * 9000)
    (change,) = replayed(record).changes
    assert token not in repr(change)
    assert change.route == "a\\u{1b}[2J"
    assert all(len(str(text)) <= 2048 for text in change)


def test_the_number_of_changes_is_bounded_and_what_is_beyond_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_CHANGES", 2)
    replay = replayed(*(inbound(path=f"/{name}") for name in "abcda"))
    assert (len(replay.changes), replay.beyond, replay.different) == (2, 2, 5)
    assert [one.count for _, one in replay.sorted()] == [2, 1]


@pytest.mark.parametrize("reason", ["no_request_context", "not_an_entry"])
def test_a_call_of_the_agent_passes_while_its_route_observes(reason: str) -> None:
    record = outbound(**WITHOUT_TOKEN | {"reason": reason})
    enforcing = replace(POLICY, entry=None)
    policy = replace(enforcing, outbound=OutboundRoutes([replace(TO_CRM, observe_until=NOW + 9)]))
    assert changed(record, policy) is None
    assert changed(record, enforcing) == (f"observed_deny {reason}", f"deny {reason}")
