"""Changed lines in blocks that are read at once."""

import random

from delegation_audit.chains.database import open_database
from tests.audit.chains.test_lines import LINES, by_sql, by_the_rule_book, changed, read_at_once


def test_no_changed_line_passes_in_a_block_read_at_once_unless_the_rule_book_agrees() -> None:
    """Each line that passes is told as the strict parser tells it."""
    chance, passed = random.Random(7), 0
    with open_database(threads=1) as database:
        for _ in range(100):
            block = [LINES[0], changed(chance), LINES[5]]
            database.unreadable.clear()
            if read_at_once(database, b"\n".join(block) + b"\n"):
                passed += 1
                assert by_sql(database) == by_the_rule_book(block)
    assert 3 < passed < 80
