from __future__ import annotations

import pytest

from sidecar.wire.head import (
    FRAMING,
    Field,
    Fields,
    connection_options,
    encode_request,
    encode_response,
    end_to_end,
    without_framing,
)


def test_a_request_is_written_as_its_line_its_fields_and_an_empty_line() -> None:
    head = encode_request("GET", b"/a?b", [(b"host", b"h"), (b"x", b"")])
    assert head == b"GET /a?b HTTP/1.1\r\nhost: h\r\nx: \r\n\r\n"


@pytest.mark.parametrize(
    ("status", "line"), [(200, b"HTTP/1.1 200 OK"), (599, b"HTTP/1.1 599 "), (417, b"HTTP/1.1 417 Expectation Failed")]
)
def test_an_answer_without_fields_is_its_status_line_and_an_empty_line(status: int, line: bytes) -> None:
    assert encode_response(status, []) == line + b"\r\n\r\n"


@pytest.mark.parametrize(
    "field",
    [(b"a", b"1\r\nb: 2"), (b"a", b"1\n"), (b"a", b"1\r"), (b"a\r\nb", b"1"), (b"a", b"\0")],
    ids=["CRLF in value", "LF in value", "CR in value", "CRLF in name", "NUL in value"],
)
def test_a_field_that_would_break_its_line_is_never_written(field: Field) -> None:
    with pytest.raises(ValueError, match="line break or NUL"):
        encode_request("GET", b"/", [field])
    with pytest.raises(ValueError, match="line break or NUL"):
        encode_response(200, [field])


def test_a_target_that_would_break_its_line_is_never_written() -> None:
    with pytest.raises(ValueError, match="line break or NUL"):
        encode_request("GET", b"/ HTTP/1.1\r\nx: y", [])


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
    assert end_to_end(Fields([(b"a", b"1"), (name, b"v"), (b"b", b"2")])) == [(b"a", b"1"), (b"b", b"2")]


def test_fields_named_by_any_connection_field_do_not_travel_on() -> None:
    fields = [
        (b"connection", b"X-One, close"),
        (b"x-one", b"1"),
        (b"keep", b"k"),
        (b"connection", b" x-two "),
        (b"x-two", b"2"),
    ]
    assert end_to_end(Fields(fields)) == [(b"keep", b"k")]


def test_repeated_end_to_end_fields_keep_their_order() -> None:
    fields = [(b"set-cookie", b"a"), (b"via", b"x"), (b"set-cookie", b"b")]
    assert end_to_end(Fields(fields)) == fields


def test_the_values_of_a_name_come_in_order_however_often_it_is_there() -> None:
    for fields in (
        Fields([(b"a", b"1"), (b"b", b"2")]),
        Fields([(b"a", b"1"), (b"b", b"2"), (b"c", b"3"), (b"c", b"4"), (b"c", b"3")]),
    ):
        for name in (b"a", b"b", b"c", b"d"):
            assert fields.values(name) == [value for field, value in fields if field == name]


def test_fields_that_state_where_a_message_ends_are_ours_to_set() -> None:
    for name in FRAMING:
        assert without_framing([(b"a", b"1"), (name, b"v")]) == [(b"a", b"1")]
    fields = [(b"a", b"1")]
    assert without_framing(fields) == fields
    assert without_framing(fields) is not fields


def test_connection_options_are_lower_case_and_never_empty() -> None:
    assert connection_options(Fields([(b"connection", b"Close,, keep-alive\t,")])) == {b"close", b"keep-alive"}
