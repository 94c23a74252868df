"""A story answers by itself when it began and ended, what was done, what was refused, what nobody tells."""

from __future__ import annotations

from delegation_audit.report.build import stories_of
from delegation_audit.report.story import Problem, Step, Story
from tests.audit.report.evidence import AGENT, document, finding, hop, report


def step(time: str, *, allowed: bool | None) -> Step:
    return Step(depth=0, time=time, actor=None, audience=None, operation=None, outcome="", allowed=allowed)


def test_steps_are_told_by_their_outcome() -> None:
    steps = (step("", allowed=True), step("2", allowed=False), step("3", allowed=None), step("", allowed=True))
    story = Story(chain="t", subjects=(), agents=(), steps=steps, problems=())
    assert (story.done, story.refused, story.unknown) == ((steps[0], steps[3]), (steps[1],), (steps[2],))
    assert (story.began, story.ended) == ("2", "3")


def test_who_is_only_called_did_not_act() -> None:
    ((story,), _) = stories_of(document(hops=[hop(0, "front", "crm"), hop(0, "front", "mailer")]))
    assert story.actors == (AGENT + "front",)
    assert story.agents == tuple(AGENT + name for name in ("front", "crm", "mailer"))


def test_without_a_step_there_is_no_time() -> None:
    story = Story(chain="t", subjects=(), agents=(), steps=(), problems=())
    assert (story.began, story.ended) == ("", "")


def test_grave_problems_are_counted_in_chains_and_beside_them() -> None:
    told = document(finding("splice"), finding("refused_hop"), finding("unreadable", "x", None))
    assert report(told).grave == 2
    assert [one.grave for one in report(told).problems] == [True]
    assert Problem(kind="splice", text="", grave=True).evidence == ()
