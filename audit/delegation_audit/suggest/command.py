"""``sidecar audit suggest``: proposes routes that permit the observed calls once these carry a delegated token.

Exit codes: 0 every observed call has a route, 1 a call is left out or its route held back as a comment, 2 a file cannot
be read, or no record is of a call that passed.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from datetime import date
from typing import Final

from delegation_audit.suggest.evidence import HARMLESS, Evidence, MadeCalls
from delegation_audit.suggest.proposal import Suggestion, suggestions
from delegation_audit.suggest.settings_text import settings_text
from delegation_core.console.counts import pluralise
from delegation_core.console.examples import add_examples
from delegation_core.console.output import complain, print_json, visible
from delegation_core.records.folders import record_files
from delegation_core.records.log_lines import read_lines
from delegation_core.records.reading import RecordError, parse_record

_COMMAND: Final = "sidecar audit suggest"
_NOT_RECORDS: Final = "no record"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    add_examples(
        parser,
        "sidecar audit suggest records/ >routes.yaml",
        "sidecar audit suggest 'logs/*.jsonl.zst' --workload spiffe://acme.example/tool/crm",
        "kubectl logs -l 'app in (crm, writer)' -c sidecar --tail=-1 | sidecar audit suggest - --json",
    )
    parser.add_argument(
        "files", nargs="+", metavar="FILE", help="records: a file, .gz and .zst too, a folder, a pattern, or -"
    )
    parser.add_argument(
        "--workload",
        metavar="SPIFFE_ID",
        help="print only the routes of this workload; records of others are read for its scopes and callers",
    )
    parser.add_argument("--json", action="store_true", help="for machines")


def read_evidence(files: Sequence[str], *, workload: str | None = None) -> tuple[Evidence, Evidence]:
    """Count the calls in record files. Returns the evidence of ``workload``, or of all, and that of other workloads.

    Raises:
        OSError: a file cannot be read; the text names it.
    """
    made = MadeCalls()
    evidence, others = Evidence(made), Evidence(made)
    for line in read_lines(record_files(files)):
        try:
            record = parse_record(line.content or b"")
        except RecordError:
            evidence.others[_NOT_RECORDS] += 1
            continue
        (evidence if workload in (None, record.workload) else others).add(record)
    return evidence, others


def run(arguments: argparse.Namespace) -> int:
    """Print the proposals. Returns the exit code."""
    try:
        evidence, others = read_evidence(arguments.files, workload=arguments.workload)
    except OSError as error:
        return complain(_COMMAND, str(error))
    if not evidence.witnesses:
        whose = f" of {arguments.workload}" if arguments.workload else ""
        return complain(_COMMAND, f"no record{whose} is of a call that passed; observe calls first, by observe_until")
    proposed = [one for one in suggestions(others.witnesses | evidence.witnesses) if one.workload in evidence.witnesses]
    if arguments.json:
        print_json(_document(evidence, proposed))
    else:
        _show(evidence, proposed)
    left_out = any(count for reason, count in evidence.others.items() if reason not in HARMLESS)
    return 1 if left_out or not all(one.complete for one in proposed) else 0


def _show(evidence: Evidence, proposed: Sequence[Suggestion]) -> None:
    first, last = _days(evidence)
    lines = [
        f"# Proposed by {_COMMAND} from {pluralise(evidence.calls, 'call')}, {first} to {last}.",
        "# That a call was made does not mean that it should be permitted: read each route before you use it.",
        "# A caller needs evidence besides the called side's record: a delegated token, or its own sidecar's record.",
        "# Only calls that passed count. entry, self, inject and passthrough are never proposed.",
    ]
    lines += [f"# not counted: {pluralise(count, 'line')}: {why}" for why, count in sorted(evidence.others.items())]
    print("\n".join(map(visible, lines)))  # noqa: T201
    for one in proposed:
        print("---")  # noqa: T201
        print(settings_text(one), end="")  # noqa: T201


def _document(evidence: Evidence, proposed: Sequence[Suggestion]) -> dict[str, object]:
    first, last = _days(evidence)
    return {
        "calls": evidence.calls,
        "first_day": first,
        "last_day": last,
        "not_counted": dict(sorted(evidence.others.items())),
        "workloads": [asdict(one) for one in proposed],
    }


def _days(evidence: Evidence) -> tuple[str, str]:
    return (date.fromordinal(min(evidence.days)).isoformat(), date.fromordinal(max(evidence.days)).isoformat())
