"""Reads log files line by line, at any size: one file after the other, with a progress bar."""

from __future__ import annotations

import contextlib
import gzip
import sys
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Final, Protocol

MAX_LINE_BYTES: Final = 1 << 20
_LONG_INPUT_BYTES: Final = 8 << 20  # below this a bar would only flicker
_LINES_PER_STEP: Final = 2048


@dataclass(frozen=True, slots=True)
class Line:
    """One line without its end. ``content`` is None where the line is longer than a megabyte."""

    file: str
    number: int
    content: bytes | None

    @property
    def place(self) -> str:
        """The place as ``file:number``."""
        return f"{self.file}:{self.number}"


class _Stream(Protocol):
    def readline(self, size: int, /) -> bytes: ...


def read_lines(files: Sequence[str]) -> Iterator[Line]:
    """Yield all lines of all files that are not blank. ``-`` is standard input, ``.gz`` is unpacked.

    Progress goes to standard error, only if that is a terminal and the input is long.

    Raises:
        OSError: a file cannot be read, or a compressed one is broken or ends early; the text names it.
    """
    sizes = [0 if file == "-" else Path(file).stat().st_size for file in files]
    with _progress(sum(sizes)) as advance:
        for number, file in enumerate(files):
            with _open(file) as (stream, position):
                for line in _lines_of(file, stream):
                    yield line
                    if line.number % _LINES_PER_STEP == 0:
                        advance(sum(sizes[:number]) + position())


def _lines_of(file: str, stream: _Stream) -> Iterator[Line]:
    for number, content in enumerate(_bounded(stream), 1):
        if content is None or content.strip():
            yield Line(file, number, content)


def _bounded(stream: _Stream) -> Iterator[bytes | None]:
    while line := stream.readline(MAX_LINE_BYTES + 1):
        if len(line) <= MAX_LINE_BYTES:
            yield line.rstrip(b"\r\n")
            continue
        while line and not line.endswith(b"\n"):
            line = stream.readline(MAX_LINE_BYTES)
        yield None


@contextlib.contextmanager
def _open(file: str) -> Iterator[tuple[_Stream, Callable[[], int]]]:
    """Open a file; return its stream, and a function for the number of bytes read."""
    if file == "-":
        yield sys.stdin.buffer, lambda: 0
        return
    with Path(file).open("rb") as raw:
        if file.endswith(".gz"):
            with gzip.GzipFile(fileobj=raw) as unpacked:
                try:
                    yield unpacked, raw.tell
                except EOFError:
                    raise OSError(
                        f"{file}: the compressed file ends early; copy it again, or unpack the intact part"
                    ) from None
                except (gzip.BadGzipFile, zlib.error):
                    raise OSError(
                        f"{file}: not a compressed file, or a broken one; rename it if it is plain text"
                    ) from None
        else:
            yield raw, raw.tell


@contextlib.contextmanager
def _progress(total: int) -> Iterator[Callable[[int], None]]:
    """Show a bar on a terminal, for long input and if rich is installed; yields its update function."""
    if total < _LONG_INPUT_BYTES or not sys.stderr.isatty() or find_spec("rich") is None:
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("reading", total=total)
        yield lambda done: bar.update(task, completed=done)
