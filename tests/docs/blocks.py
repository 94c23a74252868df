"""Blocks of commands in the pages for people, and the marks of those that no test runs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
PAGES: Final = sorted(
    path.relative_to(ROOT).as_posix()
    for pattern in ("*.md", "docs/**/*.md", "examples/*.md", "agent/*.md", "agent-node/*.md", "benchmarks/*.md")
    for path in ROOT.glob(pattern)
    if path.name != "AGENTS.md"  # a link to CONTRIBUTING.md
)
COMMANDS: Final = frozenset({"", "sh", "bash", "shell", "console"})
_FENCE: Final = re.compile(r"^( *)```([\w-]*)[^\n]*\n(.*?)^\1```\s*$", re.MULTILINE | re.DOTALL)
_MARK: Final = re.compile(r"<!-- not run: (.+?) -->\s*\Z")
_PAGE_MARK: Final = re.compile(r"^<!-- commands not run: (.+?) -->$", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A block of commands: its page, its text without indentation, and the reason why it is not run, if it has one."""

    page: str
    text: str
    reason: str | None

    @property
    def start(self) -> str:
        """The first line, by which tests name a block."""
        return self.text.partition("\n")[0].strip()


def blocks_in(page: str, text: str) -> Iterator[Block]:
    """Return each block that a reader may take for commands: without a language, or with a shell's."""
    told = _PAGE_MARK.search(text)
    for fence in _FENCE.finditer(text):
        indent, language, inner = fence.groups()
        if language in COMMANDS:
            mark = _MARK.search(text[: fence.start()]) or told
            yield Block(page, re.sub(rf"^{indent}", "", inner, flags=re.MULTILINE), mark[1] if mark else None)


def blocks(page: str) -> list[Block]:
    """Return the blocks of commands of a page of the repository."""
    return list(blocks_in(page, (ROOT / page).read_text(encoding="utf-8")))


def block(page: str, start: str) -> Block:
    """Return the only block of a page whose first line begins so."""
    (found,) = [one for one in blocks(page) if one.start.startswith(start)]
    return found


def commands_of(block: Block) -> list[str]:
    """Return the commands of a block, line by line; where it has prompts, the rest is output."""
    lines = [line for line in block.text.replace("\\\n", "").splitlines() if line.strip()]
    prompted = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
    return prompted or lines
