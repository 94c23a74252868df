"""Prints the completion script of a shell. ``make docs`` writes the scripts, so that completion starts no Python."""

from __future__ import annotations

import argparse
import sys
from importlib.resources import files

SHELLS = ("bash", "zsh", "fish")


def script(shell: str) -> str:
    """Return the script for one of ``SHELLS``."""
    return (files("sidecar") / "completions" / f"sidecar.{shell}").read_text(encoding="utf-8")


def run(arguments: argparse.Namespace) -> int:
    """Print the script. The exit code is 0."""
    sys.stdout.write(script(arguments.shell))
    return 0
