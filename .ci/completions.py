"""Writes the completion scripts of ``sidecar`` into a folder: ``python .ci/completions.py sidecar/completions``.

shtab writes them from the parser of every command, those of sidecar-dev too, which must be installed.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import shtab

from sidecar.cli import build_parser
from sidecar.completion import SHELLS

_NOTE = """\
# Written by `make docs`. The shell functions around the lists are shtab's: MPL-2.0, https://mozilla.org/MPL/2.0/
"""
_FILES = re.compile(r"FILE|PATH|RECORD")


def scripts() -> Mapping[str, str]:
    """Return each script by its file name."""
    parser = build_parser(None)
    for action in _actions(parser):
        if _FILES.search(str(action.metavar or action.dest.upper())):
            action.complete = shtab.FILE  # type: ignore[attr-defined]
        elif re.match("DIR", str(action.metavar)):
            action.complete = shtab.DIRECTORY  # type: ignore[attr-defined]
    return {f"sidecar.{shell}": _noted(shtab.complete(parser, shell)) for shell in SHELLS}


def _noted(script: str) -> str:
    """Add our note below the first line, which zsh reads (``#compdef``)."""
    first, _, rest = script.partition("\n")
    lines = (line.rstrip() for line in rest.rstrip("\n").split("\n"))
    return "\n".join([first, _NOTE.rstrip("\n"), *lines, ""])


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    for action in parser._actions:
        yield action
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield from _actions(command)


if __name__ == "__main__":
    for name, text in scripts().items():
        (Path(sys.argv[1]) / name).write_text(text, encoding="utf-8")
