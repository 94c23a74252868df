"""The command ``delegation-audit``, and ``sidecar audit`` where a sidecar is installed: argument parsing only.

Exit codes: 0 success, 1 findings, 2 usage, 3 ``all`` cannot tell, 141 the reader of the output is gone.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from importlib.metadata import entry_points
from typing import Final

from delegation_audit import __version__
from delegation_core.console.examples import add_examples
from delegation_core.console.extras import needs, only_one
from delegation_core.console.run import run_target

# Each is a package with a module `command`, which has `run` and `add_arguments`.
AUDITS: Final = {
    "all": "run every audit over a folder, and print one page",
    "attribution": "tell from logs if agents impersonate users or delegate",
    "chains": "rebuild every chain from the records of all witnesses",
    "report": "write one page for a post-mortem",
    "ratio": "count machine identities against people, with the trigger at 50 to 1",
    "export": "write records as events of ECS or OCSF, for a SIEM",
    "verify": "find records that were changed, removed, inserted or moved",
    "credentials": "list static credentials of agents, and a way to retire each",
    "selectors": "find SPIRE entries that attest on something weak",
    "suggest": "propose the routes that observed calls need",
}
ENTRY_POINTS: Final = "delegation_audit.commands"
# Judges by settings, so it needs a sidecar's modules: delegation-sidecar brings it, by entry point.
REPLAY: Final = "replay"
_REPLAY_TEXT: Final = "tell what other settings would have decided differently"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one audit and return its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(prog="delegation-audit", description="Evaluate records and logs offline.")
    parser.add_argument("--version", action="version", version=f"delegation-audit {__version__}")
    add_commands(parser, words)
    arguments = parser.parse_args(words)
    return run_target(arguments.target, arguments)


def add_commands(parser: argparse.ArgumentParser, words: Sequence[str] | None) -> None:
    """Add every audit to a parser; only the one that ``words`` begin with gets its arguments. None: all get them."""
    add_examples(parser, f"{parser.prog} attribution access.log", f"{parser.prog} chains records/*.jsonl")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for name, text in {**AUDITS, REPLAY: _REPLAY_TEXT}.items():
        command = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        if words is None or words[:1] == [name]:
            _add_arguments(name, command)
            if command.epilog:  # the examples of an audit name it as a part of `sidecar`
                command.epilog = command.epilog.replace("sidecar audit", parser.prog)


def _add_arguments(name: str, command: argparse.ArgumentParser) -> None:
    module = f"delegation_audit.{name}.command"
    if name == REPLAY:
        found = [one.value for one in entry_points(group=ENTRY_POINTS, name=name)]
        if not found:
            command.error(f"this {needs('sidecar')}")
        if len(found) > 1:
            command.error(f"this {only_one(found)}")
        module = found[0]
    importlib.import_module(module).add_arguments(command)
    command.set_defaults(target=f"{module}:run")
