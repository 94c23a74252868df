"""Writes the table of rules to its page: ``python -m delegation_audit.selectors.docs docs/selectors.md``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

from delegation_audit.rules import Rule
from delegation_audit.selectors.rulebook import RULES

_BEGIN: Final = "<!-- Rules, written by `make docs`; edit audit/delegation_audit/selectors/rulebook.py instead. -->\n"
_END: Final = "<!-- End of the rules. -->"


def insert_rules(page: str) -> str:
    """Replace the table between the two marks of a page by the current one; return the new page.

    Raises:
        ValueError: a mark is missing.
    """
    before, begin, rest = page.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not begin or not end:
        raise ValueError(f"the page lacks one of the lines {_BEGIN.strip()} and {_END}")
    rows = ["| rule | severity | found | why | fix | see |", "|---|---|---|---|---|---|", *map(_row, RULES)]
    return f"{before}{begin}\n" + "\n".join(rows) + f"\n\n{end}{after}"


def _row(rule: Rule) -> str:
    cells = (f"`{rule.id}`", rule.severity, rule.title, rule.why, rule.fix, rule.standard)
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def main(file: Path) -> None:
    """Update the table in the page ``file``."""
    file.write_text(insert_rules(file.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "docs/selectors.md"))
