"""DuckDB, embedded and locked in: reads blocks of lines, joins them, and judges all of them in set operations.

Nothing reaches its SQL but parameters: no file's name and no text of a user or a record. It opens no file but the copy
of a block and what it spills, both in a folder of its own; it loads no extension and has no network.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sidecar.audit.chains import joins, lines, verdicts
from sidecar.audit.records import RecordError
from sidecar.observe.record_text import CUT

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

NEEDED: Final = "this needs the extra \"audit\": pip install 'delegation-sidecar[audit]'"
_List = tuple[str, str | None, str, int, bool, int, bool]  # a row of ``lists``
_FEW_RECORDS: Final = 10_000
_SMALL_BYTES: Final = 1 << 16  # so few lines are read one by one
_DECODER: Final = json.JSONDecoder()
_NEWLINE: Final = b"\n"


class MissingError(Exception):
    """DuckDB is not installed."""


@dataclass(frozen=True, slots=True)
class Block:
    """Whole lines. ``first`` is the place before the first: places are numbers that grow with file and line."""

    first: int
    content: bytes


def require() -> None:
    """Check that DuckDB is installed.

    Raises:
        MissingError: it is not; the text says how to install it.
    """
    if find_spec("duckdb") is None:
        raise MissingError(NEEDED)


@contextlib.contextmanager
def open_database(*, memory_mib: int = 2048, threads: int = 2) -> Iterator[Database]:
    """Open an empty database that spills to a folder of its own, which is gone with it."""
    require()
    import duckdb

    with tempfile.TemporaryDirectory(prefix="sidecar-audit-") as folder:
        config: dict[str, Any] = {
            "memory_limit": f"{memory_mib}MiB",
            "threads": threads,
            "temp_directory": folder,
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
        }
        with duckdb.connect(":memory:", config=config) as connection:
            own = folder.replace("'", "''")  # a setting takes no parameter
            connection.execute(f"SET allowed_directories = ['{own}']")
            connection.execute("SET enable_external_access = false")
            connection.execute("SET lock_configuration = true")
            yield Database(connection, Path(folder))


class Database:
    """One set of records, read block by block and judged once."""

    def __init__(self, connection: DuckDBPyConnection, folder: Path) -> None:
        self._connection = connection
        self._copy = folder / "block"
        self._lists: dict[str, bool] = {}
        self._sets: dict[frozenset[str], int] = {frozenset(): 0}
        self.unreadable: list[int] = []
        self.records = 0
        for statement in (joins.RECORDS, joins.LISTS, verdicts.FINDINGS):
            connection.execute(statement)

    def read(self, blocks: Iterable[Block]) -> None:
        """Read blocks. Lines that are no records are noted by their places."""
        for block in blocks:
            if len(block.content) < _SMALL_BYTES or not self._read_at_once(block):
                self._read_line_by_line(block)

    def rows(self, statement: str, values: Mapping[str, object] | None = None) -> list[tuple[Any, ...]]:
        """Return the rows of a query."""
        return self._connection.execute(statement, values).fetchall()

    def judge(self) -> None:
        """Join all records and judge them: afterwards there are ``hops``, ``made``, ``family`` and ``findings``."""
        self.records = self.rows("SELECT count(*) FROM records")[0][0]
        self._run(joins.STEPS)
        for _ in range(64):
            if not self.rows(joins.NAMELESS)[0][0]:
                break
            self._run(joins.FURTHER)
        self._run((joins.CIRCLES, *joins.CALLS))
        self._run((joins.OUTSIDE,))
        self._compare_scopes()
        # planning is most of the cost of a small set: all at once; of a large one each statement has the memory alone
        small = self.records < _FEW_RECORDS
        together = [" UNION ALL ".join(verdicts.VERDICTS)] if small else verdicts.VERDICTS
        self._run("INSERT INTO findings " + verdict for verdict in together)

    def _run(self, statements: Iterable[str]) -> None:
        for statement in statements:
            self._connection.execute(statement)

    def _read_at_once(self, block: Block) -> bool:
        import duckdb

        self._copy.write_bytes(block.content)
        try:
            self._connection.execute(lines.READ_BLOCK, {"file": str(self._copy)})
        except duckdb.Error:
            return False
        number, unsure, size, youngest, last = self.rows(lines.CHECK_BLOCK)[0]
        expected = number * lines.FRAME + (size or 0) - (0 if block.content.endswith(_NEWLINE) else 1)
        without = expected - number * lines.YOUNGEST_FRAME if not youngest else expected
        whole = number - 1 == last and number == block.content.count(_NEWLINE) + (not block.content.endswith(_NEWLINE))
        if unsure or not whole or len(block.content) not in {expected, without}:
            return False
        if any(end in block.content for end in (b",}", b",]", b" }", b" ]", b"\t", b"\r")):
            return False
        self._keep(f"{block.first + 1} + rowid")
        return True

    def _read_line_by_line(self, block: Block) -> None:
        texts = [_text(line) for line in block.content.split(_NEWLINE)]
        self.unreadable += (block.first + number for number, text in enumerate(texts, 1) if text is None)
        values = {"first": block.first, "lines": [text or "" for text in texts]}
        self._connection.execute(lines.READ_LINES, values)
        doubtful = self.rows("SELECT place, line FROM block WHERE NOT sure")
        self._keep()
        if doubtful:
            self._read_judged(doubtful)

    def _read_judged(self, doubtful: Sequence[tuple[int, str]]) -> None:
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
            self._keep()

    def _keep(self, place: str = "place") -> None:
        """Keep the sure lines of the block, unless a list in one is none. ``place`` is the SQL of a line's place."""
        found = self.rows(
            "SELECT chain FROM block WHERE chain IS NOT NULL UNION SELECT scope FROM block WHERE scope IS NOT NULL"
            " UNION SELECT scope_needed FROM block WHERE scope_needed IS NOT NULL"
        )
        news: list[_List] = []
        bad = [text for (text,) in found if not self._is_known(text, news)]
        self._insert("lists", news)
        if bad:
            faulty = "list_contains($bad, chain) OR list_contains($bad, scope) OR list_contains($bad, scope_needed)"
            self.unreadable += (
                place for (place,) in self.rows(f"SELECT {place} FROM block WHERE sure AND ({faulty})", {"bad": bad})
            )
            self._connection.execute(f"DELETE FROM block WHERE {faulty}", {"bad": bad})
        self._connection.execute(joins.KEEP_BLOCK.format(place=place))

    def _is_known(self, text: str, news: list[_List]) -> bool:
        """Note a list, and every list that ends it."""
        if text in self._lists:
            return self._lists[text]
        self._lists[text] = lines.is_list_of_texts(text)
        items = json.loads(text) if self._lists[text] else []
        while self._lists[text]:
            head, tail = _cut(text)
            named = self._sets.setdefault(frozenset(items), len(self._sets))
            attestable = bool(items) and items[0].startswith("spiffe://")
            news.append((text, head, tail, len(items), attestable, named, any(one.startswith(CUT) for one in items)))
            if tail in self._lists:
                return True
            self._lists[tail] = True
            text, items = tail, items[1:]
        return False

    def _insert(self, table: str, rows: Sequence[tuple[object, ...]]) -> None:
        """Insert many rows in one statement."""
        if rows:
            columns = [list(column) for column in zip(*rows, strict=True)]
            values = ", ".join(f"unnest(${number})" for number in range(1, len(columns) + 1))
            self._connection.execute(f"INSERT INTO {table} SELECT {values}", columns)

    def _compare_scopes(self) -> None:
        sets = {number: scopes for scopes, number in self._sets.items()}
        wider = [(one, than) for one, than in self.rows(joins.SCOPES) if not sets[one] <= sets[than]]
        self._connection.execute("CREATE TABLE wider (named BIGINT, than BIGINT)")
        self._insert("wider", wider)


def _text(line: bytes) -> str | None:
    try:
        return line.decode()
    except UnicodeDecodeError:
        return None


def _cut(text: str) -> tuple[str | None, str]:
    """Return the first item of a list, and the list of the others, as they are written."""
    if text == "[]":
        return None, text
    _, end = _DECODER.raw_decode(text, 1)
    return text[1:end], "[" + text[end:].lstrip(",")
