from __future__ import annotations

import logging
from pathlib import Path

import pytest

from sidecar.observe.operations import OneLine
from sidecar.observe.spill import spill

LINES = (
    b'{"run":"r","seq":7,"event":"request","request_id":"a","decision":"allow","reason":"ok","status":200,"path":"/s"}\n'
    b'{"run":"r","seq":8,"event":"stopped","request_id":null,"decision":null,"reason":null,"status":null,"path":null}\n'
)


def logged(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [OneLine().format(record).partition(" ")[2] for record in caplog.records]


NAMED = [
    "ERROR records were not written: each is named below count=2",
    "ERROR record not written run=r seq=7 event=request request_id=a decision=allow reason=ok status=200",
    "ERROR record not written run=r seq=8 event=stopped request_id=- decision=- reason=- status=-",
]


@pytest.fixture(autouse=True)
def everything_is_heard(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)


def test_a_folder_gets_them_whole_and_private(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    spill(LINES, tmp_path, "r")
    file = tmp_path / "records-r.jsonl"
    assert file.read_bytes() == LINES
    assert file.stat().st_mode & 0o777 == 0o600
    assert logged(caplog) == [f"ERROR records were spilled: append the file to the record stream count=2 file={file}"]


def test_without_a_folder_each_is_named(caplog: pytest.LogCaptureFixture) -> None:
    spill(LINES, None, "r")
    assert logged(caplog) == NAMED


@pytest.mark.parametrize("taken", ["no folder", "a file of that name", "a link of that name"])
def test_a_folder_that_does_not_take_them_is_told_and_each_is_named(
    taken: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "spill"
    if taken != "no folder":
        folder.mkdir()
    if taken == "a file of that name":
        (folder / "records-r.jsonl").write_bytes(b"before")
    if taken == "a link of that name":
        (folder / "records-r.jsonl").symlink_to(tmp_path / "elsewhere")
    spill(LINES, folder, "r")
    first, *named = logged(caplog)
    assert first.startswith("ERROR records cannot be spilled file=")
    assert named == NAMED
    assert not (tmp_path / "elsewhere").exists()


def test_a_line_that_cannot_be_read_is_told_too(caplog: pytest.LogCaptureFixture) -> None:
    spill(b"{torn\n", None, "r")
    assert logged(caplog)[-1] == "ERROR record not written record=unreadable"
