import pytest

from delegation_audit.attribution.tally import MAX_AGENTS, MAX_PLACES, OTHERS, Tally
from delegation_audit.attribution.verdicts import Judged, Kind
from delegation_audit.rules import Confidence

REASON = {
    Kind.IMPERSONATES: "only the user is named",
    Kind.DELEGATES: "actor and user are named",
    Kind.OWN_AUTHORITY: "the agent is the only principal",
    Kind.CANNOT_TELL: "the format shows no user",
    Kind.NO_AGENT: "no agent of the list takes part",
}
I, D, O, C, N = REASON  # noqa: E741


def tally(*kinds: Kind, reason: str | None = None, confidence: Confidence = Confidence.HIGH) -> Tally:
    counted = Tally()
    for number, kind in enumerate(kinds, 1):
        why = reason if reason and kind is C else REASON[kind]
        judged = Judged(kind, "writer", ("sub",), why, Confidence.LOW if kind is C else confidence)
        counted.add(judged, f"log:{number}", "json", refused=number == 1)
    return counted


@pytest.mark.parametrize(
    ("kinds", "verdict", "confidence"),
    [
        pytest.param((I, I), I, Confidence.HIGH, id="impersonates"),
        pytest.param((D, D), D, Confidence.HIGH, id="delegates"),
        pytest.param((O,), O, Confidence.HIGH, id="own-authority"),
        pytest.param((C,), C, Confidence.LOW, id="cannot-tell"),
        pytest.param((I, D), Kind.MIXED, Confidence.HIGH, id="mixed"),
        pytest.param((I, O), Kind.MIXED, Confidence.HIGH, id="mixed-with-its-own"),
        pytest.param((I, I, C), I, Confidence.MEDIUM, id="some-cannot-be-told"),
        pytest.param((D, C), D, Confidence.MEDIUM, id="half-cannot-be-told"),
        pytest.param((D, C, C), D, Confidence.LOW, id="most-cannot-be-told"),
    ],
)
def test_the_verdict_is_over_all_requests(kinds: tuple[Kind, ...], verdict: Kind, confidence: Confidence) -> None:
    agent = tally(*kinds).agents["writer"]
    assert (agent.verdict, agent.confidence, agent.requests) == (verdict, confidence, len(kinds))


@pytest.mark.parametrize("reason", ["two fields name different actors", "the actor named is another agent"])
def test_what_contradicts_the_actor_outweighs_what_seems_to_delegate(reason: str) -> None:
    assert tally(D, D, D, C, reason=reason).agents["writer"].verdict is C
    assert tally(D, D, D, C, I, reason=reason).agents["writer"].verdict is Kind.MIXED


def test_the_least_confident_kind_decides() -> None:
    counted = tally(D)
    counted.add(Judged(I, "writer", ("ua",), "only the user is named", Confidence.LOW), "log:9", "json", refused=False)
    assert counted.agents["writer"].confidence is Confidence.LOW


def test_evidence_has_counts_first_places_and_fields() -> None:
    evidence = tally(*(I,) * 10).agents["writer"].evidence[I]
    assert (evidence.requests, evidence.refused, len(evidence.places)) == (10, 1, MAX_PLACES)
    assert evidence.places[0] == "log:1"
    assert evidence.fields == {"sub": 10}
    assert evidence.formats == {"json": 10}


def test_requests_without_an_agent_are_set_aside_and_counted() -> None:
    counted = tally(N, N, D)
    assert (counted.requests, counted.no_agent, list(counted.agents)) == (3, 2, ["writer"])


def test_agents_have_a_limit_and_counts_do_not() -> None:
    counted = Tally()
    for number in range(MAX_AGENTS + 5):
        counted.add(Judged(D, str(number), (), "r", Confidence.HIGH), "log:1", "json", refused=False)
    assert len(counted.agents) == MAX_AGENTS + 1
    assert counted.agents[OTHERS].requests == 5


def test_the_worst_agents_come_first() -> None:
    counted = tally(D)
    for name, kind in (("a", O), ("b", C), ("c", I), ("d", I), ("d", I)):
        counted.add(Judged(kind, name, (), "r", Confidence.HIGH), "log:1", "json", refused=False)
    assert [agent.name for agent in counted.rank_agents()] == ["d", "c", "b", "a", "writer"]
    assert counted.verdicts() == {I: 2, C: 1, O: 1, D: 1}
