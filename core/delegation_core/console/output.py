"""Output of the audit commands: text and tables (by rich on a terminal, if installed), and JSON.

The text comes from logs, so an attacker may have chosen it: control characters are escaped, so that none acts on the
terminal.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Sequence
from importlib.util import find_spec

from delegation_core.records.record_text import escape


def add_formats(parser: argparse.ArgumentParser) -> None:
    """Add the options of a command that reports weaknesses: ``--json`` or ``--sarif``, and ``--ignore``."""
    formats = parser.add_mutually_exclusive_group()
    formats.add_argument("--json", action="store_true", help="for machines")
    formats.add_argument("--sarif", action="store_true", help="for code scanning services (SARIF 2.1.0)")
    parser.add_argument("--ignore", action="append", default=[], metavar="RULE", help="a rule to ignore")


def add_logs(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of a command that reads logs line by line: the files, and ``--json``."""
    parser.add_argument(
        "files", nargs="+", metavar="FILE", help="a file, .gz and .zst too, a folder, or - for standard input"
    )
    parser.add_argument("--json", action="store_true", help="for machines")


def print_line(text: str = "", *, style: str = "") -> None:
    """Print one line of text, control characters escaped; ``style`` is a style of rich for terminals."""
    if not _draws():
        print(visible(text))  # noqa: T201
        return
    from rich.console import Console
    from rich.text import Text

    Console(highlight=False, soft_wrap=True).print(Text(visible(text), style=style))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table, control characters in its cells escaped; None is printed as a dash."""
    cells = [tuple("-" if cell is None else visible(str(cell)) for cell in row) for row in rows]
    if not _draws():
        widths = [max(map(len, column)) for column in zip(columns, *cells, strict=True)]
        for row in (tuple(columns), *cells):
            padded = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            print("  ".join(padded).rstrip())  # noqa: T201
        return
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")  # evidence is never truncated
    for row in cells:
        table.add_row(*map(Text, row))
    Console(highlight=False).print(table)


def _draws() -> bool:
    """Return True if rich draws the output: on a terminal, if rich is installed (the extra ``pretty``)."""
    return sys.stdout.isatty() and find_spec("rich") is not None


def print_json(value: object) -> None:
    """Print a value as one indented JSON document."""
    print(json.dumps(value, indent=2))  # noqa: T201


def complain(command: str, text: str) -> int:
    """Print an error of a command to standard error; return exit code 2."""
    print(f"{command}: {visible(text)}", file=sys.stderr)  # noqa: T201
    return 2


def visible(text: str) -> str:
    """Escape control characters."""
    return escape(text)
