from pathlib import Path

import pytest

from delegation_audit.selectors.docs import insert_rules, main
from delegation_audit.selectors.rulebook import RULES

PAGE = Path(__file__).parents[3] / "docs" / "selectors.md"


def test_the_written_page_is_current() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert page == insert_rules(page), "run: make docs"


def test_every_rule_has_a_row_with_all_its_cells() -> None:
    rows = {line.split("`")[1]: line for line in PAGE.read_text().splitlines() if line.startswith("| `")}
    for rule in RULES:
        assert rows[rule.id].replace("\\|", "").count("|") == 7


def test_an_old_table_is_replaced_and_the_rest_stays(tmp_path: Path) -> None:
    page = PAGE.read_text(encoding="utf-8")
    copy = tmp_path / "selectors.md"
    copy.write_text(page.replace("| `agent-admin`", "| `gone`"), encoding="utf-8")
    main(copy)
    assert copy.read_text(encoding="utf-8") == page


def test_a_page_without_the_marks_is_refused() -> None:
    with pytest.raises(ValueError, match="the page lacks"):
        insert_rules("# Rules\n")
