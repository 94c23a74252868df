from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from delegation_core.mcp_fields import decode_field, problem_of_params


def encoded(text: str) -> str:
    return f"=?base64?{base64.b64encode(text.encode()).decode()}?="


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("us-west1", "us-west1"),
        ("us west\t1", "us west\t1"),
        ("", ""),
        ("=?base64?SGVsbG8sIOS4lueVjA==?=", "Hello, 世界"),  # these are the examples of MCP 2026-07-28
        ("=?base64?IHBhZGRlZCA=?=", " padded "),
        ("=?base64?bGluZTEKbGluZTI=?=", "line1\nline2"),
        ("=?base64?PT9iYXNlNjQ/bGl0ZXJhbD89?=", "=?base64?literal?="),
        ("=?base64?SGVsbG8=", "=?base64?SGVsbG8="),  # without the second mark it is text
        ("SGVsbG8=?=", "SGVsbG8=?="),
    ],
)
def test_a_field_stands_for_one_text(value: str, text: str) -> None:
    assert decode_field(value) == text


@pytest.mark.parametrize(
    "value",
    [
        pytest.param("=?base64?SGVsbG8?=", id="no-padding"),
        pytest.param("=?base64?SGVs!!!bG8=?=", id="no-base64"),
        pytest.param("=?base64?SGVsbG9=?=", id="another-spelling-of-the-last-bits"),
        pytest.param("=?base64?/w==?=", id="no-utf-8"),
        pytest.param("=?BASE64?SGVsbG8=?=", id="marks-in-capitals"),
        pytest.param("=?base64?=", id="one-mark-for-two"),
        pytest.param("größe", id="not-ascii"),
        pytest.param("a\x7f", id="control-character"),
    ],
)
def test_a_field_that_readers_may_take_differently_is_none(value: str) -> None:
    assert decode_field(value) is None


@given(st.text())
def test_every_text_can_be_sent(text: str) -> None:
    assert decode_field(encoded(text)) == text


ARGUMENTS = {
    "region": "eu",
    "seat_count": 42,
    "dry": False,
    "note": None,
    "tags": ["a"],
    "in": {"tenant": "acme", "deep": {"zone": "b"}},
}


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param([], id="none"),
        pytest.param([("region", "eu")], id="text"),
        pytest.param([("region", encoded("eu"))], id="encoded"),
        pytest.param([("seatcount", "42"), ("dry", "false")], id="number-and-boolean"),
        pytest.param([("seat-count", "42.0")], id="number-by-its-value"),
        pytest.param([("tenant", "acme"), ("zone", "b")], id="of-an-object-in-it"),
        pytest.param([("whose", "acme")], id="a-name-that-only-the-schema-knows"),
        pytest.param([("in", "acme")], id="the-name-of-an-object"),
    ],
)
def test_fields_that_repeat_arguments_are_taken(fields: list[tuple[str, str]]) -> None:
    assert problem_of_params(fields, ARGUMENTS) is None


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        pytest.param([("region", "us")], "differs from its argument", id="another-value"),
        pytest.param([("region", "EU")], "differs from its argument", id="another-case"),
        pytest.param([("region", encoded("us"))], "differs from its argument", id="another-value-encoded"),
        pytest.param([("region", "acme")], "differs from its argument", id="the-value-of-another-argument"),
        pytest.param([("seatcount", "43")], "differs from its argument", id="another-number"),
        pytest.param(
            [("seatcount", "42.00000000000000000001")], "cannot|differs from its argument", id="almost-the-number"
        ),
        pytest.param([("seatcount", "042")], "differs from its argument", id="another-spelling-of-a-number"),
        pytest.param([("dry", "0")], "differs from its argument", id="false-as-a-number"),
        pytest.param([("note", "None")], "differs from its argument", id="null"),
        pytest.param([("note", "eu")], "differs from its argument", id="null-and-the-value-of-another"),
        pytest.param([("tags", "a")], "differs from its argument", id="an-item-of-an-array"),
        pytest.param([("whose", "a")], "differs from its argument", id="an-item-of-an-array-by-another-name"),
        pytest.param([("whose", "partner")], "differs from its argument", id="an-argument-that-is-not-there"),
        pytest.param([("region", "=?base64?!?=")], "decoded", id="malformed"),
        pytest.param([("region", "eu"), ("region", "eu")], "two", id="twice"),
        pytest.param([("seat-count", "42"), ("seat_count", "42")], "two", id="twice-to-cgi"),
    ],
)
def test_a_field_that_says_otherwise_is_a_fault(fields: list[tuple[str, str]], fault: str) -> None:
    told = problem_of_params(fields, ARGUMENTS)
    assert told is not None
    assert any(part in told for part in fault.split("|"))


@pytest.mark.parametrize("arguments", [None, [], "eu", {}])
def test_a_field_without_arguments_is_a_fault(arguments: object) -> None:
    assert problem_of_params([("region", "eu")], arguments) is not None
    assert problem_of_params([], arguments) is None


def test_two_arguments_that_some_parsers_take_for_one_are_a_fault_where_a_field_repeats_them() -> None:
    both = {"region": "eu", "Region": "us"}
    for told in ("eu", "us"):
        assert problem_of_params([("region", told)], both) is not None
    assert problem_of_params([("zone", "b")], {**both, "zone": "b"}) is None


def test_a_number_that_parsers_read_differently_is_never_repeated() -> None:
    assert problem_of_params([("n", str(2**53 - 1))], {"n": 2**53 - 1}) is None
    assert problem_of_params([("n", str(2**53))], {"n": 2**53}) is not None
