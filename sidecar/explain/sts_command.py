"""Command ``sidecar sts explain``: judges recorded exchanges of the token service again.

A single record is explained check by check; for several, decisions that would differ are counted by kind. Exit
codes: 0 no differences, 1 some, 2 no such record, or unusable settings.
"""

from __future__ import annotations

import argparse
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from delegation_core.console.counts import pluralise
from delegation_core.console.examples import add_examples
from delegation_core.console.output import complain, print_json, print_line, print_table
from delegation_core.errors import ConfigError
from delegation_core.records.folders import record_files
from delegation_core.records.log_lines import read_lines
from delegation_core.records.reading import Record, RecordError, parse_record
from delegation_core.records.record_text import escape
from delegation_core.scope import format_scope
from sidecar.config import load_sts
from sidecar.explain.command import show
from sidecar.explain.explanation import EXCHANGES, Explanation, explain_exchange
from sidecar.explain.judge_exchange import UNPROVABLE
from sidecar.explain.judgement import OK
from sidecar.sts.policy import StsPolicy

_COMMAND: Final = "sidecar sts explain"
_SHOWN: Final = 50
_MAX_CHANGES: Final = 10_000


class Change(NamedTuple):
    """A decision that differs: the client, the target, and both decisions."""

    client: str
    audience: str
    old: str
    new: str


class Summary:
    """Outcome of many records. ``told`` counts decisions that are copied from the record."""

    def __init__(self) -> None:
        self.records = self.judged = self.told = self.different = 0
        self.not_judged: Counter[str] = Counter()
        self.changes: dict[Change, tuple[int, str]] = {}  # and how many, and the name of the first

    def add(self, explanation: Explanation) -> None:
        """Count one explanation."""
        judgement, record = explanation.judgement, explanation.record
        self.records += 1
        if judgement is None:
            self.not_judged[explanation.not_judged or ""] += 1
            return
        self.judged += 1
        self.told += judgement.judged is None
        if explanation.agrees:
            return
        self.different += 1
        new = explanation.change or ("allow" if judgement.judged == OK else f"deny {judgement.judged}")
        change = Change(*map(escape, (record.peer or "", record.audience or "", _decision(record), new)))
        count, first = self.changes.get(change, (0, record.name))
        if count or len(self.changes) < _MAX_CHANGES:
            self.changes[change] = (count + 1, first)

    def document(self) -> dict[str, object]:
        """Return the summary for machines."""
        return {
            "judged": self.judged,
            "told": self.told,
            "different": self.different,
            "not_judged": dict(sorted(self.not_judged.items())),
            "changes": [
                {**change._asdict(), "count": count, "example": escape(first)}
                for change, (count, first) in self.sorted()
            ],
            "unprovable": list(UNPROVABLE),
        }

    def sorted(self) -> list[tuple[Change, tuple[int, str]]]:
        """Return the changes, the most frequent first."""
        return sorted(self.changes.items(), key=lambda one: (-one[1][0], one[0]))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    add_examples(
        parser,
        "sidecar sts explain sts.jsonl --request 59f98de2b75601501126ddfa8c234ab8",
        "sidecar sts explain records/ --settings new.yaml  # what other settings would have decided",
        "sidecar sts explain 'records/*.jsonl.zst' --settings new.yaml --json",
    )
    parser.add_argument(
        "records", nargs="+", metavar="FILE", help="records: a file, .gz and .zst too, a folder, a pattern, or -"
    )
    parser.add_argument("--request", metavar="ID", help="the request id of the one exchange to explain")
    parser.add_argument(
        "--settings", metavar="FILE", default="/etc/sidecar/sts.yaml", help="the settings (default %(default)s)"
    )
    parser.add_argument("--json", action="store_true", help="for machines")


def run(arguments: argparse.Namespace) -> int:
    """Judge the exchanges again."""
    try:
        policy = load_sts(Path(arguments.settings), os.environ).policy
        summary, only = _judge(record_files(arguments.records), arguments.request, policy)
    except OSError as error:
        return complain(_COMMAND, str(error))
    except ConfigError as error:
        return complain(_COMMAND, f"the settings cannot be used; run sidecar check --sts: {error.problems[0]}")
    if not summary.records:
        return complain(_COMMAND, "there is no such record of an exchange at a token service")
    if only is None and arguments.request is not None:
        fix = "look for forged ones with sidecar audit chains"
        return complain(_COMMAND, f"there is more than one record with this request id; {fix}")
    return _describe(summary, only, as_json=arguments.json)


def _judge(files: Sequence[str], request_id: str | None, policy: StsPolicy) -> tuple[Summary, Explanation | None]:
    """Judge all exchanges; also return the explanation of the record, if there is only one."""
    summary, first, more = Summary(), None, False
    for record in _exchanges(files, request_id):
        explanation = explain_exchange(record, policy)
        summary.add(explanation)
        first = first or explanation
        more = more or record.digest != first.record.digest
    return summary, None if more else first


def _describe(summary: Summary, only: Explanation | None, *, as_json: bool) -> int:
    if only is not None:
        if as_json:
            print_json(only.document())
        else:
            show(only)
        return 0 if only.agrees else 1
    if as_json:
        print_json(summary.document())
    else:
        _show(summary)
    return 1 if summary.different else 0


def _exchanges(files: Sequence[str], request_id: str | None) -> Iterator[Record]:
    """Yield the token service's records of exchanges, with ``request_id`` only that one's; skips all other lines."""
    for line in read_lines(files):
        try:
            record = parse_record(line.content or b"")
        except RecordError:
            continue
        if record.event in EXCHANGES and record.direction is None and request_id in {None, record.request_id}:
            yield record


def _decision(record: Record) -> str:
    if record.allowed:
        return f"allow {format_scope(record.scope or frozenset())}"
    return f"deny {record.reason}"


def _show(summary: Summary) -> None:
    changes = summary.sorted()
    if changes:
        print_table(
            ("client", "audience", "then", "now", "count", "example"),
            ((*change, count, escape(first)) for change, (count, first) in changes[:_SHOWN]),
        )
        if len(changes) > _SHOWN:
            print_line(f"and {len(changes) - _SHOWN} more; --json lists all", style="dim")
        print_line()
    exchanges = pluralise(summary.judged, "exchange")
    print_line(f"judged again: {exchanges}; of these the record's word decides {summary.told}")
    for why, count in sorted(summary.not_judged.items()):
        print_line(f"not judged: {count}: {why}")
    print_line(f"decided differently: {summary.different}", style="bold red" if summary.different else "green")
    print_line()
    print_line("What this cannot prove:")
    for sentence in UNPROVABLE:
        print_line(f"  {sentence}", style="dim")
