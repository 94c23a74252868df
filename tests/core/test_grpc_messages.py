"""Messages of gRPC, one by one and in streams."""

from __future__ import annotations

import gzip
import tracemalloc
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from delegation_core.grpc_messages import (
    GrpcMessageError,
    GrpcMessages,
    one_message,
    one_plain_message,
    written,
)


def packed(message: bytes) -> bytes:
    """Return content that holds one message, compressed by gzip."""
    return b"\1" + written(gzip.compress(message))[1:]


def test_the_one_message_of_a_call_is_found() -> None:
    assert one_message(b"\0\0\0\0\3abc") == b"abc"
    assert one_message(written(b"")) == b""


@pytest.mark.parametrize(
    "content",
    [b"", b"\0\0\0\0", b"\1\0\0\0\3abc", b"\2\0\0\0\0", b"\0\0\0\0\4abc", b"\0\0\0\0\2abc", written(b"a") * 2],
)
def test_none_several_or_a_compressed_one_is_refused(content: bytes) -> None:
    with pytest.raises(GrpcMessageError):
        one_message(content)


@given(st.lists(st.binary(max_size=20), max_size=5), st.integers(1, 7))
def test_a_stream_is_cut_into_its_messages_however_it_arrives(messages: list[bytes], size: int) -> None:
    data = b"".join(map(written, messages))
    reader = GrpcMessages(max_bytes=20)
    found = [one for at in range(0, len(data), size) for one in reader.feed(data[at : at + size])]
    assert found == messages


@pytest.mark.parametrize("data", [b"\0\0\0\0\5", b"\1\0\0\0\0", written(b"ok") + b"\0\xff\xff\xff\xff"])
def test_a_message_that_is_too_long_or_compressed_ends_the_reading_by_its_head(data: bytes) -> None:
    with pytest.raises(GrpcMessageError):
        list(GrpcMessages(max_bytes=4).feed(data))


def test_a_flag_that_is_neither_plain_nor_compressed_ends_the_reading() -> None:
    rest = written(gzip.compress(b"abc"))[1:]
    assert list(GrpcMessages(max_bytes=99, codings=[b"gzip"]).feed(b"\1" + rest)) == [b"abc"]
    for flag in (b"\2", b"\3", b"\xff"):
        with pytest.raises(GrpcMessageError):
            list(GrpcMessages(max_bytes=99, codings=[b"gzip"]).feed(flag + rest))


@pytest.mark.parametrize(("coding", "compress"), [(b"gzip", gzip.compress), (b"deflate", zlib.compress)])
def test_a_compressed_message_is_made_plain_by_its_coding(coding: bytes, compress: object) -> None:
    assert callable(compress)
    content = b"\1" + written(compress(b"abc" * 9))[1:]
    assert one_plain_message(content, [coding], max_bytes=27) == written(b"abc" * 9)
    plain = written(b"abc")
    assert one_plain_message(plain, [coding], max_bytes=1) == plain


GZIPPED = gzip.compress(b"abc" * 9)


@pytest.mark.parametrize(
    ("message", "codings", "max_bytes"),
    [
        (GZIPPED, [b"gzip"], 26),
        (GZIPPED, [b"deflate"], 27),
        (GZIPPED, [b"identity"], 27),
        (GZIPPED, [b"snappy"], 27),
        (GZIPPED, [], 27),
        (GZIPPED, [b"gzip", b"gzip"], 27),
        (GZIPPED[:-1], [b"gzip"], 27),
        (GZIPPED + GZIPPED, [b"gzip"], 99),
        (GZIPPED + b"\0", [b"gzip"], 27),
        (b"abc", [b"gzip"], 27),
        (b"", [b"gzip"], 27),
    ],
    ids=["too long", "deflate", "identity", "unknown", "none", "two", "cut", "two members", "more", "plain", "empty"],
)
def test_a_compressed_message_that_is_not_as_stated_is_refused(
    message: bytes, codings: list[bytes], max_bytes: int
) -> None:
    with pytest.raises(GrpcMessageError):
        one_plain_message(b"\1" + written(message)[1:], codings, max_bytes=max_bytes)


def test_of_a_bomb_no_more_than_the_limit_is_made() -> None:
    bomb = packed(b"\0" * 50_000_000)
    assert len(bomb) < 60_000
    tracemalloc.start()
    try:
        with pytest.raises(GrpcMessageError, match="too long when decompressed"):
            one_plain_message(bomb, [b"gzip"], max_bytes=100_000)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_what_is_not_one_whole_message_stays_as_it_is() -> None:
    for content in (b"", b"\1\0", b"\1\0\0\0\4abc", b"\2\0\0\0\3abc", packed(b"a") * 2):
        assert one_plain_message(content, [b"gzip"], max_bytes=99) == content
        with pytest.raises(GrpcMessageError):
            one_message(content)


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_compressed_messages_of_a_stream_are_read_up_to_a_sum(size: int) -> None:
    data = packed(b"a" * 40) + written(b"b" * 90) + packed(b"c" * 60) + packed(b"d")
    reader = GrpcMessages(max_bytes=100, codings=[b"gzip"])
    pieces = (data[at : at + size] for at in range(0, len(data), size))
    found: list[bytes] = []
    with pytest.raises(GrpcMessageError, match="too long when decompressed"):
        found.extend(message for piece in pieces for message in reader.feed(piece))
    assert found == [b"a" * 40, b"b" * 90, b"c" * 60]
