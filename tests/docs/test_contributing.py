"""The pages for contributors, one for each kind of change: short, true to the files they name, and all in the index."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[2]
PAGES: Final = {page.stem: page for page in (ROOT / "docs/contributing").glob("*.md")}
LONGEST: Final = 30  # lines
MOST_FILES: Final = 10  # that are written by hand; a feature is many changes


def steps(page: Path) -> list[str]:
    return re.findall(r"^(\d+)\. \[`[^`]+`\]\(([^)]+)\)", page.read_text(), re.MULTILINE)


def test_each_kind_of_change_has_a_page_in_the_index() -> None:
    listed = re.findall(r"\(docs/contributing/([\w-]+)\.md\)", (ROOT / "CONTRIBUTING.md").read_text())
    assert sorted(listed) == sorted(PAGES), "CONTRIBUTING.md, 'Recipes', lists each page of docs/contributing once"


@pytest.mark.parametrize("kind", sorted(PAGES))
def test_a_page_is_short_and_counts_the_files_that_are_written_by_hand(kind: str) -> None:
    text = PAGES[kind].read_text()
    assert len(text.splitlines()) <= LONGEST
    numbers, files = zip(*steps(PAGES[kind]), strict=True)
    told = re.search(r"^By hand, (\d+) files\b", text, re.MULTILINE)
    assert [*map(int, numbers)] == [*range(1, len(numbers) + 1)]
    assert told, "a page says: By hand, N files:"
    assert int(told[1]) == len(set(files))
    assert len(files) <= MOST_FILES or kind == "feature"


@pytest.mark.parametrize("kind", sorted(PAGES))
def test_each_file_of_a_page_is_there_under_the_path_that_it_shows(kind: str) -> None:
    """``test_pages.py`` holds the files that are named without a link."""
    for shown, target in re.findall(r"\[`([^`]+)`\]\(([^)#]+)\)", PAGES[kind].read_text()):
        assert (PAGES[kind].parent / target).resolve() == ROOT / shown.rstrip("/"), "a link is named by its path"
        assert (ROOT / shown).exists(), shown


def test_the_map_of_the_code_names_each_feature() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text()
    packages = {file.parent.name for file in (ROOT / "sidecar/features").glob("*/*.py") if file.stem != "__init__"}
    missing = sorted(name for name in packages if f"(sidecar/features/{name}/" not in text)
    assert not missing, f"ARCHITECTURE.md names no file of these features; say what each decides: {missing}"
