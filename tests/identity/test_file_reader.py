from __future__ import annotations

import os
from pathlib import Path

import pytest

from sidecar.identity import file_reader
from sidecar.identity.file_reader import Absent, Present, Unreadable, Watched, look_at, look_at_all, too_open


def written(path: Path, content: bytes = b"x", mode: int = 0o600) -> Path:
    path.write_bytes(content)
    path.chmod(mode)
    return path


def test_a_file_is_what_it_holds(tmp_path: Path) -> None:
    seen = look_at(Watched(written(tmp_path / "f", b"content"), private=True))
    assert isinstance(seen, Present)
    assert seen.content == b"content"
    assert "content" not in repr(seen)


def test_an_unchanged_file_is_not_read_again(tmp_path: Path) -> None:
    file = Watched(written(tmp_path / "f"))
    first = look_at(file)
    assert look_at(file, first) is first


@pytest.mark.parametrize("in_place", [True, False])
def test_a_file_that_changed_is_read_again_though_its_size_and_time_are_the_same(
    tmp_path: Path, in_place: bool
) -> None:
    path = written(tmp_path / "f", b"one")
    first = look_at(Watched(path))
    status = path.stat()
    if in_place:
        written(path, b"two")
    else:
        written(tmp_path / "g", b"two").replace(path)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    second = look_at(Watched(path), first)
    assert second != first
    assert isinstance(second, Present)
    assert second.content == b"two"


def test_links_are_followed_so_that_one_swap_changes_all(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        written(tmp_path / name / "f", name.encode())
    (tmp_path / "..data").symlink_to("one")
    file = Watched(tmp_path / "..data" / "f")
    first = look_at(file)
    (tmp_path / "..tmp").symlink_to("two")
    (tmp_path / "..tmp").replace(tmp_path / "..data")
    second = look_at(file, first)
    assert isinstance(second, Present)
    assert second.content == b"two"


@pytest.mark.parametrize("name", ["missing", "missing/below", "file/below", "dangling"])
def test_what_is_not_there_is_absent(tmp_path: Path, name: str) -> None:
    written(tmp_path / "file")
    (tmp_path / "dangling").symlink_to("nowhere")
    seen = look_at(Watched(tmp_path / name))
    assert isinstance(seen, Absent)
    assert seen.why.endswith("is missing")


def test_what_is_there_and_no_file_cannot_be_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    for name in ("pipe", "loop", "."):
        assert isinstance(look_at(Watched(tmp_path / name)), Unreadable), name


def test_a_file_is_read_up_to_a_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_reader, "MAX_FILE_BYTES", 3)
    assert isinstance(look_at(Watched(written(tmp_path / "f", b"abc"))), Present)
    assert isinstance(look_at(Watched(written(tmp_path / "f", b"abcd"))), Unreadable)


def test_a_private_file_that_others_can_read_is_not_read(tmp_path: Path) -> None:
    path = written(tmp_path / "key", mode=0o644)
    seen = look_at(Watched(path, private=True))
    assert isinstance(seen, Unreadable)
    assert "chmod 0600" in seen.why
    assert isinstance(look_at(Watched(path)), Present)


def test_a_private_file_that_is_opened_to_others_is_noticed(tmp_path: Path) -> None:
    file = Watched(written(tmp_path / "key"), private=True)
    first = look_at(file)
    file.path.chmod(0o644)
    assert isinstance(look_at(file, first), Unreadable)


US, ROOT = 1000, 0
# mode, owner -> whether others can read it, for a process that runs as US
OPEN = {
    "ours alone": (0o600, US, False),
    "ours, to read": (0o400, US, False),
    "ours, and our group's": (0o640, US, True),
    "ours, and everybody's": (0o604, US, True),
    "root's, by our group": (0o440, ROOT, False),
    "root's, by our group, which may change it": (0o460, ROOT, True),
    "root's, by our group, which may run it": (0o450, ROOT, True),
    "root's, and everybody's": (0o444, ROOT, True),
    "root's, and everybody may change it": (0o402, ROOT, True),
    "root's, and everybody may run it": (0o401, ROOT, True),
}


@pytest.mark.parametrize("case", OPEN)
def test_who_may_read_a_private_file(case: str) -> None:
    mode, owner, open_ = OPEN[case]
    assert too_open(0o100000 | mode, owner=owner, user=US) is open_


def test_all_files_are_looked_at(tmp_path: Path) -> None:
    files = [Watched(written(tmp_path / "a")), Watched(tmp_path / "b")]
    first = look_at_all(files, {})
    assert [type(seen) for seen in first.values()] == [Present, Absent]
    second = look_at_all(files, first)
    assert second == first
    assert second[files[0].path] is first[files[0].path]
