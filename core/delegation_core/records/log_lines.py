"""Reads log files of any size line by line, one file after the other, with a progress bar."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Final, Protocol

from delegation_core.records.unpacking import ENDINGS, Stream, Unpacked, require_no_archive

MAX_LINE_BYTES: Final = 1 << 20
_LONG_INPUT_BYTES: Final = 8 << 20  # below this a bar would only flicker
_LINES_PER_STEP: Final = 2048


@dataclass(frozen=True, slots=True)
class Line:
    """One line without its line ending. ``content`` is None if the line exceeds MAX_LINE_BYTES."""

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
    """Yield the non-blank lines of all files. ``-`` is standard input; ``.gz`` and ``.zst`` are decompressed.

    Shows progress on standard error if that is a terminal and the input is long.

    Raises:
        OSError: a file cannot be read, or a compressed file is corrupt, truncated or beyond a limit of ``unpacking``;
            the text names the file.
        ArchiveError: a file is an archive.
    """
    with show_progress(files) as advance:
        for file in files:
            with open_file(file) as (stream, position):
                for line in lines_of(file, stream):
                    yield line
                    if line.number % _LINES_PER_STEP == 0:
                        advance(file, position())


def lines_of(file: str, stream: _Stream) -> Iterator[Line]:
    """Yield the non-blank lines of one open file."""
    for number, content in enumerate(_read_bounded(stream), 1):
        if content is None or content.strip():
            yield Line(file, number, content)


def _read_bounded(stream: _Stream) -> Iterator[bytes | None]:
    while line := stream.readline(MAX_LINE_BYTES + 1):
        if len(line) <= MAX_LINE_BYTES:
            yield line.rstrip(b"\r\n")
            continue
        while line and not line.endswith(b"\n"):
            line = stream.readline(MAX_LINE_BYTES)
        yield None


@contextlib.contextmanager
def open_file(file: str) -> Iterator[tuple[Stream, Callable[[], int]]]:
    """Open and decompress a file; yield its stream and a function that returns the position in the file in bytes.

    Raises:
        OSError, ArchiveError: see ``read_lines``.
    """
    if file == "-":
        yield require_no_archive(file, sys.stdin.buffer), lambda: 0
        return
    if Path(file).is_dir():
        raise OSError(f"{file}: a folder; name its files, as in {file.rstrip('/')}/*.jsonl")
    with Path(file).open("rb") as raw:
        if not file.endswith(ENDINGS):
            rewound = require_no_archive(file, raw)
            if raw.seekable():
                raw.seek(0)
            yield (raw if raw.seekable() else rewound), raw.tell
            return
        with contextlib.closing(Unpacked(file, raw)) as unpacked:
            yield require_no_archive(file, unpacked), raw.tell


def _size(file: str) -> int:
    try:
        return Path(file).stat().st_size
    except FileNotFoundError:
        raise FileNotFoundError(f"{file}: No such file") from None


@contextlib.contextmanager
def show_progress(files: Sequence[str]) -> Iterator[Callable[[str, int], None]]:
    """Show a bar if standard error is a terminal, the input long and rich installed; yield a function that advances
    the bar, given a file and the number of bytes read of it.
    """
    sizes = [0 if file == "-" else _size(file) for file in files]
    if sum(sizes) < _LONG_INPUT_BYTES or not sys.stderr.isatty() or find_spec("rich") is None:
        yield lambda _file, _position: None
        return
    from rich.console import Console
    from rich.progress import Progress

    before = {file: sum(sizes[:number]) for number, file in enumerate(files)}
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("reading", total=sum(sizes))
        yield lambda file, position: bar.update(task, completed=before[file] + position)
