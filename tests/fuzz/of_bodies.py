"""Ends of bodies: chunked bodies, and answers with every kind of body."""

from __future__ import annotations

from typing import NamedTuple

from delegation_core.errors import Denied, Reason
from sidecar.wire.framing import MAX_CHUNK_LINE, Body, ChunkedBody, MessageWriter
from sidecar.wire.h1_reader import AnswerReader
from sidecar.wire.limits import ClientLimits
from sidecar.wire.message import Response
from tests.fuzz.properties import chance, little_at_a_time, pieces, quiet

MAX_BYTES = 600
LIMITS = ClientLimits(max_head_bytes=800, max_fields=12, max_interim=3)


class Decoded(NamedTuple):
    """Result of a chunked body; ``rest`` None: it is not complete."""

    content: bytes
    rest: bytes | None
    refusal: Reason | None


def decode(parts: list[bytes]) -> Decoded:
    """Feed a chunked body in these parts."""
    body = ChunkedBody(max_bytes=MAX_BYTES)
    content = b""
    for number, part in enumerate(parts):
        try:
            more, rest = read_all(body, part)
        except Denied as error:
            assert error.reason in {Reason.BAD_REQUEST, Reason.TOO_LARGE}
            quiet(error)
            return Decoded(content, None, error.reason)
        content += more
        assert len(content) <= MAX_BYTES
        if body.complete:
            return Decoded(content, rest + b"".join(parts[number + 1 :]), None)
        assert rest == b""
        assert len(body._held) <= MAX_CHUNK_LINE
    return Decoded(content, None, None)


def read_all(body: Body, data: bytes) -> tuple[bytes, bytes]:
    """Feed bytes until the body is complete or all are consumed; each call consumes some."""
    content, rest = body.feed(data)
    while rest and not body.complete:
        before = len(rest)
        more, rest = body.feed(rest)
        content += more
        assert len(rest) < before, "a body that takes nothing"
    return content, rest


def read_answered(reader: AnswerReader, data: bytes) -> tuple[Response | None, bytes]:
    """Feed bytes until the answer is complete or all are consumed."""
    head, content = reader.feed(data)
    while reader.rest:
        _, more = reader.feed(b"")
        content += more
    return head, content


def chunked_body(data: bytes) -> None:
    """One content and one end for any cut; our own encoding is decoded as intended."""
    whole = decode([data])
    with little_at_a_time(data):
        cut = decode(pieces(data))
    assert whole.refusal is None or cut.refusal is not None or cut.rest is None
    assert (whole.rest, whole.refusal is None) == (cut.rest, cut.refusal is None)
    if whole.refusal is None:
        assert whole.content == cut.content
    out = MessageWriter()
    out.begin(b"", length=None, chunked=True)
    content = data[:MAX_BYTES]
    for piece in pieces(content):
        out.add(piece)
    assert out.end()
    assert decode(pieces(out.take() + b"next", chance(data + b"again"))) == Decoded(content, b"next", None)


class Answered(NamedTuple):
    """Result of an answer's bytes."""

    head: Response | None
    content: bytes
    complete: bool
    refusal: Reason | None


def read_answer(parts: list[bytes], method: str) -> Answered:
    """Feed an answer in these parts, until it is complete."""
    reader = AnswerReader(LIMITS)
    reader.expect(method)
    told: Response | None = None
    content = b""
    for part in parts:
        try:
            head, more = read_answered(reader, part)
        except Denied as error:
            assert error.reason in {
                Reason.BAD_REQUEST,
                Reason.AMBIGUOUS_FRAMING,
                Reason.HEAD_TOO_LARGE,
                Reason.URI_TOO_LONG,
            }
            quiet(error)
            return Answered(told, content, complete=False, refusal=error.reason)
        assert head is None or told is None, "an answer has one final head"
        told = head or told
        assert told or not more, "content before a head"
        content += more
        if reader.complete:
            break
    return Answered(told, content, reader.complete, None)


def answer(data: bytes) -> None:
    """One answer for any cut, for each method that changes its end."""
    for method in ("GET", "HEAD"):
        whole = read_answer([data], method)
        with little_at_a_time(data):
            cut = read_answer(pieces(data), method)
        assert whole.complete == cut.complete
        if whole.refusal is None or whole.complete:
            assert whole == cut
        elif whole.head is not None:
            assert cut.head == whole.head
        if whole.complete and whole.head is not None:
            bodyless = method == "HEAD" or whole.head.status in {204, 304}
            assert not (bodyless and whole.content)
            assert whole.head.status >= 200
            if whole.head.content_length is not None and not bodyless:
                assert len(whole.content) == whole.head.content_length
