"""Scopes are sets of whole tokens (RFC 6749 section 3.3)."""

from __future__ import annotations

import gc
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from delegation_core.scope import ScopeError, ScopeShape, format_scope, parse_scope, parse_scope_claim, sorted_scope

BROKEN = {
    "two spaces": "a  b",
    "a space before": " a",
    "a space after": "a ",
    "only a space": " ",
    "a tab": "a\tb",
    "a newline": "a\nb",
    "a newline after": "a\n",
    "a quotation mark": 'a"b',
    "a backslash": "a\\b",
    "a null byte": "a\x00",
    "no ASCII": "é",
    "a no-break space": "a\u00a0b",
}


@pytest.mark.parametrize(
    ("text", "scope"),
    [
        ("", set()),
        ("docs.read", {"docs.read"}),
        ("b a", {"a", "b"}),
        ("a a", {"a"}),
        ("a,b", {"a,b"}),
        ("A a", {"A", "a"}),
    ],
)
def test_a_scope_string_is_a_set_of_tokens(text: str, scope: set[str]) -> None:
    assert parse_scope(text) == scope


@pytest.mark.parametrize("text", BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_scope_string_is_refused(text: str) -> None:
    with pytest.raises(ScopeError):
        parse_scope(text)


@pytest.mark.parametrize(
    ("value", "shape"),
    [("a b", "string"), (["a", "b"], "array"), ("b a", "either"), (["b", "a"], "either")],
)
def test_a_claim_is_read_in_its_issuers_shape(value: object, shape: ScopeShape) -> None:
    assert parse_scope_claim(value, shape=shape) == {"a", "b"}


@pytest.mark.parametrize(
    ("value", "shape"),
    [
        (["a"], "string"),
        ("a", "array"),
        (None, "either"),
        (True, "either"),
        (1, "either"),
        ({"a": 1}, "either"),
        (["a", 1], "array"),
        (["a b"], "array"),
        ([""], "array"),
        ([["a"]], "array"),
        ("a  b", "either"),
    ],
)
def test_a_claim_in_another_shape_or_type_is_refused(value: object, shape: ScopeShape) -> None:
    with pytest.raises(ScopeError):
        parse_scope_claim(value, shape=shape)


def test_an_error_does_not_quote_the_scope() -> None:
    with pytest.raises(ScopeError) as caught:
        parse_scope("secret\tscope")

    assert "secret" not in str(caught.value)


@given(st.frozensets(st.from_regex(r"[!#-\[\]-~]{1,12}", fullmatch=True), max_size=6))
def test_a_written_scope_is_read_back(scope: frozenset[str]) -> None:
    assert parse_scope(format_scope(scope)) == scope


@given(st.text(max_size=20))
def test_any_text_is_a_scope_or_an_error(text: str) -> None:
    try:
        scope = parse_scope(text)
    except ScopeError:
        return

    assert set(text.split()) == scope


def test_large_sets_are_sorted_and_not_remembered() -> None:
    """They live as long as their token, not as long as the process."""
    gc.collect()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for number in range(20):
            scope = frozenset(f"s{number}-{one}" for one in range(1000))
            assert sorted_scope(scope) == tuple(sorted(scope))
            assert sorted_scope(frozenset({"x" * 10_000 + str(number)})) == ("x" * 10_000 + str(number),)
        del scope
        gc.collect()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 100_000
