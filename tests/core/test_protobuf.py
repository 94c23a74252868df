"""Protobuf: what is read, what is refused, and that the official library reads the same."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from delegation_core.protobuf import (
    Field,
    Kind,
    ProtobufError,
    Schema,
    length_field,
    number_field,
    read,
)
from tests.fakes.protobuf_schema import message_class, read_by_library, without_empty

INNER: Schema = {1: Field(Kind.TEXT, "inner"), 2: Field(Kind.NUMBER)}
SCHEMA: Schema = {
    1: Field(Kind.TEXT, "text"),
    2: Field(Kind.NUMBER),
    3: Field(Kind.OPAQUE),
    4: Field(Kind.TEXT, "texts", many=True),
    5: Field(Kind.MESSAGE, "message", schema=INNER),
    16: Field(Kind.TEXT, "far"),
}
LIBRARY = message_class(SCHEMA)
WHOLE = (
    length_field(1, "a")
    + number_field(2, 300)
    + length_field(3, b"\xff\xfe")
    + length_field(4, "x")
    + length_field(4, "y")
    + length_field(5, length_field(1, "ö") + number_field(2, 2**64 - 1))
    + length_field(16, "z")
)
FOUND = {"text": "a", "texts": ["x", "y"], "message": {"inner": "ö"}, "far": "z"}


def found_in(data: bytes, *, others: bool = False) -> dict[str, object]:
    return read(data, SCHEMA, max_fields=100, others=others)


def test_the_named_fields_of_a_message_are_read() -> None:
    assert found_in(WHOLE) == FOUND == read_by_library(LIBRARY, SCHEMA, WHOLE)
    assert found_in(b"") == {}


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (length_field(1, "a") * 2, "repeated"),
        (length_field(5, b"") * 2, "repeated"),
        (length_field(5, length_field(1, "a") * 2), "repeated"),
        (number_field(2, 1) * 2, "repeated"),
        (number_field(1, 7), "the wrong wire type"),
        (length_field(2, b"\1\2"), "the wrong wire type"),
        (b"\x0d" + bytes(4), "the wrong wire type"),
        (length_field(6, b""), "an unknown field"),
        (length_field(5, length_field(3, b"")), "an unknown field"),
        (b"\x0b\x0c", "a group"),
        (b"\x0f", "unknown wire type"),
        (b"\x02\x00", "without a valid number"),
        (b"\x00", "without a valid number"),
        (b"\x8a\x00\x01a", "a varint is too large, or longer"),
        (b"\x0a\x81\x00a", "a varint is too large, or longer"),
        (b"\x10" + b"\xff" * 10 + b"\x01", "a varint is too large, or longer"),
        (b"\x10" + b"\xff" * 9 + b"\x02", "a varint is too large, or longer"),
        (b"\x8a\x80\x80\x80\x10\x01a", "without a valid number"),
        (b"\x0a", "cut off"),
        (b"\x0a\x02a", "cut off"),
        (b"\x10\x80", "cut off"),
        (b"\x09\x00", "cut off"),
        (b"\x2a\x03\x0a\x02a\x10\x01", "cut off"),  # an inner field that is longer than its message
        (length_field(1, b"\xff"), "not UTF-8"),
        (length_field(4, b"\xed\xa0\x80"), "not UTF-8"),
        (length_field(4, b"") * 101, "too many"),
    ],
)
def test_any_other_message_is_refused(data: bytes, told: str) -> None:
    with pytest.raises(ProtobufError, match=told):
        found_in(data)


def test_where_other_fields_may_be_they_are_skipped_and_the_known_ones_stay_strict() -> None:
    others = length_field(6, b"\xff") + b"\x39" + bytes(8) + b"\x3d" + bytes(4) + number_field(9, 1)
    assert found_in(others + WHOLE + others, others=True) == FOUND
    with pytest.raises(ProtobufError):
        found_in(others + length_field(1, "a") * 2, others=True)
    with pytest.raises(ProtobufError):
        found_in(others)


def test_all_inner_fields_count() -> None:
    inner = length_field(5, length_field(1, "a") + number_field(2, 1))
    assert read(inner, SCHEMA, max_fields=3) == {"message": {"inner": "a"}}
    with pytest.raises(ProtobufError, match="too many"):
        read(inner, SCHEMA, max_fields=2)


_texts = st.text(st.characters(exclude_categories=["Cs"]))
_fields = st.one_of(
    st.builds(length_field, st.sampled_from([1, 3, 4, 16]), _texts),
    st.builds(length_field, st.just(3), st.binary()),
    st.builds(number_field, st.just(2), st.integers(0, 2**64 - 1)),
    st.builds(length_field, st.just(5), st.builds(length_field, st.just(1), _texts)),
)


@given(st.lists(_fields, max_size=8).map(b"".join))
def test_the_library_reads_what_is_read_here(data: bytes) -> None:
    try:
        found = found_in(data)
    except ProtobufError:
        return
    assert read_by_library(LIBRARY, SCHEMA, data) == without_empty(found)


@given(st.binary(max_size=40))
def test_whatever_is_read_the_library_reads_too(data: bytes) -> None:
    try:
        found = found_in(data)
    except ProtobufError:
        return
    assert read_by_library(LIBRARY, SCHEMA, data) == without_empty(found)
