"""The live page of a sidecar: its state, problems and fixes, and the requests in flight with their hop maps. Pure."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from itertools import pairwise
from typing import Any, Final

from delegation_audit.report.page import render
from delegation_audit.report.story import Problem, Step, Story
from sidecar.status.troubles import Grade, Trouble, span

REFRESH_S: Final = 2
MOST_STORIES: Final = 12
_MOST_REQUESTS: Final = 20

Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveStory(Story):
    """Requests in flight of one person through the same agents. ``requests`` are their lines of text."""

    verified: bool
    requests: Sequence[str]


def live_page(
    status: Json, chains: Json, troubles: Iterable[Trouble], rows: Iterable[tuple[str, str]], *, paused: bool = False
) -> str:
    """Return the page for a status document and the chains in flight. A paused page does not reload itself."""
    workload = status["identity"]["spiffe_id"] or "no identity"
    stories = stories_in_flight(chains["chains"], workload, status["now"])
    shown = sum(len(story.requests) for story in stories[:MOST_STORIES])
    return render(
        files("sidecar.status").joinpath("live.html").read_text(encoding="utf-8"),
        refresh_s=REFRESH_S,
        paused=paused,
        ready=status["ready"],
        workload=workload,
        version=status["version"],
        at=time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(status["now"])),
        troubles=[_problem(one) for one in troubles],
        being_served=chains["being_served"],
        stories=stories[:MOST_STORIES],
        left_out=chains["being_served"] - shown,
        rows=list(rows),
        refused=sorted(status["refused"].items()),
    )


def gone_page(text: str, *, paused: bool = False) -> str:
    """Return the page for a sidecar that does not answer; unless paused, the page reloads itself."""
    template = files("sidecar.status").joinpath("gone.html").read_text(encoding="utf-8")
    return render(template, refresh_s=REFRESH_S, paused=paused, text=text)


def stories_in_flight(rows: Iterable[Json], workload: str, now: int) -> list[LiveStory]:
    """Group the requests in flight by person and agents."""
    groups: dict[tuple[Any, ...], list[Json]] = {}
    for row in rows:
        key = row["subject"], tuple(row["chain"] or ()), row["verified"], row["direction"]
        groups.setdefault(key, []).append(row)
    return [_story(members, workload, now) for members in groups.values()]


def _story(rows: Sequence[Json], workload: str, now: int) -> LiveStory:
    first = rows[0]
    names = [*reversed(first["chain"] or [first["peer"] or "somebody"])]
    if first["direction"] == "inbound":
        names.append(workload)
    routes = list(dict.fromkeys(row["route"] or "no route" for row in rows))
    steps = []
    for depth, (actor, audience) in enumerate(pairwise(names)):
        last = depth == len(names) - 2
        operation = ", ".join(routes) if last else None
        allowed = True if first["verified"] else None
        steps.append(
            Step(
                depth=depth,
                time="",
                actor=actor,
                audience=audience,
                operation=operation,
                outcome="in flight",
                allowed=allowed,
            )
        )
    requests = [
        f"{row['request_id']}, {row['direction']}, for {span(now - row['since'])}" for row in rows[:_MOST_REQUESTS]
    ]
    return LiveStory(
        chain=first["request_id"],
        subjects=((("", first["subject"]),) if first["subject"] else ()),
        agents=tuple(dict.fromkeys(names)),
        steps=tuple(steps),
        problems=(),
        verified=first["verified"],
        requests=requests,
    )


def _problem(trouble: Trouble) -> Problem:
    return Problem(kind=trouble.what, text=f"{trouble.wrong}. Fix: {trouble.fix}", grave=trouble.grade is Grade.WRONG)
