from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from delegation_core.errors import Denied, Reason
from sidecar.wire.h1_fields import H1Layout
from sidecar.wire.h1_head import parse_authority
from sidecar.wire.message import Request, Response
from tests.wire.written import parse_request_head, parse_response_head, read_line

HOST = b"Host: agent.example\r\n"


def request(head: bytes, *, proxy_form: bool = False) -> Request:
    return parse_request_head(head, max_target_bytes=64, max_fields=10, proxy_form=proxy_form)


def answer(head: bytes) -> Response:
    return parse_response_head(head, max_fields=10)


def reason_of(head: bytes, *, proxy_form: bool = False) -> Reason | None:
    try:
        request(head, proxy_form=proxy_form)
    except Denied as error:
        return error.reason
    return None


def test_a_head_is_read_whole() -> None:
    head = request(
        b"POST /a/b?q=1 HTTP/1.1\r\nHOST: Agent.Example:7443\r\nX-A:  one two \t\r\nx-a:\r\nContent-Length: 5\r\n\r\n"
    )
    assert head == Request(
        method="POST",
        target=b"/a/b?q=1",
        authority="agent.example:7443",
        minor=1,
        layout=H1Layout([b"host", b"x-a", b"x-a", b"content-length"]),
        values=(b"Agent.Example:7443", b"one two", b"", b"5"),
        listed=frozenset(),
        content_length=5,
        has_body=True,
        keep_alive=True,
    )
    assert head.fields == [
        (b"host", b"Agent.Example:7443"),
        (b"x-a", b"one two"),
        (b"x-a", b""),
        (b"content-length", b"5"),
    ]


LAWFUL = b"GET http://agent.example/abc HTTP/1.1\r\nHost: agent.example\r\nAuthorization: Bearer one\r\n\r\n"


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        ({"max_target_bytes": 23}, Reason.URI_TOO_LONG),
        ({"max_fields": 1}, Reason.HEAD_TOO_LARGE),
        ({"proxy_form": False}, Reason.PATH_REFUSED),
    ],
)
def test_what_one_listener_lets_pass_is_refused_by_one_that_does_not(limits: dict[str, Any], reason: Reason) -> None:
    lets_pass: dict[str, Any] = {"max_target_bytes": 24, "max_fields": 2, "proxy_form": True}
    parse_request_head(LAWFUL, **lets_pass)
    with pytest.raises(Denied) as refused:
        parse_request_head(LAWFUL, **{**lets_pass, **limits})
    assert refused.value.reason is reason


def test_an_answer_with_too_many_fields_for_one_connection_may_have_few_enough_for_another() -> None:
    head = b"HTTP/1.1 200 OK\r\nA: 1\r\nB: 2\r\n\r\n"
    assert parse_response_head(head, max_fields=2) == parse_response_head(head, max_fields=2)
    with pytest.raises(Denied):
        parse_response_head(head, max_fields=1)


def with_lines(*lines: bytes) -> bytes:
    return b"\r\n".join([b"GET /a HTTP/1.1", *lines, b"", b""])


@pytest.mark.parametrize("other", [b"%b: 1", b"%b:1", b"%b: \t1", b"%b: \xff"])
@pytest.mark.parametrize("name", [b"authorization", b"traceparent", b"x"])
def test_a_name_that_comes_twice_is_seen_twice_however_it_is_written(name: bytes, other: bytes) -> None:
    plain, odd = name + b": 2", other % name.upper()
    for lines in ((plain, odd), (odd, plain), (plain, plain)):
        head = request(with_lines(b"Host: a", *lines))
        assert list(head.all(name)) == [read_line(line)[1] for line in lines]


@pytest.mark.parametrize("twice", [False, True])
def test_every_line_counts_as_a_field(twice: bool) -> None:
    names = [b"a", b"traceparent", b"x-request-id"] * (2 if twice else 1)
    head = with_lines(b"Host: a", *(name + b": 1" for name in names))
    enough = len(names) + 1
    parse_request_head(head, max_target_bytes=64, max_fields=enough, proxy_form=False)
    for fewer in range(enough):
        with pytest.raises(Denied) as refused:
            parse_request_head(head, max_target_bytes=64, max_fields=fewer, proxy_form=False)
        assert refused.value.reason is Reason.HEAD_TOO_LARGE


GOOD_LINES = {
    "plain": (b"X: a", (b"x", b"a")),
    "no space": (b"X:a", (b"x", b"a")),
    "white space around the value": (b"X:\t a \t", (b"x", b"a")),
    "white space inside the value": (b"X: a \t b", (b"x", b"a \t b")),
    "a colon in the value": (b"X: a:b", (b"x", b"a:b")),
    "empty value": (b"X:", (b"x", b"")),
    "white space only": (b"X: \t ", (b"x", b"")),
    "obs-text": (b"X: \x80\xff", (b"x", b"\x80\xff")),
    "every token character": (b"!#$%&'*+-.^_`|~09AZaz: 1", (b"!#$%&'*+-.^_`|~09azaz", b"1")),
}
BAD_LINES = {
    "empty": b"",
    "no colon": b"X",
    "no name": b": a",
    "space before the colon": b"X : a",
    "tab before the colon": b"X\t: a",
    "a folded line": b" folded",
    "a space first": b" X: a",
    "a space in the name": b"X y: a",
    "a separator in the name": b"X(y: a",
    "obs-text in the name": b"X\xf6: a",
    "bare CR": b"X: a\rb",
    "bare LF": b"X: a\nY: b",
    "NUL": b"X: a\0",
    "a control": b"X: a\x01",
    "DEL": b"X: a\x7f",
}


@pytest.mark.parametrize(("line", "field"), GOOD_LINES.values(), ids=GOOD_LINES.keys())
def test_a_line_is_a_name_in_lower_case_and_a_value_without_white_space_around(
    line: bytes, field: tuple[bytes, bytes]
) -> None:
    assert read_line(line) == field
    for lines in ([b"Host: a", line], [line, b"Host: a"]):
        assert field in request(with_lines(*lines)).fields
        assert field in answer(b"HTTP/1.1 200 OK\r\n" + b"\r\n".join(lines) + b"\r\n\r\n").fields


@pytest.mark.parametrize("line", BAD_LINES.values(), ids=BAD_LINES.keys())
def test_a_line_that_is_no_field_is_refused_each_time(line: bytes) -> None:
    for lines in ([line, b"Host: a"], [b"Host: a", line, b"Y: b"] if line else [line]):
        for _ in range(2):
            assert reason_of(with_lines(*lines)) in {Reason.BAD_REQUEST, Reason.HEAD_TOO_LARGE}


def test_an_error_is_one_each_time() -> None:
    for _ in range(2):
        assert reason_of(with_lines(b"Host: a", b"Host: b")) is Reason.BAD_REQUEST


REQUEST_LINES = {
    "lawful": (b"GET / HTTP/1.1", None),
    "lawful, HTTP/1.0": (b"GET / HTTP/1.0", None),
    "an extension method the parser knows": (b"PROPFIND / HTTP/1.1", None),
    "HTTP/0.9 by version": (b"GET / HTTP/0.9", Reason.BAD_REQUEST),
    "HTTP/0.9 by form": (b"GET /", Reason.BAD_REQUEST),
    "HTTP/1.2": (b"GET / HTTP/1.2", Reason.BAD_REQUEST),
    "HTTP/1.10": (b"GET / HTTP/1.10", Reason.BAD_REQUEST),
    "HTTP/2.0": (b"GET / HTTP/2.0", Reason.BAD_REQUEST),
    "HTTP/2 preface": (b"PRI * HTTP/2.0", Reason.HTTP_VERSION),
    "lower-case protocol": (b"GET / http/1.1", Reason.BAD_REQUEST),
    "another protocol": (b"GET / RTSP/1.0", Reason.BAD_REQUEST),
    "two spaces after the method": (b"GET  / HTTP/1.1", Reason.BAD_REQUEST),
    "two spaces before the version": (b"GET /  HTTP/1.1", Reason.BAD_REQUEST),
    "tab for space": (b"GET\t/ HTTP/1.1", Reason.BAD_REQUEST),
    "space at the end": (b"GET / HTTP/1.1 ", Reason.BAD_REQUEST),
    "space at the start": (b" GET / HTTP/1.1", Reason.BAD_REQUEST),
    "space in the target": (b"GET /a b HTTP/1.1", Reason.BAD_REQUEST),
    "no target": (b"GET HTTP/1.1", Reason.BAD_REQUEST),
    "control byte in the target": (b"GET /\x01 HTTP/1.1", Reason.BAD_REQUEST),
    "DEL in the target": (b"GET /\x7f HTTP/1.1", Reason.BAD_REQUEST),
    "raw high byte in the target": (b"GET /\xff HTTP/1.1", Reason.BAD_REQUEST),
    "NUL in the target": (b"GET /\0 HTTP/1.1", Reason.BAD_REQUEST),
    "method in lower case": (b"get / HTTP/1.1", None),
    "method with a bad byte": (b"G@T / HTTP/1.1", Reason.BAD_REQUEST),
    "unknown method": (b"FETCH / HTTP/1.1", None),
    "method of every kind of character": (b"X!#$%&'*+-.^_`|~1 / HTTP/1.1", None),
    "method of another protocol": (b"DESCRIBE / HTTP/1.1", None),
    "method of the HTTP/2 preface": (b"PRI / HTTP/1.1", None),
    "CONNECT": (b"CONNECT agent.example:443 HTTP/1.1", Reason.METHOD_REFUSED),
    "TRACE": (b"TRACE / HTTP/1.1", Reason.METHOD_REFUSED),
    "TRACK": (b"TRACK / HTTP/1.1", Reason.METHOD_REFUSED),
    "asterisk-form": (b"OPTIONS * HTTP/1.1", Reason.PATH_REFUSED),
    "authority-form": (b"GET agent.example:80 HTTP/1.1", Reason.PATH_REFUSED),
    "absolute-form where none is served": (b"GET http://agent.example/ HTTP/1.1", Reason.PATH_REFUSED),
    "target at the limit": (b"GET /" + b"a" * 63 + b" HTTP/1.1", None),
    "target over the limit": (b"GET /" + b"a" * 64 + b" HTTP/1.1", Reason.URI_TOO_LONG),
}


@pytest.mark.parametrize(("line", "reason"), REQUEST_LINES.values(), ids=REQUEST_LINES.keys())
def test_the_request_line_is_read_strictly(line: bytes, reason: Reason | None) -> None:
    assert reason_of(line + b"\r\n" + HOST + b"\r\n") == reason


@pytest.mark.parametrize("method", ["GET", "get", "FETCH", "SOURCE", "PRI", "DESCRIBE", "M-SEARCH", "_"])
def test_the_rest_of_a_head_means_the_same_under_any_method(method: str) -> None:
    head = request(f"{method} /a HTTP/1.1\r\n".encode() + HOST + b"X: y\r\nContent-Length: 5\r\n\r\n")
    assert (head.method, head.target, head.content_length, len(head.fields)) == (method, b"/a", 5, 3)


FIELDS = {
    "obs-fold": (b"X: a\r\n b\r\n", Reason.BAD_REQUEST),
    "obs-fold by tab": (b"X: a\r\n\tb\r\n", Reason.BAD_REQUEST),
    "obs-fold before all fields": (b" X: a\r\n", Reason.BAD_REQUEST),
    "bare LF after a field": (b"X: a\nY: b\r\n", Reason.BAD_REQUEST),
    "bare CR in a value": (b"X: a\rb\r\n", Reason.BAD_REQUEST),
    "NUL in a value": (b"X: a\0\r\n", Reason.BAD_REQUEST),
    "NUL in a name": (b"X\0: a\r\n", Reason.BAD_REQUEST),
    "control byte in a value": (b"X: a\x01\r\n", Reason.BAD_REQUEST),
    "DEL in a value": (b"X: a\x7f\r\n", Reason.BAD_REQUEST),
    "space before the colon": (b"X : a\r\n", Reason.BAD_REQUEST),
    "tab before the colon": (b"X\t: a\r\n", Reason.BAD_REQUEST),
    "space in a name": (b"X Y: a\r\n", Reason.BAD_REQUEST),
    "empty name": (b": a\r\n", Reason.BAD_REQUEST),
    "no colon": (b"X\r\n", Reason.BAD_REQUEST),
    "name that is not a token": (b"X(Y): a\r\n", Reason.BAD_REQUEST),
    "high byte in a name": (b"X\xe9: a\r\n", Reason.BAD_REQUEST),
    "tab in a value": (b"X: a\tb\r\n", None),
    "high byte in a value": (b"X: \xe9\r\n", None),
    "underscore in a name": (b"X_Y: a\r\n", None),
    "second Host": (HOST, Reason.BAD_REQUEST),
    "second Host in another case": (b"hOST: other\r\n", Reason.BAD_REQUEST),
    "Connection that is not a list of tokens": (b"Connection: a/b\r\n", Reason.BAD_REQUEST),
    "Connection that is none after one that closes": (
        b"Connection: close\r\nConnection: a/b\r\n",
        Reason.BAD_REQUEST,
    ),
    "nine more fields": (b"X: y\r\n" * 9, None),
    "ten more fields": (b"X: y\r\n" * 10, Reason.HEAD_TOO_LARGE),
}


@pytest.mark.parametrize(("field", "reason"), FIELDS.values(), ids=FIELDS.keys())
def test_fields_are_read_strictly(field: bytes, reason: Reason | None) -> None:
    assert reason_of(b"GET / HTTP/1.1\r\n" + HOST + field + b"\r\n") == reason


@pytest.mark.parametrize(("value", "reason"), [(b"x-a, x-b", None), (b"a/b", Reason.BAD_REQUEST)])
def test_the_connection_fields_of_http_1_0_are_read_as_strictly(value: bytes, reason: Reason | None) -> None:
    assert reason_of(b"GET / HTTP/1.0\r\n" + HOST + b"Connection: " + value + b"\r\n\r\n") == reason


def test_a_bare_line_feed_never_ends_a_head() -> None:
    assert reason_of(b"GET / HTTP/1.1\r\n" + HOST + b"\nGET /b HTTP/1.1\r\n" + HOST + b"\r\n") == Reason.BAD_REQUEST


FRAMING = {
    "no length": (b"", (None, False)),
    "length": (b"Content-Length: 5\r\n", (5, False)),
    "zero": (b"Content-Length: 0\r\n", (0, False)),
    "leading zeros": (b"Content-Length: 005\r\n", None),  # some readers take them for octal,
    "chunked": (b"Transfer-Encoding: chunked\r\n", (None, True)),
    "chunked in capitals": (b"Transfer-Encoding: CHUNKED\r\n", (None, True)),
    "length then chunked": (b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", None),
    "chunked then length": (b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", None),
    "length twice, equal": (b"Content-Length: 5\r\nContent-Length: 5\r\n", None),
    "length twice, different": (b"Content-Length: 5\r\nContent-Length: 6\r\n", None),
    "list of equal lengths": (b"Content-Length: 5, 5\r\n", None),
    "plus": (b"Content-Length: +5\r\n", None),
    "minus": (b"Content-Length: -5\r\n", None),
    "hexadecimal": (b"Content-Length: 0x5\r\n", None),
    "underscore": (b"Content-Length: 5_0\r\n", None),
    "empty length": (b"Content-Length:\r\n", None),
    "fraction": (b"Content-Length: 5.0\r\n", None),
    "other digits": (b"Content-Length: \xd9\xa5\r\n", None),
    "twenty digits": (b"Content-Length: 99999999999999999999\r\n", None),
    "sixteen digits": (b"Content-Length: 1000000000000000\r\n", None),
    "xchunked": (b"Transfer-Encoding: xchunked\r\n", None),
    "identity": (b"Transfer-Encoding: identity\r\n", None),
    "gzip": (b"Transfer-Encoding: gzip\r\n", None),
    "gzip, chunked": (b"Transfer-Encoding: gzip, chunked\r\n", None),
    "identity, chunked": (b"Transfer-Encoding: identity, chunked\r\n", None),
    "leading comma": (b"Transfer-Encoding: ,chunked\r\n", None),
    "trailing comma": (b"Transfer-Encoding: chunked,\r\n", None),
    "chunked, identity": (b"Transfer-Encoding: chunked, identity\r\n", None),
    "chunked, chunked": (b"Transfer-Encoding: chunked, chunked\r\n", None),
    "quoted": (b'Transfer-Encoding: "chunked"\r\n', None),
    "with parameter": (b"Transfer-Encoding: chunked;q=1\r\n", None),
    "chunked twice": (b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", None),
    "gzip and chunked apart": (b"Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n", None),
    "empty coding": (b"Transfer-Encoding:\r\n", None),
}


@pytest.mark.parametrize(("fields", "framing"), FRAMING.values(), ids=FRAMING.keys())
def test_the_length_of_a_request_body_is_stated_once_and_plainly(
    fields: bytes, framing: tuple[int | None, bool] | None
) -> None:
    head = b"POST / HTTP/1.1\r\n" + HOST + fields + b"\r\n"
    if framing is None:
        assert reason_of(head) in (Reason.AMBIGUOUS_FRAMING, Reason.BAD_REQUEST)
    else:
        read = request(head)
        assert read.content_length == framing[0]
        assert read.has_body == (framing[1] or bool(framing[0]))


@pytest.mark.parametrize(
    "name", ["length then chunked", "length twice, equal", "gzip, chunked", "plus", "chunked twice"]
)
def test_a_doubtful_length_has_its_own_reason(name: str) -> None:
    assert reason_of(b"POST / HTTP/1.1\r\n" + HOST + FRAMING[name][0] + b"\r\n") == Reason.AMBIGUOUS_FRAMING


def test_a_transfer_coding_in_http_1_0_is_refused() -> None:
    head = b"POST / HTTP/1.0\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n"
    assert reason_of(head) == Reason.AMBIGUOUS_FRAMING


AUTHORITIES = {
    "name": (b"agent.example", "agent.example"),
    "name with port": (b"agent.example:7443", "agent.example:7443"),
    "capitals": (b"Agent.EXAMPLE", "agent.example"),
    "underscore": (b"my_agent", "my_agent"),
    "IPv4": (b"127.0.0.1:80", "127.0.0.1:80"),
    "IPv6": (b"[::1]", "[::1]"),
    "IPv6 with port": (b"[2001:DB8::1]:80", "[2001:db8::1]:80"),
    "highest port": (b"h:65535", "h:65535"),
    "empty": (b"", None),
    "user information": (b"a@b", None),
    "space": (b"a b", None),
    "slash": (b"h/evil", None),
    "user and space": (b"a@b c", None),
    "port too high": (b"h:65536", None),
    "port zero": (b"h:0", None),
    "empty port": (b"h:", None),
    "letters as port": (b"h:http", None),
    "port only": (b":80", None),
    "two ports": (b"h:1:2", None),
    "bare IPv6": (b"::1", None),
    "IPv6 unclosed": (b"[::1", None),
    "no IPv6 in brackets": (b"[:::1]", None),
    "name in brackets": (b"[agent]", None),
    "zone": (b"[fe80::1%25eth0]", None),
    "future address": (b"[v1.a]", None),
    "comma": (b"a,b", None),
    "percent": (b"a%2eb", None),
    "query": (b"a?b", None),
    "fragment": (b"a#b", None),
    "backslash": (b"a\\b", None),
    "leading dot": (b".a", None),
    "high byte": (b"\xe9.example", None),
    "line feed at the end": (b"h\n", None),
    "too long": (b"h" * 256, None),
}


@pytest.mark.parametrize(("value", "authority"), AUTHORITIES.values(), ids=AUTHORITIES.keys())
def test_a_host_is_a_host_with_an_optional_port(value: bytes, authority: str | None) -> None:
    if authority is None:
        with pytest.raises(Denied) as refused:
            parse_authority(value)
        assert refused.value.reason == Reason.BAD_REQUEST
    else:
        assert parse_authority(value) == authority


@pytest.mark.parametrize("minor", [b"0", b"1"])
def test_a_request_without_host_is_refused(minor: bytes) -> None:
    assert reason_of(b"GET / HTTP/1." + minor + b"\r\nX: y\r\n\r\n") == Reason.BAD_REQUEST


ABSOLUTE = {
    "path": (b"http://crm.mesh/a?b", b"/a?b"),
    "no path": (b"http://crm.mesh", b"/"),
    "query without path": (b"http://crm.mesh?a=/b", b"/?a=/b"),
    "authority in capitals": (b"http://CRM.mesh/", b"/"),
    "another authority": (b"http://other.mesh/", Reason.BAD_REQUEST),
    "another port": (b"http://crm.mesh:81/", Reason.BAD_REQUEST),
    "user information": (b"http://a@crm.mesh/", Reason.BAD_REQUEST),
    "no authority": (b"http:///a", Reason.BAD_REQUEST),
    "one slash": (b"http:/crm.mesh/", Reason.PATH_REFUSED),
    "https": (b"https://crm.mesh/", Reason.PATH_REFUSED),
    "scheme in capitals": (b"HTTP://crm.mesh/", Reason.PATH_REFUSED),
    "file": (b"file:///etc/passwd", Reason.PATH_REFUSED),
}


@pytest.mark.parametrize(("target", "expected"), ABSOLUTE.values(), ids=ABSOLUTE.keys())
def test_absolute_form_is_reduced_to_origin_form_if_it_agrees_with_the_host(
    target: bytes, expected: bytes | Reason
) -> None:
    head = b"GET " + target + b" HTTP/1.1\r\nHost: crm.mesh\r\n\r\n"
    if isinstance(expected, Reason):
        assert reason_of(head, proxy_form=True) == expected
    else:
        read = request(head, proxy_form=True)
        assert (read.target, read.authority) == (expected, "crm.mesh")


@pytest.mark.parametrize(
    ("line", "fields", "kept"),
    [
        (b"GET / HTTP/1.1", b"", True),
        (b"GET / HTTP/1.1", b"Connection: close\r\n", False),
        (b"GET / HTTP/1.1", b"Connection: x-a, Close\r\n", False),
        (b"GET / HTTP/1.1", b"Connection: keep-alive\r\nConnection: close\r\n", False),
        (b"GET / HTTP/1.1", b"Connection: closed\r\n", True),
        (b"GET / HTTP/1.0", b"", False),
        (b"GET / HTTP/1.0", b"Connection: keep-alive\r\n", False),
    ],
)
def test_only_http_1_1_without_close_may_be_followed_by_another_request(line: bytes, fields: bytes, kept: bool) -> None:
    assert request(line + b"\r\n" + HOST + fields + b"\r\n").keep_alive is kept


def test_expect_and_upgrade_are_told_and_do_not_end_the_reading() -> None:
    head = request(
        b"GET / HTTP/1.1\r\n"
        + HOST
        + b"Expect: 100-continue\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nX: y\r\n\r\n"
    )
    assert (head.expect, head.upgrade, head.fields[-1]) == (b"100-continue", b"websocket", (b"x", b"y"))


@pytest.mark.parametrize("name", [b"Expect: 100-continue\r\n", b"Upgrade: h2c\r\n"])
def test_one_of_a_kind_fields_do_not_hide_behind_others(name: bytes) -> None:
    assert reason_of(b"GET / HTTP/1.1\r\n" + name * 2 + HOST + HOST + b"\r\n") == Reason.BAD_REQUEST


ANSWERS = {
    "lawful": (b"HTTP/1.1 200 OK", True),
    "no reason phrase": (b"HTTP/1.1 200", True),
    "empty reason phrase": (b"HTTP/1.1 200 ", True),
    "HTTP/1.0": (b"HTTP/1.0 200 OK", True),
    "high byte in the phrase": (b"HTTP/1.1 200 \xe9", True),
    "HTTP/1.2": (b"HTTP/1.2 200 OK", False),
    "HTTP/2": (b"HTTP/2 200", False),
    "HTTP/0.9": (b"HTTP/0.9 200 OK", False),
    "two digits": (b"HTTP/1.1 20 OK", False),
    "four digits": (b"HTTP/1.1 2000 OK", False),
    "status below 100": (b"HTTP/1.1 099 OK", False),
    "status 600": (b"HTTP/1.1 600 OK", False),
    "two spaces": (b"HTTP/1.1  200 OK", False),
    "control byte in the phrase": (b"HTTP/1.1 200 O\x01K", False),
    "another protocol": (b"ICY 200 OK", False),
    "a request": (b"GET / HTTP/1.1", False),
}


@pytest.mark.parametrize(("line", "lawful"), ANSWERS.values(), ids=ANSWERS.keys())
def test_the_status_line_is_read_strictly(line: bytes, lawful: bool) -> None:
    if lawful:
        assert answer(line + b"\r\nContent-Length: 0\r\n\r\n").status == 200
    else:
        with pytest.raises(Denied):
            answer(line + b"\r\nContent-Length: 0\r\n\r\n")


@pytest.mark.parametrize(("fields", "framing"), FRAMING.values(), ids=FRAMING.keys())
def test_the_length_of_an_answer_is_stated_once_and_plainly(
    fields: bytes, framing: tuple[int | None, bool] | None
) -> None:
    head = b"HTTP/1.1 200 OK\r\n" + fields + b"\r\n"
    if framing is None:
        with pytest.raises(Denied):
            answer(head)
    else:
        read = answer(head)
        assert (read.content_length, read.chunked) == framing


ANSWER_FIELDS = {key: row for key, row in FIELDS.items() if "Host" not in key}


@pytest.mark.parametrize(("field", "reason"), ANSWER_FIELDS.values(), ids=ANSWER_FIELDS.keys())
def test_the_fields_of_an_answer_are_read_strictly(field: bytes, reason: Reason | None) -> None:
    head = b"HTTP/1.1 200 OK\r\nDate: x\r\n" + field + b"\r\n"
    if reason is None:
        assert answer(head).fields
    else:
        with pytest.raises(Denied):
            answer(head)


def test_an_advertised_upgrade_does_not_spoil_an_answer() -> None:
    head = answer(b"HTTP/1.1 200 OK\r\nConnection: Upgrade\r\nUpgrade: h2,h2c\r\nContent-Length: 3\r\n\r\n")
    assert (head.content_length, head.keep_alive) == (3, True)


def test_errors_never_quote_the_input() -> None:
    for head in (
        b"GET /secret  HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: secret secret\r\n\r\n",
        b"SECRET / HTTP/1.1\r\n\r\n",
    ):
        with pytest.raises(Denied) as refused:
            request(head)
        assert "secret" not in str(refused.value).lower()


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_a_head_or_refused(noise: bytes) -> None:
    for head in (
        noise,
        b"GET / HTTP/1.1\r\nHost: a\r\n" + noise + b"\r\n\r\n",
        b"GET " + noise + b" HTTP/1.1\r\nHost: a\r\n\r\n",
    ):
        reason_of(head, proxy_form=True)


token = st.from_regex(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,20}", fullmatch=True)
value = st.from_regex(rb"(?:[!-~\x80-\xff](?:[\t -~\x80-\xff]{0,20}[!-~\x80-\xff])?)?", fullmatch=True)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(token.map(lambda name: b"x-" + name.lower()), value), max_size=8))
def test_fields_are_read_as_they_were_written(fields: list[tuple[bytes, bytes]]) -> None:
    lines = b"".join(b"%b: %b\r\n" % field for field in fields)
    assert request(b"GET / HTTP/1.1\r\nhost: a\r\n" + lines + b"\r\n").fields == [(b"host", b"a"), *fields]


odd_lines = st.tuples(
    st.sampled_from([b"authorization", b"date", b"traceparent", b"x-request-id", b"x", b" x"]).flatmap(
        lambda name: st.sampled_from([name, name.title(), name.upper()])
    ),
    st.sampled_from([b": ", b":", b":\t", b" : "]),
    st.sampled_from([b"1", b"2", b"1, 2", b"", b"1 ", b"\xff", b"\r", b"\n", b"\r\n 2", b"1\r\nx: 3"]),
).map(b"".join)


@settings(max_examples=120, deadline=None)
@given(st.lists(odd_lines, max_size=4))
def test_a_head_says_what_its_lines_say_one_by_one(lines: list[bytes]) -> None:
    """However much of it is found again: each line is read alone here, as nothing else does."""
    try:
        fields = [read_line(line) for line in b"\r\n".join(lines).split(b"\r\n")] if lines else []
    except Denied:
        assert reason_of(with_lines(b"Host: a", *lines)) is Reason.BAD_REQUEST
        return
    head = request(with_lines(b"Host: a", *lines))
    for name in {name for name, _ in fields}:
        assert list(head.all(name)) == [value for field, value in fields if field == name]
    assert Counter(head.fields) == Counter([(b"host", b"a"), *fields])


@pytest.mark.parametrize(
    ("lines", "upgrade"),
    [
        ([], None),
        ([b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AA"], None),
        ([b"Upgrade: H2C"], None),
        ([b"Upgrade: h2c, websocket"], b"h2c, websocket"),
        ([b"Upgrade: h2c", b"Upgrade: h2c"], b"h2c"),
        ([b"Upgrade: h2"], b"h2"),
        ([b"Upgrade:"], b""),
        ([b"Upgrade: websocket"], b"websocket"),
    ],
    ids=repr,
)
def test_a_lone_offer_of_h2c_is_ignored_and_nothing_else_is(lines: list[bytes], upgrade: bytes | None) -> None:
    assert request(with_lines(b"Host: a", *lines)).upgrade == upgrade


def connect(line: bytes, fields: bytes = b"Host: crm.mesh:443\r\n") -> Request:
    return parse_request_head(
        b"CONNECT " + line + b" HTTP/1.1\r\n" + fields + b"\r\n", max_target_bytes=64, max_fields=9, proxy_form=True
    )


@pytest.mark.parametrize("host", [b"crm.mesh:443", b"CRM.Mesh:443", b"[::1]:8443"])
def test_connect_asks_a_proxy_for_a_host_and_nothing_follows_it(host: bytes) -> None:
    head = connect(host, b"Host: " + host + b"\r\nProxy-Authorization: Bearer x\r\n")
    assert (head.method, head.authority, head.has_body, head.keep_alive) == (
        "CONNECT",
        host.decode().lower(),
        False,
        False,
    )


@pytest.mark.parametrize(
    ("line", "fields"),
    [
        pytest.param(b"crm.mesh:444", b"Host: crm.mesh:443\r\n", id="another port"),
        pytest.param(b"crm.mesh", b"Host: crm.mesh\r\n", id="no port"),
        pytest.param(b"[::1]", b"Host: [::1]\r\n", id="no port after an address"),
        pytest.param(b"/a", b"Host: crm.mesh:443\r\n", id="a path"),
        pytest.param(b"http://crm.mesh:443/", b"Host: crm.mesh:443\r\n", id="absolute-form"),
        pytest.param(b"crm.mesh:443", b"Host: crm.mesh:443\r\nContent-Length: 1\r\n", id="content"),
        pytest.param(b"crm.mesh:443", b"Host: crm.mesh:443\r\nTransfer-Encoding: chunked\r\n", id="chunks"),
        pytest.param(b"crm.mesh:443", b"Host: crm.mesh:443\r\nExpect: 100-continue\r\n", id="an expectation"),
    ],
)
def test_a_connect_that_says_more_or_less_is_refused(line: bytes, fields: bytes) -> None:
    with pytest.raises(Denied) as refusal:
        connect(line, fields)
    assert refusal.value.reason is Reason.BAD_REQUEST
