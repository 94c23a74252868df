"""Content within the windows of HTTP/2: as much leaves as the peer admits, and the rest waits for its turn.

Both sides of the sidecar send by this: answers to callers, requests to upstreams.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Final, Generic, Protocol, TypeVar

from sidecar.wire.h2_frames import FrameReader
from sidecar.wire.h2_session import Session

SHARE: Final = 64 * 1024  # content of one stream before that of the next
_ENOUGH: Final = 1024  # bytes of a frame that was cut by a window


class Source(Protocol):
    """A stream with content to send: ``pending`` is what has not left."""

    stream_id: int
    pending: bytearray


S = TypeVar("S", bound=Source)


class Windows(Generic[S]):
    """The windows of one connection. ``waiting`` are the streams that they hold back, or that the connection does."""

    def __init__(self, session: Session, reader: FrameReader) -> None:
        self.waiting: dict[int, S] = {}
        self._session = session
        self._reader = reader

    def send(self, stream: S, most: int, *, ends: bool) -> int:
        """Write at most ``most`` bytes of a stream's content; return the number. ``ends``: nothing else follows it."""
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
            if size >= _ENOUGH or not pending:  # else a window that opens by a few bytes would earn the next one
                self._reader.sent_content()
        if pending:
            self.waiting.setdefault(stream_id, stream)
        else:
            self.forget(stream_id)
        return most - left

    def turns(self) -> Iterator[S]:
        """Return the streams that wait, each again as long as it moves. In a turn one sends its share."""
        turns = deque(self.waiting.values())
        while turns:
            stream = turns.popleft()
            before = len(stream.pending)
            yield stream
            if 0 < len(stream.pending) < before:
                turns.append(stream)

    def forget(self, stream_id: int) -> None:
        """Forget a stream: it waits no more, or is over."""
        self.waiting.pop(stream_id, None)
