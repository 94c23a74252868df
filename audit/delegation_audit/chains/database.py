"""DuckDB, embedded and sandboxed: reads blocks of lines, joins them, and judges all of them in set operations.

Texts of users and records reach its SQL as parameters only. DuckDB may open the given record files and its own folder,
which holds the copy of a block and spilled data; it loads no extension and has no network.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from delegation_audit.chains import joins, lines, verdicts
from delegation_audit.chains.engine import Engine, List
from delegation_core.console.extras import needs
from delegation_core.records.reading import RecordError

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

NEEDED: Final = f"this {needs('audit')}"
_HALF: Final = "50%"  # of the memory of the machine, or of the container, whose limit DuckDB reads
_SMALL_BYTES: Final = 1 << 16  # smaller blocks are read line by line
_RETURN: Final = b"\r"  # DuckDB's reader takes it for the end of a line
_PIECE_BYTES: Final = 1 << 20
_NEWLINE: Final = b"\n"


class MissingError(Exception):
    """A library that the command needs is not installed. The text says how to install it."""


@dataclass(frozen=True, slots=True)
class Block:
    """Whole lines. A place is a number that encodes file and line; ``first`` is 1 less than the first line's place."""

    first: int
    content: bytes


def require() -> None:
    """Check that DuckDB is installed.

    Raises:
        MissingError: DuckDB is missing; the text says how to install it.
    """
    if find_spec("duckdb") is None:
        raise MissingError(NEEDED)


@contextlib.contextmanager
def open_database(*, files: Sequence[str] = (), memory_mib: int | None = None, threads: int = 2) -> Iterator[Database]:
    """Open an empty database that may read ``files``. It spills to a temporary folder, which is deleted at the end.

    ``memory_mib`` limits its memory in MiB; None is half of the machine's or the container's. Raises MissingError.
    """
    require()
    import duckdb

    with tempfile.TemporaryDirectory(prefix="sidecar-audit-") as folder:
        config: dict[str, Any] = {
            "memory_limit": _HALF if memory_mib is None else f"{memory_mib}MiB",
            "threads": threads,
            "temp_directory": folder,
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
        }
        with duckdb.connect(":memory:", config=config) as connection:
            connection.execute(f"SET allowed_directories = [{_literal(folder)}]")
            connection.execute(f"SET allowed_paths = [{', '.join(map(_literal, files))}]")
            connection.execute("SET enable_external_access = false")
            connection.execute("SET lock_configuration = true")
            yield Database(connection, Path(folder))


class Database(Engine):
    """One set of records, read block by block and judged once."""

    def __init__(self, connection: DuckDBPyConnection, folder: Path) -> None:
        super().__init__()
        self._connection = connection
        self._copy = folder / "block"
        self.unreadable: list[int] = []
        for statement in (joins.KEPT, joins.RECORDS, joins.LISTS, verdicts.FINDINGS):
            connection.execute(statement)

    def read(self, blocks: Iterable[Block]) -> None:
        """Read blocks of lines. Adds the places of lines that are no records to ``unreadable``."""
        for block in blocks:
            if len(block.content) < _SMALL_BYTES or not self._read_at_once(block):
                self._read_line_by_line(block)

    def rows(self, statement: str, values: Mapping[str, object] | None = None) -> list[tuple[Any, ...]]:
        """Run a query and return its rows."""
        return self._connection.execute(statement, values).fetchall()

    def run(self, statements: Iterable[str]) -> None:
        """Run statements in order."""
        for statement in statements:
            self._connection.execute(statement)

    def read_files(self, files: Sequence[str]) -> bool:
        """Read files at once, if every line is surely a record. Returns False, and keeps nothing, if one is not."""
        return not any(_has_return(file) for file in files) and self._keep_whole(files)

    def _read_at_once(self, block: Block) -> bool:
        if _RETURN in block.content:
            return False
        self._copy.write_bytes(block.content)
        return self._keep_whole([str(self._copy)])

    def _keep_whole(self, files: Sequence[str]) -> bool:
        import duckdb

        news: list[List] = []
        self._connection.execute("BEGIN")
        try:
            self._connection.execute(lines.READ_FILES, {"files": list(files)})
            kept = not self.bad_lists(self.rows(lines.LISTS_OF_FILES, {"first": self.records}), news)
        except duckdb.Error:
            kept = False
        self._connection.execute("COMMIT" if kept else "ROLLBACK")
        if kept:
            self.insert("lists", news)
        else:
            self.forget_lists(news)
        self._count()
        return kept

    def _count(self) -> None:
        self.records = self.rows("SELECT count(*) FROM kept")[0][0]

    def _read_line_by_line(self, block: Block) -> None:
        texts = [_text(line) for line in block.content.split(_NEWLINE)]
        self.unreadable += (block.first + number for number, text in enumerate(texts, 1) if text is None)
        values = {"first": block.first, "lines": [text or "" for text in texts]}
        self._connection.execute(lines.READ_LINES, values)
        doubtful = self.rows("SELECT place, line FROM block WHERE NOT sure")
        self._keep_lines()
        places, judged, extras = [], [], []
        for place, line in doubtful:
            if not line.strip():
                continue
            try:
                text, extra = lines.judge(line.rstrip("\r").encode())
            except RecordError:
                self.unreadable.append(place)
                continue
            places.append(place)
            judged.append(text)
            extras.append(extra)
        if places:
            self._connection.execute(lines.READ_JUDGED, {"places": places, "lines": judged, "extras": extras})
            self.unreadable += (place for (place,) in self.rows("SELECT place FROM block WHERE NOT sure"))
            self._keep_lines()

    def _keep_lines(self) -> None:
        """Keep the sure lines of the block; a line with an invalid list becomes unreadable."""
        columns = ("chain", "scope", "scope_needed")
        found = " UNION ".join(f"SELECT {name} FROM block WHERE sure AND {name} IS NOT NULL" for name in columns)
        news: list[List] = []
        bad: list[int] = []
        if lists := self.bad_lists(self.rows(found), news):
            where = " OR ".join(f"list_contains($lists, {name})" for name in columns)
            bad = [
                place for (place,) in self.rows(f"SELECT place FROM block WHERE sure AND ({where})", {"lists": lists})
            ]
        self.insert("lists", news)
        self.unreadable += bad
        self._connection.execute(lines.KEEP_LINES, {"bad": bad})
        self._count()

    def insert(self, table: str, rows: Sequence[tuple[object, ...]]) -> None:
        """Insert rows in one statement."""
        if rows:
            columns = [list(column) for column in zip(*rows, strict=True)]
            values = ", ".join(f"unnest(${number})" for number in range(1, len(columns) + 1))
            self._connection.execute(f"INSERT INTO {table} SELECT {values}", columns)


def _literal(text: str) -> str:
    """Quote a text as an SQL literal, for settings, which take no parameters."""
    return "'" + text.replace("'", "''") + "'"


def _has_return(file: str) -> bool:
    with Path(file).open("rb") as opened:
        return any(_RETURN in piece for piece in iter(partial(opened.read, _PIECE_BYTES), b""))


def _text(line: bytes) -> str | None:
    try:
        return line.decode()
    except UnicodeDecodeError:
        return None
