"""Where a head and a body end in the byte stream: exact, bounded, pure.

``HeadBuffer`` collects a head that comes in fragments and cuts off what follows it: a body, or the next message. All
errors are ``Denied`` with the reason that fits a request; the client side translates them.
"""

from __future__ import annotations

import re
from typing import Final, Protocol

from sidecar.errors import Denied, Reason

MAX_CHUNK_LINE: Final = 512
MAX_CHUNK_EXTENSIONS: Final = 16384
MAX_TRAILERS: Final = 8192
MAX_LINES: Final = 512  # of a chunked body at a time: one read holds up to 43,690 chunks of a byte (ADR 0019)

_CR: Final = 0x0D

_TOKEN: Final = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_QUOTED: Final = rb'"(?:[\t \x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t\x20-\x7e\x80-\xff])*"'
# RFC 9112 section 7.1.1 without the white space that it calls bad; 15 digits are below 2**60.
_CHUNK_LINE: Final = re.compile(rb"([0-9A-Fa-f]{1,15})((?:;%b(?:=(?:%b|%b))?)*)" % (_TOKEN, _TOKEN, _QUOTED))
_TRAILER: Final = re.compile(rb"(%b):[\t\x20-\x7e\x80-\xff]*" % _TOKEN)
_NEVER_TRAILING: Final = frozenset({b"content-length", b"transfer-encoding", b"host", b"trailer", b"connection"})
# Everything a head may consist of (RFC 9112 section 2.2: no bare CR or LF, no control bytes).
_SOUND: Final = re.compile(rb"(?:[\t\x20-\x7e\x80-\xff]+|\r\n)*+")
_FIRST_LINE: Final = re.compile(rb"(?:[!-~]+ [!-~]+ HTTP/1\.[01]|HTTP/1\.[01] [1-5][0-9][0-9](?: .*)?)")


class HeadBuffer:
    """Collects fragments until one head is whole; what cannot become a head is refused at once, not at the deadline.

    ``skip_empty_line``: one empty line before each request is no error (RFC 9112 section 2.2), however it is cut.
    Holds at most ``max_head_bytes`` and one read, and looks at every byte a bounded number of times, however it is cut.
    ``held`` is how many bytes of an unfinished head are here; ``fresh``: none, not even an empty line before it. A head
    of ``ordinary`` bytes is within all limits.
    """

    __slots__ = (
        "_begun",
        "_first_line_end",
        "_max_first_line",
        "_max_head_bytes",
        "_skip_empty_line",
        "_skips",
        "_sound",
        "fresh",
        "held",
        "ordinary",
    )

    def __init__(self, *, max_head_bytes: int, max_first_line: int, skip_empty_line: bool) -> None:
        self._max_head_bytes = max_head_bytes
        self._max_first_line = max_first_line
        self.ordinary = min(max_head_bytes, max_first_line)
        self._skip_empty_line = skip_empty_line
        self._skips = skip_empty_line  # whether one may still come before this head
        self.fresh = True
        self.held = 0
        self._begun = bytearray()
        self._sound = 0
        self._first_line_end = -1

    @property
    def first_line_read(self) -> bool:
        """Whether the first line of an unfinished head is there: from then on it counts as a request."""
        return self._first_line_end >= 0

    def feed(self, data: bytes) -> tuple[bytes, bytes] | None:
        """Return the whole head and what follows it, or None until it is complete.

        Raises:
            Denied: HEAD_TOO_LARGE, URI_TOO_LONG, BAD_REQUEST.
        """
        if self.fresh:  # as most heads do, it may come whole and alone
            end = data.find(b"\r\n\r\n", 0, self.ordinary) + 4
            if end > 3 and data[0] != _CR:
                return (data, b"") if end == len(data) else (data[:end], data[end:])
        return self._go_on(data)

    def clear(self) -> None:
        """Forget an unfinished head."""
        self.fresh = True
        self.held = 0
        self._begun = bytearray()
        self._skips = self._skip_empty_line
        self._sound = 0
        self._first_line_end = -1

    def _go_on(self, data: bytes) -> tuple[bytes, bytes] | None:
        self.fresh = False
        begun = self._begun
        searched = max(0, len(begun) - 3)
        begun += data
        if self._skips and len(begun) > 1:
            self._skips = False
            if begun.startswith(b"\r\n"):  # the two came apart
                del begun[:2]
        self.held = len(begun)
        end = begun.find(b"\r\n\r\n", searched, self._max_head_bytes)
        if end < 0:
            self._check_unfinished()
            return None
        whole = bytes(begun)
        self.clear()
        self._check_first_line(whole)
        return whole[: end + 4], whole[end + 4 :]

    def _check_first_line(self, whole: bytes) -> None:
        if whole.find(b"\r\n") > self._max_first_line:
            raise Denied(Reason.URI_TOO_LONG, "the first line is too long")

    def _check_unfinished(self) -> None:
        begun = self._begun
        sound = _SOUND.match(begun, self._sound)
        self._sound = sound.end() if sound else 0
        if bytes(begun[self._sound : self._sound + 2]) not in (b"", b"\r"):
            raise Denied(Reason.BAD_REQUEST, "a line break or control byte that no head may hold")
        if self._first_line_end < 0:
            self._first_line_end = begun.find(b"\r\n")
            length = self._first_line_end if self._first_line_end >= 0 else len(begun) - begun.endswith(b"\r")
            if length > self._max_first_line:
                raise Denied(Reason.URI_TOO_LONG, "the first line is too long")
            if self._first_line_end >= 0 and not _FIRST_LINE.fullmatch(begun, 0, self._first_line_end):
                raise Denied(Reason.BAD_REQUEST, "the first line is not that of HTTP/1.0 or HTTP/1.1")
        if len(begun) >= self._max_head_bytes:
            raise Denied(Reason.HEAD_TOO_LARGE, "the head is too large")


class Body(Protocol):
    """The rest of one message: gives content out of the stream until ``complete``."""

    complete: bool

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """Take bytes of the stream: (content, what follows the body). Raises ``Denied``.

        While the body is not ``complete``, what is given back is more of it: so much is not read at a time.
        """
        ...


class LengthBody:
    """A body of exactly ``length`` bytes (Content-Length)."""

    __slots__ = ("_remaining", "complete")

    def __init__(self, length: int) -> None:
        self._remaining = length
        self.complete = length == 0

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """Take bytes of the stream."""
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
        """Take bytes of the stream: all of them are content."""
        return data, b""


class ChunkedBody:
    """A chunked body (RFC 9112 section 7.1), decoded. Extensions and trailers are checked, bounded and dropped.

    Stricter than the RFC: no white space around sizes and extensions, no framing field among the trailers.
    """

    __slots__ = ("_budget", "_decoded", "_extensions", "_held", "_next", "_remaining", "_trailers", "complete")

    def __init__(self, *, max_bytes: int | None = None) -> None:
        self.complete = False
        self._budget = max_bytes
        self._decoded = 0
        self._extensions = 0
        self._trailers = 0
        self._remaining = 0
        self._held = b""
        self._next = self._on_size

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """Take bytes of the stream, ``MAX_LINES`` of chunks at most.

        Raises:
            Denied: BAD_REQUEST, or TOO_LARGE past ``max_bytes``.
        """
        if self._held:
            data = self._held + data
            self._held = b""
        content = b""  # one piece is passed on as it is; more are no list, which would take thirty times their bytes
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
        if self._budget is not None and self._decoded > self._budget:
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
