"""Commands that this distribution adds to ``sidecar``: parsing only, each module is imported when it is wanted."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Sequence
from typing import Final

from delegation_core.console.examples import add_examples

_COMMANDS: Final = (
    ("workload-api", "sidecar_dev.workload_api", "a Workload API with a CA of its own"),
    ("user-issuer", "sidecar_dev.user_issuer", "an issuer where test users log in"),
    ("svid", "sidecar_dev.svid", "fetch this process's SVID and write it to files"),
    ("run", "sidecar_dev.run", "run an agent program beside a sidecar, with a test user to call it"),
)


def demo(command: argparse.ArgumentParser, words: Sequence[str] | None) -> None:
    """Add the arguments of ``sidecar demo``; ``words`` follow its name on the command line."""
    del words
    add_examples(command, "sidecar demo", "sidecar demo --verbose --keep  # every command, to try while the mesh runs")
    command.set_defaults(target="sidecar_dev.demo:run")
    command.add_argument("--keep", action="store_true", help="leave the mesh running and print commands to try")
    command.add_argument("--verbose", action="store_true", help="print each command, header and record too")
    command.add_argument("--json", action="store_true", help="for machines")


def dev(command: argparse.ArgumentParser, words: Sequence[str] | None) -> None:
    """Add the commands of ``sidecar dev``; only the one in ``words`` is imported for its arguments, with None all."""
    add_examples(command, "sidecar dev run -- python agent.py")
    commands = command.add_subparsers(metavar="COMMAND", required=True)
    for name, module, text in _COMMANDS:
        one = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        one.set_defaults(target=f"{module}:run")
        if words is None or words[:1] == [name]:
            importlib.import_module(module).add_arguments(one)
