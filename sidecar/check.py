"""``sidecar check``: every problem of a settings file in one message, each with its field and its cure."""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import asdict
from pathlib import Path

from sidecar.config import check, json_schema


def run(arguments: argparse.Namespace) -> int:
    """Exit codes: 0 the settings can be used, 2 they cannot."""
    if arguments.schema:
        print(json.dumps(json_schema(sts=arguments.sts), indent=2))  # noqa: T201
        return 0
    problems = check(
        Path(arguments.file),
        os.environ,
        sts=arguments.sts,
        platform=None if arguments.platform is None else Path(arguments.platform),
    )
    if arguments.json:
        print(json.dumps({"file": arguments.file, "problems": [asdict(problem) for problem in problems]}, indent=2))  # noqa: T201
    elif problems:
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        print(f"{arguments.file}: {count}", file=sys.stderr)  # noqa: T201
        for problem in problems:
            print(f"  {problem.field}: {problem.wrong}\n      cure: {problem.cure}", file=sys.stderr)  # noqa: T201
    else:
        print(f"{arguments.file}: fine")  # noqa: T201
    return 2 if problems else 0
