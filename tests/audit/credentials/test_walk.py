from __future__ import annotations

import gzip
import json
import os
import sys
from collections import Counter
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace

import pytest

from delegation_audit.credentials import walk
from delegation_audit.credentials.walk import MAX_FILE_BYTES, text_files
from delegation_core.records import folders
from delegation_core.records.folders import TooLargeError
from tests.audit.credentials.test_recorded import RECORD

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd


def read(*paths: Path) -> tuple[dict[str, str | None], Counter[str]]:
    skipped: Counter[str] = Counter()
    return {file.name: file.text for file in text_files([str(path) for path in paths], skipped)}, skipped


def test_files_and_folders_are_read_and_each_file_once(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    file = tmp_path / "a" / "x.txt"
    file.write_text("text")
    assert read(tmp_path, file)[0] == {str(file): "text"}


@pytest.mark.parametrize("filling", [b"a", b"\n"], ids=["a line without end", "blank lines without end"])
def test_the_beginning_of_a_compressed_file_is_unpacked_and_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, filling: bytes
) -> None:
    monkeypatch.setattr(walk, "MAX_LINE_BYTES", 4096)
    record = gzip.compress(json.dumps(RECORD).encode() + b"\n")
    (tmp_path / "lawful.jsonl.gz").write_bytes(record)
    (tmp_path / "bomb.jsonl.gz").write_bytes(gzip.compress(filling * 5000) + b"no gzip: reading on fails" + record)
    read_of: Counter[str] = Counter()

    class Watched(gzip.GzipFile):
        def read(self, size: int | None = -1) -> bytes:
            content = super().read(size)
            read_of[Path(str(self.name)).name] += len(content)
            return content

        def readline(self, size: int | None = -1) -> bytes:
            raise AssertionError("a line may have no end")

    monkeypatch.setattr(gzip, "GzipFile", Watched)
    files, skipped = read(tmp_path)
    assert files == {str(tmp_path / "lawful.jsonl.gz"): None}
    assert skipped["binary"] == 1
    assert read_of["bomb.jsonl.gz"] == 4096


def test_what_is_not_read_is_counted_by_its_reason(tmp_path: Path) -> None:
    (tmp_path / "node_modules").mkdir()
    (tmp_path / "node_modules" / "x").write_text("text")
    (tmp_path / "zero").write_bytes(b"a\0b")
    (tmp_path / "picture.png").write_text("text")
    (tmp_path / "big").write_bytes(b"a" * (MAX_FILE_BYTES + 1))
    (tmp_path / "data").write_bytes(b"a\0" * (MAX_FILE_BYTES // 2 + 1))
    (tmp_path / "whole").write_bytes(b"a" * MAX_FILE_BYTES)
    os.mkfifo(tmp_path / "pipe")
    files, skipped = read(tmp_path)
    assert list(files) == [str(tmp_path / "whole")]
    assert skipped == {"folders of tools, or too deep": 1, "binary": 3, "larger than 8 MiB": 1, "no regular files": 1}


def test_a_link_in_a_folder_leads_nowhere_and_a_given_one_is_followed(tmp_path: Path) -> None:
    (tmp_path / "target").write_text("text")
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "loop").symlink_to(folder)
    (folder / "link").symlink_to(tmp_path / "target")
    assert read(folder)[0] == {}
    assert read(folder / "link")[0] == {str(folder / "link"): "text"}


def test_utf_16_with_a_mark_is_text(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes("KEY=a".encode("utf-16"))
    assert read(tmp_path / "x")[0] == {str(tmp_path / "x"): "KEY=a"}


def test_a_path_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="absent"):
        read(tmp_path / "absent")


def test_a_stream_of_records_has_no_text_and_no_limit(tmp_path: Path) -> None:
    (tmp_path / "records.jsonl").write_text(json.dumps(RECORD) + "\n" + " " * MAX_FILE_BYTES)
    (tmp_path / "other.jsonl").write_text("{}\n")
    assert read(tmp_path)[0] == {str(tmp_path / "records.jsonl"): None, str(tmp_path / "other.jsonl"): "{}\n"}


@pytest.mark.parametrize("ending", [".gz", ".zst"])
def test_a_compressed_stream_of_records_is_read_as_one(ending: str, tmp_path: Path) -> None:
    pack = gzip.compress if ending == ".gz" else zstd.compress
    (tmp_path / f"records.jsonl{ending}").write_bytes(pack(json.dumps(RECORD).encode() + b"\n"))
    (tmp_path / f"text{ending}").write_bytes(pack(b"text\n"))
    assert read(tmp_path) == ({str(tmp_path / f"records.jsonl{ending}"): None}, {"binary": 1})


def test_a_given_file_above_the_limit_is_refused(tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(b"a" * (MAX_FILE_BYTES + 1))
    with pytest.raises(TooLargeError, match="big: larger than 8 MiB; split it"):
        read(tmp_path / "big")


def test_standard_input_is_read_up_to_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walk, "MAX_STDIN_BYTES", 4)
    for content, fits in ((b"KEY=", True), (b"KEY=a", False)):
        monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=BytesIO(content)))
        if fits:
            assert read(Path("-"))[0] == {"-": "KEY="}
        else:
            with pytest.raises(TooLargeError, match="standard input is larger"):
                read(Path("-"))


def test_too_many_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folders, "MAX_FILES", 2)
    for name in "ab":
        (tmp_path / name).write_text(name)
    assert len(read(tmp_path)[0]) == 2
    (tmp_path / "c").write_text("c")
    with pytest.raises(TooLargeError, match="more than 2 files"):
        read(tmp_path)
