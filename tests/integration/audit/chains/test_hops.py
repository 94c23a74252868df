import json

import pytest

from delegation_audit.chains.database import Block, open_database
from delegation_audit.chains.examination import Audit
from delegation_audit.chains.hops import Hop
from tests.audit.chains.evidence import audit, read
from tests.audit.evidence import CRM, PLANNER, WRITER, Evidence, lawful


def hop_to(result: Audit, audience: str) -> tuple[int, Hop]:
    (found,) = ((depth, hop) for chain in result.chains for depth, hop in chain.hops if hop.audience == audience)
    return found


def test_two_calls_for_one_request_that_nobody_tells_of_miss_one_hop() -> None:
    told = lawful()
    told["caller3"]["call_in"] = "c9"
    told["caller3b"] = {**told["caller3"], "call_out": "c3b", "request_id": "r9"}
    told["callee3b"] = {**told["callee3"], "call_in": "c3b", "request_id": "r9"}
    assert [finding.kind for finding in audit(told).findings] == ["missing_hop"]


def test_a_hop_of_which_only_the_callee_tells_finds_its_parent_by_the_signed_parent_jti() -> None:
    told = {name: one for name, one in lawful().items() if name not in {"caller3", "issued3", "exchanged3"}}
    depth, hop = hop_to(audit(told), CRM)
    assert (depth, hop.parent and hop.parent.call) == (2, "c2")


def test_an_issue_of_which_only_the_caller_tells_finds_its_parent() -> None:
    told = {name: one for name, one in lawful().items() if name not in {"caller3", "issued3", "callee3"}}
    depth, hop = hop_to(audit(told), CRM)
    assert (depth, hop.parent and hop.parent.call, str(hop)) == (2, "c2", f"{WRITER} → {CRM}")


def test_a_stolen_token_stands_beside_the_hop_it_was_stolen_from() -> None:
    told = {name: one for name, one in lawful().items() if not name.endswith("3")}
    told["theft"] = {**told["callee2"], "decision": "deny", "reason": "x", "peer": CRM, "call_in": None}
    result = audit(told)
    ((depth, hop),) = ((depth, hop) for depth, hop in result.chains[0].hops if hop.actor == CRM)
    assert (depth, hop.parent and hop.parent.call) == (1, "c1")
    assert [finding.kind for finding in result.findings] == ["token_at_two_peers", "refused_hop"]


def test_a_stolen_token_whose_past_nobody_tells_of_is_no_missing_call() -> None:
    told = {"theft": {**lawful()["callee2"], "decision": "deny", "reason": "x", "peer": CRM, "call_in": None}}
    assert [finding.kind for finding in audit(told).findings] == [
        "missing_hop", "actor_never_attested", "refused_hop",
    ]  # fmt: skip
    (missing, *_) = audit(told).findings
    assert missing.text == f"spiffe://acme.example/agent/front → {PLANNER}: the hop has no record"


def test_a_parent_that_could_be_one_of_several_is_not_guessed() -> None:
    told = lawful()
    told["callee2"].update(call_in=None, trace_id="a")
    told["callee2b"] = {**told["callee2"], "trace_id": "b", "request_id": "r8"}
    del told["caller2"]
    told["caller3"].update(call_in=None, trace_id=None)
    told["callee3"].update(trace_id=None)
    depth, hop = hop_to(audit(told), CRM)
    assert (depth, hop.parent) == (2, None)


def test_a_request_at_another_workload_is_no_parent() -> None:
    told = {name: one for name, one in lawful().items() if name not in {"caller3", "caller2"}}
    told["callee2"].update(workload=PLANNER, call_in=None)
    _, hop = hop_to(audit(told), CRM)
    assert hop.parent is not None
    assert hop.parent.records == ()


def test_a_hop_begins_when_its_first_end_says() -> None:
    told = lawful()
    told["caller3"]["ts"] = "2026-11-24T21:04:09.000000Z"
    told["issued3"]["ts"] = "2026-11-24T21:00:00.000000Z"
    assert hop_to(audit(told), CRM)[1].ts == told["callee3"]["ts"]


def test_a_hop_is_named_by_who_called_and_who_was_to_be_called() -> None:
    told = lawful()
    told["callee3"]["peer"] = PLANNER
    assert str(hop_to(audit(told), CRM)[1]) == f"{WRITER} → {CRM}"
    told = {name: one for name, one in lawful().items() if name != "callee3"}
    told["caller3"].update(peer=None, audience="https://api.example")
    assert str(hop_to(audit(told), "https://api.example")[1]) == f"{WRITER} → https://api.example"
    told = {name: one for name, one in lawful().items() if name not in {"caller3", "callee3", "exchanged3"}}
    assert str(hop_to(audit(told), CRM)[1]) == f"{WRITER} → {CRM}"


def test_a_token_that_came_from_itself_is_no_parent_of_its_own_hop() -> None:
    told = lawful()
    told["caller3"].update(call_in=None, call_out=None, jti_in="j3")
    told["callee3"].update(call_in=None)
    for chain in audit(told).chains:
        assert all(hop.parent is not hop for _, hop in chain.hops)


def test_a_call_id_that_nobody_sent_places_no_unverified_claim() -> None:
    told = lawful()
    told["forged"] = {
        **told["callee3"],
        "call_in": "ff",
        "verified": False,
        "decision": "deny",
        "reason": "bad_signature",
    }
    result = audit(told)
    assert (result.findings, result.outside) == ((), {"bad_signature": 1})


def test_a_call_of_another_chain_is_shown_in_its_own() -> None:
    told = {**lawful(), **{f"b{name}": one for name, one in lawful(txn="t2", prefix="b").items()}}
    told["bcaller3"]["call_in"] = "c2"
    result = audit(told)
    shown = {chain.name: [hop.call for _, hop in chain.hops] for chain in result.chains}
    assert shown == {"t1": ["c1", "c2", "c3"], "t2": ["bc1", "bc2", "bc3"]}
    assert {finding.kind for finding in result.findings} == {"splice"}


@pytest.mark.parametrize("one_trace", [False, True])
def test_calls_with_one_token_are_placed_without_comparing_each_with_each(one_trace: bool) -> None:
    """The sidecar in the middle has no records: its calls are placed only by their tokens, among all its requests."""
    base, number_of_calls = lawful(), 300
    calls: Evidence = {}
    for number in range(number_of_calls):
        trace = {"trace_id": "t" if one_trace else f"t{number}"}
        calls[f"caller{number}"] = base["caller1"] | trace | {"call_out": f"a{number}"}
        calls[f"callee{number}"] = base["callee1"] | trace | {"call_in": f"a{number}"}
        calls[f"next{number}"] = base["callee2"] | trace | {"call_in": f"b{number}"}
    records = read([base["issued1"], base["issued2"], *calls.values()])
    with open_database(threads=1) as database:
        database.read([Block(0, "\n".join(map(json.dumps, records)).encode())])
        database.judge()
        for table in ("possible", "traced", "parents"):
            assert 0 < database.rows(f"SELECT count(*) FROM {table}")[0][0] <= number_of_calls + 1
        placed = database.rows("SELECT count(parent) FROM parents")[0][0]
        assert placed == (0 if one_trace else number_of_calls)
