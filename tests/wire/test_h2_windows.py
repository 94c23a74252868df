"""Content within windows, against the library's own state of them."""

from __future__ import annotations

import contextlib

import pytest
from h2.events import DataReceived, StreamEnded

from sidecar.wire.h2_frames import MAX_CONTROL, FrameReader, H2Error, Kind
from sidecar.wire.h2_session import STREAM_WINDOW, Session
from sidecar.wire.h2_windows import SHARE, Windows
from tests.wire.h2_bench import frame

HEAD = [(b":method", b"POST"), (b":scheme", b"http"), (b":authority", b"crm.mesh"), (b":path", b"/")]


class Upload:
    """A stream with content to send."""

    def __init__(self, stream_id: int, content: bytes) -> None:
        self.stream_id = stream_id
        self.pending = bytearray(content)


class Ends:
    """Both ends of one connection, and the windows of the end that sends."""

    def __init__(self) -> None:
        self.near = Session(client_side=True, max_streams=0, max_head_bytes=4096)
        self.far = Session(client_side=False, max_streams=100, max_head_bytes=4096)
        self.reader = FrameReader(preface=b"", max_block=8192)
        self.windows: Windows[Upload] = Windows(self.near, self.reader)
        self.near.begin()
        self.far.begin()
        self.exchange()
        self.exchange()

    def upload(self, stream_id: int, content: bytes) -> Upload:
        self.near.head(stream_id, HEAD)
        return Upload(stream_id, content)

    def exchange(self) -> list[object]:
        """Give each end what the other one wrote; return the events of the far end."""
        events: list[object] = list(self.far.receive_data(self.near.data_to_send()))
        self.near.receive_data(self.far.data_to_send())
        return events


def content_of(events: list[object]) -> bytes:
    return b"".join([event.data for event in events if isinstance(event, DataReceived)])


@pytest.mark.parametrize("ends", [True, False])
def test_content_within_the_window_leaves_at_once_and_ends_the_stream_if_nothing_follows(ends: bool) -> None:
    both = Ends()
    upload = both.upload(1, b"x" * 40_000)
    assert both.windows.send(upload, 40_000, ends=ends) == 40_000
    events = both.exchange()
    assert content_of(events) == b"x" * 40_000
    assert any(isinstance(event, StreamEnded) for event in events) == ends
    assert both.windows.waiting == {}


def test_the_rest_waits_for_the_window_and_the_end_with_it() -> None:
    both = Ends()
    upload = both.upload(1, b"x" * (STREAM_WINDOW + 5))
    assert both.windows.send(upload, len(upload.pending), ends=True) == STREAM_WINDOW
    assert not any(isinstance(event, StreamEnded) for event in both.exchange())
    assert both.windows.waiting == {1: upload}
    assert both.windows.send(upload, len(upload.pending), ends=True) == 0
    both.far.taken(STREAM_WINDOW, 1)
    both.exchange()
    assert both.windows.send(upload, len(upload.pending), ends=True) == 5
    assert any(isinstance(event, StreamEnded) for event in both.exchange())
    assert both.windows.waiting == {}


def test_no_more_leaves_than_a_turn_allows() -> None:
    both = Ends()
    upload = both.upload(1, b"x" * 100)
    assert both.windows.send(upload, 0, ends=True) == 0
    assert both.windows.send(upload, 30, ends=True) == 30
    assert len(upload.pending) == 70
    assert both.windows.waiting == {1: upload}


def test_streams_that_move_take_turns_and_one_that_does_not_gets_one() -> None:
    both = Ends()
    uploads = {number: both.upload(number, b"x" * (2 * SHARE)) for number in (1, 3, 5)}
    for upload in uploads.values():
        both.windows.send(upload, 0, ends=False)
    both.windows.forget(5)
    order = []
    for upload in both.windows.turns():
        order.append(upload.stream_id)
        if upload.stream_id == 1:
            both.windows.send(upload, 20_000, ends=False)
    assert order == [1, 3, 1, 1, 1, 1]  # three full turns, one cut by the window, and one without


@pytest.mark.parametrize(("size", "earned"), [(1024, True), (10, False)])
def test_a_window_of_a_few_bytes_earns_no_further_control_frame(size: int, earned: bool) -> None:
    both = Ends()
    ping = frame(Kind.PING, 0, 0, bytes(8))
    both.reader.feed(ping * MAX_CONTROL)
    for _ in range(MAX_CONTROL):
        both.reader.next(0.0)
    upload = both.upload(1, b"x" * 5000)
    both.windows.send(upload, size, ends=False)
    both.reader.feed(ping)
    with contextlib.nullcontext() if earned else pytest.raises(H2Error):
        assert both.reader.next(0.0) is not None
