"""Command ``sidecar audit replay``: lists recorded requests that other settings would decide differently.

Exit codes: 0 nothing, 1 something, 2 a file or the settings cannot be used, or no record could be judged.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Final

from delegation_core.console.counts import pluralise
from delegation_core.console.examples import add_examples
from delegation_core.console.output import complain, print_json, print_line, print_table
from delegation_core.errors import ConfigError
from delegation_core.records.folders import record_files
from delegation_core.records.log_lines import read_lines
from delegation_core.records.reading import RecordError, parse_record
from sidecar.config import load_sidecar
from sidecar.config.settings import SidecarSettings
from sidecar.config.sidecar_file import missing_deny_file, with_deny_file
from sidecar.explain.recorded_token import NOT_RECORDED, CannotJudgeError, spiffe_id
from sidecar.explain.replay import Replay

_COMMAND: Final = "sidecar audit replay"
_SHOWN: Final = 50
_LIMITS: Final = (
    *NOT_RECORDED,
    "The record of a call does not name the request that it was made in; may_call of an inbound route is not judged.",
    "Each call is judged by itself: that a caller's token holds the scopes of the calls after it is not judged.",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    add_examples(
        parser,
        "sidecar audit replay records/ --settings new.yaml",
        "sidecar audit replay records/ --settings new.yaml --delegated",
        "sidecar audit replay 'logs/*.jsonl.zst' --settings new.yaml --workload spiffe://acme.example/tool/crm --json",
    )
    parser.add_argument(
        "files", nargs="+", metavar="FILE", help="records: a file, .gz and .zst too, a folder, a pattern, or -"
    )
    parser.add_argument("--settings", required=True, type=Path, metavar="FILE", help="the settings to judge by")
    parser.add_argument("--platform", type=Path, metavar="FILE", help="the ceiling of these settings")
    parser.add_argument(
        "--workload", metavar="SPIFFE_ID", help="the workload of these settings, if there are records of others"
    )
    parser.add_argument(
        "--delegated", action="store_true", help="judge observed calls as if they carried a delegated token"
    )
    parser.add_argument("--json", action="store_true", help="for machines")


def run(arguments: argparse.Namespace) -> int:
    """Judge the records again."""
    try:
        settings = with_deny_file(load_sidecar(arguments.settings, os.environ, arguments.platform))
        replay, not_records = _replay(arguments, settings)
    except (OSError, ValueError) as error:
        return complain(_COMMAND, str(error))
    except ConfigError as error:
        return complain(_COMMAND, f"the settings cannot be used; run sidecar check: {error.problems[0]}")
    if replay is None or not replay.judged:
        return complain(_COMMAND, _nothing(arguments.workload, replay))
    if arguments.json:
        print_json(_document(replay, not_records))
    else:
        _show(replay, not_records)
    return 1 if replay.different else 0


def _replay(arguments: argparse.Namespace, settings: SidecarSettings) -> tuple[Replay | None, int]:
    """Judge all requests of one workload; return the result, and the number of lines that are no records.

    Raises:
        OSError: a file cannot be read; the text names it.
        ValueError: there are records of several workloads, or of one without a SPIFFE ID.
    """
    workload: str | None = arguments.workload
    replay: Replay | None = None
    not_records = 0
    for line in read_lines(record_files(arguments.files)):
        try:
            record = parse_record(line.content or b"")
        except RecordError:
            not_records += 1
            continue
        if record.event != "request" or (arguments.workload is not None and record.workload != workload):
            continue
        if replay is None:
            workload = record.workload
            try:
                policy = settings.policy(spiffe_id(workload, "workload"), 0)
            except CannotJudgeError as error:
                raise ValueError(f"{line.place}: {error}") from None
            missing = missing_deny_file(settings)
            replay = Replay(policy, delegated=arguments.delegated, missing_deny_file=missing)
        elif record.workload != workload:
            raise ValueError(f"{line.place}: a record of another workload; say by --workload whose settings these are")
        replay.add(record)
    return replay, not_records


def _nothing(workload: str | None, replay: Replay | None) -> str:
    if replay is None:
        return f"no line is the record of a request{f' of {workload}' if workload else ''}"
    return f"no record could be judged: {'; '.join(sorted(replay.not_judged))}"


def _document(replay: Replay, not_records: int) -> dict[str, object]:
    return {
        "judged": replay.judged,
        "told": replay.told,
        "different": replay.different,
        "not_judged": dict(sorted(replay.not_judged.items())),
        "not_records": not_records,
        "beyond": replay.beyond,
        "changes": [
            {**change._asdict(), "count": found.count, "example": found.example} for change, found in replay.sorted()
        ],
        "unprovable": list(_LIMITS),
    }


def _show(replay: Replay, not_records: int) -> None:
    changes = list(replay.sorted())
    if changes:
        print_table(
            ("side", "route", "peer", "method", "path", "old", "new", "count", "example"),
            ((*change, found.count, found.example) for change, found in changes[:_SHOWN]),
        )
        if len(changes) > _SHOWN:
            print_line(f"and {len(changes) - _SHOWN} more; --json lists all", style="dim")
        if replay.beyond:
            print_line(f"and {pluralise(replay.beyond, 'record')} that differ in further ways, not listed")
        print_line()
    print_line(f"judged again: {pluralise(replay.judged, 'request')}; of these the record's word decides {replay.told}")
    for why, count in sorted(replay.not_judged.items()):
        print_line(f"not judged: {count}: {why}")
    if not_records:
        print_line(f"lines that are no records: {not_records}")
    print_line(f"decided differently: {replay.different}", style="bold red" if replay.different else "green")
    print_line()
    print_line("What this cannot prove:")
    for sentence in _LIMITS:
        print_line(f"  {sentence}", style="dim")
