"""``sidecar audit export``: writes records as ECS or OCSF events for a SIEM, one JSON object per line.

Exit codes: 0 every line was a record, 1 some lines were not, 2 a file cannot be read.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from typing import Any, Final

import orjson

from delegation_audit.export.ecs import ecs_event
from delegation_audit.export.ocsf import ocsf_event
from delegation_core.console.examples import add_examples
from delegation_core.console.output import complain
from delegation_core.records.folders import record_files
from delegation_core.records.log_lines import read_lines
from delegation_core.records.reading import Record, RecordError, record_of
from delegation_core.strict_json import StrictJsonError, parse_object

_COMMAND: Final = "sidecar audit export"
_MAX_LINE_BYTES: Final = 1 << 20

FORMS: Final[Mapping[str, Callable[[Record, Mapping[str, Any]], dict[str, Any]]]] = {
    "ecs": ecs_event,
    "ocsf": ocsf_event,
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    add_examples(
        parser,
        "sidecar audit export --as ecs records.jsonl",
        "kubectl logs deploy/crm -c sidecar | sidecar audit export --as ocsf -",
    )
    parser.add_argument(
        "files", nargs="+", metavar="FILE", help="records: a file, .gz and .zst too, a folder, a pattern, or -"
    )
    parser.add_argument(
        "--as", dest="form", choices=sorted(FORMS), required=True, help="the schema: Elastic Common Schema, or OCSF"
    )


def run(arguments: argparse.Namespace) -> int:
    """Write the events to standard output. Returns the exit code."""
    convert = FORMS[arguments.form]
    write = sys.stdout.buffer.write
    others: list[str] = []
    count = 0
    try:
        for line in read_lines(record_files(arguments.files)):
            event = _event(line.content, convert)
            if event is None:
                count += 1
                others[:1] = others[:1] or [line.place]
            else:
                write(event)
                if line.file == "-":  # standard input may be a live stream: write each event at once
                    sys.stdout.buffer.flush()
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        raise  # not a file's error: the command's runner ends it
    except OSError as error:
        return complain(_COMMAND, str(error))
    if count:
        complain(_COMMAND, f"skipped lines that are not records: {count}, the first is {others[0]}")
        return 1
    return 0


def _event(content: bytes | None, convert: Callable[[Record, Mapping[str, Any]], dict[str, Any]]) -> bytes | None:
    if content is None:
        return None
    try:
        members = parse_object(content, max_bytes=_MAX_LINE_BYTES)
        return orjson.dumps(convert(record_of(members), members), option=orjson.OPT_APPEND_NEWLINE)
    except (StrictJsonError, RecordError, ValueError, orjson.JSONEncodeError):
        return None
