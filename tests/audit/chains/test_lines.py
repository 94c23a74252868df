"""Both rules for lines agree: the strict parser of ``audit.records``, and the SQL that reads blocks."""

import json
import random
import re
from collections import Counter
from typing import Any, Final

import pytest

from delegation_audit.chains import joins, lines
from delegation_audit.chains.database import Block, Database, open_database
from delegation_core.records.reading import RecordError, parse_record
from delegation_core.records.record import FIELDS, KEYS, MAX_ITEMS
from delegation_core.records.record_text import encode
from tests.audit.evidence import lawful

LINES: Final = [encode([{**one, "seq": n}])[0] for n, one in enumerate(lawful().values(), 1)]
_TOLD: Final = "SELECT event, run, seq, subject, path, chain, chain_depth, verified FROM records"
PIECES: Final = (
    b'"', b"\\", b"{", b"}", b"[", b"]", b",", b":", b" ", b"\t", b"\r", b"\x00", b"\x7f", b"\xff", b"\xc3\xa9",
    b"null", b"1e3",
    b"-0", b"0", b"1.0", b"12345678901234567", b"NaN", b"-Infinity", b"true", b'"x"', b'["x"]', b"[1]",
    b"[null]", b'[["x"]]',
    b'{"a":1,"a":2}', b"\\u0041", b"\\ud800", b"\\ud83d\\ude00", b"\\u0000", b"// x", b"\xef\xbb\xbf", b"'", b"[" * 20,
    b'"event":"request",', b'"txn":"t9",', b',"seq":2', b'"unheard_of":1,', b'"run":null,', b"request.opened", b"1e400",
)  # fmt: skip


def changed(chance: random.Random) -> bytes:
    """Return a line of a lawful record with some faults."""
    line = chance.choice(LINES)
    if chance.random() < 0.4:
        members: dict[str, Any] = json.loads(line)
        name = chance.choice(FIELDS)
        members[name] = chance.choice([None, 1, 0,
                                        -1, 1.5, 10**16, True, "", "x", "é\n", [], ["a"], [1], [None], {"a": 1},
                                       ["x"] * (MAX_ITEMS + 2), "deny", "request", 1e300, "\\u{7f}"])  # fmt: skip
        if chance.random() < 0.3:
            del members[chance.choice(FIELDS)]
        if chance.random() < 0.3:
            members = dict(sorted(members.items()))
        separators = chance.choice([(",", ":"), (", ", ": ")])
        return json.dumps(members, ensure_ascii=chance.random() < 0.5, separators=separators).encode()
    for _ in range(chance.choice((0, 1, 1, 2))):
        begin = chance.randrange(len(line))
        end = begin + chance.choice((0, 0, 1, 4))
        line = line[:begin] + chance.choice(PIECES) + line[end:]
    return line.replace(b"\n", b" ")


def with_total_ms(number: bytes, *end: bytes) -> bytes:
    """Return a lawful line with this number, written out as longer by the database, and another end."""
    line = re.sub(rb'"total_ms":[^,]+', b'"total_ms":' + number, LINES[1])
    return line[:-1] + (b"".join(end) or b"}")


def read_at_once(database: Database, block: bytes) -> bool:
    database.rows("DELETE FROM kept")
    return database._read_at_once(Block(0, block))


Told = tuple[set[int], Counter[tuple[object, ...]]]


def by_the_rule_book(block: list[bytes]) -> Told:
    """Return the numbers of lines that are no records by the strict parser, and what it says of the others."""
    unreadable, found = set(), Counter[tuple[object, ...]]()
    for number, line in enumerate(block, 1):
        if not line.strip():
            continue
        try:
            record = parse_record(line)
        except RecordError:
            unreadable.add(number)
        else:
            read = (record.subject, record.path, record.chain, record.chain_depth, record.verified)
            found[record.event, record.run, record.seq, *read] += 1
    return unreadable, found


def by_sql(database: Database) -> Told:
    found = Counter[tuple[object, ...]]()
    for row in database.rows(_TOLD):
        event, run, seq, subject, path, chain, depth, verified = (
            json.loads(text) if isinstance(text, str) else text for text in row
        )
        found[event, run, seq, subject, path, None if chain is None else tuple(chain), depth, verified] += 1
    return set(database.unreadable), found


def test_both_rules_agree_line_by_line() -> None:
    chance = random.Random(0)
    block = [changed(chance) for _ in range(500)]
    with open_database(threads=1) as database:
        database.read([Block(0, b"\n".join(block))])
        assert by_sql(database) == by_the_rule_book(block)
        unreadable, found = by_sql(database)
        assert len(unreadable) > 50
        assert found.total() > 50


@pytest.mark.parametrize(
    "line",
    [
        pytest.param(LINES[1].replace(b'"op":null,', b'"reason":"ok",'), id="a-key-twice-and-one-missing"),
        pytest.param(LINES[1].replace(b'"event"', b'"x":1,"event"'), id="a-key-that-nobody-writes"),
        pytest.param(LINES[1].replace(b'"op":null,', b'"oq":null,'), id="another-key-of-the-same-length"),
        pytest.param(LINES[1][:-1] + b",}", id="a-comma-at-the-end"),
        pytest.param(LINES[1].replace(b"}", b" }"), id="a-space"),
        pytest.param(LINES[1] + b"{}", id="two-objects"),
        pytest.param(LINES[1] + b"\r" + LINES[3], id="two-objects-and-a-carriage-return"),
        pytest.param(LINES[1].replace(b'"op":null,', b" " * 10), id="spaces-for-a-key"),
        pytest.param(with_total_ms(b"1e2", b",}").replace(b'"]', b'",]', 1), id="commas-for-an-exponent"),
        pytest.param(with_total_ms(b"1e4", b"", b',"x":1}'), id="a-key-that-nobody-writes-for-an-exponent"),
        pytest.param(LINES[1].replace(b'"ok"', b"1234"), id="a-number-for-a-text"),
        pytest.param(LINES[1][:-1], id="cut"),
        pytest.param(b"", id="empty"),
        pytest.param(b"\xff", id="no-unicode"),
    ],
)
def test_a_block_with_one_unusual_line_is_not_read_at_once(line: bytes) -> None:
    with open_database(threads=1) as database:
        assert read_at_once(database, b"\n".join([LINES[0], line, LINES[2]])) is (line == b"")
        database.unreadable.clear()
        assert read_at_once(database, b"\n".join([LINES[0], LINES[2]]))


@pytest.mark.parametrize("number", [b"0.001", b"1000.0", b"12.5", b"3", b"null"])
def test_any_number_as_a_writer_writes_it_is_read_at_once(number: bytes) -> None:
    with open_database(threads=1) as database:
        assert read_at_once(database, with_total_ms(number))
        assert not read_at_once(database, with_total_ms(b"1e3"))


@pytest.mark.parametrize(
    ("candidates", "expected"),
    [(b'["c1","\xc3\xa9"]', True), (b"[]", True), (b'["c1",]', False), (b'["c1",1e3]', False), (b'["c\\n"]', False)],
)
def test_a_list_that_no_rule_reads_is_read_at_once_if_it_is_plain(candidates: bytes, expected: bool) -> None:
    line = LINES[1].replace(b'"candidates":null', b'"candidates":' + candidates)
    with open_database(threads=1) as database:
        assert read_at_once(database, line) is expected
        at_once = database.rows("SELECT digest FROM records")
        database.rows("DELETE FROM kept")
        database.read([Block(0, line)])
        assert by_sql(database) == by_the_rule_book([line])
        database.rows("DELETE FROM kept")
        database.read([Block(0, line.replace(b'"op":null', b'"op": null'))])  # the strict parser writes it out again
        assert not expected or database.rows("SELECT digest FROM records") == at_once


def test_records_of_an_older_release_and_sorted_ones_are_read_at_once() -> None:
    """They lack the youngest keys, and some log shippers sort."""
    older = [json.dumps({k: v for k, v in json.loads(line).items() if k not in lines.YOUNGEST},
                        separators=(",", ":")).encode() for line in LINES]  # fmt: skip
    shipped = [json.dumps(json.loads(line), separators=(",", ":"), sort_keys=True).encode() for line in LINES]
    with open_database(threads=1) as database:
        for block in (older, shipped):
            assert read_at_once(database, b"\n".join(block))
            assert by_sql(database) == by_the_rule_book(block)
        assert read_at_once(database, b"\n".join([*older, b"", *shipped[:2]]))  # of one sidecar before and after
        assert by_sql(database) == by_the_rule_book([*older, b"", *shipped[:2]])


def test_what_the_strict_parser_writes_out_again_is_read_as_a_record() -> None:
    with pytest.raises(RecordError):
        lines.judge(b"what")
    text, extra = lines.judge(LINES[0].replace(b'"event"', b'"x":1,"event"'))
    assert (json.loads(text), bool(extra)) == (json.loads(LINES[0]), True)
    assert lines.judge(LINES[0])[1] == ""


def test_every_key_that_chains_read_is_a_key_of_records() -> None:
    assert set(lines.READ) <= set(KEYS)
    assert all(name in joins.KEPT for name in lines.READ)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param('["a","b"]', True, id="texts"),
        pytest.param("[]", True, id="empty"),
        pytest.param('["a",1]', False, id="a-number"),
        pytest.param("[null]", False, id="a-null"),
        pytest.param('[["a"]]', False, id="a-list"),
        pytest.param(json.dumps(["x"] * (MAX_ITEMS + 2)), False, id="too-many"),
        pytest.param("[" * 100_000, False, id="deep"),
    ],
)
def test_a_list_of_texts_is_told_from_others(text: str, expected: bool) -> None:
    assert lines.is_list_of_texts(text) is expected


@pytest.mark.parametrize("statement", [lines.READ_FILES, lines.READ_LINES], ids=["files", "lines"])
def test_nothing_that_loses_the_order_of_lines_stands_between_them_and_their_places(statement: str) -> None:
    """A record's place is its number in the order of insertion; DuckDB makes a join of a long list of choices."""
    values: dict[str, object] = {"files": [__file__]} if "$files" in statement else {"first": 0, "lines": ["{}"]}
    with open_database(files=[__file__], threads=1) as database:
        plan = "".join(text for _, text in database.rows(f"EXPLAIN {statement}", values))
    assert "Filter" in plan or "Projection" in plan
    assert "Join" not in plan
    assert "Aggregate" not in plan
