"""Streams of compressed files, for all commands of the audit: bounded in ratio, bytes and time.

A few kilobytes may unpack to terabytes. Logs and records compress to between a tenth and a fiftieth; a file above
``MAX_RATIO`` is read to ``FREE_BYTES`` only. Time is CPU time of this process, so that a starved machine or a slow
reader does not end the work.
"""

from __future__ import annotations

import gzip
import sys
import time
import zlib
from collections.abc import Callable
from typing import IO, BinaryIO, Final, cast

from sidecar.extras import needs

ENDINGS: Final = (".gz", ".zst")
FREE_BYTES: Final = 16 << 20  # unpacked, whatever the ratio
MAX_RATIO: Final = 200
MAX_BYTES: Final = 1 << 38  # 256 GiB
FREE_SECONDS: Final = 10.0
BYTES_PER_SECOND: Final = 64 << 10  # compressed: a further second for each
_STEP_BYTES: Final = 1 << 16
_STEP_READS: Final = 256


class Meter:
    """Counter of the unpacked bytes of a compressed file. ``consumed`` returns the bytes read of the file itself."""

    def __init__(self, file: str, consumed: Callable[[], int]) -> None:
        self._file = file
        self._consumed = consumed
        self._made = self._judged = self._reads = 0
        self._began = time.process_time()

    def add(self, made: int) -> None:
        """Count bytes that were unpacked.

        Raises:
            OSError: there are too many, or the work on them takes too long; the text names the file and the fix.
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
    """The unpacked bytes of a file, metered.

    Raises:
        OSError: on reading, as ``Meter`` does, or because the file is broken or ends early; the text names it.
    """

    def __init__(self, file: str, raw: BinaryIO) -> None:
        self._file = file
        self._stream, self._broken = _opened(file, raw)
        self._meter = Meter(file, raw.tell)

    def read(self, size: int, /) -> bytes:
        """Return at most ``size`` bytes, none at the end."""
        return self._metered(self._stream.read, size)

    def readline(self, size: int, /) -> bytes:
        """Return a line, or the first ``size`` bytes of it."""
        return self._metered(self._stream.readline, size)

    def close(self) -> None:
        """Release the decompressor; the file itself stays open."""
        self._stream.close()

    def _metered(self, read: Callable[[int], bytes], size: int) -> bytes:
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


def _opened(file: str, raw: BinaryIO) -> tuple[IO[bytes], tuple[type[Exception], ...]]:
    """Return a stream of the unpacked bytes, and the errors that it raises for a broken file."""
    if file.endswith(".gz"):
        return cast("IO[bytes]", gzip.GzipFile(fileobj=raw)), (gzip.BadGzipFile, zlib.error)
    try:
        if sys.version_info >= (3, 14):
            from compression import zstd
        else:
            from backports import zstd
    except ImportError:
        raise OSError(f"{file}: this {needs('audit')}") from None
    return cast("IO[bytes]", zstd.ZstdFile(raw)), (zstd.ZstdError,)
