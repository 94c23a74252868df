"""Reads record files as blocks of whole lines: JSON lines, ``.gz``, ``.zst``, Parquet, standard input.

The block size bounds memory, whatever the size of a file or a line. A place is a number that encodes file and line;
it is printed as ``file:line``.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

from delegation_audit.chains.database import Block, Database
from delegation_core.records.log_lines import MAX_LINE_BYTES, open_file, show_progress
from delegation_core.records.unpacking import BLOCK_BYTES as TAR_BLOCK_BYTES
from delegation_core.records.unpacking import ENDINGS, Meter, is_tar

BLOCK_BYTES: Final = 32 << 20
GROUP_BYTES: Final = 1 << 30  # of files read in one statement, by all threads and without a copy
_LARGE_BYTES: Final = 1 << 16
_PATTERN: Final = frozenset("*?[")
_LINES_PER_FILE: Final = 1 << 40
_ROWS: Final = 10_000  # of a Parquet file, per read


Advance = Callable[[str, int], None]


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


def place_of(place: int, files: Sequence[str]) -> str:
    """Format a place as ``file:line``."""
    return f"{files[place // _LINES_PER_FILE]}:{place % _LINES_PER_FILE}"


def plain_files(files: Sequence[str]) -> list[str]:
    """Return the absolute paths of the files that DuckDB may read itself: large text files without glob characters.

    Omits archives: they are opened as streams, which refuse them.
    """
    return [
        str(Path(file).resolve())
        for file in files
        if not (file == "-" or file.endswith((*ENDINGS, ".parquet")) or set(str(Path(file).resolve())) & _PATTERN)
        and Path(file).stat().st_size >= _LARGE_BYTES
        and not _is_tar(file)
    ]


def _is_tar(file: str) -> bool:
    with Path(file).open("rb") as stream:
        return is_tar(stream.read(TAR_BLOCK_BYTES))


def read_into(database: Database, files: Sequence[str], *, group: int = GROUP_BYTES) -> None:
    """Read the files into the database: large regular ones in groups, all others in blocks. Shows progress.

    Raises:
        OSError: see ``read_blocks``.
    """
    whole = set(plain_files(files))
    with show_progress(files) as advance:
        together: list[tuple[int, str]] = []
        size = 0
        for number, file in enumerate(files):
            if str(Path(file).resolve()) not in whole:
                database.read(_blocks_of(number, file, BLOCK_BYTES, advance))
                continue
            together.append((number, file))
            size += Path(file).stat().st_size
            if size >= group:
                _read_together(database, together, advance)
                together, size = [], 0
        _read_together(database, together, advance)


def _read_together(database: Database, files: Sequence[tuple[int, str]], advance: Advance) -> None:
    """Read whole files in one statement; if a line is not surely a record, halve the group, at last use blocks."""
    if not files:
        return
    if database.read_files([str(Path(file).resolve()) for _, file in files]):
        advance(files[-1][1], Path(files[-1][1]).stat().st_size)
    elif len(files) > 1:
        middle = len(files) // 2
        _read_together(database, files[:middle], advance)
        _read_together(database, files[middle:], advance)
    else:
        database.read(_blocks_of(*files[0], BLOCK_BYTES, advance))


def read_blocks(files: Sequence[str], *, size: int = BLOCK_BYTES) -> Iterator[Block]:
    """Yield the lines of the files in blocks of about ``size`` bytes.

    Raises:
        OSError: a file cannot be read or is an archive, or a compressed one is corrupt or truncated; the text names it.
    """
    for number, file in enumerate(files):
        yield from _blocks_of(number, file, size, lambda _file, _position: None)


def _blocks_of(number: int, file: str, size: int, advance: Advance) -> Iterator[Block]:
    place = number * _LINES_PER_FILE
    with _rows(file) if file.endswith(".parquet") else open_file(file) as (stream, position):
        for content in _whole_lines(stream, size):
            yield Block(place, content)
            place += content.count(b"\n")
            advance(file, position())


def _whole_lines(stream: _Readable, size: int) -> Iterator[bytes]:
    """Cut a stream at line ends. Drops the middle of a line that is too long for a record; the rest is no record."""
    rest = b""
    while read := stream.read(size):
        cut = read.rfind(b"\n") + 1
        if not cut and len(rest) > MAX_LINE_BYTES:
            continue  # drops the middle of a line that is too long
        if not cut:
            rest += read
            continue
        yield (rest + read[:cut]).replace(b"\r\n", b"\n")
        rest = read[cut:]
    if rest:
        yield rest


class _Rows:
    """The rows of a Parquet file as JSON lines, limited by a ``Meter``."""

    def __init__(self, cursor: Any, meter: Meter) -> None:
        self._cursor = cursor
        self._meter = meter

    def read(self, _size: int, /) -> bytes:
        rows = self._cursor.fetchmany(_ROWS)
        content = "".join(f"{line}\n" for (line,) in rows).encode()
        self._meter.add(len(content))
        return content


@contextlib.contextmanager
def _rows(file: str) -> Iterator[tuple[_Rows, Callable[[], int]]]:
    """Open a Parquet file in a database of its own, which may open only that file."""
    import duckdb

    config: dict[str, str | bool | int | float | list[str]] = {
        "autoinstall_known_extensions": False,
        "autoload_known_extensions": False,
    }
    path = str(Path(file).resolve())
    if set(path) & _PATTERN:  # DuckDB would read the path as a pattern
        raise OSError(f"{file}: a Parquet file whose path has *, ? or [ cannot be read; rename it")
    with duckdb.connect(":memory:", config=config) as connection:
        allowed = path.replace("'", "''")  # a setting takes no parameter
        connection.execute(f"SET allowed_paths = ['{allowed}']")
        connection.execute("SET enable_external_access = false")
        connection.execute("SET lock_configuration = true")
        rows = "SELECT to_json(r)::VARCHAR FROM read_parquet($file) AS r"
        try:
            size = Path(path).stat().st_size
            yield _Rows(connection.execute(rows, {"file": path}), Meter(file, lambda: size)), lambda: 0
        except duckdb.Error:
            raise OSError(f"{file}: not a Parquet file, or a corrupt one") from None
