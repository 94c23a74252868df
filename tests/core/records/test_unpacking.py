"""Compressed files are read within a ratio, a size and a time, by one class, and nothing else unpacks."""

from __future__ import annotations

import ast
import gzip
import json
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from delegation_core.records import unpacking
from delegation_core.records.log_lines import open_file, read_lines
from delegation_core.records.unpacking import Meter
from sidecar.cli import main
from tests.sources import PACKAGES, ROOT, python_files

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

PACK: Final[dict[str, Callable[[bytes], bytes]]] = {".gz": gzip.compress, ".zst": zstd.compress}
BOMBS: Final = {
    "one line": b"a" * (6 << 20),
    "blank lines": b"\n" * (6 << 20),
    "short lines": (b"a" * 63 + b"\n") * (6 << 14),
    "lines of nearly a megabyte": (b"a" * 1_000_000 + b"\n") * 6,
}
LAWFUL: Final = "".join(json.dumps({"path": f"/{n * 7919 % 9973}", "id": n}) + "\n" for n in range(40_000)).encode()


@pytest.mark.parametrize("ending", PACK)
@pytest.mark.parametrize("bomb", BOMBS)
def test_a_file_that_unpacks_to_too_much_is_not_read_to_its_end(
    ending: str, bomb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unpacking, "FREE_BYTES", 1 << 20)
    file = tmp_path / f"records.jsonl{ending}"
    file.write_bytes(PACK[ending](BOMBS[bomb]))
    assert file.stat().st_size < 25 << 10
    read: list[int] = []
    lines = read_lines([str(file)])
    with pytest.raises(OSError, match=rf"records\.jsonl{ending}: unpacks to more than 200 .* the rest was not read"):
        read.extend(len(line.content or b"") + 1 for line in lines)
    assert sum(read) <= max(1 << 20, file.stat().st_size * 200) + (1 << 20)


@pytest.mark.parametrize("ending", PACK)
def test_a_lawful_file_is_read_to_its_end(ending: str, tmp_path: Path) -> None:
    file = tmp_path / f"records.jsonl{ending}"
    file.write_bytes(PACK[ending](LAWFUL))
    assert b"".join((line.content or b"") + b"\n" for line in read_lines([str(file)])) == LAWFUL
    with open_file(str(file)) as (stream, _):
        assert b"".join(iter(lambda: stream.read(1 << 20), b"")) == LAWFUL


def test_the_commands_that_read_records_refuse_a_bomb_and_name_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unpacking, "FREE_BYTES", 1 << 18)
    file = tmp_path / "records.jsonl.zst"
    file.write_bytes(zstd.compress(b"{}\n" * (1 << 18)))
    for command in ("suggest", "verify"):
        assert main(["audit", command, str(file)]) == 2
        assert "records.jsonl.zst: unpacks to more than" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("made", "consumed", "seconds", "problem"),
    [
        pytest.param(unpacking.FREE_BYTES, 1, 0, None, id="free"),
        pytest.param(unpacking.FREE_BYTES + 1, 1, 0, "unpacks to more", id="more"),
        pytest.param(1 << 30, (1 << 30) // 200 + 1, 0, None, id="ratio"),
        pytest.param(1 << 30, (1 << 30) // 201, 0, "unpacks to more", id="higher ratio"),
        pytest.param(unpacking.MAX_BYTES + 1, 1 << 40, 0, "unpacks to more", id="bytes"),
        pytest.param(1 << 16, 1 << 16, 10.5, None, id="time"),
        pytest.param(1 << 16, 1 << 16, 11.5, "takes too long", id="more time"),
        pytest.param(1 << 16, 100 << 16, 109, None, id="the time of a larger file"),
        pytest.param(1 << 16, 100 << 16, 111, "takes too long", id="more than that"),
    ],
)
def test_the_bounds_are_of_ratio_bytes_and_time(
    made: int, consumed: int, seconds: float, problem: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [5.0]
    monkeypatch.setattr(time, "process_time", lambda: clock[0])
    meter = Meter("a.gz", lambda: consumed)
    clock[0] += seconds
    if problem is None:
        meter.add(made)
    else:
        with pytest.raises(OSError, match=f"^a.gz: {problem}"):
            meter.add(made)


def test_time_is_judged_also_where_reads_bring_little(monkeypatch: pytest.MonkeyPatch) -> None:
    meter = Meter("a.gz", lambda: 1)
    monkeypatch.setattr(time, "process_time", lambda: 1e9)
    with pytest.raises(OSError, match="takes too long"):
        list(map(meter.add, [1] * 1000))


UNPACKING: Final = frozenset(
    {"gzip", "zlib", "bz2", "lzma", "zipfile", "tarfile", "zstd", "zstandard", "compression", "backports", "brotli",
     "brotlicffi", "snappy", "lz4", "py7zr", "zipimport", "unpack_archive"}
)  # fmt: skip
_NAMED: Final = re.compile("|".join((*sorted(UNPACKING), "read_parquet", "import_module")))
# Each place that unpacks foreign bytes, with the bound it has.
PLACES: Final = {
    "core/delegation_core/records/unpacking.py": "this file's bounds",
    "audit/delegation_audit/chains/inputs.py": "Parquet, by DuckDB, with this file's meter",
    "core/delegation_core/grpc_messages.py": "one message, to max_bytes",
}


def unpacks(source: str) -> bool:
    """Tell if a module imports or names something that unpacks."""
    if _NAMED.search(source) is None:
        return False
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names.update(part for one in node.names for part in one.name.split("."))
        elif isinstance(node, ast.ImportFrom):
            names.update((node.module or "").split("."), (one.name for one in node.names))
        elif isinstance(node, ast.Attribute):
            names.add(node.attr)
    return (
        bool(names & UNPACKING) or re.search(r"read_parquet|import_module\(.*(zip|zstd|zlib|lzma)", source) is not None
    )


def test_nothing_else_in_the_product_unpacks() -> None:
    found = {str(one.relative_to(ROOT)) for one in python_files(*PACKAGES) if unpacks(one.read_text(encoding="utf-8"))}
    assert found == PLACES.keys()


@pytest.mark.parametrize(
    "source",
    ["import gzip", "from zlib import decompress", "import shutil\nshutil.unpack_archive('a')", "import a.zstd"],
)
def test_a_module_that_unpacks_is_noticed(source: str) -> None:
    assert unpacks(source)
    assert not unpacks("import json")
