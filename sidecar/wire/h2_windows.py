"""Flow control of HTTP/2: writes as much content as the peer's windows admit; the rest waits for its turn.

Used by both sides: answers to callers, requests to upstreams.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Final, Generic, Protocol, TypeVar

from sidecar.wire.h2_frames import FrameReader
from sidecar.wire.h2_session import Session

SHARE: Final = 64 * 1024  # content of one stream before the next one's turn
_ENOUGH: Final = 1024  # bytes of a frame that was cut by a window


class Source(Protocol):
    """A stream with content to send. ``pending``: content not written yet."""

    stream_id: int
    pending: bytearray


S = TypeVar("S", bound=Source)


class Windows(Generic[S]):
    """The windows of one connection. ``waiting``: the streams blocked on a window or on the connection."""

    def __init__(self, session: Session, reader: FrameReader) -> None:
        self.waiting: dict[int, S] = {}
        self._session = session
        self._reader = reader

    def send(self, stream: S, most: int, *, ends: bool) -> int:
        """Write at most ``most`` bytes of a stream's content; return the number. ``ends``: its end ends the stream."""
        session, pending, stream_id = self._session, stream.pending, stream.stream_id
        left = most
        while pending and left > 0:
            size = min(session.window_of(stream_id), session.max_outbound_frame_size, len(pending), left)
            if size <= 0:
                break
            data = bytes(pending[:size])
            del pending[:size]
            left -= size
            session.send_content(stream_id, data, ends=ends and not pending)
            if size >= _ENOUGH or not pending:  # a peer gets no credit for windows of a few bytes
                self._reader.sent_content()
        if pending:
            self.waiting.setdefault(stream_id, stream)
        else:
            self.forget(stream_id)
        return most - left

    def turns(self) -> Iterator[S]:
        """Yield the blocked streams in turn, each again as long as it makes progress. Each turn sends one share."""
        turns = deque(self.waiting.values())
        while turns:
            stream = turns.popleft()
            before = len(stream.pending)
            yield stream
            if 0 < len(stream.pending) < before:
                turns.append(stream)

    def forget(self, stream_id: int) -> None:
        """Remove a stream."""
        self.waiting.pop(stream_id, None)
