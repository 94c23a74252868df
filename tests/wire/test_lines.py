from __future__ import annotations

import pytest

from sidecar.errors import Denied, Reason
from sidecar.wire.head import FRESH, Field
from sidecar.wire.lines import FRESH_NAMES, MAX_HEADS, MAX_KNOWN, MAX_KNOWN_BYTES, FieldLines, read_line

GOOD = {
    "plain": (b"Host: a", (b"host", b"a")),
    "no space": (b"Host:a", (b"host", b"a")),
    "white space around the value": (b"X:\t a \t", (b"x", b"a")),
    "white space inside the value": (b"X: a \t b", (b"x", b"a \t b")),
    "a colon in the value": (b"X: a:b", (b"x", b"a:b")),
    "empty value": (b"X:", (b"x", b"")),
    "white space only": (b"X: \t ", (b"x", b"")),
    "obs-text": (b"X: \x80\xff", (b"x", b"\x80\xff")),
    "every token character": (b"!#$%&'*+-.^_`|~09AZaz: 1", (b"!#$%&'*+-.^_`|~09azaz", b"1")),
}
BAD = {
    "empty": b"",
    "no colon": b"Host",
    "no name": b": a",
    "space before the colon": b"Host : a",
    "tab before the colon": b"Host\t: a",
    "a folded line": b" folded",
    "a space first": b" Host: a",
    "a space in the name": b"Ho st: a",
    "a separator in the name": b"Ho(st: a",
    "obs-text in the name": b"H\xf6st: a",
    "bare CR": b"Host: a\rb",
    "bare LF": b"Host: a\nX: b",
    "NUL": b"Host: a\0",
    "a control": b"Host: a\x01",
    "DEL": b"Host: a\x7f",
}


@pytest.mark.parametrize(("line", "field"), GOOD.values(), ids=GOOD.keys())
def test_a_line_is_a_name_in_lower_case_and_a_value_without_white_space_around(
    line: bytes, field: tuple[bytes, bytes]
) -> None:
    assert read_line(line) == field


@pytest.mark.parametrize("line", BAD.values(), ids=BAD.keys())
def test_what_is_no_field_is_refused_each_time_and_never_remembered(line: bytes) -> None:
    lines = FieldLines()
    for _ in range(2):
        with pytest.raises(Denied) as caught:
            lines.read([line])
        assert caught.value.reason is Reason.BAD_REQUEST
    assert len(lines) == 0


def fields_of(lines: FieldLines, *read: bytes) -> list[Field]:
    common, fresh = lines.read(read)
    assert all((value is FRESH) == (name in fresh) for name, value in common)
    return [(name, fresh.get(name, value)) for name, value in common]


def test_a_line_that_comes_again_says_the_same() -> None:
    lines = FieldLines()
    assert fields_of(lines, b"A: 1", b"B: 2", b"A: 1") == [(b"a", b"1"), (b"b", b"2"), (b"a", b"1")]
    assert fields_of(lines, b"B: 2", b"b: 2", b"A: 1") == [(b"b", b"2"), (b"b", b"2"), (b"a", b"1")]
    assert len(lines) == 3 + 2  # lines, and heads


@pytest.mark.parametrize("name", sorted(FRESH_NAMES))
def test_heads_that_differ_in_a_fresh_value_alone_have_all_else_in_common(name: bytes) -> None:
    lines = FieldLines()
    first, fresh = lines.read([b"A: 1", name.title() + b": 1", b"B: 2"])
    again, other = lines.read([b"A: 1", name + b":2", b"B: 2"])
    assert first is again
    assert (fresh, other) == ({name: b"1"}, {name: b"2"})
    assert lines.read([b"A: 2", name + b":2", b"B: 2"])[0] is not first
    assert lines.read([b"A: 1", b"B: 2", name + b":2"])[0] is not first
    assert lines.read([b"A: 1", b"B: 2"])[0] is not first


@pytest.mark.parametrize("name", sorted(FRESH_NAMES))
def test_a_fresh_name_that_comes_twice_is_told_apart_from_nothing(name: bytes) -> None:
    lines = FieldLines()
    for _ in range(2):
        common, fresh = lines.read([name + b":1", b"A: 1", name + b":2"])
        assert common == [(name, b"1"), (b"a", b"1"), (name, b"2")]
        assert (common.repeated, fresh) == (True, {})


@pytest.mark.parametrize("name", sorted(FRESH_NAMES))
def test_a_line_known_with_its_place_counts_where_it_comes_twice(name: bytes) -> None:
    lines = FieldLines()
    assert fields_of(lines, name + b":1") == [(name, b"1")]
    for twice in ([name + b":1", name + b":1"], [name + b":1", name + b":2"]):
        common, fresh = lines.read(twice)
        assert [value for _, value in common] == [line[-1:] for line in twice]
        assert fresh == {}


def test_no_more_than_so_many_are_known_and_a_flood_changes_no_meaning() -> None:
    lines = FieldLines()
    for number in range(3 * MAX_KNOWN):
        kept = (b"Kept: 1", b"Authorization: a", b"Date: b")
        new = b"%b: %d" % ((b"x", b"authorization", b"traceparent")[number % 3], number)
        assert fields_of(lines, *kept) == [(b"kept", b"1"), (b"authorization", b"a"), (b"date", b"b")]
        assert fields_of(lines, b"Kept: 1", new, b"Date: b") == [(b"kept", b"1"), read_line(new), (b"date", b"b")]
        assert len(lines) <= MAX_KNOWN + MAX_HEADS


def test_a_long_line_is_read_and_not_kept() -> None:
    lines = FieldLines()
    longest = b"X:".ljust(MAX_KNOWN_BYTES, b"y")
    assert fields_of(lines, longest + b"y") == [(b"x", longest[2:] + b"y")]
    assert len(lines) == 1  # the head, which is not too long
    lines.read([longest])
    assert len(lines) == 3


def test_a_long_head_is_read_and_not_kept() -> None:
    lines = FieldLines()
    long = [b"X%d:" % number + b"y" * (MAX_KNOWN_BYTES - 3) for number in range(3)]
    first, _ = lines.read(long)
    again, _ = lines.read(long)
    assert first == again
    assert first is not again
