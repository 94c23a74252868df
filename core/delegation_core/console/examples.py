"""Examples at the end of a command's help. Each is a command line that the command accepts; a test parses them all."""

from __future__ import annotations

import argparse


def add_examples(parser: argparse.ArgumentParser, *lines: str) -> None:
    """End the help with these command lines. A line may end in a comment, after ``  # ``."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter  # keeps the lines apart
    parser.epilog = "\n".join(["examples:", *(f"  {line}" for line in lines)])
