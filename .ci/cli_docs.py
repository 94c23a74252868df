"""Writes the page of commands from their parsers: ``python .ci/cli_docs.py docs``."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from sidecar.cli import build_parser

_HEAD = """\
# Commands

<!-- Written by `make docs`; edit the parsers of the commands instead. -->
<!-- commands not run: examples of the help; tests/test_examples.py gives each to its command's parser -->

`sidecar COMMAND --help` prints the same. Exit codes: 0 success, \
1 findings or refused, 2 usage or settings; a command's page names others. \
`sidecar dev` and `sidecar demo` are in the distribution `sidecar-dev` ([install](install.md)).
"""
_DEVELOPMENT = frozenset({"dev", "demo"})


def page() -> str:
    """Return the page: a heading for each command that does something, with its options and examples."""
    return "\n".join([_HEAD, *(section(parser) for parser in commands(build_parser(None)))])


def commands(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """Yield the commands below a parser that have none below themselves, in the order of the help."""
    below = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    for action in below:
        for name, command in action.choices.items():
            if command.prog.split()[1:2] and name not in _DEVELOPMENT:
                yield from commands(command)
    # One that has commands below and a meaning of its own, such as `sidecar sts`, has options beside --help.
    if parser.prog != "sidecar" and (not below or len(parser._actions) > len(below) + 1):
        yield parser


def section(parser: argparse.ArgumentParser) -> str:
    """Return a command's heading, its meaning, its table of arguments, and its examples."""
    rows = [row(action) for action in parser._actions if shown(action)]
    table = ["| argument | meaning |", "| --- | --- |", *rows, ""] if rows else []
    examples = (parser.epilog or "").partition("examples:\n")[2]
    lines = [re.sub(r"^  ", "", line) for line in examples.rstrip("\n").splitlines()]
    block = ["```", *lines, "```", ""] if lines else []
    meaning = " ".join((parser.description or "").split())
    return "\n".join([f"## `{parser.prog}`", "", *([meaning, ""] if meaning else []), *table, *block])


def shown(action: argparse.Action) -> bool:
    """Tell if an argument has a line in the table."""
    hidden = isinstance(action, argparse._HelpAction | argparse._SubParsersAction | argparse._VersionAction)
    return not hidden and action.help != argparse.SUPPRESS


def row(action: argparse.Action) -> str:
    """Return a line of the table: the spellings with the value, and the help."""
    value = values(action)
    names = ", ".join(f"`{f'{name} {value}'.strip()}`" for name in action.option_strings) or f"`{value}`"
    meaning = " ".join((action.help or "").split())
    if "%(" in meaning:
        meaning = meaning % {**vars(action), "prog": "sidecar"}
    return f"| {names} | {meaning.replace('%%', '%').replace('|', chr(92) + '|')} |"


def values(action: argparse.Action) -> str:
    """Return the value of an argument as the help writes it, without what differs between versions of Python."""
    if action.nargs == 0:
        return ""
    if isinstance(action.metavar, tuple):
        return " ".join(action.metavar)
    if action.metavar is None and action.choices is not None:
        return "{" + ",".join(map(str, action.choices)) + "}"
    name = action.metavar or action.dest.upper()
    return {"+": f"{name} [{name} ...]", "*": f"[{name} ...]", "?": f"[{name}]"}.get(str(action.nargs), name)


if __name__ == "__main__":
    (Path(sys.argv[1]) / "cli.md").write_text(page(), encoding="utf-8")
