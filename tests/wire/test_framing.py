from __future__ import annotations

import tracemalloc
from contextlib import suppress
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from delegation_core.errors import Denied, Reason
from sidecar.wire import framing
from sidecar.wire.framing import MAX_LINES, ChunkedBody, LengthBody, UntilClose
from sidecar.wire.h1_reader import HeadBuffer

HEAD = b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n"


def heads(*, max_head_bytes: int = 200, max_first_line: int = 60, of_requests: bool = True) -> HeadBuffer:
    return HeadBuffer(max_head_bytes=max_head_bytes, max_first_line=max_first_line, of_requests=of_requests)


def feed_all(buffer: HeadBuffer, pieces: list[bytes]) -> tuple[bytes, bytes] | None:
    """The head and everything after it, however it was cut."""
    found = None
    rest = b""
    for piece in pieces:
        if found is None:
            found = buffer.feed(piece)
        else:
            rest += piece
    return None if found is None else (found[0], found[1] + rest)


@pytest.mark.parametrize("cut", range(1, len(HEAD)))
def test_a_head_cut_anywhere_is_the_same_head(cut: int) -> None:
    stream = HEAD + b"body"
    assert feed_all(heads(), [stream[:cut], stream[cut:]]) == (HEAD, b"body")


def test_a_head_in_single_bytes_is_the_same_head() -> None:
    assert feed_all(heads(), [bytes([byte]) for byte in HEAD + b"xy"]) == (HEAD, b"xy")


@pytest.mark.parametrize("longer", [0, 1])
def test_the_first_line_may_be_as_long_as_the_limit_however_it_is_cut(longer: int) -> None:
    line = b"GET /".ljust(60 - len(" HTTP/1.1") + longer, b"a") + b" HTTP/1.1"
    head = line + b"\r\nHost: a\r\n\r\n"
    for cut in range(1, len(head)):
        if longer:
            with pytest.raises(Denied) as refused:
                feed_all(heads(), [head[:cut], head[cut:]])
            assert refused.value.reason is Reason.URI_TOO_LONG
        else:
            assert feed_all(heads(), [head[:cut], head[cut:]]) == (head, b"")


ONE_EMPTY_LINE = [
    [b"\r\n" + HEAD],
    [b"\r\n", HEAD],
    [b"\r", b"\n", HEAD],
    [b"\r", b"\n" + HEAD],
    [b"\r", b"\nGET", HEAD[3:]],
    [b"\r\nGET", HEAD[3:]],
]


@pytest.mark.parametrize("pieces", ONE_EMPTY_LINE)
def test_one_empty_line_before_each_request_is_skipped(pieces: list[bytes]) -> None:
    buffer = heads()
    assert feed_all(buffer, pieces) == (HEAD, b"")
    assert feed_all(buffer, pieces) == (HEAD, b"")


@pytest.mark.parametrize("pieces", ONE_EMPTY_LINE)
def test_a_second_empty_line_is_not_skipped_however_it_comes(pieces: list[bytes]) -> None:
    for stream in ([b"\r\n", *pieces], [b"\r\n" + pieces[0], *pieces[1:]], [b"\r", b"\n", *pieces]):
        found: tuple[bytes, bytes] | None = None
        with suppress(Denied):
            found = feed_all(heads(), stream)
        assert found is None or found[0].startswith(b"\r\n")  # refused, now or by the reader of heads


@pytest.mark.parametrize("cut", [None, 5, 70, 130])
def test_a_first_line_over_its_limit_is_refused_however_it_is_cut(cut: int | None) -> None:
    whole = b"GET /" + b"a" * 60 + b" HTTP/1.1\r\nHost: a\r\nX: " + b"b" * 60 + b"\r\n\r\n"
    for data, accepted in ((whole, False), (whole.replace(b"a" * 60, b"a" * 40), True)):
        pieces = [data] if cut is None else [data[:cut], data[cut:]]
        if accepted:
            assert feed_all(heads(), pieces) == (data, b"")
            continue
        with pytest.raises(Denied) as refused:
            feed_all(heads(), pieces)
        assert refused.value.reason is Reason.URI_TOO_LONG


def test_an_empty_line_before_an_answer_is_not_skipped() -> None:
    found = feed_all(heads(of_requests=False), [b"\r\n" + b"HTTP/1.1 200 OK\r\n\r\n"])
    assert found is not None
    assert found[0].startswith(b"\r\n")


@pytest.mark.parametrize(("of_requests", "reason"), [(True, Reason.HTTP_VERSION), (False, Reason.BAD_REQUEST)])
def test_only_a_peer_is_told_that_http_2_is_not_spoken_and_not_an_upstream(
    *, of_requests: bool, reason: Reason
) -> None:
    with pytest.raises(Denied) as refused:
        feed_all(heads(of_requests=of_requests), [b"PRI * HTTP/2.0\r\n"])
    assert refused.value.reason is reason


UNFINISHED = {
    "control byte": (b"GET / HTTP/1.1\r\nX: \x01", Reason.BAD_REQUEST),
    "TLS on a plain port": (b"\x16\x03\x01\x02\x00", Reason.BAD_REQUEST),
    "NUL": (b"GET /\0", Reason.BAD_REQUEST),
    "bare LF": (b"GET / HTTP/1.1\nHost: a\n\n", Reason.BAD_REQUEST),
    "bare CR": (b"GET / HTTP/1.1\rHost", Reason.BAD_REQUEST),
    "HTTP/0.9": (b"GET /\r\n", Reason.BAD_REQUEST),
    "another version": (b"GET / HTTP/2.0\r\n", Reason.BAD_REQUEST),
    "first line too long": (b"GET /" + b"a" * 60, Reason.URI_TOO_LONG),
    "first line too long, finished": (b"GET /" + b"a" * 60 + b" HTTP/1.1\r\nHost: a\r\n", Reason.URI_TOO_LONG),
    "head too large": (b"GET / HTTP/1.1\r\nX: " + b"a" * 200, Reason.HEAD_TOO_LARGE),
}


@pytest.mark.parametrize(("start", "reason"), UNFINISHED.values(), ids=UNFINISHED.keys())
def test_what_cannot_become_a_head_is_refused_before_it_ends(start: bytes, reason: Reason) -> None:
    with pytest.raises(Denied) as whole:
        heads().feed(start)
    assert whole.value.reason == reason
    with pytest.raises(Denied) as cut:
        feed_all(heads(), [bytes([byte]) for byte in start])
    assert cut.value.reason == reason


def test_a_head_of_exactly_the_limit_is_taken_and_one_byte_more_is_not() -> None:
    assert heads(max_head_bytes=len(HEAD)).feed(HEAD) == (HEAD, b"")
    with pytest.raises(Denied) as refused:
        heads(max_head_bytes=len(HEAD) - 1).feed(HEAD)
    assert refused.value.reason == Reason.HEAD_TOO_LARGE


def test_the_first_line_is_known_to_be_read_once_it_ends() -> None:
    buffer = heads()
    buffer.feed(b"GET / HTTP/1.1\r")
    assert (buffer.held > 0, buffer.first_line_read) == (True, False)
    buffer.feed(b"\nHost")
    assert buffer.first_line_read
    buffer.clear()
    assert (buffer.held > 0, buffer.first_line_read) == (False, False)


def test_a_flood_of_fragments_needs_little_memory() -> None:
    buffer = heads(max_head_bytes=65536)
    sent = 32000
    buffer.feed(b"GET / HTTP/1.1\r\nX: ")
    tracemalloc.start()
    try:
        for _ in range(sent):
            buffer.feed(b"a")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 10 * sent


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=300), st.integers(0, 300))
def test_any_bytes_are_part_of_a_head_or_refused(noise: bytes, cut: int) -> None:
    buffer = heads()
    with suppress(Denied):
        feed_all(buffer, [b"GET / HTTP/1.1\r\n", noise[:cut], noise[cut:]])


def test_a_body_of_known_length_ends_exactly_there() -> None:
    body = LengthBody(5)
    assert body.feed(b"abc") == (b"abc", b"")
    assert not body.complete
    assert body.feed(b"deGET") == (b"de", b"GET")
    assert body.complete


def test_a_body_of_no_bytes_is_complete_from_the_start() -> None:
    assert LengthBody(0).complete


def test_what_ends_with_its_connection_is_never_complete() -> None:
    body = UntilClose()
    assert (body.feed(b"abc"), body.complete) == ((b"abc", b""), False)


def read_chunked(
    stream: bytes, *, max_bytes: int | None = None, cuts: tuple[int, ...] = ()
) -> tuple[bytes, bytes, bool]:
    body = ChunkedBody(max_bytes=max_bytes)
    content = rest = b""
    bounds = [0, *sorted(cuts), len(stream)]
    for start, end in pairwise(bounds):
        rest += stream[start:end]
        while rest and not body.complete:
            more, rest = body.feed(rest)
            content += more
    return content, rest, body.complete


CHUNKED = b"5;a=b\r\nhello\r\n06\r\n world\r\n0\r\nX-Trailer: y\r\n\r\n"


@pytest.mark.parametrize("cut", range(len(CHUNKED) + 1))
def test_a_chunked_body_cut_anywhere_is_the_same_body(cut: int) -> None:
    assert read_chunked(CHUNKED + b"GET", cuts=(cut,)) == (b"hello world", b"GET", True)


def test_a_chunked_body_in_single_bytes_is_the_same_body() -> None:
    assert read_chunked(CHUNKED, cuts=tuple(range(len(CHUNKED)))) == (b"hello world", b"", True)


LAWFUL_CHUNKS = {
    "capital hexadecimal": (b"A\r\n0123456789\r\n0\r\n\r\n", b"0123456789"),
    "leading zeros": (b"0005\r\nhello\r\n000\r\n\r\n", b"hello"),
    "nothing": (b"0\r\n\r\n", b""),
    "extension without value": (b"5;a\r\nhello\r\n0\r\n\r\n", b"hello"),
    "extension with quoted value": (b'5;a="b;\\"c"\r\nhello\r\n0\r\n\r\n', b"hello"),
    "extension on the last chunk": (b"0;a=b\r\n\r\n", b""),
}


@pytest.mark.parametrize(("stream", "content"), LAWFUL_CHUNKS.values(), ids=LAWFUL_CHUNKS.keys())
def test_lawful_chunks_are_decoded(stream: bytes, content: bytes) -> None:
    assert read_chunked(stream) == (content, b"", True)


BROKEN_CHUNKS = {
    "0x": b"0x5\r\nhello\r\n0\r\n\r\n",
    "plus": b"+5\r\nhello\r\n0\r\n\r\n",
    "minus": b"-5\r\nhello\r\n0\r\n\r\n",
    "underscore": b"0_5\r\nhello\r\n0\r\n\r\n",
    "space after": b"5 \r\nhello\r\n0\r\n\r\n",
    "space before": b" 5\r\nhello\r\n0\r\n\r\n",
    "tab after": b"5\t\r\nhello\r\n0\r\n\r\n",
    "empty": b"\r\nhello\r\n0\r\n\r\n",
    "no hexadecimal": b"g\r\nhello\r\n0\r\n\r\n",
    "bare LF after the size": b"5\nhello\r\n0\r\n\r\n",
    "bare CR after the size": b"5\rhello\r\n0\r\n\r\n",
    "bare LF after the data": b"5\r\nhello\n0\r\n\r\n",
    "data longer than its size": b"4\r\nhello\r\n0\r\n\r\n",
    "data shorter than its size": b"6\r\nhello\r\n0\r\n\r\n",
    "2**64 + 5": b"10000000000000005\r\nhello\r\n0\r\n\r\n",
    "sixteen digits": b"0000000000000005\r\nhello\r\n0\r\n\r\n",
    "extension with CR": b"5;a\rb\r\nhello\r\n0\r\n\r\n",
    "extension with NUL": b"5;a=\0\r\nhello\r\n0\r\n\r\n",
    "extension with unfinished quote": b'5;a="b\r\nhello\r\n0\r\n\r\n',
    "extension without name": b"5;\r\nhello\r\n0\r\n\r\n",
    "extension with white space": b"5 ;a=b\r\nhello\r\n0\r\n\r\n",
    "line without end": b"5;" + b"a" * 600,
    "endless extensions": b"1;%b\r\nx\r\n" % (b"a" * 400) * 50 + b"0\r\n\r\n",
    "trailer Content-Length": b"0\r\nContent-Length: 5\r\n\r\n",
    "trailer Transfer-Encoding": b"0\r\ntransfer-encoding: chunked\r\n\r\n",
    "trailer Host": b"0\r\nHost: b\r\n\r\n",
    "trailer without colon": b"0\r\nX\r\n\r\n",
    "trailer with space before the colon": b"0\r\nX : y\r\n\r\n",
    "trailer folded": b"0\r\nX: y\r\n z\r\n\r\n",
    "trailer with NUL": b"0\r\nX: \0\r\n\r\n",
    "endless trailers": b"0\r\n" + b"X: %b\r\n" % (b"a" * 400) * 30 + b"\r\n",
}


@pytest.mark.parametrize("stream", BROKEN_CHUNKS.values(), ids=BROKEN_CHUNKS.keys())
def test_broken_chunks_are_refused(stream: bytes) -> None:
    with pytest.raises(Denied) as refused:
        read_chunked(stream)
    assert refused.value.reason == Reason.BAD_REQUEST
    with pytest.raises(Denied):
        read_chunked(stream, cuts=tuple(range(len(stream))))


@pytest.mark.parametrize("start", [b"5\nhello", b"5\rhello", b"4\r\nhello", b"5;" + b"a" * 600 + b"\r\nhello"])
def test_chunks_that_cannot_become_lawful_are_refused_at_once(start: bytes) -> None:
    with pytest.raises(Denied):
        ChunkedBody().feed(start)


@pytest.mark.parametrize("size", [b"b", b"fffffffffffff"])
def test_a_chunked_body_over_its_limit_is_refused_at_the_chunk_that_exceeds_it(size: bytes) -> None:
    with pytest.raises(Denied) as refused:
        read_chunked(b"5\r\nhello\r\n" + size + b"\r\n", max_bytes=15)
    assert refused.value.reason == Reason.TOO_LARGE


def test_a_chunked_body_of_exactly_its_limit_is_taken() -> None:
    assert read_chunked(CHUNKED, max_bytes=11) == (b"hello world", b"", True)


@pytest.mark.parametrize("end", range(len(CHUNKED)))
def test_a_chunked_body_that_stops_early_is_not_complete(end: int) -> None:
    assert not read_chunked(CHUNKED[:end])[2]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.binary(min_size=1, max_size=40), max_size=5), st.lists(st.integers(0, 300), max_size=4))
def test_what_was_chunked_is_read_as_it_was(pieces: list[bytes], cuts: list[int]) -> None:
    stream = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
    inside = tuple(cut for cut in cuts if cut <= len(stream))
    assert read_chunked(stream, cuts=inside) == (b"".join(pieces), b"", True)


def test_of_many_chunks_so_many_are_read_at_a_time_and_the_others_given_back() -> None:
    body = ChunkedBody()
    stream = b"1\r\nx\r\n" * 40000 + b"0\r\n\r\n" + b"GET"
    content = b""
    while not body.complete:
        more, rest = body.feed(stream)
        assert 0 < len(stream) - len(rest) <= (MAX_LINES // 2 + 1) * len(b"1\r\nx\r\n")
        content, stream = content + more, rest
    assert (content, stream) == (b"x" * 40000, b"GET")


@pytest.mark.parametrize(
    "stream",
    [b"1\r\nx\r\n" * 40, b"1;a=b\r\nx\r\n" * 40, b"0\r\n" + b"a: b\r\n" * 40],
    ids=["data", "extensions", "trailers"],
)
def test_whatever_the_lines_are_they_are_counted(stream: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(framing, "MAX_LINES", 10)
    body = ChunkedBody()
    for _ in range(3):
        before = stream
        _, stream = body.feed(stream)
        assert 5 <= before[: len(before) - len(stream)].count(b"\r\n") <= 10


CHUNKS = st.lists(
    st.binary(min_size=1, max_size=40).map(lambda piece: b"%x\r\n%b\r\n" % (len(piece), piece)), max_size=8
)
STREAMS = st.builds(
    lambda chunks, noise, end: b"".join(chunks) + noise + end,
    CHUNKS,
    st.one_of(st.just(b""), st.binary(max_size=4)),
    st.sampled_from([b"", b"0\r\n\r\nGET", b"0;a\r\nX: y\r\n\r\n", b"0\r\nHost: a\r\n\r\n"]),
)


@settings(max_examples=120, deadline=None)
@given(STREAMS, st.lists(st.integers(0, 300), max_size=4), st.integers(1, 7))
def test_what_is_read_a_few_lines_at_a_time_is_what_is_read_in_one_go(
    stream: bytes, cuts: list[int], lines: int
) -> None:
    inside = tuple(cut for cut in cuts if cut <= len(stream))
    found: list[tuple[bytes, bytes, bool] | Reason] = []
    for limit in (MAX_LINES, lines):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(framing, "MAX_LINES", limit)
            try:
                found.append(read_chunked(stream, max_bytes=200, cuts=inside))
            except Denied as error:
                found.append(error.reason)
    assert found[0] == found[1]


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=100))
def test_any_bytes_are_chunks_or_refused(noise: bytes) -> None:
    for stream in (noise, b"3\r\nabc" + noise, b"0\r\n" + noise):
        with suppress(Denied):
            read_chunked(stream)
