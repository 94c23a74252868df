import json
from collections.abc import Callable
from typing import Any

import pytest

from sidecar.audit.records import Record, parse_record
from sidecar.audit.tokens import Tokens, issue_findings, token_of
from sidecar.observe.record_text import CUT
from tests.audit.evidence import FRONT, PLANNER, STS, WRITER, Evidence, audit, lawful, record
from tests.counting import growth

IDP = "https://login.acme.example"


def told(name: str, **changes: Any) -> Record:
    return parse_record(json.dumps({**lawful()[name], "seq": 1, **changes}).encode())


def kinds(evidence: Evidence) -> list[str]:
    return [finding.kind for finding in audit(evidence).findings]


@pytest.mark.parametrize(
    ("record", "jti"),
    [
        pytest.param(told("callee3"), "j3", id="inbound-the-one-that-came"),
        pytest.param(told("callee3", decision="deny"), "j3", id="inbound-refused"),
        pytest.param(told("caller3"), "j3", id="outbound-the-one-that-was-issued"),
        pytest.param(told("caller3", decision="deny"), "j2", id="outbound-refused-the-one-it-rests-on"),
        pytest.param(told("issued3"), "j3", id="the-token-service-the-one-it-issued"),
        pytest.param(told("callee3", verified=False), None, id="not-verified"),
        pytest.param(told("callee3", verified=None), None, id="not-said-to-be-verified"),
        pytest.param(told("callee3", jti_in=None), None, id="without-a-name"),
        pytest.param(told("callee3", subject=None), None, id="without-a-subject"),
        pytest.param(told("callee3", subject_iss=None), None, id="without-an-issuer"),
        pytest.param(told("issued3", event="token.exchange_refused"), None, id="a-refused-exchange-mixes-two"),
    ],
)
def test_a_record_tells_of_one_token(record: Record, jti: str | None) -> None:
    token = token_of(record)
    assert (token and token.jti) == jti


def test_a_token_without_scope_holds_none() -> None:
    token = token_of(told("callee3", scope=None))
    assert token is not None
    assert token.scope == frozenset()


def login(**changes: Any) -> dict[str, Any]:
    """Return the record of a refused call at the entry, with the login token."""
    return record(
        event="request", ts="2026-11-24T21:04:00.000000Z", run=FRONT, workload=FRONT, direction="outbound",
        decision="deny", reason="call_not_allowed", verified=True, subject="alice", subject_iss=IDP, jti_in="j0",
        scope=["openid"], **changes,
    )  # fmt: skip


def test_what_becomes_of_a_login_token_is_the_token_services_policy() -> None:
    result = audit({**lawful(), "login": login()})
    assert result.findings == ()
    assert result.outside == {"call_not_allowed": 1}


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
    assert kinds(evidence) == ["refused_hop"]


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


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        pytest.param({}, [], id="lawful"),
        pytest.param({"chain": [PLANNER, FRONT]}, ["chain_broken"], id="another-actor"),
        pytest.param({"chain": ["a-uuid"]}, [], id="an-actor-by-another-kind-of-name"),
        pytest.param({"chain": None}, [], id="a-token-for-itself"),
        pytest.param({"peer": None}, [], id="a-client-that-is-not-told"),
        pytest.param({"scope": ["all"]}, ["scope_widened"], id="more-than-asked"),
        pytest.param({"scope": ["all"], "scope_needed": None}, [], id="nothing-was-asked-for"),
        pytest.param({"scope": ["all", f"{CUT}2 more"]}, [], id="cut"),
        pytest.param({"scope": None}, [], id="nothing-granted"),
    ],
)
def test_an_issue_is_judged_by_itself(changes: dict[str, Any], expected: list[str]) -> None:
    assert [finding.kind for finding in issue_findings(told("issued3", **changes))] == expected


@pytest.mark.parametrize(
    ("links", "of", "expected"),
    [
        pytest.param({"a": None}, "a", "jti:a", id="the-first"),
        pytest.param({"b": "a", "a": None}, "b", "jti:a", id="from-the-first"),
        pytest.param({"c": "b"}, "c", "jti:b", id="from-one-that-nobody-tells-of"),
        pytest.param({"a": "login"}, "a", "jti:a", id="the-first-has-a-login-before-it"),
        pytest.param({"b": "c", "c": "b"}, "b", "jti:b", id="a-circle-ends"),
    ],
)
def test_without_txn_a_chain_is_named_by_the_token_that_leads_to_it(
    links: dict[str, str | None], of: str, expected: str
) -> None:
    tokens = Tokens()
    for jti, parent in links.items():
        chain = [FRONT] if jti == "a" else [PLANNER, FRONT]
        token = token_of(told("callee3", jti_in=jti, parent_jti=parent, txn=None, chain=chain))
        assert token is not None
        tokens.add(token)
    found = tokens.get((STS, of))
    assert found is not None
    assert tokens.chain_of(found) == expected
    assert tokens.get(None) is None


def test_a_line_of_twice_as_many_tokens_is_named_with_twice_the_work() -> None:
    """No lawful chain is this long, but a forger can write records that are slow to read."""

    def naming_of(length: int) -> Callable[[], object]:
        line = []
        for number in range(length):
            parent = f"j{number - 1}" if number else None
            token = token_of(told("callee3", txn=None, jti_in=f"j{number}", parent_jti=parent))
            assert token is not None
            line.append(token)

        def name() -> None:
            tokens = Tokens()
            for token in line:
                tokens.add(token)
            assert len({tokens.chain_of(token) for token in tokens}) == 1

        return name

    assert growth(naming_of, 200) < 2.2
