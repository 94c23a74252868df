"""A repository that leads out of the audited folder by any of its files is not read; one that stays inside is."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from delegation_audit.credentials.repositories import LeadsOutError, repositories_of, require_inside


def bare(place: Path) -> Path:
    """Write the files by which a Git directory is known."""
    for folder in ("objects/info", "objects/pack", "refs/heads"):
        (place / folder).mkdir(parents=True)
    (place / "HEAD").write_text("ref: refs/heads/main\n")
    (place / "config").write_text("[core]\n\trepositoryformatversion = 0\n")
    return place


def as_file(root: Path, other: Path) -> None:
    (root / "repo").mkdir()
    (root / "repo" / ".git").write_text(f"gitdir: {other}\n")


def as_relative_file(root: Path, other: Path) -> None:
    (root / "repo").mkdir()
    (root / "repo" / ".git").write_text(f"gitdir: {os.path.relpath(other, root / 'repo')}\n")


def as_link(root: Path, other: Path) -> None:
    (root / "repo").mkdir()
    (root / "repo" / ".git").symlink_to(other)


def by_the_folder(root: Path, other: Path) -> None:
    other.parent.joinpath("work").mkdir()
    other.rename(other.parent / "work" / ".git")
    (root / "repo").symlink_to(other.parent / "work")


def by_commondir(root: Path, other: Path) -> None:
    bare(root / "repo" / ".git").joinpath("commondir").write_text(f"{other}\n")


def by_alternates(root: Path, other: Path) -> None:
    bare(root / "repo" / ".git").joinpath("objects/info/alternates").write_text(f"# one\n{other / 'objects'}\n")


def by_alternates_of_alternates(root: Path, other: Path) -> None:
    first = bare(root / "first")
    (first / "objects/info/alternates").write_text(f"{other / 'objects'}\n")
    bare(root / "repo" / ".git").joinpath("objects/info/alternates").write_text(f"{first / 'objects'}\n")


def by_alternates_behind_many_comments(root: Path, other: Path) -> None:
    content = "#\n" * 50_000 + f"{other / 'objects'}\n"
    bare(root / "repo" / ".git").joinpath("objects/info/alternates").write_text(content)


def by_quoted_alternates(root: Path, other: Path) -> None:
    """Git reads escapes within quotes; a folder of just that name lies inside."""
    objects, name = bare(root / "repo" / ".git") / "objects", f'"{other}/objects"'.replace("/", "\\057")
    (objects / name).mkdir()
    (objects / "info/alternates").write_text(f"{name}\n")


def by_a_linked_objects_folder(root: Path, other: Path) -> None:
    git = bare(root / "repo" / ".git")
    (git / "objects" / "aa").symlink_to(other / "objects")


def by_a_linked_pack(root: Path, other: Path) -> None:
    (other / "objects/pack/a.pack").write_bytes(b"PACK")
    bare(root / "repo" / ".git").joinpath("objects/pack/a.pack").symlink_to(other / "objects/pack/a.pack")


def by_a_linked_ref(root: Path, other: Path) -> None:
    bare(root / "repo" / ".git").joinpath("refs/heads/main").symlink_to(other / "HEAD")


Way = Callable[[Path, Path], None]
WAYS: list[Way] = [
    as_file, as_relative_file, as_link, by_the_folder, by_commondir, by_alternates, by_alternates_of_alternates,
    by_a_linked_objects_folder, by_a_linked_pack, by_a_linked_ref,
]  # fmt: skip


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_a_repository_must_lie_in_the_audited_folder(way: Way, tmp_path: Path) -> None:
    root, other = tmp_path / "audited", bare(tmp_path / "elsewhere")
    root.mkdir()
    way(root, other)
    with pytest.raises(LeadsOutError):
        require_inside(root / "repo", root)
    require_inside(root / "repo", tmp_path)  # a folder that holds both is audited as a whole


@pytest.mark.parametrize(
    "config",
    ["[include]\n\tpath = /etc/x\n", '[includeIf "gitdir:/"]\npath=x\n', " [ INCLUDE ]", "[a][include]\npath=x\n"],
)
@pytest.mark.parametrize("name", ["config", "config.worktree"])
def test_configuration_that_includes_files_is_not_followed(config: str, name: str, tmp_path: Path) -> None:
    git = bare(tmp_path / ".git")
    require_inside(tmp_path, tmp_path)
    for before in ("[core]\n\tbare = false\n", "\ufeff"):
        (git / name).write_text(f"{before}{config}")
        with pytest.raises(LeadsOutError):
            require_inside(tmp_path, tmp_path)


@pytest.mark.parametrize(
    "content", [b"", b"x", b"gitdir: nowhere", b"gitdir: " + b"a" * 5000, b"gitdir: .git", b"gitdir: a\0b"]
)
def test_a_pointer_that_cannot_be_followed_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / ".git").write_bytes(content)
    with pytest.raises(LeadsOutError):
        require_inside(tmp_path, tmp_path)


def test_alternates_that_may_be_read_in_two_ways_are_refused(tmp_path: Path) -> None:
    other = bare(tmp_path / "elsewhere")
    (root := tmp_path / "audited").mkdir()
    by_quoted_alternates(root, other)
    with pytest.raises(LeadsOutError):
        require_inside(root / "repo", root)
    alternates = root / "repo/.git/objects/info/alternates"
    alternates.write_text(alternates.read_text().strip('"\n'))
    with pytest.raises(LeadsOutError):
        require_inside(root / "repo", root)
    (root / "repo/.git/objects/plain").mkdir()
    alternates.write_text("plain\n")
    require_inside(root / "repo", root)


def test_alternates_that_are_too_long_are_refused_as_a_whole(tmp_path: Path) -> None:
    other = bare(tmp_path / "elsewhere")
    by_alternates_behind_many_comments(tmp_path, other)
    with pytest.raises(LeadsOutError):
        require_inside(tmp_path / "repo", tmp_path)


def test_loops_end(tmp_path: Path) -> None:
    git = bare(tmp_path / ".git")
    (git / "objects/info/alternates").write_text("../objects\n")
    require_inside(tmp_path, tmp_path)
    (git / "refs/loop").symlink_to("loop")
    with pytest.raises(LeadsOutError):
        require_inside(tmp_path, tmp_path)


def test_repositories_around_and_below_are_found_with_the_folder_that_bounds_them(tmp_path: Path) -> None:
    bare(tmp_path / ".git")
    bare(tmp_path / "a/b/.git")
    (tmp_path / "c").mkdir()
    (tmp_path / "c/.git").symlink_to(tmp_path / "nowhere")
    inner = tmp_path / "a"
    assert list(repositories_of(inner)) == [(tmp_path, tmp_path), (tmp_path / "a/b", inner)]
    assert next(iter(repositories_of(tmp_path))) == (tmp_path, tmp_path)
    assert (tmp_path / "c", tmp_path / "c") in repositories_of(tmp_path / "c")
