"""Events pass as they are, in whatever pieces they arrive; a message that changes is the only thing that does."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from delegation_core.errors import Denied
from sidecar.features.mcp.event_messages import EventMessages

ENDS = st.sampled_from([b"\n", b"\r\n", b"\r"])
LINES = st.sampled_from([b"data: {}", b"data", b"data:x", b"id: 1", b": said", b"event: message", b"retry: 3", b"odd"])


def same(text: bytes) -> bytes:
    return text


def through(stream: bytes, pieces: list[int], change: object = same, max_bytes: int = 1000) -> bytes:
    events, passed = EventMessages(change, max_bytes=max_bytes), b""  # type: ignore[arg-type]
    for size in pieces:
        passed += events.feed(stream[:size])
        stream = stream[size:]
    return passed + events.feed(stream) + events.rest()


@given(st.lists(st.tuples(st.lists(LINES, max_size=4), ENDS), max_size=5), st.lists(st.integers(0, 9), max_size=40))
def test_a_stream_passes_byte_for_byte_in_any_pieces(
    blocks: list[tuple[list[bytes], bytes]], pieces: list[int]
) -> None:
    stream = b"".join(b"".join(line + end for line in lines) + end for lines, end in blocks)
    passed = through(stream, pieces)
    assert passed.rstrip(b"\r\n") == stream.rstrip(b"\r\n")  # of the last line feeds one may be missing, or added


@given(st.lists(st.integers(0, 9), max_size=40), ENDS)
def test_a_message_is_changed_in_any_pieces(pieces: list[int], end: bytes) -> None:
    lines = [b": hello", b"", b"id: 1", b"data: a", b"event: message", b"data: b", b"", b"data:", b"", b"data: c", b""]
    stream = b"".join(line + end for line in lines)
    seen: list[bytes] = []

    def change(text: bytes) -> bytes:
        seen.append(text)
        return b"changed" if text == b"a\nb" else text

    passed = through(stream, pieces, change)
    assert seen == [b"a\nb", b"c"]
    expected = [b": hello", b"", b"data: changed", b"id: 1", b"event: message", b"", b"data:", b"", b"data: c", b""]
    assert passed.replace(b"\r\n", b"\n").replace(b"\r", b"\n") == b"".join(line + b"\n" for line in expected)


def test_an_event_passes_when_it_is_complete_and_a_rest_that_is_none_never() -> None:
    events = EventMessages(same, max_bytes=100)
    assert events.feed(b"data: a\n") == b""
    assert events.feed(b"\ndata: b") == b"data: a\n\n"
    assert events.feed(b"\n\n") == b"data: b\n\n"
    assert events.feed(b"\n") == b"\n"
    assert events.feed(b"data: c\n") + events.rest() == b""


def test_a_byte_order_mark_hides_no_message() -> None:
    assert through(b"\xef\xbb\xbfdata: a\n\n", [], lambda _: b"b") == b"data: b\n\n"


def test_an_event_is_bounded() -> None:
    events = EventMessages(same, max_bytes=10)
    assert events.feed(b"data: 123\n\n" * 5) == b"data: 123\n\n" * 5
    with pytest.raises(Denied):
        events.feed(b"data: 12345678")


@pytest.mark.parametrize("first", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("last", [b"\n", b"\r\n", b"\r"])
def test_an_event_that_changes_keeps_its_end_whatever_ends_its_lines(first: bytes, last: bytes) -> None:
    stream = b"data: a" + first + b"data: b\n" + last + b"data: c\n\n"
    seen: list[bytes] = []

    def change(text: bytes) -> bytes:
        seen.append(text)
        return b"changed"

    passed = through(stream, [], change)
    assert seen == [b"a\nb", b"c"]
    assert through(passed, [], change) == passed
    assert seen[2:] == [b"changed", b"changed"]
