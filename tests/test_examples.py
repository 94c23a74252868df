"""Every command's help ends with examples, and the command accepts each."""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Iterator
from typing import Final

import pytest

from delegation_core.console.examples import add_examples
from sidecar.cli import build_parser

PARSER: Final = build_parser(None)


def commands(parser: argparse.ArgumentParser = PARSER) -> Iterator[argparse.ArgumentParser]:
    """Return the parser, and those of all commands below it."""
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for below in action.choices.values():
                yield from commands(below)


def examples(parser: argparse.ArgumentParser) -> list[list[str]]:
    """Return the words after ``sidecar`` of each command line in the help's last part, up to what a shell reads."""
    found = []
    for line in (parser.epilog or "").splitlines():
        if told := re.search(r"(?:^|\| )\s*\$?\s*sidecar (.*)", line):
            words = shlex.split(re.split(r"  #| [>|<]", told[1])[0])
            found.append(words)
    return found


@pytest.mark.parametrize("parser", list(commands()), ids=lambda parser: parser.prog)
def test_the_help_of_a_command_has_examples_of_this_command(parser: argparse.ArgumentParser) -> None:
    below = parser.prog.split()[1:]
    assert examples(parser) != []
    assert all(words[: len(below)] == below for words in examples(parser))
    assert (parser.epilog or "") in parser.format_help()  # on lines of their own


@pytest.mark.parametrize(
    "words",
    [words for parser in commands() for words in examples(parser)],
    ids=" ".join,
)
def test_a_command_accepts_its_example(words: list[str]) -> None:
    if words[-1] == "--help":
        with pytest.raises(SystemExit) as ended:
            PARSER.parse_args(words)
        assert ended.value.code == 0
        return
    assert PARSER.parse_args(words).target


def test_an_example_with_another_option_would_not_be_accepted() -> None:
    with pytest.raises(SystemExit) as ended:
        PARSER.parse_args(["check", "--nonsense", "sidecar.yaml"])
    assert ended.value.code == 2


def test_examples_stand_on_lines_of_their_own_at_the_end() -> None:
    parser = argparse.ArgumentParser(prog="sidecar one")
    add_examples(parser, "sidecar one FILE", "sidecar one - <FILE  # from a pipe")
    assert parser.format_help().endswith("\nexamples:\n  sidecar one FILE\n  sidecar one - <FILE  # from a pipe\n")
