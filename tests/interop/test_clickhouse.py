"""The judge in ClickHouse (chdb, the same engine in this process): it says of a table what DuckDB says of lines."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Final

import pytest

from benchmarks.labelled import write
from delegation_audit.chains.choice import Choice
from delegation_audit.chains.clickhouse import open_engine
from delegation_audit.chains.command import document
from delegation_audit.chains.database import Block, open_database
from delegation_audit.chains.engine import Engine
from delegation_audit.chains.examination import examine
from delegation_audit.chains.lines import READ
from delegation_core.records.record import FIELDS, KEYS
from sidecar.cli import main
from tests.audit.chains.evidence import marked, read
from tests.audit.evidence import Evidence, lawful
from tests.integration.audit.chains import test_continuity, test_verdicts, test_witnesses
from tests.interop.clickhouse_server import served

pytestmark = [pytest.mark.interop, pytest.mark.timeout(300)]
Records = Sequence[dict[str, Any]]

RECORDED: Final = sorted((Path(__file__).parents[1] / "audit" / "recorded").glob("*.records"))
HOSTILE: Final = "it's \\' \" {a:String} \x01\n\t/ é\u2028 %s $subject`--"
# As ClickHouse infers a table from lines, and as somebody may make one: nothing NULL but flags, lists as arrays.
INFERRED: Final = {
    "text": "Nullable(String)", "texts": "Nullable(String)", "count": "Nullable(UInt64)",
    "milliseconds": "Nullable(Float64)", "flag": "Nullable(Bool)",
}  # fmt: skip
BY_HAND: Final = {
    "text": "String", "texts": "Array(String)", "count": "UInt32", "milliseconds": "Float64", "flag": "Nullable(Bool)",
}  # fmt: skip
TYPED: Final = {
    "ts": "DateTime64(6, 'UTC')",
    "event": "LowCardinality(String)",
    "decision": "Enum8('' = 0, 'allow' = 1, 'deny' = 2)",
}
_EMPTY: Final = {"String": "", "Array(String)": [], "UInt32": 0, "Float64": 0.0}


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    import clickhouse_connect

    with clickhouse_connect.get_client(interface="chdb") as client:
        client.command("CREATE DATABASE logs")
        fill(client, "logs.template", [], INFERRED)
        yield client


def kind_of(name: str) -> str:
    return KEYS[name].kind if name in KEYS else "text"


def fill(client: Any, table: str, records: Records, kinds: dict[str, str]) -> None:
    """Make a table with the records, and with a column that is the company's own."""
    columns = {name: kinds[kind_of(name)] for name in FIELDS}
    columns |= {"run": "String", "seq": "UInt64"} | (TYPED if kinds is BY_HAND else {})
    types = ", ".join(f"`{name}` {kind}" for name, kind in columns.items())
    client.command(f"CREATE TABLE {table} ({types}, arrived UInt64) ORDER BY (run, seq)")
    lines = []
    for number, one in enumerate(records):
        values = {name: _value(one.get(name), columns[name]) for name in FIELDS}
        lines.append(json.dumps({**values, "arrived": number}))
    settings = {"date_time_input_format": "best_effort"}
    if lines:
        client.raw_insert(table, insert_block="\n".join(lines), fmt="JSONEachRow", settings=settings)


def _value(value: Any, kind: str) -> Any:
    if value is None:
        return _EMPTY.get(kind, None if kind.startswith("Nullable") else "")
    return (
        json.dumps(value, ensure_ascii=False)
        if isinstance(value, list) and "String" in kind and "Array" not in kind
        else value
    )


def in_order(engine: Engine, records: Records) -> list[dict[str, Any]]:
    """Return the records in the order in which the engine took them: of two in one place of a run the first counts."""
    known: dict[str, list[dict[str, Any]]] = {}
    for one in records:
        known.setdefault(json.dumps([one.get(name) for name in READ]), []).append(one)
    rows = engine.rows(f"SELECT {', '.join(READ)} FROM records ORDER BY place")
    return [known[json.dumps([json.loads(one) if isinstance(one, str) else one for one in row])].pop() for row in rows]


def judged(engine: Engine, choice: Choice | None = None) -> dict[str, Any]:
    audit = examine(engine, *([] if choice is None else [choice]))
    return document(audit, audit.findings)


def judged_by_duckdb(records: Records, choices: Iterable[Choice | None] = (None,)) -> list[dict[str, Any]]:
    lines = (json.dumps(one, ensure_ascii=False, separators=(",", ":")) for one in records)
    with open_database(threads=1) as database:
        database.read([Block(0, "\n".join(lines).encode())])
        assert database.unreadable == []
        database.judge()
        return [judged(database, choice) for choice in choices]


def cases() -> list[Evidence]:
    """Every case of the tests of verdicts, witnesses and places."""
    told = [lawful() for _ in test_verdicts.CASES]
    for one, case in zip(told, test_verdicts.CASES, strict=True):
        case.values[0](one)
    told += [case.values[0] for case in test_witnesses.CASES]
    told += [{str(n): test_continuity.started(n) for n in case.values[0]} for case in test_continuity.NUMBERS]
    told.append({"again": test_continuity.started(1), "other": test_continuity.started(1, detail="x")})
    never_issued = {name: one for name, one in lawful().items() if name != "issued3"}
    for name, late in lawful("t2", prefix="b").items():
        never_issued[f"late {name}"] = {**late, "ts": late["ts"].replace("T21", "T22")}
    for told_late in never_issued.values():
        told_late["subject_iss"] = "https://sts.example"  # whose records have no gap
    return [*told, never_issued]


def test_every_case_is_judged_as_by_duckdb_with_every_filter(client: Any) -> None:
    demo = [json.loads(line) for file in RECORDED for line in file.read_text().splitlines()]
    hostile = lawful(txn=HOSTILE, subject=HOSTILE, prefix="h")
    hostile["callee3"].update(decision="deny", reason="insufficient_scope", path=HOSTILE)
    records = [*marked(cases()), *demo, *read(hostile.values())]
    fill(client, "logs.records", records, INFERRED)
    choices = [
        None, Choice(subject=HOSTILE), Choice(subject="alice", route="next"), Choice(subject="' OR 1=1 --"),
        Choice(actor="spiffe://acme.example/agent/front", host="acme.example"), Choice(jti="hj2"),
        Choice(since="2026-11-24", until="2026-11-24T21:04:02.000000Z"), Choice(txn=HOSTILE, trace="htrace"),
    ]  # fmt: skip
    with open_engine("chdb:") as engine:
        engine.read("logs.records")
        assert (engine.records, engine.unreadable) == (len(records), 0)
        ordered = in_order(engine, records)
        engine.judge()
        told = [judged(engine, choice) for choice in choices]
    assert told == judged_by_duckdb(ordered, choices)
    assert {one["kind"] for one in told[0]["findings"]} > {"missing_hop", "splice", "forged_record", "orphan_authority"}
    assert [len(one["chains"]) for one in told[1:4]] == [1, len(told[2]["chains"]), 0]
    assert client.query("SELECT count() FROM logs.records").result_rows == [(len(records),)]


def test_a_labelled_set_in_a_table_of_other_types_is_judged_as_by_duckdb(client: Any, tmp_path: Path) -> None:
    labels = write(tmp_path, 4000, seed=17, faulty=0.5)
    records = [json.loads(line) for file in sorted(tmp_path.iterdir()) for line in file.read_text().splitlines()]
    fill(client, "logs.labelled", records, BY_HAND)
    with open_engine("chdb:") as engine:
        engine.read("logs.labelled")
        assert (engine.records, engine.unreadable) == (len(records), 0)
        ordered = in_order(engine, records)
        engine.judge()
        told = judged(engine)
    assert [told] == judged_by_duckdb(ordered)
    assert len(labels) > 100


@pytest.mark.parametrize("over_http", [False, True], ids=["in-this-process", "over-http"])
def test_the_command_asks_an_engine_and_leaves_nothing_there(
    over_http: bool, client: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    told = lawful(subject=HOSTILE)
    del told["caller3"]
    files = tmp_path / "records.jsonl"
    lines = (json.dumps(one, ensure_ascii=False) for one in in_run_order(read(told.values())))
    files.write_text("".join(f"{line}\n" for line in lines))
    columns = f"SELECT * FROM file('{files}', JSONEachRow)"  # as the page of chains shows it
    client.command(f"CREATE OR REPLACE TABLE logs.inferred ENGINE = MergeTree ORDER BY tuple() AS {columns}")
    before = client.query("SELECT * FROM logs.inferred ORDER BY run, seq").result_rows
    monkeypatch.setenv("CLICKHOUSE_USER", "auditor")
    monkeypatch.setenv("CLICKHOUSE_PASSWORD", "hunter2")
    filters = ["--json", "--subject", HOSTILE]
    callers: set[str] = set()
    with served(callers) if over_http else nullcontext() as port:
        engine = "chdb:" if port is None else f"clickhouse://127.0.0.1:{port}/logs?secure=false"
        table = "logs.inferred" if port is None else "inferred"
        command = ["audit", "chains", "--engine", engine, "--table", table, "--scratch", "scratch_of_ours"]
        assert main([*command, *filters]) == 1
    by_engine = json.loads(capsys.readouterr().out)
    assert main(["audit", "chains", str(files), *filters]) == 1
    assert by_engine == json.loads(capsys.readouterr().out)
    assert len(by_engine["chains"]) == 1
    assert callers == ({"Basic " + b64encode(b"auditor:hunter2").decode()} if over_http else set())
    assert client.query("SELECT * FROM logs.inferred ORDER BY run, seq").result_rows == before
    assert "scratch_of_ours" not in {name for (name,) in client.query("SHOW DATABASES").result_rows}


def test_an_engine_that_does_not_answer_is_named(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", "chains", "--engine", "clickhouse://127.0.0.1:1", "--table", "logs.records"]) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert err.startswith("sidecar audit chains: --engine: ")
    assert "127.0.0.1" in err
    assert len(err.splitlines()) == 1


def in_run_order(records: Records) -> list[dict[str, Any]]:
    return sorted(records, key=lambda one: (one["run"], one["seq"]))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        pytest.param("INSERT INTO logs.rows (event, run, seq) VALUES ('request', '', 5)", 1, id="no-run"),
        pytest.param("INSERT INTO logs.rows (event, ts, run, seq) VALUES ('no.event', 'x', 'r', 5)", 1, id="event"),
        pytest.param("INSERT INTO logs.rows (event, ts, run, seq) VALUES ('started', 'x', 'r', 0)", 1, id="seq"),
        pytest.param(
            "INSERT INTO logs.rows (event, ts, run, seq, decision) VALUES ('request', 'x', 'r', 5, 'maybe')",
            1,
            id="decision",
        ),
        pytest.param(
            "INSERT INTO logs.rows (event, ts, run, seq, chain) VALUES ('started', 'x', 'r', 1, '[1]'),"
            " ('started', 'x', 'r', 2, 'x'), ('started', 'x', 'r', 3, '[')",
            3,
            id="lists",
        ),
        pytest.param("INSERT INTO logs.rows (event, ts, run, seq) VALUES ('started', 'x', 'r', 1)", 0, id="a-record"),
    ],
)
def test_rows_that_are_no_records_are_counted(client: Any, change: str, told: int) -> None:
    fill(client, "logs.rows", [], INFERRED)
    try:
        client.command(change)
        with open_engine("chdb:") as engine:
            engine.read("logs.rows")
            assert (engine.records, engine.unreadable) == (0 if told else 1, told)
    finally:
        client.command("DROP TABLE logs.rows")


def retype(column: str, kind: str) -> str:
    return f"ALTER TABLE logs.bad DROP COLUMN {column}, ADD COLUMN {column} {kind}"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        pytest.param("DROP TABLE logs.bad", "there is no table logs.bad", id="no-table"),
        pytest.param("ALTER TABLE logs.bad DROP COLUMN txn", "no column txn", id="no-column"),
        pytest.param(
            "ALTER TABLE logs.bad DROP COLUMN txn, ADD COLUMN txn UInt64", "the column txn is !uint64", id="a-number"
        ),
        pytest.param(
            "ALTER TABLE logs.bad DROP COLUMN status, ADD COLUMN status String", "the column status is", id="a-text"
        ),
        pytest.param(
            "ALTER TABLE logs.bad DROP COLUMN scope, ADD COLUMN scope Array(UInt8)", "the column scope is", id="numbers"
        ),
        pytest.param("CREATE DATABASE theirs", "theirs", id="a-database-of-theirs"),
    ],
)
def test_what_cannot_be_used_is_refused_by_name(
    client: Any, change: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    client.command("CREATE OR REPLACE TABLE logs.bad AS logs.template")
    client.command(change)
    assert main(["audit", "chains", "--engine", "chdb:", "--table", "logs.bad", "--scratch", "theirs"]) == 2
    out, err = capsys.readouterr()
    assert (out, told in err) == ("", True), err
    databases = {name for (name,) in client.query("SHOW DATABASES").result_rows}
    assert ("theirs" in databases) == ("theirs" in change)  # what was there before stays
    client.command("DROP DATABASE IF EXISTS theirs")
