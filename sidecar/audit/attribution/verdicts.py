"""Judges from access logs if requests impersonate or delegate: one line alone, and many together. Pure.

RFC 8693 section 1.1: an impersonator *is* the user to everybody else; a delegate is named beside the user.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from sidecar.audit.attribution.readings import Named

MAX_GROUPS: Final = 1000


class Attribution(StrEnum):
    """The identities that a log line shows for a request."""

    IMPERSONATING = "impersonating"
    DELEGATING = "delegating"
    AGENT_ONLY = "agent_only"
    UNATTRIBUTED = "unattributed"


MEANINGS: Final[dict[Attribution, str]] = {
    Attribution.IMPERSONATING: "the log does not name the agent",
    Attribution.DELEGATING: "the actor is named beside the user",
    Attribution.AGENT_ONLY: "an agent is named, but no user",
    Attribution.UNATTRIBUTED: "neither agent nor user is named",
}

UNKNOWABLE: Final = (
    "A log shows names, not proofs: it does not say if or how a name was verified.",
    "A person who calls by hand and an agent that carries the person's token look alike; both count as impersonating.",
    "User-Agent and addresses do not count: every caller can choose them. An OAuth client obtained the token; another"
    " party may carry it.",
    "Requests that were never logged are not counted.",
)


@dataclass(frozen=True, slots=True)
class Group:
    """Requests with the same identities."""

    attribution: Attribution
    user: str | None
    actor: str | None
    client: str | None


def attribution_of(named: Named) -> Attribution:
    """Judge one request. An actor equal to the user does not count as a second party."""
    user, actor = named.user, named.actor
    if user is not None and user.startswith("spiffe://") and actor in {None, user}:
        return Attribution.AGENT_ONLY  # a workload acting for itself
    if user is None:
        return Attribution.UNATTRIBUTED if actor is None else Attribution.AGENT_ONLY
    return Attribution.IMPERSONATING if actor in {None, user} else Attribution.DELEGATING


@dataclass(slots=True)
class Tally:
    """Totals over many requests. ``others`` are those beyond ``MAX_GROUPS`` groups."""

    requests: int = 0
    counts: Counter[Attribution] = field(default_factory=Counter)
    groups: Counter[Group] = field(default_factory=Counter)
    others: int = 0
    with_client: int = 0
    refused: int = 0
    not_understood: int = 0

    def add(self, named: Named) -> Attribution:
        """Count one request."""
        attribution = attribution_of(named)
        group = Group(attribution, named.user, named.actor, named.client)
        self.requests += 1
        self.counts[attribution] += 1
        if attribution is Attribution.IMPERSONATING:
            self.with_client += named.client is not None
            self.refused += named.refused
        if group in self.groups or len(self.groups) < MAX_GROUPS:
            self.groups[group] += 1
        else:
            self.others += 1
        return attribution

    def sentences(self) -> list[str]:
        """Return the summary, one sentence for each outcome that occurs."""
        total = f"{self.requests} request" if self.requests == 1 else f"{self.requests} requests"
        said = [
            f"{attribution.replace('_', ' ')}: {self.counts[attribution]} of {total}; {MEANINGS[attribution]}"
            for attribution in Attribution
            if self.counts[attribution]
        ]
        if self.with_client:
            said.append(
                f"in {self.with_client} of these an OAuth client, which got the token, is named beside the user"
            )
        if self.refused:
            said.append(f"refused by a sidecar, of the impersonating: {self.refused}")
        return said
