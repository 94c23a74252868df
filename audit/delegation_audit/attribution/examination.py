"""Examines log files: recognises, reads, judges and counts each entry. Prints nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from delegation_audit.attribution import mapping_files as mappings
from delegation_audit.attribution import roster as rosters
from delegation_audit.attribution.elements import Element, read_elements
from delegation_audit.attribution.readings import Fields, Reader, Reading
from delegation_audit.attribution.recognition import Recogniser
from delegation_audit.attribution.roster import Roster
from delegation_audit.attribution.tally import Agent, Tally
from delegation_audit.attribution.verdicts import UNNAMED, Judged, Kind, judge

UNKNOWABLE: Final = (
    "A log shows names, not proofs: it does not say if or how a name was verified.",
    "A person who calls by hand and an agent that carries the person's token look alike in a log that does not name"
    " the agent.",
    "User-Agent, addresses and an agent's own statements identify an agent and prove nothing: every caller can"
    " choose them. An OAuth client obtained the token; another party may carry it.",
    "Requests that were never logged are not counted.",
)


@dataclass(slots=True)
class FileReport:
    """Counts of one file: entries by format, entries that are no requests, and entries that fit no mapping."""

    formats: Counter[str] = field(default_factory=Counter)
    no_requests: int = 0
    not_understood: int = 0


@dataclass(slots=True)
class Result:
    """Result over all files."""

    tally: Tally = field(default_factory=Tally)
    files: dict[str, FileReport] = field(default_factory=dict)
    listed: bool = False  # a list of agents was given

    @property
    def agents(self) -> list[Agent]:
        """The agents, worst verdict first."""
        return self.tally.rank_agents()

    @property
    def summary(self) -> tuple[int, str]:
        """Number of agents that impersonate in at least one request, and a sentence."""
        counts = self.tally.verdicts()
        agents = sum(counts.values())
        number = sum(
            Kind.IMPERSONATES in agent.evidence for agent in self.tally.agents.values() if agent.name != UNNAMED
        )
        if not self.listed:
            return number, (
                f"callers that delegate: {counts[Kind.DELEGATES]} of {agents}; without a list of agents (--agents),"
                " nobody else can be called an agent"
            )
        return number, f"agents that impersonate the user in at least one request: {number} of {agents}"

    @property
    def not_understood(self) -> int:
        """Number of entries that fit no mapping, over all files."""
        return sum(report.not_understood for report in self.files.values())

    @property
    def no_requests(self) -> int:
        """Number of entries that are no requests, over all files."""
        return sum(report.no_requests for report in self.files.values())


def examine(
    paths: Sequence[str | Path],
    *,
    agents: str | None = None,
    mapping: Sequence[str] = (),
    user: Sequence[str] = (),
    actor: Sequence[str] = (),
    seen: Callable[[Element, Reading, Judged], None] | None = None,
) -> Result:
    """Examine log files. Calls ``seen`` for each request.

    Raises:
        OSError: a log file cannot be read.
        MappingError, RosterError: a mapping or the list of agents cannot be used.
    """
    result = Result(listed=agents is not None)
    roster = None if agents is None else rosters.load(agents)
    fields = Fields(user=[name.lower() for name in user], actor=[name.lower() for name in actor])
    readers = [Reader(known, fields) for known in mappings.load(mapping)]
    for element, reading, judged in _judge(result, list(map(str, paths)), readers, roster):
        result.tally.add(judged, element.place, reading.format, refused=reading.refused)
        if seen is not None:
            seen(element, reading, judged)
    return result


def _judge(
    result: Result,
    paths: Sequence[str],
    readers: Sequence[Reader],
    roster: Roster | None,
) -> Iterator[tuple[Element, Reading, Judged]]:
    recognisers: dict[str, Recogniser] = {}
    for element in read_elements(paths):
        if element.file not in recognisers:
            recognisers = {element.file: Recogniser(readers)}  # only one: files are read in sequence
        report = result.files.setdefault(element.file, FileReport())
        for found in recognisers[element.file].recognise(element.content):
            if found.format is None:
                report.not_understood += 1
                continue
            report.formats[found.format] += 1
            if found.reading is None:
                report.no_requests += 1
                continue
            yield element, found.reading, judge(found.reading, roster)
