"""The token service's decisions, judged the same by their records, and otherwise under other settings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from delegation_core.revocation import Kind
from delegation_core.rfc8693 import CLIENT_CREDENTIALS
from delegation_core.spiffe_id import SpiffeId
from sidecar.explain.explanation import explain_exchange
from sidecar.explain.recorded_exchange import subject_token
from sidecar.explain.rule_names import rules_that_nearly_allow
from sidecar.sts.rules import Rule, SelfDelegation, SubjectMatch
from tests.explain.exchanges import recorded
from tests.fakes.sts import ALICE, ALL_USERS, FRONT, LOGIN, STRANGER, Mesh, login_issuer, scopes, small_policy
from tests.fakes.tokens import ABSENT, CRM, PLANNER, WRITER
from tests.sts import test_crossing as crossing
from tests.sts.test_revocations import order, register

OWN = {"grant_type": CLIENT_CREDENTIALS, "audience": CRM, "scope": "crm.read"}
Form = Callable[[Mesh], dict[str, object]]


def own_chain(mesh: Mesh) -> str:
    """Return the token of a chain that planner started for itself, at writer."""
    return mesh.own(sub=PLANNER, sub_id=ABSENT, act=ABSENT)


@pytest.mark.parametrize(
    ("form", "client", "reason", "decided_by"),
    [
        pytest.param(lambda m: m.exchange_form(), WRITER, "ok", None, id="onward"),
        pytest.param(lambda m: m.exchange_form(scope=ABSENT), WRITER, "ok", None, id="without scopes"),
        pytest.param(lambda m: m.login_form(), FRONT, "ok", None, id="a login"),
        pytest.param(lambda m: OWN, PLANNER, "ok", None, id="for itself"),
        pytest.param(lambda m: OWN, WRITER, "target_unknown", "rule", id="for itself without a rule"),
        pytest.param(
            lambda m: {**OWN, "scope": "crm.write"}, PLANNER, "scope_refused", "scopes", id="for itself with too much"
        ),
        pytest.param(
            lambda m: m.exchange_form(audience="spiffe://acme.example/x"), WRITER, "target_unknown", "target", id="x"
        ),
        pytest.param(lambda m: m.exchange_form(audience=[CRM, WRITER]), WRITER, "target_unknown", "target", id="two"),
        pytest.param(
            lambda m: m.exchange_form(subject_token=m.own(sub="bob", sub_id=ABSENT)),
            WRITER, "delegation_not_allowed", "rule", id="another user",
        ),
        pytest.param(lambda m: m.exchange_form(scope="crm.write"), WRITER, "scope_refused", "scopes", id="scopes"),
        pytest.param(
            lambda m: m.exchange_form(subject_token=m.own(scope="docs.read")),
            WRITER, "scope_refused", "scopes", id="the subject token's scopes",
        ),
        pytest.param(
            lambda m: m.exchange_form(subject_token=m.own(act={"sub": WRITER})), WRITER, "self_delegation", "chain",
            id="itself",
        ),
        pytest.param(
            lambda m: m.exchange_form(subject_token=m.own(act=ABSENT)), WRITER, "not_an_entry", "chain", id="no chain"
        ),
        pytest.param(
            lambda m: m.login_form(PLANNER), PLANNER, "not_an_entry", "who may show it", id="a login at no entry"
        ),
        pytest.param(
            lambda m: m.exchange_form(subject_token=m.own(iss="https://x.example")), WRITER, "wrong_issuer", "issuer",
            id="another issuer",
        ),
        pytest.param(
            lambda m: m.exchange_form(subject_token=m.own(exp=1)), WRITER, "token_expired",
            "signature, times and audience", id="expired",
        ),
        pytest.param(
            lambda m: m.exchange_form(subject_token=m.own(aud=CRM)), WRITER, "not_your_token",
            "signature, times and audience", id="not its own",
        ),
        pytest.param(
            lambda m: m.exchange_form(actor_token=m.svid(PLANNER)), WRITER, "actor_not_client", "actor token", id="svid"
        ),
        pytest.param(
            lambda m: m.exchange_form(actor_token=ABSENT, actor_token_type=ABSENT), WRITER, "actor_required",
            "actor token", id="no actor",
        ),
        pytest.param(
            lambda m: m.exchange_form(subject_token=m.own(may_act={"sub": CRM})), WRITER, "may_act_refused", "may_act",
            id="may_act",
        ),
        pytest.param(
            lambda m: m.exchange_form(subject_token="rubbish"), WRITER, "malformed_token", "form of the subject token",
            id="rubbish",
        ),
        pytest.param(lambda m: {"grant_type": "x"}, WRITER, "grant_not_supported", "request", id="another grant"),
    ],
)  # fmt: skip
async def test_every_decision_of_the_service_is_judged_as_it_was(
    form: Form, client: SpiffeId, reason: str, decided_by: str | None
) -> None:
    mesh = Mesh()
    record = await recorded(mesh, form(mesh), client)
    assert record.reason == reason
    explanation = explain_exchange(record, mesh.policy)
    assert explanation.judgement is not None, explanation.not_judged
    assert explanation.agrees, explanation.verdict()
    assert explanation.judgement.decided_by == decided_by
    assert explanation.judgement.judged in {reason, None}


async def test_a_revoked_token_is_the_records_word() -> None:
    mesh = Mesh()
    await register(mesh).add(order(Kind.TXN, "txn-1"))
    explanation = explain_exchange(await recorded(mesh, mesh.exchange_form()), mesh.policy)
    assert explanation.verdict() == "recorded: deny revoked; decided by: revocations, as the record says"


def saw(explanation: Any, check: str) -> str:
    (text,) = (step.saw for step in explanation.judgement.steps if step.check == check)
    return str(text)


async def test_the_rule_that_allowed_it_is_named_by_its_place_in_the_file() -> None:
    mesh = Mesh()
    explanation = explain_exchange(await recorded(mesh, mesh.exchange_form()), mesh.policy)
    assert saw(explanation, "rule") == "rules[2] with crm.read"
    assert saw(explanation, "scopes") == "asked for crm.read; issued crm.read; now crm.read for 300 s at most"
    first = explain_exchange(await recorded(mesh, mesh.login_form(), FRONT), mesh.policy)
    assert saw(first, "rule") == "rules[0] with crm.read docs.read"
    own = explain_exchange(await recorded(mesh, dict(OWN), PLANNER), mesh.policy)
    assert saw(own, "rule") == "self_rules[0] with crm.read"


async def test_a_refusal_names_the_rules_that_come_nearest() -> None:
    mesh = Mesh()
    bob = mesh.exchange_form(
        subject_token=mesh.own(sub="bob", sub_id={"format": "iss_sub", "iss": LOGIN, "sub": "bob"})
    )
    nearest = f"none for bob of {LOGIN}; at this target the client has rules[2] for alice of {LOGIN}"
    assert saw(explain_exchange(await recorded(mesh, bob), mesh.policy), "rule") == nearest
    at_planner = Rule(actor=WRITER, subjects=frozenset({ALICE}), audience=PLANNER, scopes=scopes("docs.read"))
    moved = replace(mesh.policy, rules=(at_planner,))
    refused = explain_exchange(await recorded(Mesh(policy=moved), mesh.exchange_form(scope="docs.read")), moved)
    assert refused.verdict() == "recorded: deny target_unknown; judged again: the same, decided by: target"
    token = subject_token(await recorded(mesh, mesh.exchange_form()), WRITER, mesh.policy)
    nearest = rules_that_nearly_allow(moved, WRITER, token, CRM)
    assert nearest.endswith("for this subject the client has rules[0] at spiffe://acme.example/agent/planner")


def at_crm(subject: SubjectMatch, scope: str) -> dict[str, Any]:
    return {"rules": (Rule(actor=WRITER, subjects=frozenset({subject}), audience=CRM, scopes=scopes(scope)),)}


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        pytest.param({"rules": ()}, "target_unknown, decided by: target", id="no rules"),
        pytest.param(
            at_crm(SubjectMatch(LOGIN, "bob"), "crm.read"),
            "delegation_not_allowed, decided by: rule",
            id="another user",
        ),
        pytest.param(at_crm(ALL_USERS, "crm.write"), "scope_refused, decided by: scopes", id="other scopes"),
        pytest.param({"max_depth": 2}, "act_too_deep, decided by: chain", id="a shorter chain"),
    ],
)
async def test_other_settings_are_judged_by_what_they_say(changes: dict[str, Any], verdict: str) -> None:
    mesh = Mesh()
    record = await recorded(mesh, mesh.exchange_form())
    explanation = explain_exchange(record, small_policy(**changes))
    assert not explanation.agrees
    assert f"judged again: deny {verdict}" in explanation.verdict()


async def test_a_refused_exchange_that_would_be_allowed_now_is_told() -> None:
    mesh = Mesh()
    record = await recorded(mesh, mesh.exchange_form(audience=PLANNER, scope="docs.read"))
    rule = Rule(actor=WRITER, subjects=frozenset({ALICE}), audience=PLANNER, scopes=scopes("docs.read"))
    explanation = explain_exchange(record, replace(mesh.policy, rules=(*mesh.policy.rules, rule)))
    assert "recorded: deny target_unknown; judged again: allow." in explanation.verdict()
    assert saw(explanation, "rule") == "rules[4] with docs.read"


async def test_fewer_scopes_are_a_change_although_both_are_allowed() -> None:
    mesh = Mesh()
    record = await recorded(mesh, mesh.login_form(), FRONT)
    rules = (replace(mesh.policy.rules[0], scopes=scopes("docs.read")), *mesh.policy.rules[1:])
    explanation = explain_exchange(record, replace(mesh.policy, rules=rules))
    assert explanation.verdict() == (
        "recorded: allow ok; judged again: allow, but with the scopes docs.read in place of crm.read docs.read"
    )
    assert not explanation.agrees


@pytest.mark.parametrize("allowed", [True, False])
async def test_a_workload_that_started_a_chain_for_itself_is_judged_by_its_own_rules(allowed: bool) -> None:
    rule = SelfDelegation(workload=PLANNER, actor=WRITER, audience=CRM, scopes=scopes("crm.read"))
    mesh = Mesh(policy=small_policy(self_delegations=(rule,) if allowed else ()))
    record = await recorded(mesh, mesh.exchange_form(subject_token=own_chain(mesh)))
    assert record.allowed is allowed
    explanation = explain_exchange(record, mesh.policy)
    assert explanation.agrees, explanation.verdict()
    if allowed:
        assert saw(explanation, "rule") == "self_delegations[0] with crm.read"
        assert not explain_exchange(record, small_policy()).agrees


async def test_subjects_with_a_prefix_are_found_behind_it() -> None:
    policy = small_policy(login_issuers={LOGIN: login_issuer(subject_prefix="acme:")})
    mesh = Mesh(policy=policy)
    for record in (
        await recorded(mesh, mesh.login_form(), FRONT),
        await recorded(mesh, mesh.exchange_form(subject_token=mesh.own(sub="acme:alice"))),
    ):
        assert record.subject == "acme:alice"
        assert record.allowed
        assert explain_exchange(record, policy).agrees


async def test_a_crossing_is_judged_by_its_list_its_map_and_its_rule() -> None:
    border = crossing.Border()
    form = border.form()
    record = await recorded(border, form)
    assert (record.reason, record.crossed_from) == ("ok", crossing.PARTNERS)
    explanation = explain_exchange(record, border.policy)
    assert explanation.agrees, explanation.verdict()
    assert saw(explanation, "rule") == "rules[0] with crm.read"
    nobody = small_policy()
    assert "know the foreign issuer" in explain_exchange(record, nobody).verdict()
    others = {crossing.PARTNERS: crossing.foreign(actors={PLANNER: frozenset({str(WRITER)})})}
    both = frozenset({ALL_USERS, crossing.BOB})
    rule = Rule(actor=PLANNER, subjects=both, audience=WRITER, scopes=scopes("crm.read"))
    elsewhere = crossing.policy(foreign_issuers=others, rules=(rule,))
    refused = explain_exchange(record, elsewhere)
    assert "deny delegation_not_allowed, decided by: who may show it" in refused.verdict()


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        pytest.param({"direction": "outbound"}, "the record is a sidecar's", id="a sidecar's"),
        pytest.param({"event": "request"}, "request is no exchange", id="no exchange"),
        pytest.param({"ts": "yesterday"}, "ts is not a time", id="no time"),
    ],
)
async def test_what_is_not_judged_says_why(changes: dict[str, Any], why: str) -> None:
    mesh = Mesh()
    explanation = explain_exchange(await recorded(mesh, mesh.exchange_form(), **changes), mesh.policy)
    assert explanation.judgement is None
    assert why in explanation.verdict()


async def test_an_unverified_token_proves_nothing_more_than_its_issuer() -> None:
    mesh = Mesh()
    record = await recorded(mesh, mesh.login_form(STRANGER), STRANGER)
    assert (record.reason, record.verified) == ("not_an_entry", False)
    entries = {**mesh.policy.entries, STRANGER: replace(mesh.policy.entries[FRONT], workload=STRANGER)}
    explanation = explain_exchange(record, replace(mesh.policy, entries=entries))
    assert "which nobody has verified" in explanation.verdict()
