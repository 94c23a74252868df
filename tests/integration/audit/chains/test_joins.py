import functools
import json
import re
from typing import Any

import pytest

from delegation_audit.chains.database import Block, open_database
from delegation_audit.chains.findings import Kind
from delegation_core.records.record_text import CUT
from tests.audit.chains.evidence import audit, findings_of_each, read
from tests.audit.evidence import FRONT, PLANNER, WRITER, Evidence, lawful, record

pytestmark = pytest.mark.integration

IDP = "https://login.acme.example"


def kinds(evidence: Evidence) -> list[str]:
    return [finding.kind for finding in audit(evidence).findings]


TOLD: list[Any] = [
    pytest.param("callee3", {}, "j3", id="inbound-the-one-that-came"),
    pytest.param("callee3", {"decision": "deny"}, "j3", id="inbound-refused"),
    pytest.param("caller3", {}, "j3", id="outbound-the-one-that-was-issued"),
    pytest.param("caller3", {"decision": "deny"}, "j2", id="outbound-refused-the-one-it-rests-on"),
    pytest.param("caller3", {"decision": "deny", "decide_ms": 0.25}, "j3", id="outbound-ended-later"),
    pytest.param("issued3", {}, "j3", id="the-token-service-the-one-it-issued"),
    pytest.param("callee3", {"verified": False}, None, id="not-verified"),
    pytest.param("callee3", {"verified": None}, None, id="not-said-to-be-verified"),
    pytest.param("callee3", {"jti_in": None}, None, id="without-a-name"),
    pytest.param("callee3", {"subject": None}, None, id="without-a-subject"),
    pytest.param("callee3", {"subject_iss": None}, None, id="without-an-issuer"),
    pytest.param("issued3", {"event": "token.exchange_refused"}, None, id="a-refused-exchange-mixes-two"),
]


@functools.cache
def jtis() -> list[str | None]:
    """Return the token that each of these records tells of."""
    told = [{**lawful()[case.values[0]], **case.values[1]} for case in TOLD]
    with open_database(threads=1) as database:
        database.read([Block(0, "\n".join(map(json.dumps, read(told))).encode())])
        return [
            None if jti is None else json.loads(jti)
            for (jti,) in database.rows("SELECT jti FROM records ORDER BY place")
        ]


@pytest.mark.parametrize(
    ("number", "jti"), [pytest.param(n, case.values[2], id=case.id) for n, case in enumerate(TOLD)]
)
def test_a_record_tells_of_one_token(number: int, jti: str | None) -> None:
    assert jtis()[number] == jti


def login(**changes: Any) -> dict[str, Any]:
    """Return the record of a refused call at the entry, with the login token."""
    return record(
        event="request", ts="2026-11-24T21:04:00.000000Z", run=FRONT, workload=FRONT, direction="outbound",
        decision="deny", reason="policy_denied", verified=True, subject="alice", subject_iss=IDP, jti_in="j0",
        scope=["openid"], **changes,
    )  # fmt: skip


def test_what_becomes_of_a_login_token_is_the_token_services_policy() -> None:
    result = audit({**lawful(), "login": login()})
    assert result.findings == ()
    assert result.outside == {"policy_denied": 1}


def test_a_login_token_gives_no_chain_of_two() -> None:
    evidence = {**lawful(), "login": login()}
    for one in ("issued1", "exchanged1", "caller1", "callee1"):
        evidence[one]["chain"] = [FRONT, PLANNER]
    assert "chain_broken" in kinds(evidence)


def test_a_chain_that_begins_anew_in_the_middle_is_broken() -> None:
    evidence = lawful()
    for one in ("issued3", "exchanged3", "caller3", "callee3"):
        evidence[one]["chain"] = [WRITER]
    assert kinds(evidence) == ["chain_broken"]


def test_a_txn_may_be_minted_where_there_was_none_and_may_not_change() -> None:
    for txn, expected in ((None, False), ("t9", True)):
        evidence = lawful()
        for one in ("issued1", "exchanged1", "caller1", "callee1"):
            evidence[one]["txn"] = txn
        shown = [finding.text for finding in audit(evidence).findings]
        assert any("token j2 came from j1, a token of chain t9" in text for text in shown) is expected


@pytest.mark.parametrize(
    ("hop", "scope", "expected"),
    [
        pytest.param("3", ["s"], ["scope_widened"], id="whole"),
        pytest.param("3", ["s", f"{CUT}9 more"], [], id="the-token-is-cut"),
        pytest.param("2", ["s", f"{CUT}9 more"], [], id="the-one-it-came-from-is-cut"),
    ],
)
def test_scopes_that_were_cut_are_not_compared(hop: str, scope: list[str], expected: list[str]) -> None:
    evidence = lawful()
    for name in ("issued", "exchanged", "caller", "callee"):
        evidence[f"{name}{hop}"].update(scope=scope, scope_needed=None)
    assert kinds(evidence) == expected


def test_the_same_jti_by_two_issuers_is_two_tokens() -> None:
    evidence = {**lawful(), "other": {**lawful()["callee2"], "subject_iss": IDP, "chain": None, "call_in": None}}
    evidence["other"].update(decision="deny", reason="act_missing", txn=None, fp="x", parent_jti=None, run="x")
    assert kinds(evidence) == ["refused_hop", "impersonation"]


def test_a_parent_by_another_issuer_is_a_splice() -> None:
    evidence = lawful()
    for one in ("issued2", "exchanged2", "caller2", "callee2"):
        evidence[one].update(subject_iss=IDP)
    assert kinds(evidence) == ["splice", "splice"]


def test_a_foreign_token_service_may_leave_out_parent_jti() -> None:
    evidence = lawful()
    for hop in (1, 2, 3):
        evidence[f"callee{hop}"]["parent_jti"] = None
    assert kinds(evidence) == []
    evidence["callee3"]["parent_jti"] = "j1"
    assert kinds(evidence) == ["witnesses_disagree"]


ISSUES: list[Any] = [
    pytest.param({}, [], id="lawful"),
    pytest.param({"chain": [PLANNER]}, ["chain_broken"], id="another-actor"),
    pytest.param({"chain": ["a-uuid"]}, [], id="an-actor-by-another-kind-of-name"),
    pytest.param({"chain": None}, [], id="a-token-for-itself"),
    pytest.param({"peer": None}, [], id="a-client-that-is-not-told"),
    pytest.param({"scope": ["all"]}, ["scope_widened"], id="more-than-asked"),
    pytest.param({"scope": ["all"], "scope_needed": None}, [], id="nothing-was-asked-for"),
    pytest.param({"scope": ["all", f"{CUT}2 more"]}, [], id="cut"),
    pytest.param({"scope": None}, [], id="nothing-granted"),
]


@functools.cache
def found_in_issues() -> list[set[Kind]]:
    cases = [{"issued1": {**lawful()["issued1"], **case.values[0]}} for case in ISSUES]
    return [
        {finding.kind for finding in case} & {Kind.CHAIN_BROKEN, Kind.SCOPE_WIDENED} for case in findings_of_each(cases)
    ]


@pytest.mark.parametrize(
    ("number", "expected"), [pytest.param(n, case.values[1], id=case.id) for n, case in enumerate(ISSUES)]
)
def test_an_issue_is_judged_by_itself(number: int, expected: list[str]) -> None:
    assert found_in_issues()[number] == set(expected)


LINKS: list[Any] = [
    pytest.param({"a": None}, "a", "jti:a", id="the-first"),
    pytest.param({"b": "a", "a": None}, "b", "jti:a", id="from-the-first"),
    pytest.param({"c": "b"}, "c", "jti:b", id="from-one-that-nobody-tells-of"),
    pytest.param({"a": "login"}, "a", "jti:a", id="the-first-has-a-login-before-it"),
    pytest.param({"b": "c", "c": "b"}, "b", "jti:b", id="a-circle-ends"),
]


@functools.cache
def chains_of_links() -> dict[str, str]:
    """Return the chain of each token, of all these sets in one database."""
    told = []
    for number, case in enumerate(LINKS):
        for jti, parent in case.values[0].items():
            chain = [FRONT] if jti == "a" else [PLANNER, FRONT]
            members = {"txn": None, "chain": chain, "call_in": f"{number}{jti}", "jti_in": f"{number}{jti}"}
            members["parent_jti"] = None if parent is None else f"{number}{parent}"
            told.append({**lawful()["callee3"], **members})
    with open_database(threads=1) as database:
        database.read([Block(0, "\n".join(map(json.dumps, read(told))).encode())])
        database.judge()
        rows = database.rows("SELECT c.jti, w.chain FROM claims AS c JOIN way AS w ON w.token = c.token")
    return {json.loads(jti): re.sub(r"\d", "", json.loads(chain)) for jti, chain in rows}


@pytest.mark.parametrize(
    ("number", "of", "expected"), [pytest.param(n, *case.values[1:], id=case.id) for n, case in enumerate(LINKS)]
)
def test_without_txn_a_chain_is_named_by_the_token_that_leads_to_it(number: int, of: str, expected: str) -> None:
    assert chains_of_links()[f"{number}{of}"] == expected


def test_a_line_of_thousands_of_tokens_is_one_chain() -> None:
    """No lawful chain is this long, but a forger can write records that are slow to read."""
    line = [
        {**lawful()["callee3"], "txn": None, "jti_in": f"j{number}", "call_in": f"c{number}",
         "parent_jti": f"j{number - 1}" if number else None}
        for number in range(3000)
    ]  # fmt: skip
    with open_database(threads=1) as database:
        database.read([Block(0, "\n".join(map(json.dumps, read(line))).encode())])
        database.judge()
        assert database.rows("SELECT count(DISTINCT chain), count(*) FROM way") == [(1, 3000)]
