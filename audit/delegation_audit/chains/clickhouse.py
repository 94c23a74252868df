"""ClickHouse, through Ibis: judges the records of one table inside ClickHouse, by the same statements as DuckDB.

Reads the table once, into a scratch database that is created for the audit and dropped. No text of a record and no
filter becomes part of a statement: texts are sent as parameters, lists as columns of a table.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.util import find_spec
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

from delegation_audit.chains import joins, lines, verdicts
from delegation_audit.chains.choice import EVERYTHING, Choice
from delegation_audit.chains.database import MissingError
from delegation_audit.chains.dialect import SETTINGS, translate
from delegation_audit.chains.engine import Engine, List
from delegation_audit.chains.examination import MOST_CHAINS, Audit, examine
from delegation_audit.chains.findings import Finding, Kind
from delegation_core.console.extras import needs
from delegation_core.records.record import FIELDS, KEYS

NEEDED: Final = f"--engine {needs('clickhouse')}"
_NAME: Final = re.compile("[A-Za-z_][A-Za-z0-9_]{0,63}")
_LONGEST_S: Final = 86400  # of one statement
_MOST_TOLD: Final = 500  # characters of an engine's error message
_LISTS: Final = ("chain", "scope", "scope_needed")
# Of two records with one run and seq, the one with the earlier ts comes first.
_KEEP: Final = f"""
    INSERT INTO kept
    SELECT v.digest, {lines.COLUMNS}, ({lines.require_types(lines.READ)}) IS TRUE,
        row_number() OVER (ORDER BY v.run, strlen(v.seq), v.seq, v.ts, v.digest)
    FROM ours AS v
"""


class EngineError(Exception):
    """The engine cannot be reached, or its table cannot be used. The text names the error and the fix."""


def client_options(url: str, environment: Mapping[str, str] = os.environ) -> dict[str, Any]:
    """Parse the URL of an engine to connection options; user and password are read from the environment.

    Raises:
        EngineError: the URL is invalid, or holds a user or a password.
    """
    try:
        parts = urlsplit(url)
        port, options = parts.port, parse_qs(parts.query, strict_parsing=bool(parts.query))
    except ValueError:
        raise EngineError("--engine: not a URL; write clickhouse://HOST:PORT/DATABASE") from None
    if parts.password is not None or parts.username is not None:
        raise EngineError("--engine: no user or password in the URL; set CLICKHOUSE_USER and CLICKHOUSE_PASSWORD")
    if parts.scheme == "chdb":
        return {"interface": "chdb", "path": parts.path or None}
    if parts.scheme != "clickhouse" or not parts.hostname:
        raise EngineError("--engine: write clickhouse://HOST:PORT/DATABASE, or chdb:///FOLDER")
    if options not in ({}, {"secure": ["true"]}, {"secure": ["false"]}):
        raise EngineError("--engine: unknown option; the only one is secure=false, for a connection without TLS")
    secure = options != {"secure": ["false"]}
    return {
        "interface": "https" if secure else "http",
        "ca_cert": environment.get("SSL_CERT_FILE"),
        "query_retries": 0,  # a repeated INSERT would insert the rows twice
        "send_receive_timeout": _LONGEST_S,
        "host": parts.hostname,
        "port": port or (8443 if secure else 8123),
        "database": parts.path.strip("/") or "default",
        "username": environment.get("CLICKHOUSE_USER", "default"),
        "password": environment.get("CLICKHOUSE_PASSWORD", ""),
    }


@contextlib.contextmanager
def open_engine(url: str, *, scratch: str | None = None) -> Iterator[ClickHouse]:
    """Connect, and create a scratch database, which is dropped at the end.

    Raises:
        MissingError: ibis or clickhouse_connect is not installed.
        EngineError: the URL or the scratch name is invalid, or the connection or a statement fails.
    """
    options = client_options(url)
    name = scratch or f"sidecar_audit_{secrets.token_hex(8)}"
    if not _NAME.fullmatch(name):
        raise EngineError("--scratch: write at most 64 letters, digits and _; the first is no digit")
    if any(find_spec(module) is None for module in ("ibis", "clickhouse_connect")):
        raise MissingError(NEEDED)
    import clickhouse_connect
    import ibis
    from clickhouse_connect.driver.exceptions import ClickHouseError

    logging.getLogger("clickhouse_connect").addHandler(logging.NullHandler())  # its errors are reported below, once

    try:
        with contextlib.closing(clickhouse_connect.get_client(**options, settings=dict(SETTINGS))) as client:
            connection = ibis.clickhouse.from_connection(client)
            connection.raw_sql(f"CREATE DATABASE {name}")  # fails if it exists: it may be somebody else's
            try:
                yield ClickHouse(connection, name)
            finally:
                connection.raw_sql(f"DROP DATABASE {name}")
    except ClickHouseError as error:
        raise EngineError(f"--engine: {str(error)[:_MOST_TOLD]}") from error


def examine_table(
    url: str,
    table: str,
    choice: Choice = EVERYTHING,
    *,
    scratch: str | None = None,
    ignore: Sequence[str] = (),
    most_chains: int = MOST_CHAINS,
) -> tuple[Audit, list[Finding]]:
    """Judge the records of a table in its engine. Returns the audit of the chosen chains, and the findings.

    Raises:
        MissingError, EngineError: see ``open_engine`` and ``ClickHouse.read``.
    """
    with open_engine(url, scratch=scratch) as engine:
        engine.read(table)
        engine.judge()
        audit = examine(engine, choice, ignore=ignore, most_chains=most_chains)
    findings = list(audit.findings)
    if engine.unreadable and Kind.UNREADABLE not in ignore:
        rows = (
            "1 row of the table is not a record"
            if engine.unreadable == 1
            else (f"{engine.unreadable} rows of the table are not records")
        )
        findings.append(Finding(Kind.UNREADABLE, rows))
    return audit, findings


class ClickHouse(Engine):
    """The records of one table, judged in a scratch database."""

    def __init__(self, connection: Any, scratch: str) -> None:
        super().__init__()
        self._connection = connection
        self._scratch = scratch
        self.unreadable = 0

    def rows(self, statement: str, values: Mapping[str, object] | None = None) -> list[tuple[Any, ...]]:
        """Run a query and return its rows. Text values are JSON texts; decodes them, and the engine encodes them."""
        single: dict[str, object] = {}
        for name, value in (values or {}).items():
            if isinstance(value, list):
                self._give(name, value)
            else:
                single[name] = json.loads(value) if isinstance(value, str) else value
        types = {name: "Int64" if isinstance(value, int) else "String" for name, value in single.items()}
        found = self._connection.raw_sql(translate(statement, self._scratch, types), parameters=single)
        return [tuple(row) for row in found.result_rows]

    def run(self, statements: Iterable[str]) -> None:
        """Run statements in order."""
        for statement in statements:
            self._connection.raw_sql(translate(statement, self._scratch))

    def insert(self, table: str, rows: Sequence[tuple[object, ...]]) -> None:
        """Insert rows in one statement, as an Arrow table: no text becomes SQL."""
        if rows:
            import pyarrow

            names = self._connection.table(table, database=self._scratch).columns
            columns = dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))
            self._connection.insert(table, pyarrow.table(columns), database=self._scratch)

    def _give(self, name: str, items: Sequence[object]) -> None:
        """Write a list parameter to the table ``given_NAME``."""
        kind = "BIGINT" if items and isinstance(items[0], int) else "VARCHAR"
        self.run((f"DROP TABLE IF EXISTS given_{name}", f"CREATE TABLE given_{name} (item {kind})"))
        self.insert(f"given_{name}", [(item,) for item in items])

    def read(self, table: str) -> None:
        """Read a table of records, ``DATABASE.TABLE`` or ``TABLE``. Counts rows that are no records.

        Raises:
            EngineError: the table does not exist, lacks a column, or has a column of another type.
        """
        from ibis.common.exceptions import TableNotFound

        *database, name = table.split(".", 1)
        try:
            found = self._connection.table(name, database=database[0] if database else self._connection.con.database)
        except TableNotFound:
            raise EngineError(f"--table: there is no table {table}") from None
        for statement in (joins.KEPT, joins.LISTS, verdicts.FINDINGS):
            self.run((statement,))
        self._connection.raw_sql(f"ALTER TABLE {self._scratch}.kept ADD COLUMN sure Bool, ADD COLUMN place Int64")
        self.run(("CREATE VIEW records AS SELECT * FROM kept",))
        self._connection.raw_sql(_view(found.schema(), self._connection.compile(found), self._scratch))
        self.run((_KEEP, "DROP VIEW ours"))
        self._keep_records()

    def _keep_records(self) -> None:
        """Delete rows that are no records from ``kept``, and count them."""
        total = self.rows("SELECT count(*) FROM kept")[0][0]
        news: list[List] = []
        found = " UNION ".join(f"SELECT {name} FROM kept WHERE sure AND {name} IS NOT NULL" for name in _LISTS)
        bad = self.bad_lists(self.rows(found), news)
        self.insert("lists", news)
        if bad:
            unsure = " OR ".join(f"{name} IN (SELECT unnest($bad))" for name in _LISTS)
            self._give("bad", bad)
            self.run((f"DELETE FROM kept WHERE {unsure}",))
        self.run(("DELETE FROM kept WHERE NOT sure",))
        self.records = self.rows("SELECT count(*) FROM kept")[0][0]
        self.unreadable = total - self.records


def _view(schema: Any, table: str, scratch: str) -> str:
    """Return the statement for the view ``ours``: the table's values as JSON texts, as in a record line."""
    missing = [name for name in lines.READ if name not in schema]
    if missing:
        raise EngineError(f"--table: no column {', '.join(missing)}; each key of a record needs a column")
    known = ", ".join(f"t.`{name}`" for name in FIELDS if name in schema)
    texts = ", ".join(f"toValidUTF8({_json_text(name, schema[name])}) AS `{name}`" for name in lines.READ)
    return f"CREATE VIEW {scratch}.ours AS SELECT sipHash64(tuple({known})) AS digest, {texts} FROM ({table}) AS t"


def _json_text(name: str, kind: Any) -> str:
    """Return an expression for a column as JSON text. In a column without NULL, an empty value counts as absent."""
    value = f"t.`{name}`"
    if name in _LISTS:
        return _list_text(name, kind)
    if name == "ts" and kind.is_timestamp():
        return f"toJSONString(formatDateTime(toDateTime64({value}, 6, 'UTC'), '%Y-%m-%dT%H:%i:%S.%fZ', 'UTC'))"
    if KEYS[name].kind == "count" and kind.is_integer():
        return f"toString({value})" if kind.nullable or name == "seq" else f"toString(nullIf({value}, 0))"
    if KEYS[name].kind == "flag" and (kind.is_boolean() or kind.is_integer()):
        return f"multiIf({value} IS NULL, NULL, {value} = 0, 'false', 'true')"
    if KEYS[name].kind == "text" and kind.is_string():
        return f"toJSONString(toString({value}))" if kind.nullable else f"toJSONString(nullIf(toString({value}), ''))"
    raise EngineError(f"--table: the column {name} is {kind}, not a {KEYS[name].kind}")


def _list_text(name: str, kind: Any) -> str:
    """Return an expression for a list as JSON text. An empty array is NULL, except ``chain`` of a verified record."""
    value = f"t.`{name}`"
    if kind.is_array() and kind.value_type.is_string():
        empty = "if(t.`verified`, '[]', NULL)" if name == "chain" else "NULL"
        return f"if(notEmpty({value}), toJSONString({value}), {empty})"
    if kind.is_string():
        text = f"ifNull({value}, '')"
        texts = f"arrayAll(x -> JSONType(x) = 'String', JSONExtractArrayRaw({text}))"
        lawful = f"JSONType({text}) = 'Array' AND {texts}"
        return f"multiIf({text} = '', NULL, {lawful}, toJSONString(JSONExtract({text}, 'Array(String)')), '0')"
    raise EngineError(f"--table: the column {name} is {kind}; write Array(String), or String for JSON")
