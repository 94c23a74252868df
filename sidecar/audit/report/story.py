"""The content of a report, without its form: for each chain who, for whom, what, what was refused, and the evidence.

The page and the terminal show the same story. Every text in it may come from an attacker.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """A contradiction or refusal. ``grave``: evidence is missing or false; otherwise something was refused."""

    kind: str
    text: str
    grave: bool
    evidence: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One hop: ``actor`` called ``audience``. ``dropped`` are scopes of the hop before that this one has no more."""

    depth: int
    time: str
    actor: str | None
    audience: str | None
    operation: str | None
    outcome: str
    allowed: bool | None  # None: no witness says
    failed: bool = False  # it was let through, and no answer of success was seen
    scope: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    added: tuple[str, ...] = ()
    witnesses: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    evidence: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """One chain: everything that was done on one login of one person."""

    chain: str
    subjects: tuple[tuple[str, str], ...]  # issuer, subject
    agents: tuple[str, ...]
    steps: tuple[Step, ...]
    problems: tuple[Problem, ...]

    @property
    def began(self) -> str:
        """Time of the first step."""
        return next((step.time for step in self.steps if step.time), "")

    @property
    def ended(self) -> str:
        """Time of the last step."""
        return next((step.time for step in reversed(self.steps) if step.time), "")

    @property
    def actors(self) -> tuple[str, ...]:
        """Agents that called something, in the order of their first call."""
        return tuple(dict.fromkeys(step.actor for step in self.steps if step.actor is not None))

    @property
    def refused(self) -> tuple[Step, ...]:
        """Steps that were refused."""
        return tuple(step for step in self.steps if step.allowed is False)

    @property
    def done(self) -> tuple[Step, ...]:
        """Steps that were let through and answered with success."""
        return tuple(step for step in self.steps if step.allowed and not step.failed)

    @property
    def failed(self) -> tuple[Step, ...]:
        """Steps that were let through, of which no success was seen: refused or not answered by the called one."""
        return tuple(step for step in self.steps if step.allowed and step.failed)

    @property
    def unknown(self) -> tuple[Step, ...]:
        """Steps of which no witness tells the outcome."""
        return tuple(step for step in self.steps if step.allowed is None)


def alike(steps: Iterable[Step]) -> list[list[Step]]:
    """Group steps of one operation, audience and outcome, in the order of their first."""
    groups: dict[tuple[str | None, str | None, str], list[Step]] = {}
    for step in steps:
        groups.setdefault((step.operation, step.audience, step.outcome), []).append(step)
    return list(groups.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """One record: its name (run/seq), its place, the SHA-256 of its line, and the line."""

    name: str
    place: str
    hash: str
    line: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Everything that a report shows. ``integrity`` says up to where the records are proven, by run."""

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
        """Names of the records that the page has; a reference to another one is no link."""
        return frozenset(one.name for one in self.evidence)

    @property
    def grave(self) -> int:
        """Number of grave problems."""
        return sum(one.grave for one in (*self.problems, *(p for story in self.stories for p in story.problems)))
