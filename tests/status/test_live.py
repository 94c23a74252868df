"""The live page: state, problems and fixes, and who acts for whom right now; all text is only text."""

from __future__ import annotations

from typing import Any

import pytest

from sidecar.status.command import _rows
from sidecar.status.live import MOST_STORIES, gone_page, live_page, stories_in_flight
from sidecar.status.troubles import troubles
from tests.audit.report.test_page import HOSTILE, Read
from tests.status.documents import NOW, WELL

OWN = "spiffe://acme.example/agent/writer"
PLANNER = "spiffe://acme.example/agent/planner"
FRONT = "spiffe://acme.example/agent/front"


def row(**changes: Any) -> dict[str, Any]:
    lawful = {
        "request_id": "q1",
        "direction": "inbound",
        "since": NOW - 3,
        "verified": True,
        "peer": PLANNER,
        "subject": "alice",
        "actor": PLANNER,
        "chain": [PLANNER, FRONT],
        "route": "draft",
    }
    return {**lawful, **changes}


def text(status: dict[str, Any], *rows: dict[str, Any]) -> str:
    chains = {"being_served": len(rows), "chains": list(rows)}
    return live_page(status, chains, troubles(status), _rows(status))


def test_a_ready_sidecar_shows_its_state_and_no_problem() -> None:
    read = Read(text(WELL))
    assert f"Ready : {OWN}" in read.words
    assert "No request is being served." in read.words
    assert "Problems and fixes" not in read.words
    assert "inbound listener 0.0.0.0:7443, 1 of 100" in read.words
    assert "user logins" not in read.words


def test_the_page_counts_pending_logins_where_users_log_in() -> None:
    logins = {"pending": 3, "max_pending": 4096, "pending_bytes": 8192, "max_bytes": 16 << 20}
    assert "user logins 3 of 4096 pending, 8 of 16384 KiB" in Read(text({**WELL, "logins": logins})).words


def test_a_problem_stands_before_everything_with_its_fix() -> None:
    status = dict(WELL, ready=False, identity={**WELL["identity"], "state": "denied", "spiffe_id": None})
    words = Read(text(status)).words
    assert words.index("Not ready") < words.index("Problems and fixes") < words.index("Fix:") < words.index("In flight")


def test_requests_of_one_person_through_the_same_agents_are_one_map() -> None:
    (story,) = stories_in_flight([row(), row(request_id="q2", route="report")], OWN, NOW)
    assert story.agents == (FRONT, PLANNER, OWN)
    assert [(step.actor, step.audience, step.operation) for step in story.steps] == [
        (FRONT, PLANNER, None),
        (PLANNER, OWN, "draft, report"),
    ]
    assert story.requests == ["q1, inbound, for 3 s", "q2, inbound, for 3 s"]


@pytest.mark.parametrize(
    "change", [{"subject": "bob"}, {"chain": [PLANNER]}, {"verified": False}, {"direction": "outbound"}]
)
def test_another_person_chain_or_proof_is_another_map(change: dict[str, Any]) -> None:
    assert len(stories_in_flight([row(), row(**change)], OWN, NOW)) == 2


def test_a_request_that_named_nobody_is_shown_by_its_peer() -> None:
    (story,) = stories_in_flight([row(subject=None, chain=None, verified=False)], OWN, NOW)
    assert (story.subjects, story.agents) == ((), (PLANNER, OWN))
    assert "(not verified)" in Read(text(WELL, row(subject=None, chain=None, verified=False))).words


def test_a_paused_page_stands_still() -> None:
    nothing: dict[str, Any] = {"being_served": 0, "chains": []}
    for paused in (False, True):
        for shown in (live_page(WELL, nothing, [], [], paused=paused), gone_page("gone", paused=paused)):
            tags = Read(shown).tags
            assert ("refresh" in [attrs.get("http-equiv") for _, attrs in tags]) is not paused
            assert [attrs["href"] for tag, attrs in tags if tag == "a"] == ["?" if paused else "?paused"]


def test_a_crowd_is_cut_and_told() -> None:
    rows = [row(subject=f"user-{number}") for number in range(MOST_STORIES + 3)]
    assert "3 further requests are left out" in Read(text(WELL, *rows)).words


@pytest.mark.parametrize("hostile", HOSTILE)
def test_no_text_becomes_anything_but_text(hostile: str) -> None:
    said = row(subject=hostile, chain=[hostile], route=hostile, request_id=hostile, peer=hostile)
    read, lawful = Read(text(WELL, said)), Read(text(WELL, row(chain=[PLANNER])))
    assert {tag for tag, _ in read.tags} == {tag for tag, _ in lawful.tags}
    assert {name for _, attrs in read.tags for name in attrs} == {name for _, attrs in lawful.tags for name in attrs}
    assert "\u202e" not in read.words


def test_a_sidecar_that_is_gone_is_told() -> None:
    assert "nobody listens" in Read(gone_page("nobody listens <b>")).words
