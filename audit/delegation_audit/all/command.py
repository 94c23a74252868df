"""``sidecar audit all``: runs every audit over a folder and prints one page.

Exit codes: 0 every part ran, all five numbers are known and nothing was found; 1 something was found; 2 a path cannot
be used; 3 nothing was found, but a number is unknown or a part did not run to its end.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Final

from delegation_audit.all.examine import examine
from delegation_audit.all.overview import Number, Outcome, Overview
from delegation_audit.all.sample import write_sample
from delegation_core.console.counts import part
from delegation_core.console.examples import add_examples
from delegation_core.console.output import complain, print_json, print_line

_COMMAND: Final = "sidecar audit all"
_EXIT_CODES: Final = {Outcome.FINE: 0, Outcome.FOUND: 1, Outcome.CANNOT_TELL: 3}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument(
        "paths", nargs="*", metavar="FOLDER", help="folders or files: logs, manifests, entries, records"
    )
    parser.add_argument(
        "--sample", action="store_true", help="audit a made-up company, written to FOLDER or a temporary one"
    )
    parser.add_argument("--json", action="store_true", help="for machines")
    add_examples(
        parser,
        "sidecar audit all --sample",
        "sidecar audit all --sample acme",
        "sidecar audit all .",
        "sidecar audit all --json logs/ manifests/",
    )


def run(arguments: argparse.Namespace) -> int:
    """Audit the paths, or a sample, and print the overview. Returns the exit code."""
    paths = list(arguments.paths)
    if not paths and not arguments.sample:
        return complain(_COMMAND, "name a folder, or --sample to see what a report looks like")
    if arguments.sample and len(paths) > 1:
        return complain(_COMMAND, "--sample takes one folder at most, to write the sample to")
    try:
        if arguments.sample:
            paths = [_create_sample(*paths)]
        overview = examine(paths, progress=_progress)
    except OSError as error:
        return complain(_COMMAND, str(error))
    finally:
        _progress("")
    if arguments.json:
        actions = [{**asdict(one), "cure": one.fix} for one in overview.actions]
        print_json({"outcome": overview.outcome, **asdict(overview), "actions": actions})
    else:
        _show(overview)
    return _EXIT_CODES[overview.outcome]


def _create_sample(folder: str | None = None) -> str:
    """Write the sample to ``folder``, or to a temporary one if None; return it. Raises OSError if it is not empty."""
    if folder is None:
        folder = tempfile.mkdtemp(prefix="sidecar-sample-")
    elif Path(folder).exists() and any(Path(folder).iterdir()):
        raise OSError(f"{folder}: is not empty; name a new folder for the sample")
    write_sample(Path(folder))
    return folder


def _progress(step: str) -> None:
    """Show the current step on standard error if it is a terminal; an empty step clears the line."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\033[K{f'auditing: {step} …' if step else ''}")
        sys.stderr.flush()


def _show(overview: Overview) -> None:
    print_line(f"Audit of {', '.join(overview.paths)}: {overview.found}", style="bold")
    print_line()
    for number in overview.numbers:
        _show_number(number)
    for trouble in overview.troubles:
        print_line(f"        {trouble}", style="yellow")
    if overview.actions:
        print_line()
        print_line("Do first", style="bold")
        for place, action in enumerate(overview.actions, 1):
            print_line(f"  {place}. {action.text}")
            print_line(f"     {action.fix}", style="dim")
    print_line()
    _show_outcome(overview)
    print_line("Read on", style="bold")
    for command, tells in overview.commands:
        print_line(f"  {command}")
        print_line(f"     {tells}", style="dim")


def _show_outcome(overview: Overview) -> None:
    """Print the outcome unless it is FOUND, which numbers and actions show already."""
    if overview.outcome is Outcome.FINE:
        print_line("Nothing was found.", style="green")
    elif overview.outcome is Outcome.CANNOT_TELL:
        unknown = f"{part(overview.unknown, len(overview.numbers), 'number')} not known" if overview.unknown else ""
        failed = "a part was not run or not complete" if overview.troubles else ""
        why = " and ".join(filter(None, (unknown, failed)))
        print_line(f"Nothing was found, but {why}: this does not mean that all is well.", style="yellow")
    else:
        return
    print_line()


def _show_number(number: Number) -> None:
    value = "-" if number.value is None else f"{number.value}{number.unit}"
    style = "dim" if number.value is None else "bold red" if number.bad else "green"
    print_line(f"{value:>7}  {number.name}", style=style)
    print_line(f"         {number.sentence}", style="dim")
