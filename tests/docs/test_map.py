"""The map of the documentation, docs/README.md, leads to each page once; `make site` makes its sidebar from it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
DOCS: Final = ROOT / "docs"
MAP: Final = (DOCS / "README.md").read_text(encoding="utf-8")
ENTRY: Final = re.compile(r"^(?: {2})?- \[([^\]]+)\]\(([^)#]+\.md)\)$")
SECTIONS: Final = [
    *("Start", "Tutorials", "From API keys", "Features", "Operate", "Audit", "Reference", "Security", "Decisions"),
]


def entries() -> list[tuple[str, Path]]:
    """Return the title and the file of each entry; a line of a list that is no entry fails."""
    found = []
    for line in MAP.splitlines():
        if re.match(r"\s*[-*] ", line):
            told = ENTRY.match(line)
            assert told, line
            found.append((told[1], (DOCS / told[2]).resolve()))
    return found


def test_the_sections_are_those_that_readers_look_for() -> None:
    assert re.findall(r"^## (.+)$", MAP, re.MULTILINE) == SECTIONS


def test_each_page_is_in_the_map_once() -> None:
    listed = [path for _, path in entries()]
    assert sorted(set(listed)) == sorted(listed)
    pages = {path for path in DOCS.rglob("*.md") if path != DOCS / "README.md" and not path.match("adr/0*.md")}
    assert pages <= set(listed), sorted(str(path.relative_to(DOCS)) for path in pages - set(listed))
    assert {ROOT / name for name in ("README.md", "SECURITY.md", "ARCHITECTURE.md", "CHANGELOG.md")} < set(listed)


def test_no_two_entries_have_one_title() -> None:
    titles = [title for title, _ in entries()]
    assert sorted(set(titles)) == sorted(titles)


def test_a_file_that_is_no_page_is_a_picture_that_a_page_shows() -> None:
    """Check that data, such as a run of the benchmark, is not kept beside the pages."""
    text = "\n".join(path.read_text(encoding="utf-8") for path in [*DOCS.rglob("*.md"), ROOT / "README.md"])
    other = [path.name for path in DOCS.rglob("*") if path.is_file() and path.suffix != ".md"]
    assert [name for name in other if f"/{name})" not in text and f"({name})" not in text] == []
