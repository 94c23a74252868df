"""Decompressing streams for all audit commands, bounded in ratio, bytes and CPU time. Archives are refused.

A few kilobytes may decompress to terabytes. Logs and records compress to between a tenth and a fiftieth; a file above
``MAX_RATIO`` is read to ``FREE_BYTES`` only. Time is CPU time of this process, so that a busy machine or a slow
consumer causes no error.
"""

from __future__ import annotations

import gzip
import sys
import time
import zlib
from collections.abc import Callable
from typing import IO, BinaryIO, Final, Protocol, cast

from delegation_core.console.extras import needs

_GZIP: Final = (".gz", ".tgz")
ENDINGS: Final = (*_GZIP, ".zst", ".tzst")
BLOCK_BYTES: Final = 512  # of a tar; the first block is a header
_TAR: Final = (b"ustar\0", b"ustar  \0")  # POSIX, GNU. JSON text holds no NUL: logged text never looks like a tar
_TAR_AT: Final = 257
FREE_BYTES: Final = 16 << 20  # decompressed, at any ratio
MAX_RATIO: Final = 200
MAX_BYTES: Final = 1 << 38  # 256 GiB
FREE_SECONDS: Final = 10.0
BYTES_PER_SECOND: Final = 64 << 10  # compressed bytes that extend FREE_SECONDS by one second
_STEP_BYTES: Final = 1 << 16
_STEP_READS: Final = 256


class Stream(Protocol):
    """An open file, decompressed."""

    def read(self, size: int, /) -> bytes:
        """Return at most ``size`` bytes, none at the end."""
        ...

    def readline(self, size: int, /) -> bytes:
        """Return a line, or the first ``size`` bytes of it."""
        ...


class ArchiveError(OSError):
    """A file is an archive, whose headers would be read as lines. The text names the file and the fix."""


class Rewound:
    """A stream with the bytes ``head``, which were already read from it, put back in front."""

    def __init__(self, head: bytes, stream: Stream) -> None:
        self._head = head
        self._stream = stream

    def read(self, size: int, /) -> bytes:
        """Return at most ``size`` bytes, none at the end."""
        piece = self._take(size)
        return piece + self._stream.read(size - len(piece)) if len(piece) < size else piece

    def readline(self, size: int, /) -> bytes:
        """Return a line, or the first ``size`` bytes of it."""
        if not self._head:
            return self._stream.readline(size)
        end = self._head.find(b"\n", 0, size) + 1
        line = self._take(end or size)
        return line if end or len(line) == size else line + self._stream.readline(size - len(line))

    def _take(self, size: int) -> bytes:
        piece, self._head = self._head[:size], self._head[size:]
        return piece


def is_tar(head: bytes) -> bool:
    """Return True if ``head``, the first BLOCK_BYTES of a file, is the header of a tar."""
    return head.startswith(_TAR, _TAR_AT)


def require_no_archive(file: str, stream: Stream) -> Rewound:
    """Return the stream, rewound to its beginning.

    Raises:
        ArchiveError: the content is a tar.
    """
    head = stream.read(BLOCK_BYTES)
    if is_tar(head):
        raise ArchiveError(f"{file}: is an archive; unpack it and name the folder")
    return Rewound(head, stream)


class Meter:
    """Limiter of one decompression. ``consumed`` returns the number of compressed bytes read so far."""

    def __init__(self, file: str, consumed: Callable[[], int]) -> None:
        self._file = file
        self._consumed = consumed
        self._made = self._judged = self._reads = 0
        self._began = time.process_time()

    def add(self, made: int) -> None:
        """Count decompressed bytes; check the limits every _STEP_BYTES or _STEP_READS.

        Raises:
            OSError: the ratio, the bytes or the CPU time exceed a limit; the text names the file and the fix.
        """
        self._made += made
        self._reads += 1
        if self._made - self._judged < _STEP_BYTES and self._reads % _STEP_READS:
            return
        self._judged = self._made
        consumed = self._consumed()
        if self._made > min(MAX_BYTES, max(FREE_BYTES, consumed * MAX_RATIO)):
            raise self._error(f"unpacks to more than {MAX_RATIO} times its size")
        if time.process_time() - self._began > FREE_SECONDS + consumed / BYTES_PER_SECOND:
            raise self._error("takes too long for a file of its size")

    def _error(self, problem: str) -> OSError:
        return OSError(f"{self._file}: {problem}; the rest was not read. If you trust the file, unpack it yourself")


class Unpacked:
    """Decompressed bytes of a file, limited by a ``Meter``.

    Raises:
        OSError: on reading, beyond a limit of ``Meter``, or if the file is corrupt or truncated; the text names it.
    """

    def __init__(self, file: str, raw: BinaryIO) -> None:
        self._file = file
        self._stream, self._broken = _open(file, raw)
        self._meter = Meter(file, raw.tell)

    def read(self, size: int, /) -> bytes:
        """Return at most ``size`` bytes, none at the end."""
        return self._read(self._stream.read, size)

    def readline(self, size: int, /) -> bytes:
        """Return a line, or the first ``size`` bytes of it."""
        return self._read(self._stream.readline, size)

    def close(self) -> None:
        """Release the decompressor; the file itself stays open."""
        self._stream.close()

    def _read(self, read: Callable[[int], bytes], size: int) -> bytes:
        try:
            content = read(size)
        except EOFError:
            raise OSError(
                f"{self._file}: the compressed file ends early; copy it again, or unpack the intact part"
            ) from None
        except self._broken:
            raise OSError(
                f"{self._file}: not a compressed file, or a broken one; rename it if it is plain text"
            ) from None
        self._meter.add(len(content))
        return content


def _open(file: str, raw: BinaryIO) -> tuple[IO[bytes], tuple[type[Exception], ...]]:
    """Return a stream of the decompressed bytes, and the errors that it raises for a corrupt file."""
    if file.endswith(_GZIP):
        return cast("IO[bytes]", gzip.GzipFile(fileobj=raw)), (gzip.BadGzipFile, zlib.error)
    try:
        if sys.version_info >= (3, 14):
            from compression import zstd
        else:
            from backports import zstd
    except ImportError:
        raise OSError(f"{file}: this {needs('audit')}") from None
    return cast("IO[bytes]", zstd.ZstdFile(raw)), (zstd.ZstdError,)
