"""HTTP/2 connections of either side: frames are read in turns and written within windows, one write per batch.

``h2_server`` and ``h2_client`` act on the frames.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Hashable
from typing import Any, Final, Generic, Protocol, TypeVar

from h2.exceptions import ProtocolError

from sidecar.wire import h2_windows
from sidecar.wire.connections import Connections
from sidecar.wire.h2_frames import Frame, FrameReader, H2Error
from sidecar.wire.h2_session import Session
from sidecar.wire.h2_windows import SHARE, Windows
from sidecar.wire.scheduling import Turn

MAY_WAIT: Final = 64 * 1024  # bytes that wait for a turn before reading is paused
_FRAMES_AT_ONCE: Final = 64  # some milliseconds; of one connection in one event-loop iteration


class Source(h2_windows.Source, Protocol):
    """A sending stream. ``ending``: no further content will be added."""

    ending: bool

    @property
    def ends_by_content(self) -> bool:
        """True if the last content also ends the stream."""

    def moved(self) -> None:
        """Note that content was written."""

    def hold_back(self) -> None:
        """Pause the source of the content: a window is full."""

    def go_on(self) -> None:
        """Resume the source of the content."""


S = TypeVar("S", bound=Source)


class FrameConnection(asyncio.Protocol, ABC, Generic[S]):
    """One end of a connection. Connections of one ``_group`` share turns."""

    def __init__(self, connections: Connections[Any], session: Session, reader: FrameReader) -> None:
        self.transport: asyncio.Transport
        self.writing_paused = False
        self._connections = connections
        self._clock = connections.clock
        self._session = session
        self._reader = reader
        self._group: Hashable = None
        self._streams: dict[int, S] = {}
        self._windows: Windows[S] = Windows(session, reader)
        self._windows_opened = False  # by frames of this batch
        self._advancing = False
        self._queued = False  # for a turn
        self._reading_paused = False
        self._writes_soon = False
        self._moved_at = 0.0

    def now(self) -> float:
        """Return monotonic seconds."""
        return self._clock()

    # --- what the two sides do

    @property
    @abstractmethod
    def _alive(self) -> bool:
        """True if the connection reads and writes frames."""

    @property
    def _reads(self) -> bool:
        """True if another frame may be read now."""
        return self._alive

    @abstractmethod
    def _take(self, frame: Frame) -> bool:
        """Act on a frame. True if the next frame must wait for a turn.

        Raises:
            H2Error: an error that ends the connection.
        """

    @abstractmethod
    def _fail(self, fault: H2Error) -> None:
        """End the connection after a protocol error of the peer."""

    @abstractmethod
    def _content_left(self, source: S, *, told: bool) -> None:
        """Finish a stream whose content was written. ``told``: its last frame carried END_STREAM."""

    @abstractmethod
    def _close_if_done(self) -> None:
        """Close if no stream is in progress and none may begin."""

    # --- reading

    def _advance(self) -> None:
        """Read a batch of frames: up to one request, or one iteration's share."""
        if self._advancing:
            return
        self._advancing = True
        try:
            self._read_batch()
            if self._windows_opened:  # once per batch: checking 100 blocked streams takes 0.7 ms
                self._windows_opened = False
                self._unblock()
        except H2Error as fault:
            self._fail(fault)
        finally:
            self._advancing = False
            self._write()
        self._close_if_done()

    def _read_batch(self) -> None:
        reader = self._reader
        for _ in range(_FRAMES_AT_ONCE):
            frame = reader.next(self._moved_at) if self._reads else None
            if frame is None:
                return
            if self._take(frame) and reader.unfinished:
                break
        self._queued = True
        self._connections.turns.wait(self._group, self._take_turn)

    def _take_turn(self) -> None:
        self._queued = False
        self._advance()
        self._regulate()

    def let_others_first(self, take: Turn) -> None:
        """Yield: call ``take`` in a later turn of this group."""
        self._connections.turns.wait(self._group, take)

    def _regulate(self) -> None:
        """Pause or resume reading, so that little more than one read is buffered."""
        pause = (self._queued or not self._reads) and self._reader.held > MAY_WAIT
        if pause != self._reading_paused and self._alive and not self.transport.is_closing():
            self._reading_paused = pause
            if pause:
                self.transport.pause_reading()
            else:
                self.transport.resume_reading()

    # --- writing

    def send_content(self, source: S) -> None:
        """Write a stream's content as far as its windows admit, and its end."""
        if self._streams.get(source.stream_id) is source:
            self._send(source, len(source.pending))

    def _send(self, source: S, most: int) -> None:
        """Write at most ``most`` bytes of a stream's content."""
        ends = source.ends_by_content
        sent = self._windows.send(source, 0 if self.writing_paused else most, ends=ends)
        if sent:
            source.moved()
        if source.pending:
            source.hold_back()
        elif source.ending:
            source.ending = False
            self._content_left(source, told=bool(sent and ends))
        else:
            source.go_on()  # it may write, and end, before this returns
        self._write_soon()

    def _unblock(self) -> None:
        """Continue streams blocked on windows, each with one share."""
        if not self.writing_paused:
            for source in self._windows.turns():
                self._send(source, SHARE)

    def taken(self, stream_id: int, size: int) -> None:
        """Return flow-control credit for consumed content."""
        if size and self._alive:
            self._session.taken(size, stream_id)
            self._write_soon()

    def _reset(self, stream_id: int, code: int) -> bool:
        """Reset a stream. False if both of its directions have ended already."""
        try:
            self._session.reset_stream(stream_id, code)
        except ProtocolError:
            return False
        self._write_soon()
        return True

    def _write_soon(self) -> None:
        """Write at the end of this event-loop iteration, or when the input is read."""
        if not (self._advancing or self._writes_soon):
            self._writes_soon = True
            asyncio.get_running_loop().call_soon(self._write)

    def _write(self, more: bytes = b"") -> None:
        self._writes_soon = False
        data = self._session.data_to_send() + more
        if data and not self.transport.is_closing():
            self.transport.write(data)
