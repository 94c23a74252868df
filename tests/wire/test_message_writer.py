from __future__ import annotations

import pytest

from sidecar.wire.framing import MessageWriter


def test_everything_added_leaves_in_one_piece() -> None:
    out = MessageWriter()
    out.begin(b"head", length=4, chunked=False)
    out.add(b"ab")
    out.add(b"cd")
    assert out.end()
    assert (out.take(), out.pieces) == (b"headabcd", [])


def test_content_without_length_is_chunked() -> None:
    out = MessageWriter()
    out.begin(b"", length=None, chunked=True)
    out.add(b"hello world")
    out.add(b"")
    assert not out.until_close
    assert out.end()
    assert out.take() == b"b\r\nhello world\r\n0\r\n\r\n"


def test_content_without_length_or_chunks_ends_with_the_connection() -> None:
    out = MessageWriter()
    out.begin(b"head", length=None, chunked=False)
    assert out.until_close


def test_what_is_added_to_a_message_without_content_is_dropped() -> None:
    out = MessageWriter()
    out.begin(b"head", length=0, chunked=False, bodyless=True)
    out.add(b"abc")
    assert out.end()
    out.begin(b"next", length=3, chunked=False)
    out.add(b"abc")
    assert out.take() == b"headnextabc"


def test_more_content_than_said_is_a_bug() -> None:
    out = MessageWriter()
    out.begin(b"", length=3, chunked=False)
    with pytest.raises(RuntimeError, match="longer"):
        out.add(b"abcd")


def test_less_content_than_said_is_no_end() -> None:
    out = MessageWriter()
    out.begin(b"", length=3, chunked=False)
    out.add(b"ab")
    assert not out.end()
