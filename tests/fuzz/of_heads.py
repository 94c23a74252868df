"""Heads and their parts: request and answer heads, Host, target, trace context, our own header values."""

from __future__ import annotations

import re
from collections.abc import Callable
from random import Random
from typing import Final, NamedTuple, TypeVar
from urllib.parse import unquote

from delegation_core.errors import Denied, Reason
from delegation_core.target import CanonicalTarget, read_target
from sidecar.observe.tracing import next_traceparent
from sidecar.proxy.journeys.headers import MAX_VALUE_BYTES, call_id, encode_value, passes_outside, passes_to_mesh
from sidecar.wire.h1_fields import (
    Layouts,
    answer_layouts,
    connection_options,
    edited,
    encode_request,
    encode_response,
    request_layouts,
)
from sidecar.wire.h1_head import parse_authority
from sidecar.wire.h1_reader import HeadBuffer
from sidecar.wire.message import FRAMING, HOP_BY_HOP, Field, Message, Request, Response
from tests.fuzz.properties import chance, pieces, quiet
from tests.wire.written import AS_THEY_ARE, answer_with, parse_request_head, parse_response_head, request_with

_H = TypeVar("_H", Request, Response)

# Small enough for a fuzzer to reach each of them.
MAX_HEAD_BYTES: Final = 800
MAX_FIRST_LINE: Final = 200
MAX_TARGET_BYTES: Final = 136
MAX_FIELDS: Final = 12

_NAME: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]+")
_VALUE: Final = re.compile(rb"(?:[!-~\x80-\xff](?:[\t -~\x80-\xff]*[!-~\x80-\xff])?)?")
_DIFFERING: Final = re.compile(
    rb"(?i:content-length|date|delegation-call|traceparent|tracestate|x-request-id):[\t ]*([^\r\n]*)"
)
_IN_VALUES: Final = (
    b"7",
    b"0",
    b"a-",
    b"x y",
    b" ",
    b"\t",
    b"\r\n",
    b"\r\nx:",
    b"\0",
    b"\xe9",
    b"1\r\n\r\n",
    b"\r\nHost: b",
)
_REFUSALS: Final = frozenset(
    {
        Reason.BAD_REQUEST,
        Reason.AMBIGUOUS_FRAMING,
        Reason.METHOD_REFUSED,
        Reason.PATH_REFUSED,
        Reason.URI_TOO_LONG,
        Reason.HEAD_TOO_LARGE,
        Reason.EXPECTATION_REFUSED,
    }
)


class Read(NamedTuple):
    """Result of some bytes: a head and the rest, nothing yet (all None), or a refusal."""

    head: Request | Response | None
    rest: bytes | None
    refusal: Reason | None


def read_request(parts: list[bytes], *, proxy_form: bool) -> Read:
    """Read the first request head of a stream in these parts."""

    def parse(raw: bytes) -> Request:
        return parse_request_head(raw, max_target_bytes=MAX_TARGET_BYTES, max_fields=MAX_FIELDS, proxy_form=proxy_form)

    return _read(parts, parse, of_requests=True)


def read_response(parts: list[bytes]) -> Read:
    """Read the first answer head of a stream in these parts."""
    return _read(parts, lambda raw: parse_response_head(raw, max_fields=MAX_FIELDS), of_requests=False)


def _read(parts: list[bytes], parse: Callable[[bytes], Request | Response], *, of_requests: bool) -> Read:
    buffer = HeadBuffer(max_head_bytes=MAX_HEAD_BYTES, max_first_line=MAX_FIRST_LINE, of_requests=of_requests)
    try:
        for number, part in enumerate(parts):
            found = buffer.feed(part)
            assert buffer.held < MAX_HEAD_BYTES + len(part)
            if found is not None:
                return Read(parse(found[0]), found[1] + b"".join(parts[number + 1 :]), None)
    except Denied as error:
        assert error.reason in _REFUSALS
        quiet(error)
        return Read(None, None, error.reason)
    return Read(None, None, None)


def request_head(data: bytes) -> None:
    """One reading, for any cut and any cached heads; written again, it reads the same without hop-by-hop fields."""
    for proxy_form in (False, True):
        whole = read_request([data], proxy_form=proxy_form)
        cut = read_request(pieces(data), proxy_form=proxy_form)
        assert (whole.head, whole.rest, whole.refusal is None) == (cut.head, cut.rest, cut.refusal is None)
        if isinstance(whole.head, Request):
            _sound_request(whole.head)
    _as_without_cache(data, _request, request_layouts)


def _request(raw: bytes) -> Request:
    return parse_request_head(raw, max_target_bytes=MAX_TARGET_BYTES, max_fields=MAX_FIELDS, proxy_form=True)


def _response(raw: bytes) -> Response:
    return parse_response_head(raw, max_fields=MAX_FIELDS)


def _as_without_cache(data: bytes, read: Callable[[bytes], _H], layouts: Layouts) -> None:
    """Check that cached layouts change no reading."""
    for raw in _beside_others(data):
        cached = _outcome(read, raw)
        written = edited(cached, AS_THEY_ARE) if isinstance(cached, Request | Response) else b""
        layouts.clear()
        layouts.bytes = 0
        fresh = _outcome(read, raw)
        assert fresh == cached
        assert not isinstance(fresh, Request | Response) or edited(fresh, AS_THEY_ARE) == written


def _beside_others(data: bytes) -> list[bytes]:
    """Yield the first head of some bytes, all of them, heads like it, and it again."""
    random = chance(data)
    head = b"".join(data.partition(b"\r\n\r\n")[:2])
    return [head, data, *(_like(head, random) for _ in range(6)), head]


def _like(data: bytes, random: Random) -> bytes:
    """Change a per-request line, or anything anywhere, most often keeping the length."""
    values = [match.span(1) for match in _DIFFERING.finditer(data)]
    begin, end = random.choice(values) if values and random.random() < 0.7 else _anywhere(data, random)
    other = random.choice(_IN_VALUES)
    if random.random() < 0.8:
        other = (other * (end - begin))[: end - begin]
    return data[:begin] + other + data[end:]


def _anywhere(data: bytes, random: Random) -> tuple[int, int]:
    begin = random.randint(0, len(data))
    return begin, min(len(data), begin + random.randint(0, 8))


def _outcome(read: Callable[[bytes], _H], raw: bytes) -> _H | Reason:
    try:
        return read(raw)
    except Denied as error:
        return error.reason


def _sound_request(head: Request) -> None:
    _sound_fields(head)
    names = [name for name, _ in head.fields]
    assert names.count(b"host") == 1
    assert names.count(b"content-length") + names.count(b"transfer-encoding") <= 1
    assert head.has_body == (b"transfer-encoding" in names or bool(head.content_length))
    assert (head.content_length is not None) == (b"content-length" in names)
    assert head.target.startswith(b"/")
    assert parse_authority(head.authority.encode()) == head.authority
    assert dict(head.fields)[b"host"].decode().lower() == head.authority
    fresh = encode_request(head.method, head.target, _lines(head.fields))
    again = read_request([fresh], proxy_form=False)
    # It may now exceed a limit: "/" is put before a query, and a space before each value.
    if len(head.target) < MAX_TARGET_BYTES and len(fresh) <= MAX_HEAD_BYTES:
        assert isinstance(again.head, Request)
        assert (again.head.method, again.head.target) == (head.method, head.target)
        assert again.head.fields == head.fields
        assert (again.head.content_length, again.head.has_body) == (head.content_length, head.has_body)
        assert again.rest == b""


def response_head(data: bytes) -> None:
    """The same for the heads of answers."""
    whole, cut = read_response([data]), read_response(pieces(data))
    assert (whole.head, whole.rest, whole.refusal is None) == (cut.head, cut.rest, cut.refusal is None)
    _as_without_cache(data, _response, answer_layouts)
    head = whole.head
    if not isinstance(head, Response):
        return
    _sound_fields(head)
    names = [name for name, _ in head.fields]
    assert names.count(b"content-length") + names.count(b"transfer-encoding") <= 1
    assert 100 <= head.status <= 599
    again = read_response([encode_response(head.status, _lines(head.fields))])
    assert isinstance(again.head, Response)
    assert (again.head.status, again.head.fields, again.rest) == (head.status, head.fields, b"")


def _sound_fields(head: Message) -> None:
    fields = head.fields
    assert len(fields) <= MAX_FIELDS
    for name, value in fields:
        assert _NAME.fullmatch(name), name
        assert _VALUE.fullmatch(value), value
    for name in {name for name, _ in fields}:
        assert list(head.all(name)) == [value for field, value in fields if field == name]
    gone = HOP_BY_HOP | FRAMING | connection_options(head.all(b"connection")) | {b"expect"}
    passed = [field for field in fields if field[0] not in gone]
    assert edited(head, AS_THEY_ARE) == _lines(passed)
    assert edited(answer_with(passed), AS_THEY_ARE) == _lines(passed)


def _lines(fields: list[Field]) -> bytes:
    return b"".join([b"%b: %b\r\n" % field for field in fields])


def authority(data: bytes) -> None:
    """A Host has one spelling, and parsing it gives that spelling again."""
    try:
        read = parse_authority(data)
    except Denied as error:
        assert error.reason is Reason.BAD_REQUEST
        quiet(error)
        return
    assert read == data.decode("ascii").lower()
    assert parse_authority(read.encode()) == read
    assert not set(read) & set("/?#@\\ %,;\t\r\n")


def target(data: bytes) -> None:
    """The judged form is the forwarded form, and every parser returns it again."""
    try:
        read = read_target(data)
    except Denied as error:
        assert error.reason is Reason.PATH_REFUSED
        quiet(error)
        return
    written = read.encode()
    assert read_target(written) == CanonicalTarget(read.path, read.query)
    assert read.query == data.partition(b"?")[2]
    assert re.fullmatch(rb"[!-~]+", written)
    assert b"#" not in written
    # However often a server decodes the path, it finds the judged segments.
    decoded = read.path
    for _ in range(3):
        decoded = unquote(decoded, errors="strict")
        assert decoded.count("/") == read.path.count("/")
        assert not set(decoded) & set("\\;?#\0\r\n")
        segments = decoded.split("/")
        assert "." not in segments
        assert ".." not in segments
        assert "" not in segments[1:-1]


def trace(data: bytes) -> None:
    """Lines of ``traceparent`` and ``tracestate`` in, a valid context out; our own output is continued."""
    lines = [line.partition(b":") for line in data.split(b"\n")]
    states = [value for name, _, value in lines if name == b"s"]
    parents = [value for name, _, value in lines if name != b"s"]
    context = next_traceparent(parents, states)
    assert re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-0[0-3]", context.traceparent)
    assert context.traceparent[3:35] == context.trace_id != "0" * 32
    assert context.traceparent[36:52] == context.span_id != "0" * 16
    state = context.tracestate
    if state is not None:
        assert re.fullmatch(r"[ -~]{1,512}", state)
        assert state.count(",") < 32
    again = next_traceparent([context.traceparent.encode()], [] if state is None else [state.encode()])
    assert (again.trace_id, again.tracestate) == (context.trace_id, state)
    assert again.span_id != context.span_id
    assert next_traceparent((), states).trace_id != context.trace_id


def own_headers(data: bytes) -> None:
    """A claim in a header is one line and one value for one text; any spelling of our names is recognised."""
    text = data.decode("utf-8", "surrogatepass") if _is_text(data) else data.decode("latin-1")
    try:
        value = encode_value(text)
    except Denied as error:
        assert error.reason is Reason.MALFORMED_TOKEN
        quiet(error)
    else:
        assert len(value) <= MAX_VALUE_BYTES
        assert re.fullmatch(rb"[!-~]*", value)
        assert unquote(value.decode(), errors="strict") == text
    name = data[:200].lower()
    folded = bytes(byte if byte < 128 and chr(byte).isalnum() else 0x2D for byte in name)
    assert passes_outside(name) == passes_outside(folded)
    ours = b"delegation" + bytes([data[0] if data and not chr(data[0]).isalnum() else 95]) + name
    assert not passes_outside(ours)
    assert not passes_to_mesh(ours)
    assert not passes_to_mesh(name) or (passes_outside(name) and re.fullmatch(rb"[a-z0-9-]+", name))
    found = call_id(request_with([(b"delegation-call", data)]))
    assert (found is not None) == bool(re.fullmatch(rb"[0-9a-f]{32}", data))


def _is_text(data: bytes) -> bool:
    try:
        data.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return False
    return True
