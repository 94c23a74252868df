"""Frames of HTTP/2 as they arrive: cut out of the stream, and counted, before the library h2 reads them.

The library buffers a frame of any length before it refuses it, reads all frames of one read at a time, and counts next
to nothing. So every byte passes through ``FrameReader`` first, which gives one frame after another: a connection can
stop between two of them, and each limit here ends a flood before it costs more than its own bytes (RFC 9113 section
10.5). Pure: no socket, and time comes in as ``now``.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from functools import partial
from struct import Struct
from typing import Final, NamedTuple

from delegation_core.errors import Denied, Reason

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
MAX_FRAME: Final = 16384  # content of one frame: the least that RFC 9113 section 4.2 admits, and all that we do
_HEAD: Final = 9


class Kind(IntEnum):
    """Types of frames (RFC 9113 section 6)."""

    DATA = 0
    HEADERS = 1
    PRIORITY = 2
    RST_STREAM = 3
    SETTINGS = 4
    PUSH_PROMISE = 5
    PING = 6
    GOAWAY = 7
    WINDOW_UPDATE = 8
    CONTINUATION = 9


class Code(IntEnum):
    """Error codes (RFC 9113 section 7)."""

    NO_ERROR = 0
    PROTOCOL_ERROR = 1
    INTERNAL_ERROR = 2
    FLOW_CONTROL_ERROR = 3
    STREAM_CLOSED = 5
    FRAME_SIZE_ERROR = 6
    REFUSED_STREAM = 7
    CANCEL = 8
    ENHANCE_YOUR_CALM = 11
    HTTP_1_1_REQUIRED = 13


_DATA, _HEADERS, _RST_STREAM, _CONTINUATION = Kind.DATA, Kind.HEADERS, Kind.RST_STREAM, Kind.CONTINUATION
END_STREAM: Final = 0x1
_PADDED: Final = 0x8
_LEAST_CONTENT: Final = 512  # bytes of a frame that earns more than itself
END_HEADERS: Final = 0x4

_KNOWN_SETTINGS: Final = frozenset([code.to_bytes(2) for code in (1, 2, 3, 4, 5, 6, 8)])

MAX_HEADER_FRAMES: Final = 16  # HEADERS and its CONTINUATIONs
MAX_CONTROL: Final = 1000  # burst of frames without content; the next line is the rate per second
CONTROL_PER_S: Final = 100
CONTROL_PER_CONTENT: Final = 8  # additional ones for each frame with content, in either direction
MAX_RESETS: Final = 200  # burst of streams ended by the peer; the next line is the rate per second
RESETS_PER_S: Final = 50


class H2Error(Exception):
    """An error that ends the whole connection: the code of its GOAWAY, and the reason for the records.

    ``told``: the GOAWAY is already written.
    """

    def __init__(self, code: int, error: Denied, *, told: bool = False) -> None:
        super().__init__(code, error)
        self.code = code
        self.error = error
        self.told = told


class Frame(NamedTuple):
    """One frame: its type, flags and stream, and all of its bytes."""

    kind: int
    flags: int
    stream_id: int
    data: bytes

    @property
    def content(self) -> bytes:
        """The payload."""
        return self.data[_HEAD:]

    @property
    def ends_stream(self) -> bool:
        """True if the frame ends its stream's direction."""
        return bool(self.flags & END_STREAM) and self.kind in (_DATA, _HEADERS)

    @property
    def ends_head(self) -> bool:
        """True if the frame ends a head or trailers."""
        return bool(self.flags & END_HEADERS) and self.kind in (_HEADERS, _CONTINUATION)


# The constructor of a named tuple is interpreted; tuple's own is not.
_new_frame: Final[Callable[[tuple[int, int, int, bytes]], Frame]] = partial(tuple.__new__, Frame)
_head_in: Final = Struct(">HxBBL").unpack_from  # two bytes of the length, type, flags and stream


class Budget:
    """Token bucket: a burst, and a rate per second."""

    __slots__ = ("_at", "_left", "_most", "_per_s")

    def __init__(self, most: int, per_s: float) -> None:
        self._most = float(most)
        self._left = float(most)
        self._per_s = per_s
        self._at = 0.0

    def spend(self, now: float) -> bool:
        """Take one token. False if none is left."""
        if now > self._at:
            self._left = min(self._most, self._left + (now - self._at) * self._per_s)
            self._at = now
        self._left -= 1
        return self._left >= 0

    def earn(self, count: int) -> None:
        """Add ``count`` tokens, up to the burst."""
        self._left = min(self._most, self._left + count)


class FrameReader:
    """Splits a byte stream into frames. ``preface``: the bytes it must begin with.

    ``max_block`` bounds the encoded bytes of one header block. ``held``: buffered bytes, of an unfinished frame or
    header block, or waiting for a turn.
    """

    __slots__ = ("_block", "_block_bytes", "_block_frames", "_buffer", "_control", "_max_block", "_preface", "_resets")

    def __init__(self, *, preface: bytes, max_block: int) -> None:
        self._preface = preface
        self._buffer = bytearray()
        self._max_block = max_block
        self._block = 0  # the stream of an incomplete header block
        self._block_bytes = 0
        self._block_frames = 0
        self._control = Budget(MAX_CONTROL, CONTROL_PER_S)
        self._resets = Budget(MAX_RESETS, RESETS_PER_S)

    @property
    def held(self) -> int:
        """Number of buffered bytes."""
        return len(self._buffer) + self._block_bytes

    @property
    def unfinished(self) -> bool:
        """True if the preface, a frame or a header block is incomplete."""
        return self.held > 0 or self.inside_head

    @property
    def inside_head(self) -> bool:
        """True if a header block is incomplete."""
        return self._block > 0

    @property
    def content_of(self) -> int:
        """Stream of an incomplete DATA frame; 0 if there is none."""
        buffer = self._buffer
        if len(buffer) < _HEAD or self._preface or buffer[3] != _DATA:
            return 0
        return int.from_bytes(buffer[5:9]) & 0x7FFFFFFF

    def feed(self, data: bytes) -> None:
        """Append received bytes."""
        self._buffer += data

    def clear(self) -> None:
        """Forget everything."""
        self._buffer.clear()
        self._block_bytes = 0

    def sent_content(self) -> None:
        """Count a sent DATA frame: the peer may answer it with WINDOW_UPDATE frames."""
        self._control.earn(CONTROL_PER_CONTENT)

    def count_reset(self, now: float) -> None:
        """Count a stream that the peer reset, or made us reset.

        Raises:
            H2Error: too many resets.
        """
        if not self._resets.spend(now):
            raise flood("too many streams were reset")

    def next(self, now: float) -> Frame | None:
        """Return the next frame; None until it is complete. The preface is checked and dropped.

        Raises:
            H2Error: the frame is too long, out of place, or exceeds a budget.
        """
        buffer = self._buffer
        start = len(self._preface)
        if start:
            begun = bytes(buffer[:start])
            if not self._preface.startswith(begun):
                raise H2Error(Code.PROTOCOL_ERROR, Denied(Reason.BAD_REQUEST, "the preface of HTTP/2 is malformed"))
        if len(buffer) < start + _HEAD:
            return None
        first, kind, flags, stream_id = _head_in(buffer, start)
        length = first << 8 | buffer[start + 2]
        if length > MAX_FRAME:
            raise H2Error(Code.FRAME_SIZE_ERROR, Denied(Reason.BAD_REQUEST, "a frame is longer than our settings say"))
        end = start + _HEAD + length
        if len(buffer) < end:
            return None
        data = bytes(buffer[start:end])
        if start:
            self._preface = b""
            if kind != Kind.SETTINGS or flags:
                detail = "the first frame of a connection is not that of its settings"
                raise H2Error(Code.PROTOCOL_ERROR, Denied(Reason.BAD_REQUEST, detail))
        del buffer[:end]
        frame = _new_frame((kind, flags, stream_id & 0x7FFFFFFF, data))
        if kind == _HEADERS and flags & END_HEADERS and not self._block and length <= self._max_block:
            self._control.earn(CONTROL_PER_CONTENT)  # as in ``_count``, for a head in one frame
        else:
            self._count(frame, length, now)
        return frame

    def _count(self, frame: Frame, length: int, now: float) -> None:
        kind = frame.kind
        if self._block:
            if kind != _CONTINUATION or frame.stream_id != self._block:
                detail = "another frame inside a header block"
                raise H2Error(Code.PROTOCOL_ERROR, Denied(Reason.BAD_REQUEST, detail))
            self._count_block(frame, length)
        elif kind == _HEADERS:
            self._block_bytes = self._block_frames = 0
            self._count_block(frame, length)
            self._control.earn(CONTROL_PER_CONTENT)
        elif kind == _DATA and (size := _content_of(frame, length)) > 0:
            self._control.earn(CONTROL_PER_CONTENT if size >= _LEAST_CONTENT else 1)
        elif kind == _CONTINUATION:  # the library would answer some by a reset, without a look at the compression
            raise H2Error(Code.PROTOCOL_ERROR, Denied(Reason.BAD_REQUEST, "a CONTINUATION of no header block"))
        elif kind == _RST_STREAM:
            self.count_reset(now)
        elif not self._control.spend(now):
            raise flood("too many frames without content")

    def _count_block(self, frame: Frame, length: int) -> None:
        self._block_bytes += length
        self._block_frames += 1
        if self._block_bytes > self._max_block or self._block_frames > MAX_HEADER_FRAMES:
            raise flood("a header block of too many bytes or frames")
        self._block = 0 if frame.flags & END_HEADERS else frame.stream_id
        if not self._block:
            self._block_bytes = 0


def _content_of(frame: Frame, length: int) -> int:
    """Return the content bytes of a DATA frame without padding; below 1 if empty or malformed."""
    return length - 1 - frame.data[_HEAD] if frame.flags & _PADDED and length else length


def known_settings(data: bytes) -> bytes:
    """Return a SETTINGS frame without unknown settings, which the library would store forever."""
    entries = [data[at : at + 6] for at in range(_HEAD, len(data), 6)]
    kept = [entry for entry in entries if len(entry) < 6 or entry[:2] in _KNOWN_SETTINGS]
    content = b"".join(kept)
    return len(content).to_bytes(3) + data[3:_HEAD] + content


def flood(detail: str) -> H2Error:
    """Return the error of a peer that sends too much of something."""
    return H2Error(Code.ENHANCE_YOUR_CALM, Denied(Reason.FRAME_FLOOD, detail))


def last_stream_of(goaway: Frame) -> int:
    """Return the last stream that the peer may have processed, by its GOAWAY.

    Raises:
        H2Error: the frame is malformed.
    """
    if goaway.stream_id or len(goaway.content) < 8:
        raise H2Error(Code.PROTOCOL_ERROR, Denied(Reason.BAD_REQUEST, "a malformed GOAWAY"))
    return int.from_bytes(goaway.content[:4]) & 0x7FFFFFFF


def goaway(last_stream_id: int, code: int, data: bytes = b"") -> bytes:
    """Return a GOAWAY frame. Of streams above ``last_stream_id`` nothing was processed."""
    content = last_stream_id.to_bytes(4) + code.to_bytes(4) + data
    return len(content).to_bytes(3) + bytes([Kind.GOAWAY, 0]) + bytes(4) + content


def rst_stream(stream_id: int, code: int) -> bytes:
    """Return a RST_STREAM frame."""
    return (4).to_bytes(3) + bytes([Kind.RST_STREAM, 0]) + stream_id.to_bytes(4) + code.to_bytes(4)
