"""Content of a report, without layout: for each chain the people, agents, calls, refusals and evidence.

Every text in a story may come from an attacker.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """A finding. ``grave``: it breaks a chain; otherwise a call was refused or only observed."""

    kind: str
    text: str
    grave: bool
    evidence: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One hop: ``actor`` called ``audience``. ``dropped``: scopes of the hop before that this hop lacks."""

    depth: int
    time: str
    actor: str | None
    audience: str | None
    operation: str | None
    outcome: str
    allowed: bool | None  # None: no witness recorded a decision
    failed: bool = False  # the call was permitted, but no successful response was recorded
    scope: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    added: tuple[str, ...] = ()
    witnesses: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    evidence: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """One chain: all calls on one login of one person."""

    chain: str
    subjects: tuple[tuple[str, str], ...]  # issuer, subject
    agents: tuple[str, ...]
    steps: tuple[Step, ...]
    problems: tuple[Problem, ...]

    @property
    def began(self) -> str:
        """Time of the first step with a time; "" if none has one."""
        return next((step.time for step in self.steps if step.time), "")

    @property
    def ended(self) -> str:
        """Time of the last step with a time; "" if none has one."""
        return next((step.time for step in reversed(self.steps) if step.time), "")

    @property
    def actors(self) -> tuple[str, ...]:
        """Agents that made a call, in the order of their first call."""
        return tuple(dict.fromkeys(step.actor for step in self.steps if step.actor is not None))

    @property
    def refused(self) -> tuple[Step, ...]:
        """Steps that were refused, or passed without authority."""
        return tuple(step for step in self.steps if step.allowed is False)

    @property
    def done(self) -> tuple[Step, ...]:
        """Steps that were permitted, with a successful response."""
        return tuple(step for step in self.steps if step.allowed and not step.failed)

    @property
    def failed(self) -> tuple[Step, ...]:
        """Steps that were permitted, without a successful response: ended, refused or not answered."""
        return tuple(step for step in self.steps if step.allowed and step.failed)

    @property
    def unknown(self) -> tuple[Step, ...]:
        """Steps for which no witness recorded a decision."""
        return tuple(step for step in self.steps if step.allowed is None)


def group_steps(steps: Iterable[Step]) -> list[list[Step]]:
    """Group steps by operation, audience and outcome; groups are in the order of their first step."""
    groups: dict[tuple[str | None, str | None, str], list[Step]] = {}
    for step in steps:
        groups.setdefault((step.operation, step.audience, step.outcome), []).append(step)
    return list(groups.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """One record: its name (RUN/SEQ), its place, the SHA-256 of its line in hex, and the line."""

    name: str
    place: str
    hash: str
    line: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Content of the page. ``integrity``: sentences on up to which record each run is proven."""

    title: str
    made_at: str
    version: str
    files: Sequence[str]
    choice: str | None  # the filters, in words
    records: int
    all_chains: int
    broken_chains: int
    stories: Sequence[Story]
    problems: Sequence[Problem]  # of no chain
    integrity: Sequence[str]
    evidence: Sequence[Evidence]
    evidence_left_out: int = 0

    @property
    def shown(self) -> frozenset[str]:
        """Names of the records on the page; references to other records are no links."""
        return frozenset(one.name for one in self.evidence)

    @property
    def grave(self) -> int:
        """Number of grave problems."""
        return sum(one.grave for one in (*self.problems, *(p for story in self.stories for p in story.problems)))
