from __future__ import annotations

import pytest

from sidecar.wire.head import (
    FRAMING,
    FRESH,
    Field,
    Fields,
    RequestHead,
    checked,
    connection_options,
    encode_fields,
    encode_request,
    encode_response,
)
from tests.wire.written import end_to_end, fields_in, request_with


def travels(fields: list[Field]) -> list[Field]:
    return fields_in(request_with(fields).passing(end_to_end))


def test_a_request_is_written_as_its_line_its_fields_and_an_empty_line() -> None:
    head = encode_request("GET", b"/a?b", encode_fields([(b"host", b"h"), (b"x", b"")]))
    assert head == b"GET /a?b HTTP/1.1\r\nhost: h\r\nx: \r\n\r\n"


@pytest.mark.parametrize(
    ("status", "line"), [(200, b"HTTP/1.1 200 OK"), (599, b"HTTP/1.1 599 "), (417, b"HTTP/1.1 417 Expectation Failed")]
)
def test_an_answer_without_fields_is_its_status_line_and_an_empty_line(status: int, line: bytes) -> None:
    assert encode_response(status, b"") == line + b"\r\n\r\n"


@pytest.mark.parametrize(
    "field",
    [(b"a", b"1\r\nb: 2"), (b"a", b"1\n"), (b"a", b"1\r"), (b"a\r\nb", b"1"), (b"a", b"\0")],
    ids=["CRLF in value", "LF in value", "CR in value", "CRLF in name", "NUL in value"],
)
def test_a_field_that_would_break_its_line_is_never_written(field: Field) -> None:
    with pytest.raises(ValueError, match="line break or NUL"):
        encode_fields([field])
    with pytest.raises(ValueError, match="line break or NUL"):
        checked(b"%b: %b\r\n" % field, 1)


def test_a_target_that_would_break_its_line_is_never_written() -> None:
    for target in (b"/ HTTP/1.1\r\nx: y", b"/\n", b"/\r", b"/\0"):
        with pytest.raises(ValueError, match="line break or NUL"):
            encode_request("GET", target, b"")


@pytest.mark.parametrize(
    "name",
    [
        b"connection",
        b"expect",
        b"http2-settings",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authentication-info",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
        b"content-length",
    ],
)
def test_hop_by_hop_and_framing_fields_do_not_travel_on(name: bytes) -> None:
    assert travels([(b"a", b"1"), (name, b"v"), (b"b", b"2")]) == [(b"a", b"1"), (b"b", b"2")]


def test_fields_named_by_any_connection_field_do_not_travel_on() -> None:
    fields = [
        (b"connection", b"X-One, close"),
        (b"x-one", b"1"),
        (b"keep", b"k"),
        (b"connection", b" x-two "),
        (b"x-two", b"2"),
    ]
    assert travels(fields) == [(b"keep", b"k")]


def test_repeated_end_to_end_fields_keep_their_order() -> None:
    fields = [(b"set-cookie", b"a"), (b"via", b"x"), (b"set-cookie", b"b")]
    assert travels(fields) == fields


def test_the_values_of_a_name_come_in_order_however_often_it_is_there() -> None:
    for fields in (
        Fields([(b"a", b"1"), (b"b", b"2")]),
        Fields([(b"a", b"1"), (b"b", b"2"), (b"c", b"3"), (b"c", b"4"), (b"c", b"3")]),
    ):
        for name in (b"a", b"b", b"c", b"d"):
            assert fields.values(name) == [value for field, value in fields if field == name]


def test_fields_that_state_where_a_message_ends_are_ours_to_set() -> None:
    for name in FRAMING:
        with pytest.raises(ValueError, match="where the message ends"):
            encode_fields([(b"a", b"1"), (name, b"v")])


def fresh_head(**fresh: bytes) -> RequestHead:
    head = request_with(
        [(b"a", b"1"), (b"date", FRESH), (b"content-length", FRESH), (b"connection", b"b"), (b"b", b"2")]
    )
    head.fresh = {name.replace("_", "-").encode(): value for name, value in fresh.items()}
    return head


def test_a_head_in_two_parts_reads_as_one() -> None:
    head = fresh_head(date=b"now", content_length=b"5")
    assert head.fields == [
        (b"a", b"1"),
        (b"date", b"now"),
        (b"content-length", b"5"),
        (b"connection", b"b"),
        (b"b", b"2"),
    ]
    for name, value in head.fields:
        assert head.values(name) == [value]
    assert head.values(b"c") == []


def test_fresh_fields_travel_on_by_the_same_rules() -> None:
    head = fresh_head(date=b"now", content_length=b"5")
    for _ in range(2):
        assert fields_in(head.passing(end_to_end)) == [(b"a", b"1"), (b"date", b"now")]
        assert fields_in(head.passing(lambda name: name == b"date")) == [(b"date", b"now")]
    later = fresh_head(date=b"later", content_length=b"6")
    later.common = head.common
    assert fields_in(later.passing(end_to_end)) == [(b"a", b"1"), (b"date", b"later")]


def test_a_fresh_field_that_connection_names_stays_here() -> None:
    head = request_with([(b"connection", b"Date"), (b"date", FRESH)])
    head.fresh = {b"date": b"now"}
    assert head.passing(end_to_end) == b""


def test_what_was_found_in_fields_is_found_once_and_an_error_each_time() -> None:
    fields, asked = Fields([(b"a", b"1")]), []

    def count(found: Fields) -> int:
        asked.append(found)
        return len(found)

    def fail(found: Fields) -> int:
        asked.append(found)
        raise ValueError("no")

    assert [fields.once(count), fields.once(count)] == [1, 1]
    assert len(asked) == 1
    for _ in range(2):
        with pytest.raises(ValueError, match="no"):
            fields.once(fail)
    assert len(asked) == 3


def test_connection_options_are_lower_case_and_never_empty() -> None:
    assert connection_options(Fields([(b"connection", b"Close,, keep-alive\t,")])) == {b"close", b"keep-alive"}
