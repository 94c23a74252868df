"""``sidecar check``: every problem of a settings file in one message, each with its field and its cure.

Notes on a usable file follow: settings that are valid and may surprise. They change no exit code.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from sidecar.config import check, json_schema
from sidecar.errors import Problem


def run(arguments: argparse.Namespace) -> int:
    """Exit codes: 0 the settings can be used, 2 they cannot."""
    if arguments.schema:
        print(json.dumps(json_schema(sts=arguments.sts), indent=2))  # noqa: T201
        return 0
    problems, notes = check(
        Path(arguments.file),
        os.environ,
        sts=arguments.sts,
        platform=None if arguments.platform is None else Path(arguments.platform),
    )
    if arguments.json:
        found = {"problems": [asdict(problem) for problem in problems], "notes": [asdict(note) for note in notes]}
        print(json.dumps({"file": arguments.file, **found}, indent=2))  # noqa: T201
    elif problems:
        print(f"{arguments.file}: {_count(problems, 'problem')}", file=sys.stderr)  # noqa: T201
        _list(problems)
    elif notes:
        print(f"{arguments.file}: fine, {_count(notes, 'note')}")  # noqa: T201
        _list(notes)
    else:
        print(f"{arguments.file}: fine")  # noqa: T201
    return 2 if problems else 0


def _count(found: list[Problem], noun: str) -> str:
    return f"1 {noun}" if len(found) == 1 else f"{len(found)} {noun}s"


def _list(found: Iterable[Problem]) -> None:
    for one in found:
        print(f"  {one.field}: {one.wrong}\n      cure: {one.cure}", file=sys.stderr)  # noqa: T201
