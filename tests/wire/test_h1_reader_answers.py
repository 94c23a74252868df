from __future__ import annotations

from contextlib import suppress
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from delegation_core.errors import Denied
from sidecar.wire.h1_reader import AnswerReader
from sidecar.wire.limits import ClientLimits

LIMITS = ClientLimits(max_interim=3, max_head_bytes=300)


def read(stream: bytes, *, method: str = "GET", cuts: tuple[int, ...] = ()) -> tuple[AnswerReader, bytes, int]:
    """(reader, content, number of final heads told)."""
    reader = AnswerReader(LIMITS)
    reader.expect(method)
    content, told = b"", 0
    bounds = [0, *sorted(cuts), len(stream)]
    for start, end in pairwise(bounds):
        if start == end or reader.complete:
            continue
        head, more = reader.feed(stream[start:end])
        told += head is not None
        content += more
    return reader, content, told


OK = b"HTTP/1.1 200 OK\r\n"
BODIES = {
    "length": ("GET", OK + b"Content-Length: 3\r\n\r\nabc", b"abc"),
    "chunked": ("GET", OK + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", b"abc"),
    "no content": ("GET", OK + b"Content-Length: 0\r\n\r\n", b""),
    "HEAD with a length": ("HEAD", OK + b"Content-Length: 3\r\n\r\n", b""),
    "HEAD, chunked": ("HEAD", OK + b"Transfer-Encoding: chunked\r\n\r\n", b""),
    "HEAD without length": ("HEAD", OK + b"\r\n", b""),
    "204": ("GET", b"HTTP/1.1 204 No Content\r\n\r\n", b""),
    "204 with a length": ("GET", b"HTTP/1.1 204 No Content\r\nContent-Length: 3\r\n\r\n", b""),
    "304 with a length": ("GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 3\r\n\r\n", b""),
    "after one interim answer": (
        "GET",
        b"HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n" + OK + b"Content-Length: 1\r\n\r\nx",
        b"x",
    ),
    "after three interim answers": ("GET", b"HTTP/1.1 100 C\r\n\r\n" * 3 + OK + b"Content-Length: 1\r\n\r\nx", b"x"),
}


@pytest.mark.parametrize(("method", "stream", "content"), BODIES.values(), ids=BODIES.keys())
def test_an_answer_is_whole_where_it_says_so_however_it_is_cut(method: str, stream: bytes, content: bytes) -> None:
    for cuts in ((), *((cut,) for cut in range(1, len(stream))), tuple(range(len(stream)))):
        reader, got, told = read(stream, method=method, cuts=cuts)
        assert (got, told, reader.complete, reader.surplus) == (content, 1, True, False)


@pytest.mark.parametrize(("method", "stream", "content"), BODIES.values(), ids=BODIES.keys())
def test_bytes_beyond_an_answer_are_noticed(method: str, stream: bytes, content: bytes) -> None:
    reader, got, _ = read(stream + b"H", method=method)
    assert (got, reader.complete, reader.surplus) == (content, True, True)


@pytest.mark.parametrize(("method", "stream", "_content"), BODIES.values(), ids=BODIES.keys())
def test_an_answer_that_stops_early_is_not_complete(method: str, stream: bytes, _content: bytes) -> None:
    for end in range(len(stream)):
        assert not read(stream[:end], method=method)[0].complete


def test_an_answer_without_length_ends_with_its_connection() -> None:
    reader, content, _ = read(OK + b"\r\nabc")
    assert (content, reader.complete, reader.ends_with_connection) == (b"abc", False, True)


BAD = {
    "switch of protocols": b"HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
    "too many interim answers": b"HTTP/1.1 100 C\r\n\r\n" * 4 + OK + b"Content-Length: 0\r\n\r\n",
    "head too large": OK + b"X: " + b"a" * 300 + b"\r\n\r\n",
    "interim answer with a broken field": b"HTTP/1.1 100 C\r\nX Y: z\r\n\r\n" + OK + b"\r\n",
    "empty line first": b"\r\n" + OK + b"Content-Length: 0\r\n\r\n",
    "no HTTP": b"SSH-2.0-OpenSSH\r\n",
    "broken chunk": OK + b"Transfer-Encoding: chunked\r\n\r\nz\r\n",
}


@pytest.mark.parametrize("stream", BAD.values(), ids=BAD.keys())
def test_a_bad_answer_is_refused(stream: bytes) -> None:
    with pytest.raises(Denied):
        read(stream)


def test_the_next_answer_starts_anew() -> None:
    reader, _, _ = read(b"HTTP/1.1 100 C\r\n\r\n" * 3 + OK + b"Content-Length: 1\r\n\r\nx")
    reader.expect("HEAD")
    assert (reader.began, reader.head, reader.complete) == (False, None, False)
    reader.feed(b"HTTP/1.1 100 C\r\n\r\n" * 3 + OK + b"Content-Length: 1\r\n\r\n")
    assert (reader.began, reader.complete) == (True, True)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=120), st.sampled_from(["GET", "HEAD"]))
def test_any_bytes_are_an_answer_or_refused(noise: bytes, method: str) -> None:
    for stream in (noise, OK + noise, OK + b"Transfer-Encoding: chunked\r\n\r\n" + noise):
        with suppress(Denied):
            read(stream, method=method)
