from __future__ import annotations

import gc
import re
import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.wire import h1_fields, h1_head
from sidecar.wire.h1_fields import (
    LAYOUT_CACHE_BYTES,
    H1Layout,
    connection_options,
    edited,
    encode_fields,
    encode_request,
    encode_response,
)
from sidecar.wire.message import FRAMING, Edits, Field, Layout, Request
from tests.wire.written import AS_THEY_ARE, end_to_end, fields_in, parse_request_head, parse_response_head, request_with


def travels(fields: list[Field]) -> list[Field]:
    return fields_in(edited(request_with(fields), AS_THEY_ARE))


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
        edited(request_with([]), Edits(lambda _: True, (field[0],), (field[1],)))


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


def test_fields_that_state_where_a_message_ends_are_ours_to_set() -> None:
    for name in FRAMING:
        with pytest.raises(ValueError, match="where the message ends"):
            encode_fields([(b"a", b"1"), (name, b"v")])
        with pytest.raises(ValueError, match="where the message ends"):
            edited(request_with([]), Edits(lambda _: True, (name,), (b"v",)))


def test_connection_options_are_lower_case_and_never_empty() -> None:
    assert connection_options([b"Close,, keep-alive\t,", b""]) == {b"close", b"keep-alive"}


def test_set_fields_follow_those_that_pass_and_nothing_that_connection_lists_takes_them_off() -> None:
    request = request_with([(b"connection", b"close, x-set"), (b"x-set", b"theirs"), (b"a", b"1"), (b"close", b"c")])
    assert edited(request, Edits(end_to_end, (b"x-set",), (b"ours",))) == b"a: 1\r\nx-set: ours\r\n"


@pytest.mark.parametrize(
    "fields", [[], [(b"a", b"1")], [(b"a%b", b"%b"), (b"%", b"%%")]], ids=["none", "one", "percent signs"]
)
def test_any_number_of_fields_and_any_name_pass_as_they_are(fields: list[Field]) -> None:
    for _ in range(2):
        assert edited(request_with(fields), AS_THEY_ARE) == b"".join(b"%b: %b\r\n" % field for field in fields)


def request(head: bytes) -> Request:
    return parse_request_head(head, max_target_bytes=64, max_fields=10, proxy_form=False)


def with_lines(*lines: bytes) -> bytes:
    return b"\r\n".join([b"GET /a HTTP/1.1", *lines, b"", b""])


# --- the cache of layouts


@pytest.fixture
def layouts(monkeypatch: pytest.MonkeyPatch) -> Any:
    """An empty cache of the layouts of requests."""
    fresh = h1_fields.Layouts()
    monkeypatch.setattr(h1_head, "request_layouts", fresh)
    return fresh


def test_heads_with_the_same_names_share_a_layout_and_no_value(layouts: Any) -> None:
    one, two = (
        request(with_lines(b"Host: " + value, b"Authorization: Bearer " + value, b"X-Thing: " + value))
        for value in (b"one", b"two")
    )
    assert one.layout is two.layout
    assert len(layouts) == 1
    assert (one.authority, two.authority) == ("one", "two")
    assert (one.all(b"authorization"), two.all(b"authorization")) == ((b"Bearer one",), (b"Bearer two",))
    assert edited(one, AS_THEY_ARE) == b"host: one\r\nauthorization: Bearer one\r\nx-thing: one\r\n"


def test_no_value_of_a_head_is_kept(layouts: Any) -> None:
    secret = "Bearer s3cr3t"
    kept = request(with_lines(b"Host: a", b"Authorization: " + secret.encode(), b"Content-Length: 5")).layout
    assert secret not in repr([getattr(kept, name) for name in (*H1Layout.__slots__, *Layout.__slots__)])
    assert secret not in repr([*layouts])


def test_a_flood_of_names_evicts_the_oldest_and_changes_no_reading(layouts: Any) -> None:
    kept = with_lines(b"Host: a", b"Kept: 1")
    first = request(kept)
    for number in range(3000):
        head = request(with_lines(b"Host: a", b"X%d: %d" % (number, number)))
        assert head.fields == [(b"host", b"a"), (b"x%d" % number, b"%d" % number)]
    assert request(kept) == first
    assert request(kept).layout is not first.layout
    assert len(layouts) < 1000
    assert layouts.bytes <= LAYOUT_CACHE_BYTES


def test_a_layout_with_very_long_names_is_read_and_not_kept(layouts: Any) -> None:
    head = with_lines(b"Host: a", b"x" * 3000 + b": 1")
    assert request(head) == request(head)
    assert len(layouts) == 0


@pytest.mark.parametrize(("lines", "heads"), [(2, 600), (90, 150)])
def test_a_flood_of_heads_that_never_come_again_takes_some_mib_and_no_more(lines: int, heads: int) -> None:
    def read(numbers: range) -> int:
        for number in numbers:
            value = b"v" * (4000 // lines - 20)
            fields = b"".join(b"x%02d%08d: %b\r\n" % (line, number, value) for line in range(lines))
            head = b"GET /%08d HTTP/1.1\r\nhost: h%08d\r\n%b\r\n" % (number, number, fields)
            edited(parse_request_head(head, max_target_bytes=8192, max_fields=100, proxy_form=False), AS_THEY_ARE)
            edited(parse_response_head(b"HTTP/1.1 200 OK\r\n" + fields + b"\r\n", max_fields=100), AS_THEY_ARE)
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        full = read(range(heads))
        again = read(range(heads, 2 * heads))
    finally:
        tracemalloc.stop()
    assert full - before < 6 * 1024 * 1024
    assert again - full < 1024 * 1024


NAMES = st.lists(
    st.sampled_from([b"Host", b"host", b"Connection", b"Content-Length", b"Transfer-Encoding", b"Expect", b"Upgrade"])
    | st.sampled_from([b"X-A", b"x-a", b"a%", b"%b", b"%", b"no token", b"", b"x\xff"]),
    max_size=6,
)


@given(NAMES)
def test_a_layout_has_what_follows_from_its_names(names: list[bytes]) -> None:
    layout = H1Layout(names)
    lower = tuple(name.lower() for name in names)
    places: dict[bytes, list[int]] = {}
    for at, name in enumerate(lower):
        places.setdefault(name, []).append(at)
    assert (layout.names, layout.places) == (lower, places)
    sound = all(re.fullmatch(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+", name) for name in names)
    assert layout.breaks == (b"\n" * len(names) if sound else None)
    hosts, expect, upgrade, connection, lengths, codings = (
        places.get(name, [])
        for name in (b"host", b"expect", b"upgrade", b"connection", b"content-length", b"transfer-encoding")
    )
    assert layout.host == (hosts[0] if len(hosts) == 1 else None)
    found = layout.expect, layout.upgrade, layout.connection, layout.lengths, layout.codings
    assert found == (expect, upgrade, connection, lengths, codings)
    assert layout.length == (lengths[0] if lengths else None)
    assert layout.option == (connection[0] if connection else None)
    assert layout.usual == (not codings and len(lengths) < 2 and len(connection) < 2)
    assert layout.plain == (not (connection or expect or upgrade or lengths or codings))
    constant = {*connection, *expect, *upgrade, *codings, *(hosts if len(hosts) == 1 else [])}
    assert layout.constant == constant | (set() if layout.usual else {*lengths})


@given(st.lists(st.sampled_from([b"x-a", b"x-b", b"a%", b"%b", b"%", b"x-secret"]), max_size=6))
def test_a_template_has_the_lines_that_the_rule_lets_pass(names: list[bytes]) -> None:
    fields = [(name, b"%d" % at) for at, name in enumerate(names)]
    rule = Edits(lambda name: b"secret" not in name)
    expected = b"".join(name + b": " + value + b"\r\n" for name, value in fields if name != b"x-secret")
    assert edited(request_with(fields), rule) == expected


def test_a_rule_is_asked_once_for_a_name_and_its_answers_are_bounded() -> None:
    asked: list[bytes] = []

    def rule(name: bytes) -> bool:
        asked.append(name)
        return name != b"x-0"

    for number in range(2000):
        fields = [(b"x-known", b"k"), (b"x-%d" % number, b"v")]
        lines = edited(request_with(fields), Edits(rule))
        assert lines == b"x-known: k\r\n" + (b"x-%d: v\r\n" % number if number else b"")
    assert asked.count(b"x-known") < 10
    assert len(h1_fields._names_that_pass[rule]) == 512
    edited(request_with([(b"x" * 65, b"v")]), Edits(rule))
    assert b"x" * 65 not in h1_fields._names_that_pass[rule]
    for _ in range(100):
        edited(request_with([(b"x-known", b"k")]), Edits(lambda _: True))
    assert len(h1_fields._names_that_pass) == 32
