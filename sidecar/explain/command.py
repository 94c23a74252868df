"""Command ``sidecar explain``: judges a recorded request again, and names who must act on its reason code.

Lists the requests if the records hold several and no id is given, or none with the given id. Exit codes: 0 the
judgement agrees with the record, or a list without an id; 1 it disagrees; 2 no such record or unusable settings.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

from delegation_core.console.examples import add_examples
from delegation_core.console.output import complain, print_json, print_line, print_table
from delegation_core.errors import ConfigError
from delegation_core.policy import Policy
from delegation_core.records.folders import record_files
from delegation_core.records.log_lines import read_lines
from delegation_core.records.reading import Record, RecordError, parse_record
from sidecar.config import load_sidecar
from sidecar.config.sidecar_file import missing_deny_file, with_deny_file
from sidecar.explain.explanation import Explanation, explain
from sidecar.explain.recorded_requests import Requests, print_requests, show_requests
from sidecar.explain.recorded_token import CannotJudgeError, spiffe_id
from sidecar.reasons.advice import seen

_COMMAND: Final = "sidecar explain"


class NoRequestError(RecordError):
    """The records hold no record of the wanted request, or several records and no id is given."""


def add_arguments(parser: argparse.ArgumentParser, default: str) -> None:
    """Add the options of the command. ``default`` is the settings file that it judges by without one."""
    add_examples(
        parser,
        "sidecar explain records/",
        "sidecar explain records/ --request 59f98de2b75601501126ddfa8c234ab8",
        "sidecar explain records.jsonl --request 59f98de2b75601501126ddfa8c234ab8 --config sidecar.yaml",
    )
    parser.set_defaults(default_config=default)
    parser.add_argument(
        "records", nargs="+", metavar="FILE", help="records: a file, .gz and .zst too, a folder, a pattern, or -"
    )
    parser.add_argument(
        "--request", metavar="ID", help="the request id; if left out, and there are several, they are listed"
    )
    parser.add_argument("--config", metavar="FILE", help=f"the settings to judge by (default {default}, if it exists)")
    parser.add_argument("--json", action="store_true", help="for machines")


def run(arguments: argparse.Namespace) -> int:
    """Explain one record."""
    requests = Requests()
    try:
        records = _records(record_files(arguments.records), requests)
        try:
            record = record_of(records, arguments.request)
        except NoRequestError as error:
            for _ in records:  # the rest belongs to the list
                pass
            if requests.first():
                (print_requests if arguments.json else show_requests)(requests)
            listed = arguments.request is None and requests.first()
            return 0 if listed else complain(_COMMAND, str(error))
        policy, missing = _policy(arguments.config, arguments.default_config, record)
    except (OSError, RecordError) as error:
        return complain(_COMMAND, str(error))
    except ConfigError as error:
        return complain(_COMMAND, f"the settings cannot be used; run sidecar check: {error.problems[0]}")
    explanation = explain(record, policy, missing_deny_file=missing)
    if arguments.json:
        print_json(explanation.document())
    else:
        show(explanation)
    return 0 if explanation.agrees else 1


def _records(files: Sequence[str], requests: Requests) -> Iterator[tuple[str, Record | RecordError]]:
    """Yield each line's place and its record, or its error; the records go into the list of requests too."""
    for line in read_lines(files):
        try:
            record = parse_record(line.content or b"")
        except RecordError as error:
            yield line.place, error
            continue
        requests.take(record)
        yield line.place, record


def record_of(records: Iterable[tuple[str, Record | RecordError]], request_id: str | None) -> Record:
    """Return the one record asked for.

    Raises:
        NoRequestError: no record matches, or without an id several do.
        RecordError: without an id a line is no record; with one there are several records of that request.
    """
    found: Record | None = None
    for place, record in records:
        if isinstance(record, RecordError):
            if request_id is not None:  # part of a line, which a kill may leave, is not the record asked for
                continue
            raise RecordError(f"{place}: {record}") from record
        if request_id is not None and record.request_id != request_id:
            continue
        if found is None or _supersedes(record, found):
            found = record
        elif record.digest != found.digest and not _supersedes(found, record):
            if request_id is None:
                raise NoRequestError("there is more than one record, and none of a request")
            raise RecordError("there is more than one record; look for forged ones with sidecar audit chains")
    if found is None:
        raise NoRequestError("there is no record" if request_id is None else f"there is no request {request_id}")
    return found


def _supersedes(record: Record, other: Record) -> bool:
    """Return True if ``record`` closes the request that ``other`` opened."""
    opened = other.event == "request.opened" and record.event != "request.opened"
    return opened and record.request_id == other.request_id


def _policy(config: str | None, default: str, record: Record) -> tuple[Policy | None, Path | None]:
    """Return the policy for the workload that wrote the record, and its deny file if that file is missing here.

    The policy is None without settings or without that workload. An explicit settings file must exist.
    """
    if config is None and not Path(default).exists():
        return None, None
    settings = with_deny_file(load_sidecar(Path(config or default), os.environ))
    try:
        return settings.policy(spiffe_id(record.workload, "workload"), 0), missing_deny_file(settings)
    except CannotJudgeError:
        return None, None


def show(explanation: Explanation) -> None:
    """Print one explanation."""
    record, judgement, guidance = explanation.record, explanation.judgement, explanation.guidance
    print_line(f"{record.event} {record.name} of {record.workload}, {record.ts}", style="bold")
    print_line(explanation.verdict(), style="green" if explanation.agrees else "bold red")
    if record.detail:
        print_line(f"detail: {record.detail}")
    if judgement is not None:
        print_line()
        print_table(("check", "outcome", "saw"), ((step.check, step.outcome, step.saw) for step in judgement.steps))
    if guidance is not None and explanation.reason is not None:
        print_line()
        print_line(f"{explanation.reason}: {guidance.means}", style="bold")
        print_line(f"  who must act: {', then '.join(guidance.who)}")
        print_line(f"  what to do: {guidance.do}")
        print_line(f"  an agent developer sees: {seen(explanation.reason)}")
    if judgement is not None:
        print_line()
        print_line("What this cannot prove:")
        for sentence in explanation.unprovable:
            print_line(f"  {sentence}", style="dim")
