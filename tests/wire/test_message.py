from __future__ import annotations

import pytest

from delegation_core.errors import Denied, Reason
from sidecar.wire.message import Field, Layout, is_event_stream
from tests.wire.written import answer_with

FIELDS = [
    [(b"a", b"1"), (b"b", b"2")],
    [(b"a", b"1"), (b"b", b"2"), (b"c", b"3"), (b"c", b"4"), (b"c", b"3")],
    [],
]


@pytest.mark.parametrize("fields", FIELDS)
def test_the_values_of_a_name_come_in_order_however_often_it_is_there(fields: list[Field]) -> None:
    message = answer_with(fields)
    for name in (b"a", b"b", b"c", b"d"):
        assert message.all(name) == tuple(value for field, value in fields if field == name)
    assert message.fields == fields


def test_a_field_that_must_be_single_is_one_value_or_none_and_two_are_refused() -> None:
    message = answer_with([(b"a", b"1"), (b"x-own", b"2"), (b"x-own", b"2")])
    assert message.one(b"a") == b"1"
    assert message.one(b"b") is None
    with pytest.raises(Denied, match="two X-Own fields") as refused:
        message.one(b"x-own")
    assert refused.value.reason is Reason.HEADER_MALFORMED


def test_layouts_are_equal_by_their_names_in_lower_case() -> None:
    assert Layout([b"A", b"b"]) == Layout([b"a", b"B"]) != Layout([b"b", b"a"])
    assert len({Layout([b"A"]), Layout([b"a"])}) == 1


@pytest.mark.parametrize(
    ("values", "streams"),
    [([], False), ([b"Text/Event-Stream ; charset=utf-8"], True), ([b"text/plain", b"text/event-stream"], True)],
)
def test_an_event_stream_is_known_by_its_media_type(values: list[bytes], streams: bool) -> None:
    assert is_event_stream(answer_with([(b"content-type", value) for value in values])) is streams
