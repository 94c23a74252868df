"""Grades the actors in records: the strength of the attestation behind the actor of each hop."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from delegation_audit.rules import Place, Weakness
from delegation_audit.selectors.entries import SCHEME
from delegation_audit.selectors.grades import Grade, Identities
from delegation_audit.selectors.rulebook import RULE
from delegation_core.records.log_lines import read_lines
from delegation_core.records.reading import RecordError, parse_record

MAX_HOPS: Final = 20_000


@dataclass(frozen=True, slots=True)
class Actor:
    """An actor, the audience that it called, the number of calls, and the actor's grade; None without an entry."""

    actor: str
    audience: str
    calls: int
    grade: Grade | None


def actors_in(records: Sequence[str], grades: Mapping[str, Grade]) -> tuple[list[Actor], list[Weakness]]:
    """Count permitted calls by actor and audience; also return a weakness for each actor without an entry.

    Skips lines that are no records: ``sidecar audit chains`` reports them.

    Raises:
        OSError: a file cannot be read, or the files hold more than MAX_HOPS different hops.
    """
    ends: Counter[tuple[str, str, str]] = Counter()  # caller and callee may both have recorded a call
    first: dict[str, Place] = {}
    for line in read_lines(records) if records else ():
        if line.content is None:
            continue
        try:
            record = parse_record(line.content)
        except RecordError:
            continue
        for actor in {record.actor, *(record.chain or ())} if record.allowed else ():
            if actor is not None and actor.startswith(SCHEME):
                first.setdefault(actor, Place(file=line.file, line=line.number, object=actor))
        if record.allowed and record.actor in first and record.event == "request":
            ends[record.actor, record.audience or "unknown", record.direction or ""] += 1
        if len(ends) > MAX_HOPS or len(first) > MAX_HOPS:
            raise OSError(f"{line.file}: more than {MAX_HOPS} different hops; give fewer records")
    hops: dict[tuple[str, str], int] = {}
    for (actor, audience, _), count in ends.items():
        hops[actor, audience] = max(count, hops.get((actor, audience), 0))
    known = Identities(grades)
    missing = RULE["actor-without-entry"]
    return (
        [Actor(actor, audience, count, known.grade(actor)) for (actor, audience), count in sorted(hops.items())],
        [
            missing.report(place, f"{actor} has no entry")
            for actor, place in first.items()
            if known.grade(actor) is None
        ],
    )
