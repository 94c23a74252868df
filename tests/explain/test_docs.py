from pathlib import Path

import pytest

from sidecar.explain.docs import main, pages

DOCS = Path(__file__).parents[2] / "docs"
PAGES = ("records.md", "reasons.md")


@pytest.mark.parametrize("name", PAGES)
def test_a_written_page_is_current(name: str) -> None:
    assert (DOCS / name).read_text(encoding="utf-8") == pages()[name], "run: make docs"


def test_the_pages_are_written_where_they_are_asked_for(tmp_path: Path) -> None:
    main(tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == set(PAGES)


@pytest.mark.parametrize("name", PAGES)
def test_every_row_of_a_table_has_all_its_cells(name: str) -> None:
    width = 0
    for line in pages()[name].splitlines():
        if not line.startswith("|"):
            width = 0
            continue
        cells = line.replace("\\|", "").count("|")
        width = width or cells
        assert cells == width, line
