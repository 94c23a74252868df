"""A chain becomes a story: who, for whom, what, what was refused; what is wrong with the evidence comes first."""

from __future__ import annotations

from hashlib import sha256

from delegation_audit.report.build import evidence_in, names_in, stories_of
from delegation_core.records.log_lines import Line
from tests.audit.report.evidence import AGENT, document, finding, hop


def test_a_chain_is_told_by_person_agents_deeds_and_refusals() -> None:
    ((story,), problems) = stories_of(document())
    assert problems == []
    assert story.subjects == (("https://login.acme.example", "alice"),)
    assert story.agents == tuple(AGENT + name for name in ("front", "planner", "writer", "crm"))
    assert [step.operation for step in story.done] == ["POST /planner", "POST /writer"]
    assert [(step.operation, step.outcome) for step in story.refused] == [
        ("POST /crm", "refused 403 insufficient_scope")
    ]
    assert (story.began, story.ended) == ("2026-11-24T21:04:00.000000Z", "2026-11-24T21:04:02.000000Z")


def test_a_call_that_was_let_through_and_not_answered_with_success_is_not_told_as_done() -> None:
    hops = [hop(0, "front", "planner", status=status) for status in (200, 403, 502, None)]
    ((story,), _) = stories_of(document(hops=hops))
    assert [step.outcome for step in story.done] == ["allowed 200"]
    assert [step.outcome for step in story.failed] == ["allowed 403", "allowed 502", "allowed"]
    assert story.refused == ()


def test_a_call_that_the_next_hop_refused_under_a_status_of_success_is_not_told_as_done() -> None:
    ended = hop(0, "front", "planner", decision="deny", allowed=True, reason="revoked")
    ((story,), _) = stories_of(document(hops=[ended]))
    assert [(step.outcome, step.allowed, step.failed) for step in story.steps] == [
        ("allowed, then ended 200 revoked", True, True)
    ]
    ((story,), _) = stories_of(document(hops=[hop(0, "front", "planner", reason="next_hop_refused")]))
    assert [step.outcome for step in story.failed] == ["allowed 200 next_hop_refused"]
    assert story.done == ()


def test_a_flood_of_lines_with_one_name_or_without_end_does_not_fill_the_report() -> None:
    lines = [Line("f", number, b'{"run":"r1","seq":1,"n":%d}' % number) for number in range(1, 101)]
    shown = evidence_in(lines, ["r1/1"])
    assert [one.place for one in shown[:2]] == ["f:1", "f:2"]
    assert (len(shown), shown[-1].place) == (8, "f:8, and 92 further lines with this name")
    assert [one.place for one in evidence_in(lines[:8], ["r1/1"])] == [f"f:{number}" for number in range(1, 9)]
    long = b'{"run":"r1","seq":1,"detail":"%b"}' % (b"x" * 100_000)
    (one,) = evidence_in([Line("f", 1, long)], ["r1/1"])
    assert one.hash == sha256(long).hexdigest()
    assert one.line.endswith("x… (100032 characters)")
    assert len(one.line) < 66_000


def test_scopes_are_compared_with_the_hop_before() -> None:
    hops = [
        hop(0, "front", "planner", scope=["a", "b"]),
        hop(1, "planner", "writer", scope=["a"]),
        hop(1, "planner", "mailer", scope=["b"]),
        hop(2, "mailer", "crm", scope=["b", "c"]),
        hop(2, "mailer", "erp", scope=None),
    ]
    ((story,), _) = stories_of(document(hops=hops))
    assert [(step.scope, step.dropped, step.added) for step in story.steps] == [
        (("a", "b"), (), ()),
        (("a",), ("b",), ()),
        (("b",), ("a",), ()),
        (("b", "c"), (), ("c",)),
        ((), ("b",), ()),
    ]


def test_impersonation_and_gaps_come_before_what_was_refused() -> None:
    told = document(
        finding("refused_hop"), finding("records_lost"), finding("missing_hop"), finding("impersonation"),
        finding("attempt_to_leave"),
    )  # fmt: skip
    ((story,), _) = stories_of(told)
    assert [one.kind for one in story.problems] == [
        "impersonation", "missing_hop", "records_lost", "refused_hop", "attempt_to_leave"
    ]  # fmt: skip
    assert [one.grave for one in story.problems] == [True, True, True, False, False]


def test_the_chain_with_the_worst_evidence_is_told_first() -> None:
    told = document(finding("splice", chain="t2"), finding("refused_hop", chain="t1"))
    told["chains"].append({**told["chains"][0], "chain": "t2"})
    stories, problems = stories_of({**told, "findings": [*told["findings"], finding("unreadable", chain=None)]})
    assert [story.chain for story in stories] == ["t2", "t1"]
    assert [one.kind for one in problems] == ["unreadable"]


def test_a_hop_that_nobody_recorded_has_no_outcome() -> None:
    nothing = {"caller": None, "token_service": None, "callee": None}
    unseen = hop(
        1, "planner", "writer", decision=None, reason=None, status=None, method=None, path=None, ts=None, scope=None,
        witnesses=nothing, missing_witnesses=["caller", "token_service", "callee"],
    )  # fmt: skip
    issued = {**unseen, "witnesses": {**nothing, "token_service": "s1/2"}}
    ((story,), _) = stories_of(document(hops=[unseen, issued]))
    assert [(step.outcome, step.allowed, step.operation) for step in story.steps] == [
        ("no record", None, None),
        ("token issued, no call seen", None, None),
    ]
    assert story.steps[0].missing == ("caller", "token service", "callee")
    assert story.steps[0].dropped == ()  # nobody knows its scopes
    assert story.unknown == story.steps


def test_evidence_is_every_named_line_with_its_hash() -> None:
    stories, problems = stories_of(document(finding("forged_record", "x", None, "r1/1")))
    names = names_in(stories, problems)
    assert names[:3] == ["r1/1", "s1/1", "r2/1"]
    line = b'{"run":"r1","seq":1,"event":"request"}'
    lines = [
        Line("f", 1, line),
        Line("f", 2, b"no"),
        Line("f", 3, None),
        Line("g", 9, line.replace(b"request", b"stopped")),
    ]
    first, second = evidence_in(lines, names)
    assert (first.name, first.place, first.hash) == ("r1/1", "f:1", sha256(line).hexdigest())
    assert (second.name, second.place) == ("r1/1", "g:9")  # two lines claim one number: both are shown
