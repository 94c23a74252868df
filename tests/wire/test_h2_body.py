"""Bodies of HTTP/2 requests, without a connection: content for a sink, and the windows that it opens."""

from __future__ import annotations

import pytest

from delegation_core.errors import Denied, Reason
from sidecar.wire.h2_body import RequestBody
from tests.wire.bench import Body


class Windows:
    """Counts what opens the windows."""

    def __init__(self) -> None:
        self.opened = 0

    def taken(self, stream_id: int, size: int) -> None:
        assert stream_id == 7
        self.opened += size


def body_of(expected: int | None = None) -> tuple[RequestBody, Windows]:
    windows = Windows()
    body = RequestBody(windows, 7, max_bytes=10)
    body.expected = expected
    return body, windows


@pytest.mark.parametrize("expected", [3, None])
def test_windows_open_by_what_a_sink_takes_with_its_padding(expected: int | None) -> None:
    (body, windows), sink = body_of(expected), Body()
    body.receive(b"ab", 5)
    assert (windows.opened, body.begun, body.awaited) == (0, True, False)
    body.read(sink)
    assert (sink.data, windows.opened, body.awaited) == (b"ab", 5, True)
    body.pause()
    body.receive(b"c", 1)
    body.end()
    body.give()
    assert (sink.data, windows.opened, body.complete) == (b"ab", 5, False)
    body.resume()
    assert (sink.data, windows.opened, body.complete) == (b"abc", 6, True)
    assert sink.events[-2:] == ["end", "flush"]


def test_a_body_that_nobody_reads_opens_windows_when_it_is_dropped_and_after() -> None:
    (body, windows), sink = body_of(1), Body()
    body.read(sink)
    body.pause()
    body.receive(b"a", 2)
    assert body.drop() is sink
    assert windows.opened == 2
    body.receive(b"b", 3)
    body.end()
    assert (windows.opened, body.ended, sink.data) == (5, False, b"")


@pytest.mark.parametrize(
    ("expected", "content", "reason"),
    [(2, b"abc", Reason.AMBIGUOUS_FRAMING), (4, b"abc", Reason.AMBIGUOUS_FRAMING), (None, b"x" * 11, Reason.TOO_LARGE)],
)
def test_a_body_of_another_length_or_too_long_is_refused(expected: int | None, content: bytes, reason: Reason) -> None:
    body, _ = body_of(expected)

    def take() -> None:
        body.receive(content, len(content))
        body.end()

    with pytest.raises(Denied) as refused:
        take()
    assert refused.value.reason is reason


def test_a_whole_body_is_taken_once_and_only_without_a_sink() -> None:
    body, windows = body_of()
    body.receive(b"ab", 2)
    assert body.take_whole() is None
    body.end()
    assert (body.take_whole(), windows.opened) == (b"ab", 2)
    body, _ = body_of()
    body.read(Body())
    body.end()
    assert body.take_whole() is None


@pytest.mark.parametrize("held", [b"judged", b""])
def test_bytes_that_are_held_are_what_the_next_reader_gets(held: bytes) -> None:
    body, _ = body_of()
    body.hold(held)
    assert body.take_whole() == held
    body.hold(held)
    sink = Body()
    body.read(sink)
    assert (sink.data, sink.events[-2:]) == (held, ["end", "flush"])
