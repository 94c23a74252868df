"""Command ``sidecar explain``: judges a recorded request again, and says who must act on its reason code.

Exit codes: 0 the judgement agrees with the record, 1 it does not, 2 no such record or unusable settings.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from sidecar.audit.folders import record_files
from sidecar.audit.log_lines import read_lines
from sidecar.audit.output import complain, print_json, print_line, print_table
from sidecar.audit.records import Record, RecordError, parse_record
from sidecar.config import load_sidecar
from sidecar.delegation.policy import Policy
from sidecar.errors import ConfigError
from sidecar.explain.explanation import Explanation, explain
from sidecar.explain.recorded_token import CannotJudgeError, spiffe_id
from sidecar.reasons.advice import seen

_COMMAND: Final = "sidecar explain"


def run(arguments: argparse.Namespace) -> int:
    """Explain one record."""
    try:
        record = record_of(record_files(arguments.records), arguments.request)
        policy = _policy(arguments.config, arguments.default_config, record)
    except (OSError, RecordError) as error:
        return complain(_COMMAND, str(error))
    except ConfigError as error:
        return complain(_COMMAND, f"the settings cannot be used; run sidecar check: {error.problems[0]}")
    explanation = explain(record, policy)
    if arguments.json:
        print_json(explanation.document())
    else:
        show(explanation)
    return 0 if explanation.agrees else 1


def record_of(files: Sequence[str], request_id: str | None) -> Record:
    """Return the one record asked for.

    Raises:
        RecordError: there is none, or more than one.
    """
    found: Record | None = None
    for line in read_lines(files):
        try:
            record = parse_record(line.content or b"")
        except RecordError as error:
            if request_id is not None:  # part of a line, which a kill may leave, is not the record asked for
                continue
            raise RecordError(f"{line.place}: {error}") from error
        if request_id is not None and record.request_id != request_id:
            continue
        if found is None or _supersedes(record, found):
            found = record
        elif record.digest != found.digest and not _supersedes(found, record):
            cure = "name one by --request" if request_id is None else "look for forged ones with sidecar audit chains"
            raise RecordError(f"there is more than one record; {cure}")
    if found is None:
        raise RecordError("there is no such record")
    return found


def _supersedes(record: Record, other: Record) -> bool:
    """Return True if one closes the request that the other opened."""
    opened = other.event == "request.opened" and record.event != "request.opened"
    return opened and record.request_id == other.request_id


def _policy(config: str | None, default: str, record: Record) -> Policy | None:
    """Return the policy for the workload that wrote the record; None without settings or without that workload.

    Settings that were asked for must exist, the default ones need not.
    """
    if config is None and not Path(default).exists():
        return None
    settings = load_sidecar(Path(config or default), os.environ)
    try:
        return settings.policy(spiffe_id(record.workload, "workload"), 0)
    except CannotJudgeError:
        return None


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
