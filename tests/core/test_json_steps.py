"""The parser in steps accepts and refuses what ``parse_object`` does, whatever lies at the edge of a step."""

from __future__ import annotations

import json
from collections.abc import Callable
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from delegation_core import json_steps
from delegation_core.json_steps import object_in_steps
from delegation_core.steps import at_once
from delegation_core.strict_json import StrictJsonError, parse_object
from tests.core.test_strict_json import ACCEPTED, DUPLICATES, REFUSED

values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**50), 2**50) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=2), inner, max_size=3),
    max_leaves=20,
)


def read(document: bytes, *, max_depth: int = 16, room: int = 2048) -> object:
    with patch.multiple(json_steps, _STEP=room, _ROOM=room):
        return at_once(object_in_steps(document, max_bytes=65536, max_depth=max_depth))


def outcome(parse: Callable[..., object], document: bytes, max_depth: int) -> object:
    try:
        return parse(document, max_depth=max_depth)
    except StrictJsonError as error:
        return error.duplicate


MISPUNCTUATED = (b"{1: 2}", b'{"a"; 1}', b'{"a": 1; "b": 2}', b'{"a": [1; 2]}', b'{"a": 1} {')


@pytest.mark.parametrize("document", MISPUNCTUATED)
def test_another_character_in_place_of_a_colon_comma_or_name_is_refused(document: bytes) -> None:
    with pytest.raises(StrictJsonError, match="not JSON"):
        read(document)


@pytest.mark.parametrize("document", [*DUPLICATES.values(), *REFUSED.values(), *(one for one, _ in ACCEPTED.values())])
def test_a_document_is_judged_as_by_the_parser_that_reads_it_at_once(document: bytes) -> None:
    assert outcome(read, document, 16) == outcome(parse_object, document, 16)


@settings(max_examples=40)
@given(
    st.dictionaries(st.text(max_size=2), values, max_size=5),
    st.sampled_from([None, 1]),
    st.integers(1, 5),
    st.integers(1900, 2100),
)
def test_any_object_is_read_as_at_once(
    value: dict[str, object], indent: int | None, max_depth: int, before: int
) -> None:
    document = b" " * before + json.dumps(value, indent=indent).encode()
    assert outcome(read, document, max_depth) == outcome(parse_object, document, max_depth)


@given(st.text('{}[]:,"a1 \\u0', max_size=40), st.integers(2000, 2050))
def test_any_text_is_refused_as_at_once(text: str, before: int) -> None:
    document = (" " * before + '{"a": [1, ' + text).encode()
    assert outcome(read, document, 16) == outcome(parse_object, document, 16)


def test_a_value_too_deep_for_any_parser_is_refused() -> None:
    with pytest.raises(StrictJsonError, match="nested too deeply"):
        read(b'{"a":' * 10_000 + b"1" + b"}" * 10_000, room=65536)


def test_each_step_reads_no_more_than_its_room() -> None:
    for document in (json.dumps({"a": ["x" * 8] * 100}), json.dumps({str(one): "x" for one in range(100)})):
        with patch.object(json_steps, "_STEP", 64):
            pauses = sum(1 for _ in object_in_steps(document.encode(), max_bytes=65536))
        assert pauses >= len(document) // 80


def test_what_is_longer_than_a_step_is_refused() -> None:
    assert read(b'{"a": ["' + b"x" * 60 + b'"]}', room=64)
    for long in (b'["' + b"x" * 130 + b'"]', b'"' + b"x" * 130 + b'"', b"[[" + b"1," * 70 + b"1]]", b"1" * 130):
        with pytest.raises(StrictJsonError):
            read(b'{"a": ' + long + b"}", room=64)
