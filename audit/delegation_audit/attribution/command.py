"""``sidecar audit attribution``: judges from existing logs if agents impersonate users or delegate.

Exit codes: 0 every agent delegates or acts on its own authority, 1 some agent impersonates or cannot be judged, 2 a
file cannot be used, or no entry is a request.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from typing import Final

from delegation_audit.attribution.elements import Element
from delegation_audit.attribution.examination import UNKNOWABLE, Result, examine
from delegation_audit.attribution.mapping_files import MappingError
from delegation_audit.attribution.readings import Party, Reading
from delegation_audit.attribution.roster import RosterError
from delegation_audit.attribution.tally import Agent, Evidence
from delegation_audit.attribution.verdicts import MEANINGS, Judged, Kind
from delegation_core.console.counts import pluralise
from delegation_core.console.examples import add_examples
from delegation_core.console.output import add_logs, complain, print_line, print_table, visible

_COMMAND: Final = "sidecar audit attribution"
_MAX_ROWS: Final = 100
FIXES: Final[Mapping[Kind, str]] = {
    Kind.IMPERSONATES: "exchange the user's token with the agent as the actor (RFC 8693 section 4.1), as a sidecar"
    " beside the agent does",
    Kind.CANNOT_TELL: "log the claims of the verified token (sub and act), list the agents with --agents, and write"
    " all identifiers of one agent on one line",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    add_examples(
        parser,
        "sidecar audit attribution --agents agents.txt access.log audit.json.gz",
        "kubectl logs deploy/crm | sidecar audit attribution - --user claims.sub --actor claims.act.sub --json",
        "sidecar audit attribution --mapping our-format.toml app.log",
    )
    add_logs(parser)
    parser.add_argument(
        "--agents", metavar="FILE", help="the agents, one per line: SPIFFE ID, client id, service account, address, …"
    )
    parser.add_argument(
        "--mapping", action="append", default=[], metavar="FILE", help="a log format of your own (docs/attribution.md)"
    )
    parser.add_argument("--user", action="append", default=[], metavar="FIELD", help="a field that names the user")
    parser.add_argument("--actor", action="append", default=[], metavar="FIELD", help="a field that names the actor")


def run(arguments: argparse.Namespace) -> int:
    """Judge the log files and print the result. Returns the exit code."""
    rows = _Rows() if arguments.json else None
    try:
        result = examine(
            arguments.files,
            agents=arguments.agents,
            mapping=arguments.mapping,
            user=arguments.user,
            actor=arguments.actor,
            seen=rows.write if rows else None,
        )
        if rows is None:
            _show(result)
        else:
            rows.end(result)
    except BrokenPipeError:
        raise  # not a file's error: the command's runner ends it
    except (OSError, MappingError, RosterError) as error:
        return complain(_COMMAND, str(error))
    if not result.tally.requests:
        return complain(
            _COMMAND,
            f"no entry is a request; entries of another kind: {result.no_requests}, not understood:"
            f" {result.not_understood}; --mapping describes a format, see docs/attribution.md",
        )
    return 0 if all(map(_is_fine, result.tally.agents.values())) else 1


def _is_fine(agent: Agent) -> bool:
    return Kind.IMPERSONATES not in agent.evidence and agent.verdict is not Kind.CANNOT_TELL


class _Rows:
    """Writer of one JSON document, row by row while the logs are read: the requests need not fit into memory."""

    def __init__(self) -> None:
        self._before = '{"requests": [\n'

    def write(self, element: Element, reading: Reading, judged: Judged) -> None:
        row = {
            "place": visible(element.place),
            "format": reading.format,
            "verdict": judged.kind,
            "agent": None if judged.kind is Kind.NO_AGENT else visible(judged.agent),
            "user": _render(reading.users),
            "actor": _render(reading.actors),
            "client": _render(reading.clients),
            "peer": _render(reading.peers),
            "request": None if reading.request is None else visible(reading.request),
            "time": None if reading.time is None else visible(reading.time),
            "refused": reading.refused,
            "fields": list(judged.fields),
            "reason": judged.reason,
            "confidence": judged.confidence,
        }
        sys.stdout.write(self._before + json.dumps(row))
        self._before = ",\n"

    def end(self, result: Result) -> None:
        number, sentence = result.summary
        counts = result.tally.verdicts()
        verdicts = {str(kind): counts[kind] for kind in Kind if kind is not Kind.NO_AGENT}
        document: dict[str, object] = {
            "agents": [_agent(agent) for agent in result.agents],
            "files": {
                visible(file): {
                    "formats": dict(report.formats),
                    "no_requests": report.no_requests,
                    "not_understood": report.not_understood,
                }
                for file, report in result.files.items()
            },
            "summary": {
                "impersonating_agents": number,
                "sentence": sentence,
                **verdicts,
                "requests": result.tally.requests,
                "no_agent": result.tally.no_agent,
                "no_requests": result.no_requests,
                "not_understood": result.not_understood,
            },
            "unknowable": UNKNOWABLE,
        }
        head = '{"requests": [' if self._before.startswith("{") else ""
        sys.stdout.write(f"{head}\n],\n{json.dumps(document, indent=2)[2:]}\n")


def _render(parties: tuple[Party, ...]) -> str | None:
    return visible(parties[0].shown) if parties else None


def _agent(agent: Agent) -> dict[str, object]:
    return {
        "agent": visible(agent.name),
        "verdict": agent.verdict,
        "confidence": agent.confidence,
        "requests": agent.requests,
        "evidence": {kind: _evidence(one) for kind, one in agent.evidence.items()},
    }


def _evidence(evidence: Evidence) -> dict[str, object]:
    return {
        "requests": evidence.requests,
        "refused": evidence.refused,
        "places": [visible(place) for place in evidence.places],
        "fields": {visible(fields): count for fields, count in evidence.fields.items()},
        "reasons": dict(evidence.reasons),
        "formats": dict(evidence.formats),
    }


def _show(result: Result) -> None:
    if not result.tally.requests:
        return
    agents = result.agents
    if agents:
        print_table(
            ("agent", "verdict", "confidence", "requests", "because", "fields", "first at"),
            (row for agent in agents[:_MAX_ROWS] for row in _rows(agent)),
        )
    if len(agents) > _MAX_ROWS:
        print_line(f"and {pluralise(len(agents) - _MAX_ROWS, 'more agent')}; --json lists all", style="dim")
    print_line()
    print_line(f"{result.summary[1]}.", style="bold")
    for kind, count in sorted(result.tally.verdicts().items()):
        print_line(f"{_words(kind)}: {count}; {MEANINGS[kind]}")
    if result.tally.no_agent:
        print_line(f"requests without an agent, set aside: {result.tally.no_agent} of {result.tally.requests}")
    for kind, fix in FIXES.items():
        if any(kind in agent.evidence for agent in agents):
            print_line(f"{_words(kind)}? {fix}")
    print_line()
    for file, report in result.files.items():
        formats = ", ".join(f"{name} ({count})" for name, count in report.formats.most_common()) or "no known format"
        print_line(f"{file}: {formats}{_count_others(report.no_requests, report.not_understood)}")
    print_line()
    print_line("Limits of this report (docs/attribution.md):")
    for sentence in UNKNOWABLE:
        print_line(f"  {sentence}", style="dim")


def _count_others(no_requests: int, not_understood: int) -> str:
    said = f"; no requests: {no_requests}" if no_requests else ""
    return said + (f"; not understood, and not counted: {not_understood}" if not_understood else "")


def _rows(agent: Agent) -> list[tuple[object, ...]]:
    """Return one row for each outcome of an agent; only the first row names agent, verdict and confidence."""
    rows: list[tuple[object, ...]] = []
    for kind, evidence in sorted(agent.evidence.items(), key=lambda one: list(Kind).index(one[0])):
        head = (agent.name, _words(agent.verdict), agent.confidence) if not rows else ("", "", "")
        reason = evidence.reasons.most_common(1)[0][0]
        because = reason if kind is agent.verdict else f"{_words(kind)}: {reason}"
        fields = evidence.fields.most_common(1)[0][0] if evidence.fields else ""
        rows.append((*head, evidence.requests, because, fields or None, evidence.places[0]))
    return rows


def _words(kind: Kind) -> str:
    return kind.replace("_", " ")
