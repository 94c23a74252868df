"""Framing of bodies in the byte stream, read and written: exact, bounded, pure.

All errors are ``Denied`` with the reason that fits a request; the client side translates them.
"""

from __future__ import annotations

import re
from typing import Final, Protocol

from delegation_core.errors import Denied, Reason

MAX_CHUNK_LINE: Final = 512
MAX_CHUNK_EXTENSIONS: Final = 16384
MAX_TRAILERS: Final = 8192
MAX_LINES: Final = 512  # of a chunked body at a time: one read holds up to 43,690 chunks of a byte (ADR 0033)


_TOKEN: Final = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_QUOTED: Final = rb'"(?:[\t \x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t\x20-\x7e\x80-\xff])*"'
# RFC 9112 section 7.1.1 without the white space that it calls bad; 15 digits are below 2**60.
_CHUNK_LINE: Final = re.compile(rb"([0-9A-Fa-f]{1,15})((?:;%b(?:=(?:%b|%b))?)*)" % (_TOKEN, _TOKEN, _QUOTED))
_TRAILER: Final = re.compile(rb"(%b):[\t\x20-\x7e\x80-\xff]*" % _TOKEN)
_NEVER_TRAILING: Final = frozenset({b"content-length", b"transfer-encoding", b"host", b"trailer", b"connection"})


class Body(Protocol):
    """The rest of one message: extracts content from the stream until ``complete``."""

    complete: bool

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """Consume bytes of the stream; return (content, the rest). Raises ``Denied``.

        The rest follows the body. While the body is not ``complete``, the rest belongs to it and exceeds the share of
        one event-loop iteration.
        """
        ...


class LengthBody:
    """A body of exactly ``length`` bytes (Content-Length)."""

    __slots__ = ("_remaining", "complete")

    def __init__(self, length: int) -> None:
        self._remaining = length
        self.complete = length == 0

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """Consume bytes of the stream."""
        content, rest = data, b""
        if len(data) > self._remaining:
            content, rest = data[: self._remaining], data[self._remaining :]
        self._remaining -= len(content)
        self.complete = self._remaining == 0
        return content, rest


class UntilClose:
    """An answer that ends with its connection (RFC 9112 section 6.3, rule 8)."""

    __slots__ = ("complete",)

    def __init__(self) -> None:
        self.complete = False

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """Consume bytes of the stream: all are content."""
        return data, b""


class ChunkedBody:
    """A chunked body (RFC 9112 section 7.1), decoded. Extensions and trailers are checked, bounded and dropped.

    Stricter than the RFC: no white space around sizes and extensions, no framing field among the trailers.
    """

    __slots__ = ("_decoded", "_extensions", "_held", "_next", "_remaining", "_trailers", "complete", "max_bytes")

    def __init__(self, *, max_bytes: int | None = None) -> None:
        self.complete = False
        self.max_bytes = max_bytes
        self._decoded = 0
        self._extensions = 0
        self._trailers = 0
        self._remaining = 0
        self._held = b""
        self._next = self._on_size

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """Consume bytes of the stream, at most ``MAX_LINES`` lines of chunks.

        Raises:
            Denied: BAD_REQUEST, or TOO_LARGE past ``max_bytes``.
        """
        if self._held:
            data = self._held + data
            self._held = b""
        content = b""  # a single piece is not copied; a list of many pieces would take thirty times their bytes
        joined: bytearray | None = None
        at = lines = 0
        while not self.complete:
            if self._remaining:
                piece = data[at : at + self._remaining]
                if not piece:
                    break
                at += len(piece)
                self._remaining -= len(piece)
                if joined is not None:
                    joined += piece
                elif content:
                    joined = bytearray(content + piece)
                else:
                    content = piece
                continue
            if lines == MAX_LINES:
                break
            lines += 1
            end = data.find(b"\r\n", at, at + MAX_CHUNK_LINE)
            if end < 0:
                self._held = self._unfinished_line(data, at)
                return content if joined is None else bytes(joined), b""
            self._next(data[at:end])
            at = end + 2
        return content if joined is None else bytes(joined), data[at:]

    def _unfinished_line(self, data: bytes, at: int) -> bytes:
        line = data[at:]
        if len(line) >= MAX_CHUNK_LINE or b"\n" in line or b"\r" in line[:-1]:
            raise Denied(Reason.BAD_REQUEST, "a chunk line is too long or broken")
        if line and line != b"\r" and self._next == self._on_data_end:
            raise Denied(Reason.BAD_REQUEST, "a chunk is longer than it says")
        return line

    def _on_size(self, line: bytes) -> None:
        match = _CHUNK_LINE.fullmatch(line)
        if match is None:
            raise Denied(Reason.BAD_REQUEST, "a chunk size or extension is malformed")
        self._extensions += len(match[2])
        if self._extensions > MAX_CHUNK_EXTENSIONS:
            raise Denied(Reason.BAD_REQUEST, "too many chunk extensions")
        size = int(match[1], 16)
        self._decoded += size
        if self.max_bytes is not None and self._decoded > self.max_bytes:
            raise Denied(Reason.TOO_LARGE, "the chunked body is longer than allowed")
        self._remaining = size
        self._next = self._on_data_end if size else self._on_trailer

    def _on_data_end(self, line: bytes) -> None:
        if line:
            raise Denied(Reason.BAD_REQUEST, "a chunk is longer than it says")
        self._next = self._on_size

    def _on_trailer(self, line: bytes) -> None:
        if not line:
            self.complete = True
            return
        self._trailers += len(line)
        match = _TRAILER.fullmatch(line)
        if match is None or match[1].lower() in _NEVER_TRAILING or self._trailers > MAX_TRAILERS:
            raise Denied(Reason.BAD_REQUEST, "a trailer is malformed, forbidden or too long")


class MessageWriter:
    """Encoder of outgoing messages, one after another. Pure: the owner of the transport writes the result of ``take``.

    ``pieces``: the encoded bytes not taken yet; other classes only read it.
    """

    __slots__ = ("_bodyless", "_chunked", "_remaining", "pieces")

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self._bodyless = False
        self._chunked = False
        self._remaining: int | None = 0

    def begin(self, head: bytes, *, length: int | None, chunked: bool, bodyless: bool = False) -> None:
        """Begin a message of ``length`` content bytes. Without a length: chunked, or ended by the connection.

        ``bodyless``: the message has no content; added content is dropped.
        """
        self.pieces.append(head)
        self._bodyless = bodyless
        self._chunked = chunked
        self._remaining = length

    def begin_raw(self) -> None:
        """Begin raw bytes, which end with the connection."""
        self._chunked = False
        self._remaining = None

    @property
    def until_close(self) -> bool:
        """True if only the end of the connection ends the message."""
        return self._remaining is None and not self._chunked

    def add(self, data: bytes) -> None:
        """Add content. RuntimeError beyond the stated length: the excess would be read as another message."""
        if not data or self._bodyless:
            return
        if self._chunked:
            self.pieces += (b"%x\r\n" % len(data), data, b"\r\n")
            return
        if self._remaining is not None:
            self._remaining -= len(data)
            if self._remaining < 0:
                raise RuntimeError("the message is longer than its head says")
        self.pieces.append(data)

    def end(self, trailers: bytes = b"") -> bool:
        """End the message. False, with nothing added, if the content is shorter than the head says.

        ``trailers``: encoded field lines after a chunked message.
        """
        if self._remaining:
            return False
        if self._chunked:
            self.pieces.append(b"0\r\n%b\r\n" % trailers)
        self._chunked = False
        self._remaining = 0
        return True

    def take(self) -> bytes:
        """Return the bytes encoded since the last call."""
        pieces = self.pieces
        if len(pieces) == 1:
            return pieces.pop()
        data = b"".join(pieces)
        pieces.clear()
        return data

    def clear(self) -> None:
        """Discard the bytes not taken yet."""
        self.pieces.clear()
