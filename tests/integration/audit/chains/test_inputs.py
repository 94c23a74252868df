import gzip
import io
import json
import sys
from pathlib import Path

import pytest

from delegation_audit.chains.database import Block, Database, open_database
from delegation_audit.chains.inputs import place_of, plain_files, read_blocks, read_into
from delegation_core.records.log_lines import MAX_LINE_BYTES
from delegation_core.records.record_text import encode
from tests.audit.chains.evidence import read
from tests.audit.evidence import lawful

pytestmark = pytest.mark.integration

LINES = [json.dumps(one).encode() for one in read(lawful().values())]
WHOLE = b"".join(line + b"\n" for line in LINES)


def zstd(content: bytes) -> bytes:
    if sys.version_info >= (3, 14):
        from compression import zstd
    else:
        from backports import zstd
    return zstd.compress(content)


@pytest.mark.parametrize(
    ("name", "pack"),
    [("a.jsonl", bytes), ("a.jsonl.gz", gzip.compress), ("a.jsonl.zst", zstd)],
    ids=["plain", "gz", "zst"],
)
@pytest.mark.parametrize("size", [100, 5000, 1 << 20])
def test_blocks_hold_whole_lines_of_plain_and_packed_files(
    name: str, pack: "type[bytes]", size: int, tmp_path: Path
) -> None:
    file = tmp_path / name
    file.write_bytes(pack(WHOLE[:-1]))
    blocks = list(read_blocks([str(file)], size=size))
    assert b"".join(block.content for block in blocks) == WHOLE[:-1]
    assert all(block.content.endswith(b"\n") for block in blocks[:-1])
    lines = [block.content.count(b"\n") for block in blocks]
    assert [block.first for block in blocks] == [sum(lines[:number]) for number in range(len(blocks))]


def test_standard_input_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(WHOLE)))
    assert [block.content for block in read_blocks(["-"])] == [WHOLE]


@pytest.mark.parametrize(
    ("name", "content", "text"),
    [
        pytest.param("a.gz", gzip.compress(WHOLE)[:-20], "ends early", id="gz-cut"),
        pytest.param("a.gz", WHOLE, "not a compressed file", id="gz-plain"),
        pytest.param("a.zst", zstd(WHOLE)[:-20], "ends early", id="zst-cut"),
        pytest.param("a.zst", WHOLE, "not a compressed file", id="zst-plain"),
        pytest.param("a.parquet", WHOLE, "not a Parquet file", id="parquet-plain"),
    ],
)
def test_a_broken_file_is_named(name: str, content: bytes, text: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(OSError, match=f"{name}: .*{text}"):
        list(read_blocks([str(tmp_path / name)]))


def test_a_line_without_end_takes_bounded_memory_and_is_no_record(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_bytes(LINES[0] + b"\n" + b"x" * (5 * MAX_LINE_BYTES) + b"\n" + LINES[1] + b"\n")
    blocks = list(read_blocks([str(file)], size=MAX_LINE_BYTES))
    assert max(len(block.content) for block in blocks) < 4 * MAX_LINE_BYTES
    with open_database(threads=1) as database:
        database.read(blocks)
        assert database.rows("SELECT place FROM records ORDER BY place") == [(1,), (2,)]
        assert [place_of(place, [str(file)]) for place in database.unreadable] == [f"{file}:2"]


def test_a_parquet_file_holds_the_same_records_and_no_name_of_a_file_is_sql(tmp_path: Path) -> None:
    import duckdb

    file = tmp_path / "it's'; DROP TABLE records; --.parquet"
    plain = tmp_path / "plain.json"
    plain.write_bytes(WHOLE)
    with duckdb.connect() as connection:
        connection.execute(
            "COPY (SELECT * FROM read_json($from)) TO '" + str(tmp_path / "x.parquet") + "' (FORMAT parquet)",
            {"from": str(plain)},
        )
    (tmp_path / "x.parquet").rename(file)
    with open_database(threads=1) as database:
        database.read(read_blocks([str(file)]))
        from_parquet = database.rows("SELECT event, run, seq, chain, verified, txn FROM records ORDER BY run, seq")
        assert database.unreadable == []
    with open_database(threads=1) as database:
        database.read(read_blocks([str(plain)]))
        assert (
            database.rows("SELECT event, run, seq, chain, verified, txn FROM records ORDER BY run, seq") == from_parquet
        )
        assert len(from_parquet) == len(LINES)
    with pytest.raises(OSError, match="rename it"):
        list(read_blocks([str(file.rename(tmp_path / "a*.parquet"))]))


def test_lawful_files_are_read_whole_and_an_unusual_one_line_by_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    one_by_one = 0
    line_by_line = Database._read_line_by_line

    def counted(database: Database, block: Block) -> None:
        nonlocal one_by_one
        one_by_one += block.content.count(b"\n")
        line_by_line(database, block)

    monkeypatch.setattr(Database, "_read_line_by_line", counted)
    records = [{**one, "seq": number} for number, one in enumerate([*lawful().values()] * 8, 1)]
    lawful_lines = [line + b"\n" for line in encode(records)]
    files = []
    for name in "abc":
        file = tmp_path / f"{name}.jsonl"
        file.write_bytes(b"".join(lawful_lines)[: -1 if name == "c" else None])
        files.append(str(file))
    with open_database(files=plain_files(files), threads=1) as database:
        read_into(database, files)
        assert (database.records, one_by_one) == (288, 0)
    Path(files[1]).write_bytes(b"".join([*lawful_lines[:5], b"what\n", *lawful_lines[6:]]))
    with open_database(files=plain_files(files), threads=1) as database:
        read_into(database, files)
        assert (database.records, one_by_one) == (287, 96)
        assert [place_of(place, files) for place in database.unreadable] == [f"{files[1]}:6"]
        assert database.rows("SELECT count(*) FROM lists WHERE depth = 3")[0][0] >= 1


def test_small_packed_and_oddly_named_files_are_not_left_to_the_database(tmp_path: Path) -> None:
    large = b"\n".join([*encode([*lawful().values()] * 8), b""])
    for name, content in (("a.jsonl", large), ("b*.jsonl", large), ("c.jsonl", large[:100]), ("d.jsonl.gz", large)):
        (tmp_path / name).write_bytes(content)
    assert [Path(file).name for file in plain_files([str(path) for path in tmp_path.iterdir()])] == ["a.jsonl"]
