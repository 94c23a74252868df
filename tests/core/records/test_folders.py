"""Walks are bounded, follow no link, leave out folders of tools, and count what they skip."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest

from delegation_core.records import folders
from delegation_core.records.folders import LEFT_OUT, SPECIAL, UNREADABLE, TooLargeError, find_files, record_files


def put(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("x")


def found(*paths: Path | str) -> list[str]:
    return [Path(file.path).name for file in find_files([str(path) for path in paths])]


def test_files_of_folders_come_sorted_and_named_ones_as_they_are(tmp_path: Path) -> None:
    put(tmp_path, "b", "a", "in/c", "given")
    files = list(find_files([str(tmp_path / "in"), "-", str(tmp_path / "given"), "absent"]))
    assert files == [(str(tmp_path / "in/c"), False), ("-", True), (str(tmp_path / "given"), True), ("absent", True)]
    assert found(tmp_path) == ["a", "b", "given", "c"]


def test_what_is_left_out_is_counted_by_its_reason(tmp_path: Path) -> None:
    put(tmp_path, "a", "node_modules/x", ".git/x", "in/.venv/x", "in/b")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "link").symlink_to(tmp_path / "a")
    skipped: Counter[str] = Counter()
    assert [Path(file.path).name for file in find_files([str(tmp_path)], skipped)] == ["a", "b"]
    assert skipped == {LEFT_OUT: 3, SPECIAL: 2}


def test_a_folder_is_walked_to_a_depth_and_no_deeper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folders, "MAX_DEPTH", 2)
    put(tmp_path, "1/2/a", "1/2/3/b")
    skipped: Counter[str] = Counter()
    assert [Path(file.path).name for file in find_files([str(tmp_path)], skipped)] == ["a"]
    assert skipped == {LEFT_OUT: 1}


def test_a_folder_that_cannot_be_read_is_an_error_unless_it_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path, "in/a")
    real = os.scandir

    def refuse(path: str) -> object:
        if str(path).endswith("in"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(PermissionError, match="in'"):
        found(tmp_path)
    skipped: Counter[str] = Counter()
    assert list(find_files([str(tmp_path)], skipped)) == []
    assert skipped == {UNREADABLE: 1}


def test_too_many_files_are_refused_over_all_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folders, "MAX_FILES", 2)
    put(tmp_path, "x/a", "y/b")
    assert found(tmp_path / "x", tmp_path / "y") == ["a", "b"]
    put(tmp_path, "y/c")
    with pytest.raises(TooLargeError, match="y: more than 2 files; name the folders that matter"):
        found(tmp_path / "x", tmp_path / "y")


def test_records_are_found_in_folders_and_by_patterns_and_each_once(tmp_path: Path) -> None:
    put(tmp_path, "a.records", "b.jsonl.gz", "in/c.log.zst", "in/d.parquet", "e.txt")
    paths = [str(tmp_path), f"{tmp_path}/*.records"]
    assert [Path(file).name for file in record_files(paths)] == ["a.records", "b.jsonl.gz", "c.log.zst"]
    assert [Path(file).name for file in record_files(paths, endings=(".parquet",))] == ["d.parquet", "a.records"]
    assert record_files([str(tmp_path / "e.txt"), "-"]) == [str(tmp_path / "e.txt"), "-"]


def test_a_pipe_that_is_named_is_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert record_files([str(tmp_path / "pipe")]) == [str(tmp_path / "pipe")]


def test_a_path_without_records_is_named_with_its_fix(tmp_path: Path) -> None:
    put(tmp_path, "e.txt")
    with pytest.raises(OSError, match=r"holds no record file \(\.records, .*name the files"):
        record_files([str(tmp_path)])
    with pytest.raises(FileNotFoundError, match=r"nothing: No such file, folder or pattern"):
        record_files([str(tmp_path / "*.nothing")])
