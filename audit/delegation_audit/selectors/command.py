"""``sidecar audit selectors``: judges registration entries of SPIRE, and prints weaknesses, fixes and grades.

Exit codes: 0 no weaknesses, 1 weaknesses, 2 a path cannot be read or no entry was found.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Final

from delegation_audit.rules import Severity, Weakness, unknown_rules
from delegation_audit.sarif import sarif
from delegation_audit.selectors.agents import agents_of
from delegation_audit.selectors.examination import Result, examine
from delegation_audit.selectors.grades import Grade, Strength
from delegation_audit.selectors.rulebook import RULES
from delegation_core.console.counts import pluralise
from delegation_core.console.examples import add_examples
from delegation_core.console.output import add_formats, complain, print_json, print_line, print_table
from delegation_core.records.folders import record_files

_COMMAND: Final = "sidecar audit selectors"
_UPDATE: Final = "spire-server entry update"
_SHOWN_OF_A_RULE: Final = 20
_SHOWN_IDENTITIES: Final = 40
_COLOURS: Final = {Severity.CRITICAL: "bold red", Severity.HIGH: "red", Severity.MEDIUM: "yellow", Severity.LOW: ""}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument(
        "paths",
        nargs="+",
        metavar="PATH",
        help="output of `spire-server entry show -output json`, a registration file, manifests, a folder of them, or -",
    )
    parser.add_argument(
        "--agents",
        action="append",
        default=[],
        metavar="FILE|PATTERN",
        help="SPIFFE IDs of agents, such as /agent/* (default: a path with the segment agent or agents)",
    )
    parser.add_argument(
        "--records", action="extend", nargs="+", default=[], metavar="FILE", help="records whose actors are graded"
    )
    parser.add_argument("--trust-domain", metavar="NAME", help="the server's trust domain; others are reported")
    parser.add_argument(
        "--federated", action="append", default=[], metavar="NAME", help="a partner's trust domain; others are reported"
    )
    add_formats(parser)
    add_examples(
        parser,
        "sidecar audit selectors entries.json  # the output of `spire-server entry show -output json`",
        "sidecar audit selectors manifests/ --agents '/ns/agents/*' --sarif",
        "sidecar audit selectors entries.json --records sidecar.records  # how strongly was each actor attested?",
    )


def run(arguments: argparse.Namespace) -> int:
    """Judge the entries and print the result. Returns the exit code."""
    wrong = unknown_rules(arguments.ignore, RULES)
    if wrong is not None:
        return complain(_COMMAND, wrong)
    try:
        result = examine(
            arguments.paths,
            records=record_files(arguments.records),
            agents=agents_of(arguments.agents),
            trust_domain=arguments.trust_domain,
            partners=arguments.federated,
            ignored=arguments.ignore,
        )
    except (OSError, ValueError) as error:
        return complain(_COMMAND, str(error))
    if not result.entries and not result.weaknesses:  # an audit without entries must not pass as one without weaknesses
        return complain(_COMMAND, "no entry in any of the paths; see `sidecar audit selectors --help` for the formats")
    _show(result, arguments)
    if not result.entries:
        return complain(_COMMAND, "no entry can be read")
    return 1 if result.weaknesses else 0


def _show(result: Result, arguments: argparse.Namespace) -> None:
    if arguments.sarif:
        print_json(sarif(_COMMAND, RULES, result.weaknesses))
    elif arguments.json:
        print_json(_document(result))
    else:
        _print(result)


def _document(result: Result) -> dict[str, object]:
    return {
        "entries": len(result.entries),
        "summary": result.summary[1],
        "weak": result.summary[0],
        "identities": [
            {"spiffe_id": name, "grade": grade.strength, "reason": grade.reason}
            for name, grade in sorted(result.grades.items())
        ],
        "weaknesses": [
            {
                "rule": one.rule.id,
                "severity": one.severity,
                "confidence": one.confidence,
                "text": one.text,
                "file": one.place.file,
                "line": one.place.line,
                "object": one.place.object,
                "why": one.rule.why,
                "fix": one.fix,
                "cure": one.fix,  # the key's old name, for one release
                "standard": one.rule.standard,
                "fingerprint": one.fingerprint,
                "facts": dict(one.facts),
            }
            for one in result.weaknesses
        ],
        "actors": [
            {
                "actor": one.actor,
                "audience": one.audience,
                "calls": one.calls,
                "grade": None if one.grade is None else one.grade.strength,
                "reason": None if one.grade is None else one.grade.reason,
            }
            for one in result.actors
        ],
    }


def _print(result: Result) -> None:
    _print_identities(result)
    _print_actors(result)
    print_line(result.summary[1])
    if not result.weaknesses:
        print_line("nothing found", style="green")
        return
    print_line()
    by_rule: dict[str, list[Weakness]] = {}
    for one in result.weaknesses:
        by_rule.setdefault(one.rule.id, []).append(one)
    for found in by_rule.values():
        _print_rule(found)
    if any(_UPDATE in one.fix for one in result.weaknesses):
        print_line("Each update command states a whole entry and fixes all its fixable weaknesses: run it once.")


def _print_identities(result: Result) -> None:
    ranked = sorted(result.grades.items(), key=lambda item: (-item[1].strength.rank, item[0]))
    shown = ranked[:_SHOWN_IDENTITIES]
    print_table(("identity", "grade", "attested by"), ((name, one.strength, one.reason) for name, one in shown))
    if len(ranked) > len(shown):
        more = pluralise(len(ranked) - len(shown), "more identity", "more identities")
        print_line(f"and {more}, not weaker; --json has all", style="dim")
    print_line()


def _print_actors(result: Result) -> None:
    if not result.actors:
        return
    ranked = sorted(result.actors, key=lambda one: -(len(Strength) if one.grade is None else one.grade.strength.rank))
    print_table(
        ("actor", "called", "calls", "grade", "attested by"),
        (
            (one.actor, one.audience, one.calls, *(("no entry", None) if one.grade is None else _cells(one.grade)))
            for one in ranked[:_SHOWN_IDENTITIES]
        ),
    )
    print_line()


def _cells(grade: Grade) -> tuple[str, str]:
    return grade.strength, grade.reason


def _where(one: Weakness) -> str:
    """Return the place; for a Cluster… object also its name, because several may have one SPIFFE ID."""
    name = one.place.object or ""
    return f"{one.place}, {name}" if name.startswith("Cluster") else str(one.place)


def _print_rule(found: Sequence[Weakness]) -> None:
    rule, severity = found[0].rule, found[0].severity
    print_line(f"{severity}: {rule.id} ({len(found)}): {rule.title}", style=_COLOURS[severity])
    print_line(f"  {rule.why}")
    for one in found[:_SHOWN_OF_A_RULE]:
        print_line(f"  {_where(one)}: {one.text}")
        for line in one.fix.split("\n"):
            print_line(f"      {line}", style="dim")
    if len(found) > _SHOWN_OF_A_RULE:
        print_line(f"  and {len(found) - _SHOWN_OF_A_RULE} more; --json has them all", style="dim")
    print_line(f"  see {rule.standard}", style="dim")
    print_line()
