"""Aggregates judged requests to a verdict for each agent, in bounded memory. Pure."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from delegation_audit.attribution.verdicts import UNNAMED, Judged, Kind
from delegation_audit.rules import Confidence

MAX_AGENTS: Final = 10_000
MAX_PLACES: Final = 3
MAX_FIELD_SETS: Final = 16
OTHERS: Final = "(more agents than are told apart)"
CONTRADICTED: Final = frozenset(
    {"two fields name different actors", "the actor named is another agent", "the actor named is another party"}
)
_KINDS: Final = (Kind.IMPERSONATES, Kind.DELEGATES, Kind.OWN_AUTHORITY, Kind.CANNOT_TELL)


@dataclass(slots=True)
class Evidence:
    """Requests of one agent with the same outcome: their number, the first places, fields, reasons and formats."""

    requests: int = 0
    refused: int = 0
    places: list[str] = field(default_factory=list)
    fields: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    formats: Counter[str] = field(default_factory=Counter)
    confidence: Confidence = Confidence.LOW  # the best of the requests

    def add(self, judged: Judged, place: str, format_name: str, *, refused: bool) -> None:
        """Count one request."""
        self.requests += 1
        self.refused += refused
        if len(self.places) < MAX_PLACES:
            self.places.append(place)
        said = ", ".join(judged.fields)
        if said in self.fields or len(self.fields) < MAX_FIELD_SETS:
            self.fields[said] += 1
        self.reasons[judged.reason] += 1
        self.formats[format_name] += 1
        self.confidence = min(self.confidence, judged.confidence, key=list(Confidence).index)


@dataclass(slots=True)
class Agent:
    """One agent and its requests, by outcome."""

    name: str
    evidence: dict[Kind, Evidence] = field(default_factory=dict)

    @property
    def requests(self) -> int:
        """Number of requests."""
        return sum(one.requests for one in self.evidence.values())

    @property
    def verdict(self) -> Kind:
        """Verdict over all requests; MIXED if they have several outcomes.

        Requests that cannot be judged lower only the confidence. But if one of them contradicts its actor, an agent
        that otherwise delegates cannot be judged.
        """
        told = [kind for kind in _KINDS[:3] if kind in self.evidence]
        if not told:
            return Kind.CANNOT_TELL
        if told == [Kind.DELEGATES] and self._is_contradicted():
            return Kind.CANNOT_TELL
        if len(told) == 1:
            return told[0]
        return Kind.MIXED

    @property
    def confidence(self) -> Confidence:
        """Confidence in the verdict: the lowest of its outcomes; at most medium if requests cannot be judged."""
        if self.verdict is Kind.CANNOT_TELL:
            return Confidence.LOW
        told = [self.evidence[kind].confidence for kind in _KINDS[:3] if kind in self.evidence]
        worst = max(told, key=list(Confidence).index)
        unclear = self.evidence.get(Kind.CANNOT_TELL)
        if unclear is None:
            return worst
        return (
            Confidence.LOW
            if unclear.requests * 2 > self.requests
            else max(worst, Confidence.MEDIUM, key=list(Confidence).index)
        )

    def _is_contradicted(self) -> bool:
        unclear = self.evidence.get(Kind.CANNOT_TELL)
        return unclear is not None and any(reason in CONTRADICTED for reason in unclear.reasons)


@dataclass(slots=True)
class Tally:
    """All agents, and the number of requests that belong to none."""

    agents: dict[str, Agent] = field(default_factory=dict)
    requests: int = 0
    no_agent: int = 0

    def add(self, judged: Judged, place: str, format_name: str, *, refused: bool) -> None:
        """Count one request."""
        self.requests += 1
        if judged.kind is Kind.NO_AGENT:
            self.no_agent += 1
            return
        name = judged.agent
        if name not in self.agents and len(self.agents) >= MAX_AGENTS:
            name = OTHERS
        agent = self.agents.setdefault(name, Agent(name))
        evidence = agent.evidence.setdefault(judged.kind, Evidence())
        evidence.add(judged, place, format_name, refused=refused)

    def verdicts(self) -> Counter[Kind]:
        """Return the number of agents with each verdict; UNNAMED is no agent."""
        return Counter(agent.verdict for agent in self.agents.values() if agent.name != UNNAMED)

    def rank_agents(self) -> list[Agent]:
        """Sort the agents: worst verdict first, then by number of requests, most first."""
        order = (Kind.IMPERSONATES, Kind.MIXED, Kind.CANNOT_TELL, Kind.OWN_AUTHORITY, Kind.DELEGATES)
        return sorted(self.agents.values(), key=lambda one: (order.index(one.verdict), -one.requests, one.name))
