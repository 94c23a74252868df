import functools
import json
import random
from pathlib import Path
from typing import Any

import pytest

from delegation_audit.chains.examination import Audit
from delegation_audit.chains.findings import Finding, Kind
from tests.audit.chains.evidence import audit, findings_of_each, read, rebuild
from tests.audit.evidence import CRM, FRONT, PLANNER, STS, WRITER, Change, Evidence, lawful, record

pytestmark = pytest.mark.integration

RECORDED = Path(__file__).parents[3] / "audit" / "recorded"


def set_to(names: str, **changes: object) -> Change:
    def change(told: Evidence) -> None:
        for name in names.split():
            told[name].update(changes)

    return change


def without(*names: str) -> Change:
    def change(told: Evidence) -> None:
        for name in names:
            del told[name]

    return change


def refused(name: str, *others: str, **changes: object) -> Change:
    def change(told: Evidence) -> None:
        told[name].update(decision="deny", status=403, upstream_status=None, **changes)
        for other in others:
            del told[other]

    return change


def all_of(*changes: Change) -> Change:
    def change(told: Evidence) -> None:
        for one in changes:
            one(told)

    return change


def crossing(subject: str = "p:alice", saying: str = "issued3 exchanged3 caller3", came_from: str = STS) -> Change:
    """Let the last token be of another issuer, whose records name the one that it came from."""
    beyond = {"subject_iss": "https://sts.partner.example", "subject": subject, "scope": ["partner.read"]}
    return all_of(
        set_to("issued3 exchanged3 caller3 callee3", **beyond),
        set_to("issued3 exchanged3 caller3", scope_needed=["partner.read"]),
        set_to(saying, crossed_from=came_from),
    )


STRANGER = "spiffe://acme.example/agent/stranger"
TOKEN_3 = "issued3 exchanged3 caller3 callee3"
TOKEN_2: dict[str, Any] = {"chain": [PLANNER, FRONT], "scope": ["crm.read", "docs.write"], "fp": "fp2"}


def kinds(*evidence: Evidence) -> list[str]:
    return [finding.kind for finding in audit(*evidence).findings]


def test_a_chain_that_all_its_witnesses_tell_alike_has_no_findings() -> None:
    told = audit(lawful())
    assert told.findings == ()
    assert [(chain.name, chain.subjects) for chain in told.chains] == [("t1", ((STS, "alice"),))]
    hops = [(depth, hop.actor, hop.audience, hop.call) for depth, hop in told.chains[0].hops]
    assert hops == [(0, FRONT, PLANNER, "c1"), (1, PLANNER, WRITER, "c2"), (2, WRITER, CRM, "c3")]
    assert all(len(hop.records) == 4 for _, hop in told.chains[0].hops)


def test_two_chains_do_not_mix_although_they_share_every_workload_and_trace() -> None:
    told = audit(lawful(), lawful(txn="t2", subject="bob", prefix="b"))
    assert told.findings == ()
    assert sorted((chain.name, len(chain.hops)) for chain in told.chains) == [("t1", 3), ("t2", 3)]


def test_the_order_of_records_and_files_changes_nothing() -> None:
    told = read([*lawful().values(), *lawful(txn="t2", prefix="b").values()])
    whole = shape(rebuild(told))
    for seed in range(3):
        assert shape(rebuild(random.Random(seed).sample(told, len(told)))) == whole


def shape(result: Audit) -> object:
    assert result.findings == ()
    return [(c.name, [(d, h.call) for d, h in c.hops]) for c in result.chains]


CASES: list[Any] = [
    pytest.param(without("caller3"), ["missing_witness"], id="the-caller-is-silent"),
    pytest.param(without("callee3"), ["missing_witness"], id="the-callee-is-silent-and-answered"),
    pytest.param(without("callee2"), ["missing_witness"], id="the-callee-is-silent-and-called-on"),
    pytest.param(without("issued3"), ["missing_witness"], id="the-token-service-is-silent"),
    pytest.param(without("exchanged3"), [], id="the-callers-own-word-of-the-exchange-is-an-extra"),
    pytest.param(without("caller3", "callee3", "exchanged3"), ["missing_witness"], id="issued-to-no-sidecar"),
    pytest.param(without("caller3", "callee3"), [], id="issued-and-never-used"),
    pytest.param(
        all_of(without("callee3"), set_to("caller3", upstream_status=None, reason="upstream_unreachable")),
        [],
        id="the-callee-was-never-reached",
    ),
    pytest.param(
        all_of(without("callee3"), set_to("caller3", peer=None)), [], id="the-callee-is-no-workload-of-the-mesh"
    ),
    pytest.param(
        without("issued2", "exchanged2", "caller2", "callee2"), ["missing_hop"], id="a-hop-in-the-middle"
    ),
    pytest.param(without("issued1", "exchanged1", "caller1", "callee1"), ["missing_hop"], id="the-first-hop"),
    pytest.param(
        without(*(f"{w}{h}" for h in (1, 2) for w in ("issued", "exchanged", "caller", "callee"))),
        ["missing_hop", "missing_hop"],
        id="two-hops",
    ),
    pytest.param(set_to(TOKEN_3, txn="t9"), ["missing_hop", "missing_hop", "splice", "splice"], id="another-txn"),
    pytest.param(set_to(TOKEN_3, subject="mallory"), ["splice"], id="another-subject"),
    pytest.param(crossing(), [], id="a-crossing"),
    pytest.param(crossing(saying="caller3"), ["splice", "scope_widened"], id="a-crossing-its-token-service-knows-not"),
    pytest.param(crossing(saying="issued3"), ["splice", "scope_widened"], id="a-crossing-its-caller-knows-not"),
    pytest.param(crossing(came_from="https://x"), ["splice", "scope_widened"], id="a-crossing-from-elsewhere"),
    pytest.param(crossing("alice"), ["splice"], id="a-crossing-without-a-prefix"),
    pytest.param(crossing("p:mallory"), ["splice"], id="a-crossing-to-another-subject"),
    pytest.param(all_of(crossing(), set_to(TOKEN_3, txn="t9")), ["missing_hop", "missing_hop", "splice", "splice"],
        id="a-crossing-to-another-txn"),
    pytest.param(set_to(TOKEN_3, scope=["crm.export"]), ["scope_widened"] * 3, id="wider-than-parent-and-asked"),
    pytest.param(
        set_to(TOKEN_3, scope=["crm.read", "docs.write"], scope_needed=None), [], id="narrower-is-no-duty"
    ),
    pytest.param(
        set_to(TOKEN_3, scope=["crm.read", "docs.write"]), ["scope_widened"] * 2, id="wider-than-asked-alone"
    ),
    pytest.param(
        set_to(TOKEN_3, scope=["crm.export"], scope_needed=None), ["scope_widened"], id="wider-than-parent-alone"
    ),
    pytest.param(set_to(TOKEN_3, chain=[WRITER, FRONT]), ["chain_broken"], id="an-actor-dropped"),
    pytest.param(
        set_to(TOKEN_3, chain=[WRITER, FRONT, PLANNER]), ["missing_hop", "missing_hop", "chain_broken"],
        id="actors-reordered",
    ),
    pytest.param(
        set_to(TOKEN_3, chain=[CRM, PLANNER, FRONT], actor=CRM),
        ["chain_broken", "chain_broken", "actor_not_peer"],
        id="another-actor-than-who-asked",
    ),
    pytest.param(set_to(TOKEN_3, chain=None, actor=None), ["chain_broken", "actor_not_peer"], id="no-actor-at-all"),
    pytest.param(set_to("callee3", subject="bob"), ["witnesses_disagree"], id="the-callee-names-another-subject"),
    pytest.param(set_to("issued3", fp="other"), ["witnesses_disagree"], id="the-service-issued-another-token"),
    pytest.param(
        set_to("callee3", jti_in="j2", parent_jti="j1", audience=WRITER, actor=PLANNER, **TOKEN_2),
        ["splice", "actor_not_peer", "token_at_two_peers"],
        id="a-call-that-changes-its-token",
    ),
    pytest.param(set_to("callee3", peer=PLANNER), ["witnesses_disagree", "actor_not_peer"], id="another-caller"),
    pytest.param(set_to("caller3", peer=PLANNER), ["witnesses_disagree"], id="sent-to-another-callee"),
    pytest.param(set_to("callee3", workload=PLANNER), ["witnesses_disagree"], id="arrived-at-another-callee"),
    pytest.param(set_to("caller3", jti_in="j1"), ["splice", "splice"], id="made-with-another-requests-token"),
    pytest.param(set_to("caller3", call_in="c1"), ["splice", "splice"], id="made-for-another-request"),
    pytest.param(set_to("caller3", call_in="c9"), ["missing_hop"], id="made-for-a-request-that-nobody-tells-of"),
    pytest.param(
        all_of(
            set_to("issued2 exchanged2 caller2 callee2", chain=["a-uuid", FRONT]),
            set_to(TOKEN_3, chain=[WRITER, "a-uuid", FRONT]),
            set_to("caller2", actor="a-uuid"),
        ),
        [],
        id="an-actor-whose-name-is-mapped-is-no-other-actor",
    ),
    pytest.param(set_to("caller2", actor=FRONT), ["witnesses_disagree"], id="an-actor-that-one-witness-changed"),
    pytest.param(set_to("caller2", actor=None), ["witnesses_disagree"], id="an-actor-that-one-witness-removed"),
    pytest.param(set_to("callee3", chain_depth=2), ["witnesses_disagree"], id="a-depth-that-one-witness-changed"),
    pytest.param(set_to("callee3", path="/y"), ["witnesses_disagree"], id="a-path-that-one-witness-changed"),
    pytest.param(set_to("caller3", path="/crm/x"), [], id="a-path-whose-prefix-the-route-took-off"),
    pytest.param(set_to("caller3 callee3", path="/y"), [], id="a-path-that-both-tell"),
    pytest.param(
        all_of(set_to(TOKEN_3, chain=[STRANGER, PLANNER, FRONT], actor=STRANGER), without("issued3", "exchanged3")),
        ["missing_witness", "actor_not_peer", "actor_never_attested"],
        id="an-actor-that-nobody-saw",
    ),
    pytest.param(
        all_of(set_to(TOKEN_3, chain=[STRANGER, PLANNER, FRONT], actor=STRANGER), set_to("callee3", peer=STRANGER),
               without("caller3", "issued3", "exchanged3")),
        ["missing_hop", "missing_witness", "missing_witness"],
        id="an-actor-that-the-callee-saw",
    ),
    pytest.param(
        all_of(refused("callee3", reason="insufficient_scope"), set_to("caller3", status=403, upstream_status=403)),
        ["refused_hop"],
        id="refused-by-the-callee",
    ),
    pytest.param(
        set_to("caller3 callee3", decision="deny", reason="revoked", decide_ms=0.25), [], id="ended-by-both-later",
    ),
    pytest.param(
        set_to("callee3", decision="deny", reason="actor_mismatch", decide_ms=0.25), [], id="ended-by-the-callee-alone"
    ),
    pytest.param(
        set_to("caller3", decision="deny", reason="call_not_allowed", decide_ms=3), [], id="ended-by-the-caller-alone",
    ),
    pytest.param(
        set_to("callee3", decision="deny", reason="revoked", decide_ms=1, status=403, upstream_status=None), [],
        id="ended-before-its-answer",
    ),
    pytest.param(
        set_to("callee3", decision="deny", reason="revoked", decide_ms=1, status=403), ["refused_hop"],
        id="refused-whatever-its-times",
    ),
    pytest.param(
        set_to("callee3", decision="deny", reason="revoked", decide_ms=None), ["refused_hop"], id="refused-at-once"
    ),
    pytest.param(
        set_to("callee3", decision="observed_deny", reason="insufficient_scope"),
        ["observed_hop"],
        id="observed-by-the-callee",
    ),
    pytest.param(
        refused("callee3", "caller3", "issued3", "exchanged3", reason="actor_mismatch", peer=FRONT, call_in=None),
        ["refused_hop", "impersonation"],
        id="a-stolen-token-has-no-caller-to-tell-of-it",
    ),
    pytest.param(
        refused(
            "caller3", "callee3", "issued3", "exchanged3", reason="call_not_allowed", call_out=None, jti_in="j2",
            jti_out=None, parent_jti="j1", audience=WRITER, actor=PLANNER, peer=None, **TOKEN_2,
        ),
        ["refused_hop", "attempt_to_leave"],
        id="refused-by-its-own-sidecar",
    ),
    pytest.param(
        all_of(
            without("caller3", "callee3", "exchanged3"),
            set_to("issued3", event="token.exchange_refused", decision="deny", reason="scope", jti_out=None),
        ),
        ["refused_hop"],
        id="refused-by-the-token-service",
    ),
    pytest.param(set_to("callee3", event="request.opened"), ["unfinished"], id="a-request-that-never-ended"),
]  # fmt: skip


@functools.cache
def found_in_cases() -> list[list[Finding]]:
    told = [lawful() for _ in CASES]
    for one, case in zip(told, CASES, strict=True):
        case.values[0](one)
    return findings_of_each(told)


@pytest.mark.parametrize(
    ("number", "expected"), [pytest.param(n, case.values[1], id=case.id) for n, case in enumerate(CASES)]
)
def test_what_does_not_hold_is_named(number: int, expected: list[str]) -> None:
    assert [finding.kind for finding in found_in_cases()[number]] == expected


def test_a_token_claim_that_did_not_verify_joins_nothing() -> None:
    cases = []
    for name, one in lawful().items():
        forged = {**one, "verified": False, "txn": "t1", "subject": "mallory", "call_in": None, "decision": "deny"}
        cases.append({**lawful(), name + "-forged": forged})
    assert findings_of_each(cases) == [[] for _ in cases]


def test_a_call_id_that_is_told_twice_is_named() -> None:
    told = lawful()
    told["again"] = {**told["callee3"], "request_id": "r4"}
    assert kinds(told) == ["missing_witness", "repeated_call"]


def test_a_token_that_is_said_to_be_issued_twice_is_named() -> None:
    told = lawful()
    told["again"] = {**told["issued3"], "ts": "2026-11-24T21:05:00.000000Z"}
    assert kinds(told) == ["witnesses_disagree"]


def test_one_exchange_serves_many_calls() -> None:
    told = lawful()
    told["caller3b"] = {**told["caller3"], "call_out": "c3b", "request_id": "r9"}
    told["callee3b"] = {**told["callee3"], "call_in": "c3b", "request_id": "r9"}
    result = audit(told)
    assert result.findings == ()
    assert [depth for depth, _ in result.chains[0].hops] == [0, 1, 2, 2]


def test_an_opened_request_that_ended_counts_once() -> None:
    told = lawful()
    told["opened"] = {**told["callee2"], "event": "request.opened", "status": None}
    told["closed"] = told.pop("callee2")
    assert kinds(told) == []


def test_an_opening_that_is_read_after_the_end_is_no_second_request() -> None:
    told = lawful()
    told["opened"] = {**told["callee2"], "event": "request.opened", "status": None}
    assert kinds(told) == []


def test_a_request_whose_sidecar_was_killed_is_a_witness_all_the_same() -> None:
    told = lawful()
    told["callee3"]["event"] = "request.opened"
    assert [finding.kind for finding in audit(told).findings] == [Kind.UNFINISHED]


def test_a_trace_id_alone_joins_nothing() -> None:
    told = lawful()
    for name in ("caller3", "callee3"):
        told[name].update(call_in=None, call_out=None, jti_in="x", jti_out="y", parent_jti="x", fp="z", txn="t7")
    names = {chain.name for chain in audit(told).chains}
    assert names == {"t1", "t7"}


def test_a_request_without_call_id_is_found_by_its_token_and_told_apart_by_its_trace() -> None:
    told = lawful()
    for hop, trace in (("2", "trace"), ("2b", "other")):
        base = told["callee2"]
        told[f"callee{hop}"] = {**base, "call_in": None, "trace_id": trace, "request_id": f"q{hop}", "peer": PLANNER}
    told["caller3"]["call_in"] = None
    result = audit(told)
    parent = next(hop.parent for _, hop in result.chains[0].hops if hop.call == "c3")
    assert parent is not None
    assert parent.callee is not None
    assert parent.callee.trace_id == "trace"


def test_calls_that_refer_to_each_other_in_a_circle_are_shown_once() -> None:
    told = lawful()
    told["caller2"]["call_in"] = "c3"
    result = audit(told)
    assert sorted(hop.call or "" for _, hop in result.chains[0].hops) == ["c1", "c2", "c3"]
    assert Kind.SPLICE in {finding.kind for finding in result.findings}


def test_a_chain_of_a_foreign_token_service_is_named_by_its_first_token() -> None:
    told = lawful()
    for one in told.values():
        one["txn"] = None
    result = audit(told)
    assert [chain.name for chain in result.chains] == ["jti:j1"]
    assert result.findings == ()


def test_an_agent_that_acts_for_itself_is_a_chain_of_one() -> None:
    told = {name: one for name, one in lawful().items() if name.endswith("1")}
    for one in told.values():
        one.update(subject=FRONT, chain=None, actor=None, chain_depth=None, parent_jti=None, jti_in=None)
    told["callee1"]["jti_in"] = "j1"
    assert kinds(told) == []


def test_a_request_that_was_opened_before_anybody_decided_is_no_refusal() -> None:
    told = lawful()
    told["callee3"].update(event="request.opened", decision=None, reason=None, status=None)
    assert kinds(told) == ["unfinished"]


def test_a_login_that_was_taken_is_counted_and_is_no_hop() -> None:
    told = lawful()
    told["login"] = {**told["caller1"], **dict.fromkeys(("jti_out", "call_out", "chain", "actor", "txn", "peer"))}
    told["login"].update(op="login", subject_iss="https://login.acme.example", jti_in="j0", path="/.sidecar/subject")
    told["login"].update(txn="a-login-may-have-one-of-its-own")
    told["refused"] = {**told["login"], "op": None, "decision": "deny", "reason": "token_expired"}
    result = audit(told)
    assert (result.findings, result.outside) == ((), {"login": 1, "token_expired": 1})
    assert [chain.name for chain in result.chains] == ["t1"]


def test_a_refused_exchange_is_one_finding_however_many_tell_of_it() -> None:
    told = {name: one for name, one in lawful().items() if not name.endswith("3")}
    refused = {"decision": "deny", "jti_in": "j2", "jti_out": None, "run": WRITER, "workload": WRITER, "txn": "t1"}
    about = {name: lawful()["callee2"][name] for name in ("chain", "scope", "fp", "audience", "parent_jti", "actor")}
    exchange = {**refused, "event": "token.exchange_refused", "audience": CRM}
    told["call"] = {**lawful()["caller3"], **refused, **about, "reason": "exchange_denied", "call_out": None}
    told["call"]["upstream_status"] = None
    told["asked"] = {**lawful()["exchanged3"], **exchange, "reason": "exchange_denied"}
    told["sts"] = {**lawful()["issued3"], **exchange, "run": "sts", "workload": "s", "reason": "scope_refused"}
    told["call2"] = {**lawful()["callee2"], "event": "stopped"}
    gone = [(), ("asked",), ("sts",), ("call",), ("call", "sts"), ("call", "asked")]
    cases = [{name: one for name, one in told.items() if name not in lost} for lost in gone]
    assert [[finding.kind for finding in case] for case in findings_of_each(cases)] == [["refused_hop"]] * len(gone)


def test_a_refused_exchange_of_an_unverified_token_is_counted_alone() -> None:
    told = lawful()
    told["sts"] = {**told["issued3"], "event": "token.exchange_refused", "verified": False, "reason": "bad_signature"}
    result = audit(told)
    assert (result.findings, result.outside) == ((), {"bad_signature": 1})


def test_an_unverified_claim_is_no_subject_of_the_chain_whose_call_it_came_by() -> None:
    told = lawful()
    told["callee3"].update(decision="deny", reason="bad_signature", verified=False, subject="mallory")
    assert audit(told).chains[0].subjects == ((STS, "alice"),)


def test_findings_of_chains_come_after_those_of_streams() -> None:
    told = lawful()
    del told["issued3"]
    told["gap"] = record(event="started", ts="2026-11-24T21:04:00.000000Z", run="other", seq=2)
    assert kinds(told) == ["records_lost", "missing_witness"]


def test_an_opening_that_nobody_decided_on_and_nobody_verified_is_counted() -> None:
    opened = record(event="request.opened", ts="2026-11-24T21:04:00.000000Z", run="x", request_id="r")
    assert rebuild(read([opened])).outside == {"undecided": 1}


def test_what_belongs_to_no_chain_is_counted_by_reason() -> None:
    refused = record(event="connection.refused", ts="2026-11-24T21:04:00.000000Z", run="x", reason="wrong_bundle")
    unread = record(
        event="request", ts="2026-11-24T21:04:00.000000Z", run="x", reason="no_token", decision="deny",
        direction="inbound", verified=False,
    )  # fmt: skip
    result = rebuild(read([refused, unread, unread]))
    assert result.outside == {"wrong_bundle": 1, "no_token": 2}
    assert result.findings == ()
    assert result.chains == ()


def test_a_recorded_run_of_the_demo_is_rebuilt() -> None:
    lines = [line for file in sorted(RECORDED.glob("*.records")) for line in file.read_bytes().splitlines()]
    result = rebuild(map(json.loads, lines))
    walk = [(depth, hop.actor, hop.audience) for depth, hop in result.chains[0].hops][:3]
    assert walk == [(0, FRONT, PLANNER), (1, PLANNER, WRITER), (2, WRITER, CRM)]
    assert {finding.kind for finding in result.findings} == {
        Kind.REFUSED_HOP, Kind.MISSING_WITNESS, Kind.TOKEN_AT_TWO_PEERS, Kind.IMPERSONATION,
    }  # fmt: skip
    assert result.outside == {"wrong_bundle": 1}
    assert json.loads(lines[0])["run"]


@pytest.mark.parametrize("gone", [FRONT, PLANNER, WRITER, CRM, "sts"])
def test_who_did_what_for_whom_is_answered_although_one_log_is_gone(gone: str) -> None:
    told = {name: one for name, one in lawful().items() if one["run"] != gone}
    result = audit(told)
    (chain,) = result.chains
    assert chain.subjects == ((STS, "alice"),)
    calls = [(depth, hop.actor, hop.audience) for depth, hop in chain.hops]
    assert calls == [(0, FRONT, PLANNER), (1, PLANNER, WRITER), (2, WRITER, CRM)]
    assert {finding.kind for finding in result.findings} == {Kind.MISSING_WITNESS}


def test_a_token_that_its_token_service_never_issued_is_an_orphan_if_the_records_of_that_service_go_on() -> None:
    def told(*, later: str, gap: bool = False) -> Evidence:
        told = {**lawful(), **{f"b{name}": one for name, one in lawful(txn="t2", prefix="b").items()}}
        del told["issued3"]
        for name in ("bissued1", "bissued2", "bissued3"):
            told[name]["ts"] = later
        if gap:
            told["bissued3"]["seq"] = 9
        for one in told.values():
            one["subject_iss"] = f"{STS}/{later}/{gap}"  # one token service for each case
        return told

    later, soon = "2026-11-24T21:30:00.000000Z", "2026-11-24T21:05:00.000000Z"
    cases = [told(later=later), told(later=soon), told(later=later, gap=True)]
    kinds = [{finding.kind for finding in case if finding.chain} for case in findings_of_each(cases)]
    assert kinds == [{Kind.MISSING_WITNESS, Kind.ORPHAN_AUTHORITY}, {Kind.MISSING_WITNESS}, {Kind.MISSING_WITNESS}]


@pytest.mark.parametrize(
    ("name", "changes", "expected"),
    [
        pytest.param("caller3", {"reason": "call_not_allowed"}, "attempt_to_leave", id="a-call-that-is-not-allowed"),
        pytest.param(
            "caller3",
            {"reason": "target_denied", "host": "evil.example"},
            "attempt_to_leave",
            id="a-host-elsewhere",
        ),
        pytest.param(
            "callee3", {"reason": "act_missing", "chain": None, "actor": None}, "impersonation", id="a-user's-token"
        ),
        pytest.param("callee3", {"reason": "actor_mismatch", "peer": STRANGER}, "impersonation", id="another's-token"),
    ],
)
def test_what_was_tried_and_refused_is_named_and_what_was_allowed_is_not(
    name: str, changes: dict[str, Any], expected: str
) -> None:
    check_named(name, changes, expected, decision="deny")


def test_an_impersonation_that_was_only_observed_is_named_too() -> None:
    check_named("callee3", {"reason": "actor_mismatch", "peer": STRANGER}, "impersonation", decision="observed_deny")


def check_named(name: str, changes: dict[str, Any], expected: str, *, decision: str) -> None:
    tried = {**lawful(), name: {**lawful()[name], **changes, "decision": decision}}
    allowed = {**lawful(), name: {**lawful()[name], **changes}}
    found = [{finding.kind for finding in case} for case in findings_of_each([tried, allowed])]
    assert [Kind(expected) in kinds for kinds in found] == [True, False]
