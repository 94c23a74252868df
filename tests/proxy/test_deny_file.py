"""A deny list that is followed never denies less than the last one that could be used."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from delegation_core.deny_list import MAX_DENY_BYTES, DenyListError
from sidecar.proxy.listening.deny_file import DenyFile, fingerprint_of


def write(path: Path, *jtis: str) -> None:
    path.write_text(json.dumps({"deny": [{"jti": jti} for jti in jtis]}))


def replace(path: Path, *jtis: str) -> None:
    """Replace the file as a Kubernetes volume or a careful editor does."""
    beside = path.with_suffix(".new")
    write(beside, *jtis)
    beside.rename(path)


def touch(path: Path) -> None:
    path.touch()


def write_nothing(path: Path) -> None:
    path.write_text("")


def sha256_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def look(path: Path) -> object:
    return fingerprint_of(path.stat())


class Followed:
    """One followed file, and what was told of it."""

    def __init__(self, path: Path) -> None:
        self.file = DenyFile(path)
        self.told: list[str] = []
        self.file.after_change = lambda: self.told.append("changed")
        self.file.after_refusal = lambda: self.told.append("refused")

    @property
    def denied(self) -> set[str] | None:
        return None if self.file.deny is None else set(self.file.deny.jtis)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "deny.json"


async def test_a_changed_file_is_in_force_with_the_next_look(path: Path) -> None:
    followed = Followed(path)
    for change, jtis in ((write, ("a",)), (write, ("a", "b")), (replace, ("c",)), (replace, ())):
        change(path, *jtis)
        await followed.file.look()
        assert followed.denied == set(jtis)
    assert followed.told == ["changed"] * 4


async def test_an_unchanged_file_is_told_of_once(path: Path) -> None:
    followed = Followed(path)
    write(path, "a")
    for _ in range(4):
        await followed.file.look()
    touch(path)
    await followed.file.look()
    assert followed.told == ["changed"]


async def test_two_writes_that_look_alike_are_both_read(path: Path) -> None:
    followed = Followed(path)
    write(path, "a")
    await followed.file.look()
    write(path, "b")
    followed.file._seen = look(path)  # as if both came within one tick of the file system's clock
    await followed.file.look()
    assert followed.denied == {"b"}
    await followed.file.look()
    write(path, "c")
    followed.file._seen = look(path)  # which cannot be: it was read twice, a second apart
    await followed.file.look()
    assert followed.denied == {"b"}


async def test_the_hash_is_that_of_the_file(path: Path) -> None:
    followed = Followed(path)
    write(path, "a")
    await followed.file.look()
    row = followed.file.row()
    assert row is not None
    assert row["sha256"] == sha256_of(path)
    assert (row["rows"], row["error"], row["file"]) == (1, None, str(path))


def remove(path: Path) -> None:
    path.unlink()


def make_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def make_endless(path: Path) -> None:
    path.unlink()
    path.symlink_to("/dev/zero")


def make_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "removed": (remove, "No such file"),
    "a folder": (make_folder, "regular file|Is a directory"),
    "a pipe that nobody writes": (make_pipe, "not a regular file"),
    "empty": (lambda path: path.write_text(""), "not an object"),
    "half written": (lambda path: path.write_text('{"deny": [{"jti": "a"}'), "not JSON"),
    "YAML": (lambda path: path.write_text("deny:\n- jti: a\n"), "not an object"),
    "a row too many names": (lambda path: path.write_text('{"deny": [{"jti": "a", "txn": "b"}]}'), "exactly one"),
    "too large": (lambda path: path.write_text(" " * (MAX_DENY_BYTES + 1)), "too large"),
    "endless": (make_endless, "not a regular file"),
}


@pytest.mark.parametrize(("spoil", "why"), BROKEN.values(), ids=BROKEN.keys())
async def test_a_file_that_cannot_be_used_changes_nothing_and_is_told_of_once(
    path: Path, spoil: Callable[[Path], object], why: str
) -> None:
    followed = Followed(path)
    write(path, "a")
    await followed.file.look()
    in_force = followed.file.row()
    spoil(path)
    for _ in range(3):
        await followed.file.look()
    assert followed.denied == {"a"}
    assert followed.told == ["changed", "refused"]
    assert any(word in (followed.file.error or "") for word in why.split("|"))
    told = followed.file.row()
    assert told is not None
    assert in_force is not None
    assert told | {"error": None, "age_s": 0} == in_force | {"age_s": 0}
    assert followed.file.missing() == []


@pytest.mark.parametrize(("spoil", "why"), BROKEN.values(), ids=BROKEN.keys())
async def test_without_a_first_list_the_reason_is_missing(
    path: Path, spoil: Callable[[Path], object], why: str
) -> None:
    followed = Followed(path)
    write(path, "a")
    spoil(path)
    await followed.file.look()
    assert followed.denied is None
    (missing,) = followed.file.missing()
    assert missing.startswith("deny_file: ")
    assert any(word in missing for word in why.split("|")), missing


async def test_a_repaired_file_is_in_force_again_and_told_of_even_if_it_is_the_one_before(path: Path) -> None:
    followed = Followed(path)
    write(path, "a")
    await followed.file.look()
    write_nothing(path)
    await followed.file.look()
    write(path, "a")
    await followed.file.look()
    assert (followed.denied, followed.file.error) == ({"a"}, None)
    assert followed.told == ["changed", "refused", "changed"]


async def test_another_file_is_followed_only_if_it_can_be_used(path: Path, tmp_path: Path) -> None:
    followed, other = Followed(path), tmp_path / "other.json"
    write(path, "a")
    await followed.file.look()
    with pytest.raises(DenyListError, match="No such file"):
        await followed.file.read(other)
    assert (followed.file.path, followed.denied) == (path, {"a"})
    write(other, "b")
    follow = await followed.file.read(other)
    assert (followed.file.path, followed.denied) == (path, {"a"})
    follow()
    assert (followed.file.path, followed.denied) == (other, {"b"})
    write(other, "c", "d")
    await followed.file.look()
    assert followed.denied == {"c", "d"}
    (await followed.file.read(None))()
    await followed.file.look()
    assert followed.file.row() is None
    assert followed.file.deny is None
    assert followed.file.missing() == []
    assert followed.told == ["changed"] * 4


async def test_a_look_that_began_at_the_file_before_changes_nothing_of_the_one_that_is_followed_since(
    path: Path, tmp_path: Path
) -> None:
    for spoil in (lambda path: write(path, "late"), write_nothing, remove):
        followed, other = Followed(path), tmp_path / "other.json"
        write(path, "a")
        await followed.file.look()
        write(other, "b")
        follow = await followed.file.read(other)
        spoil(path)
        looking = asyncio.ensure_future(followed.file.look())
        await asyncio.sleep(0)  # it reads in its thread now
        follow()
        await looking
        assert (followed.file.path, followed.denied, followed.file.error) == (other, {"b"}, None)
