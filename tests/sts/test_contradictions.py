from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from delegation_core.errors import ConfigError
from sidecar.sts.contradictions import is_issuer_url
from sidecar.sts.rules import ANYONE, EntryWorkload, Rule, SelfDelegation, SelfRule, SubjectMatch, Target
from tests.fakes.sts import ALL_USERS, FRONT, LOGIN, OTHER_LOGIN, login_issuer, scopes, small_policy
from tests.fakes.tokens import CRM, ISSUER, PLANNER, WRITER

TARGETS = small_policy().targets
ONWARD = SelfDelegation(workload=PLANNER, actor=WRITER, audience=CRM, scopes=scopes("crm.read"))


def rule(**changes: Any) -> Rule:
    lawful = {"actor": WRITER, "subjects": frozenset({ALL_USERS}), "audience": CRM, "scopes": scopes("crm.read")}
    return Rule(**{**lawful, **changes})


def entry(**changes: Any) -> dict[str, Any]:
    return {"entries": {FRONT: EntryWorkload(**{"workload": FRONT, "client_ids": {LOGIN: "app"}, **changes})}}


def target(*audiences: str, **changes: Any) -> dict[str, Any]:
    extra = Target(workload=FRONT, audiences=frozenset(audiences), scopes=changes.get("scopes", scopes("a.b")))
    return {"targets": (*TARGETS, extra)}


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        pytest.param({"issuer": "http://sts.acme.example"}, "issuer", id="issuer in the clear"),
        pytest.param({"issuer": ISSUER + "?x=1"}, "issuer", id="issuer with a query"),
        pytest.param({"token_life_s": 0}, "token_life_s", id="no life"),
        pytest.param({"token_life_s": 3601}, "token_life_s", id="a long life"),
        pytest.param({"max_depth": 0}, "max_depth", id="no actor"),
        pytest.param({"max_depth": 9}, "max_depth", id="more actors than anybody reads"),
        pytest.param({"targets": (*TARGETS, TARGETS[0])}, "targets", id="one name, two targets"),
        pytest.param(target(""), "targets[3].audiences", id="an empty audience"),
        pytest.param(target("a\nb"), "targets[3].audiences", id="a line in an audience"),
        pytest.param(target("spiffe://acme.example/other"), "targets[3].audiences", id="another's SPIFFE ID"),
        pytest.param(target(ISSUER), "targets[3].audiences", id="this service as a target"),
        pytest.param(target(scopes=frozenset({"a b"})), "targets[3].scopes", id="two scopes as one"),
        pytest.param(target(scopes=frozenset({""})), "targets[3].scopes", id="an empty scope"),
        pytest.param({"rules": (rule(), rule(audience=FRONT))}, "rules[1].audience", id="a rule for no target"),
        pytest.param({"rules": (rule(scopes=scopes("x")),)}, "rules[0].scopes", id="a rule for no scope of the target"),
        pytest.param(
            {"rules": (rule(subjects=frozenset({SubjectMatch(OTHER_LOGIN, ANYONE)})),)},
            "rules[0].subjects",
            id="subjects of an unknown issuer",
        ),
        pytest.param(
            {"self_delegations": (replace(ONWARD, actor=PLANNER),)}, "self_delegations[0].actor", id="acts for itself"
        ),
        pytest.param(
            {"self_delegations": (replace(ONWARD, audience=FRONT),)}, "self_delegations[0].audience", id="no target"
        ),
        pytest.param(
            {"self_delegations": (replace(ONWARD, scopes=scopes("x")),)}, "self_delegations[0].scopes", id="no scope"
        ),
        pytest.param(
            {"self_rules": (SelfRule(workload=PLANNER, audience=FRONT, scopes=scopes("crm.read")),)},
            "self_rules[0].audience",
            id="own authority at no target",
        ),
        pytest.param(
            {"self_rules": (SelfRule(workload=PLANNER, audience=CRM, scopes=scopes("x")),)},
            "self_rules[0].scopes",
            id="own authority over no scope of the target",
        ),
        pytest.param(
            {
                "login_issuers": {
                    LOGIN: login_issuer(subject_prefix="a:"),
                    OTHER_LOGIN: login_issuer(subject_prefix="b:"),
                }
            },
            f"login_issuers.{OTHER_LOGIN}",
            id="an issuer under another name",
        ),
        pytest.param(
            {
                "login_issuers": {
                    LOGIN: login_issuer(subject_prefix="a:"),
                    ISSUER: login_issuer(ISSUER, subject_prefix="b:"),
                }
            },
            f"login_issuers.{ISSUER}",
            id="users who log in at this service",
        ),
        pytest.param(
            {"login_issuers": {LOGIN: login_issuer(subject_prefix="Spiffe:")}},
            f"login_issuers.{LOGIN}.subject_prefix",
            id="users named like workloads",
        ),
        pytest.param(
            {"login_issuers": {LOGIN: login_issuer(), OTHER_LOGIN: login_issuer(OTHER_LOGIN, subject_prefix="x")}},
            "login_issuers",
            id="one prefix starts another",
        ),
        pytest.param(
            {
                "login_issuers": {
                    LOGIN: login_issuer(subject_prefix="x"),
                    OTHER_LOGIN: login_issuer(OTHER_LOGIN, subject_prefix="x"),
                }
            },
            "login_issuers",
            id="one prefix twice",
        ),
        pytest.param(entry(workload=PLANNER), f"entries.{FRONT}", id="an entry under another name"),
        pytest.param(
            entry(client_ids={OTHER_LOGIN: "app"}), f"entries.{FRONT}.client_ids", id="logins from an unknown issuer"
        ),
        pytest.param(entry(client_ids={LOGIN: ""}), f"entries.{FRONT}.client_ids", id="no client id"),
        pytest.param(entry(delegation_life_s=0), f"entries.{FRONT}.delegation_life_s", id="no delegation life"),
        pytest.param(entry(delegation_life_s=86_401), f"entries.{FRONT}.delegation_life_s", id="more than a day"),
        pytest.param(entry(first_token_life_s=0), f"entries.{FRONT}.first_token_life_s", id="no first life"),
        pytest.param(
            entry(first_token_life_s=3601), f"entries.{FRONT}.first_token_life_s", id="beyond an hour, no ceiling"
        ),
        pytest.param(
            entry(delegation_life_s=60, first_token_life_s=61),
            f"entries.{FRONT}.first_token_life_s",
            id="a first life beyond the ceiling",
        ),
        pytest.param(entry(long_runs={CRM: 3601}), f"entries.{FRONT}.long_runs.{CRM}", id="a long run beyond it"),
        pytest.param(
            entry(long_runs={"https://else.example": 60}), f"entries.{FRONT}.long_runs", id="a long run to nowhere"
        ),
    ],
)
def test_a_contradiction_is_refused_and_named(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(ConfigError) as refused:
        small_policy(**changes)
    assert [problem.field for problem in refused.value.problems] == [field]


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"token_life_s": 3600, "max_depth": 1}, id="the limits themselves"),
        pytest.param({"targets": (), "rules": (), "self_rules": ()}, id="nobody may do anything"),
        pytest.param(
            {
                "login_issuers": {
                    LOGIN: login_issuer(subject_prefix="a:"),
                    OTHER_LOGIN: login_issuer(OTHER_LOGIN, subject_prefix="b:"),
                }
            },
            id="two prefixes",
        ),
        pytest.param(
            {"rules": (rule(subjects=frozenset({SubjectMatch(ANYONE, ANYONE)})),)}, id="anyone, in so many words"
        ),
        pytest.param(entry(delegation_life_s=86_400), id="a day"),
        pytest.param(entry(delegation_life_s=1, first_token_life_s=1), id="lives of a second"),
        pytest.param(entry(delegation_life_s=60), id="a ceiling below the default of first tokens"),
        pytest.param(entry(delegation_life_s=7200, first_token_life_s=900, long_runs={CRM: 7200}), id="a long run"),
        pytest.param(target("https://front.acme.example"), id="another target"),
    ],
)
def test_a_policy_without_contradiction_is_taken(changes: dict[str, Any]) -> None:
    assert small_policy(**changes).issuer == ISSUER


def test_every_contradiction_is_told_at_once() -> None:
    with pytest.raises(ConfigError) as refused:
        small_policy(issuer="sts", token_life_s=0, rules=(rule(audience="nowhere"),))
    assert len(refused.value.problems) == 3


@pytest.mark.parametrize(
    ("url", "usable"),
    [
        ("https://sts.acme.example", True),
        ("https://sts.acme.example:8443/t1", True),
        ("http://127.0.0.1:9000", True),
        ("http://[::1]:9000", True),
        ("http://localhost", True),
        ("ftp://localhost", False),
        ("http://127.0.0.1.evil.example", False),
        ("https://sts.acme.example?", False),
        ("https://sts.acme.example#", False),
        ("https://user@sts.acme.example", False),
        ("https://", False),
        ("https://[::1", False),
        ("spiffe://acme.example/sts", False),
        ("", False),
    ],
)
def test_an_issuer_is_an_https_url_or_on_loopback(url: str, usable: bool) -> None:
    assert is_issuer_url(url) is usable
