"""The page of drafts knows each draft that code and pages name, with the revision that is built."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.sources import python_files

ROOT: Final = Path(__file__).parents[2]
PAGE: Final = (ROOT / "docs" / "drafts.md").read_text()
NAME: Final = re.compile(r"\bdraft-[a-z]+-[a-z0-9-]*[a-z0-9]")
ROWS: Final = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in PAGE.splitlines()
    if "| [draft-" in line or "| draft-" in line
]


def split(name: str) -> tuple[str, str | None]:
    """Return a draft's name without its revision, and the revision."""
    found = re.fullmatch(r"(.*?)-(\d\d)", name)
    return (found[1], found[2]) if found else (name, None)


def built() -> dict[str, str]:
    """Return each draft of the table with the revision in its column."""
    return {split(name)[0]: row[2] for row in ROWS for name in NAME.findall(row[0])}


def named() -> Iterator[tuple[str, str, str | None]]:
    """Yield (file, draft, revision) of each mention. Decisions keep the names of their time."""
    for path in (*python_files(), *(ROOT / "docs").glob("**/*.md")):
        where = path.relative_to(ROOT).as_posix()
        if not where.startswith("docs/adr/") and where != "docs/drafts.md":
            yield from ((where, *split(name)) for name in NAME.findall(path.read_text()))


def test_every_draft_that_is_named_stands_on_the_page() -> None:
    known = built()
    assert len(known) >= 9
    assert sorted({(where, draft) for where, draft, _ in named() if draft not in known}) == []


def test_the_revision_that_code_and_pages_name_is_the_one_that_is_built() -> None:
    known = built()
    other = {
        (where, draft, revision)
        for where, draft, revision in named()
        if revision is not None and not known.get(draft, revision).startswith(revision)
    }
    assert sorted(other) == []


def test_each_row_says_what_is_built_what_is_newest_and_its_state() -> None:
    assert [row for row in ROWS if len(row) != 5 or not all(row) or not re.match(r"\d\d\b", row[2])] == []
    assert re.search(r"checked on \d+ \w+ 20\d\d", PAGE)


@pytest.mark.parametrize("state", ["expired", "dormant"])
def test_the_page_of_an_expired_or_dormant_draft_begins_with_that(state: str) -> None:
    links = [re.findall(r"\]\((adapters/[^)]+)\)", row[1]) for row in ROWS if f"**{state}**" in row[4]]
    assert links
    for (link,) in links:
        _, _, second = (ROOT / "docs" / link).read_text().split("\n")[:3]
        assert second.startswith(f"**A{'n' * (state[0] in 'aeiou')} {state} draft**")
