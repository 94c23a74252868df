import json
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from delegation_audit.chains import database as module
from delegation_audit.chains.choice import Choice
from delegation_audit.chains.database import Block, Database, open_database
from delegation_audit.chains.examination import examine
from delegation_audit.chains.findings import Kind
from delegation_core.console.extras import needs
from sidecar.cli import main
from tests.audit.chains.evidence import audit, read
from tests.audit.evidence import lawful

pytestmark = pytest.mark.integration


def test_the_database_reaches_nothing_outside_its_folder(tmp_path: Path) -> None:
    import duckdb

    outside = tmp_path / "x.json"
    outside.write_text("{}")
    with open_database(threads=1) as database:
        for attempt in (
            f"SELECT * FROM read_text('{outside}')",
            f"COPY (SELECT 1) TO '{tmp_path / 'y'}'",
            f"ATTACH '{tmp_path / 'z'}'",
            "INSTALL httpfs",
            "LOAD httpfs",
            "SET enable_external_access = true",
            "SET allowed_directories = ['/']",
            "SELECT * FROM 'https://sts.acme.example/x.json'",
        ):
            with pytest.raises(duckdb.Error):
                database.rows(attempt)
        assert database.rows("SELECT 1") == [(1,)]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.json"]


def test_the_folder_is_gone_with_the_database(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = tmp_path / "it's"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    with open_database(threads=1) as database:
        lines = b"\n".join(json.dumps(one, separators=(",", ":")).encode() for one in read(lawful().values()))
        assert database._read_at_once(Block(0, lines))
        assert list(folder.iterdir())
    assert list(folder.iterdir()) == []


def test_memory_is_half_of_the_machines_unless_it_is_given() -> None:
    import duckdb

    with duckdb.connect() as plain:  # DuckDB alone takes 80 % of what it finds
        ((theirs,),) = plain.execute("SELECT current_setting('memory_limit')").fetchall()
    assert 0.61 < _mib(_memory_limit(None)) / _mib(theirs) < 0.64
    assert _memory_limit(512) == "512.0 MiB"


def _memory_limit(memory_mib: int | None) -> str:
    with open_database(memory_mib=memory_mib, threads=1) as database:
        return str(database.rows("SELECT current_setting('memory_limit')")[0][0])


def _mib(size: str) -> float:
    number, unit = size.split()
    return float(number) * {"MiB": 1, "GiB": 1 << 10, "TiB": 1 << 20}[unit]


def test_without_duckdb_the_command_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(module, "find_spec", lambda name: None if name == "duckdb" else find_spec(name))
    (tmp_path / "a.jsonl").write_text("{}\n")
    assert main(["audit", "chains", str(tmp_path)]) == 2
    assert capsys.readouterr().err == (f"sidecar audit chains: this {needs('audit')}\n")


@pytest.fixture(scope="module")
def two_chains() -> Iterator[Database]:
    told = [*lawful().values(), *lawful(txn="t2", subject="bob", prefix="b").values()]
    for one in told[:12]:
        one["ts"] = one["ts"].replace("2026-11-24", "2026-11-20")
    with open_database(threads=1) as database:
        database.read([Block(0, "\n".join(map(json.dumps, read(told))).encode())])
        database.judge()
        yield database


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        pytest.param({}, ["t1", "t2"], id="all"),
        pytest.param({"subject": "bob"}, ["t2"], id="subject"),
        pytest.param({"subject": "' OR 1=1 --"}, [], id="a-value-is-no-sql"),
        pytest.param({"actor": "spiffe://acme.example/agent/front"}, ["t1", "t2"], id="actor"),
        pytest.param({"actor": "spiffe://acme.example/agent/nobody"}, [], id="another-actor"),
        pytest.param({"since": "2026-11-21"}, ["t2"], id="since"),
        pytest.param({"until": "2026-11-20~"}, ["t1"], id="until"),
        pytest.param({"trace": "btrace"}, ["t2"], id="trace"),
        pytest.param({"txn": "t1"}, ["t1"], id="txn"),
        pytest.param({"jti": "bj2"}, ["t2"], id="jti"),
        pytest.param({"route": "next"}, ["t1", "t2"], id="route"),
        pytest.param({"route": "other"}, [], id="another-route"),
        pytest.param({"host": "acme.example"}, ["t1", "t2"], id="host"),
        pytest.param({"host": "evil.example"}, [], id="another-host"),
        pytest.param({"subject": "alice", "txn": "t2"}, [], id="both-hold-in-one-record"),
    ],
)
def test_a_filter_chooses_chains(choice: dict[str, str], expected: list[str], two_chains: Database) -> None:
    assert sorted(chain.name for chain in examine(two_chains, Choice(**choice)).chains) == expected


def test_a_chain_is_broken_by_what_is_missing_and_not_by_what_was_refused() -> None:
    told = lawful()
    told["callee3"].update(decision="deny", reason="insufficient_scope", status=403)
    refused = audit(told)
    assert (refused.broken_chains, dict(refused.counts)) == (0, {Kind.REFUSED_HOP: 1})
    assert refused.summary == (0, "0 of 1 chain is broken; refused, which breaks no chain: 1")
    del told["caller2"]
    assert audit(told).summary == (1, "1 of 1 chain is broken; refused, which breaks no chain: 1")


def test_of_a_large_set_only_some_chains_are_shown(two_chains: Database) -> None:
    some = examine(two_chains, most_chains=1)
    assert (len(some.chains), some.all_chains, some.broken_chains) == (1, 2, 0)
    assert some.summary == (0, "0 of 2 chains are broken")
