"""Finds the Git repositories of audited folders, and checks that each lies entirely inside its folder.

Files of a repository determine where Git reads its objects: ``.git`` as a file or a link, ``commondir``, alternates,
links among its files, and configuration that includes other files. A repository that refers to places outside of the
audited folder would reveal files that were not given for the audit.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

MAX_ENTRIES: Final = 500_000  # of one repository
OUTSIDE: Final = (
    "histories of repositories that lead out of the audited folder; audit a folder that holds both, such as the main"
    " repository of a worktree or submodule"
)
_MAX_POINTER_BYTES: Final = 4096
_MAX_ALTERNATES: Final = 16
_INCLUDES: Final = re.compile(rb"\[\s*include(if)?\b", re.IGNORECASE)  # anywhere: a header may follow another


class LeadsOutError(Exception):
    """A repository refers to a place outside of the audited folder, or its references cannot be checked."""


def repositories_of(folder: Path) -> Iterator[tuple[Path, Path]]:
    """Yield the repository at or around a folder, and those up to two levels below, each with its permitted root."""
    around = [one for one in (folder, *folder.resolve().parents) if os.path.lexists(one / ".git")][:1]
    for one in around:
        yield one, one
    for pattern in ("*/.git", "*/*/.git"):
        for one in sorted(folder.glob(pattern)):
            yield one.parent, folder


def require_inside(repository: Path, root: Path) -> None:
    """Check every reference of a repository to another place.

    Raises:
        LeadsOutError: a reference leads out of ``root``, or cannot be followed.
    """
    root = root.resolve()
    try:
        if not repository.resolve().is_relative_to(root):
            raise LeadsOutError
        _check(repository / ".git", root)
    except (OSError, ValueError, RuntimeError):  # RuntimeError: a loop of links
        raise LeadsOutError from None


def _check(git: Path, root: Path) -> None:
    if git.is_file():
        git = _inside(git.parent, _pointer(git, b"gitdir:"), root)
    places = [_inside(git.parent, git.name, root)]
    common = git / "commondir"
    if os.path.lexists(common):
        places.append(_inside(git, _pointer(common, b""), root))
    objects = [_inside(place, "objects", root) for place in places if os.path.lexists(place / "objects")]
    for at, folder in enumerate(objects):
        alternates = folder / "info" / "alternates"
        if not os.path.lexists(alternates):
            continue
        _inside(folder, "info/alternates", root)
        found = [_inside(folder, name, root) for name in _alternates(alternates)]
        objects += [one for one in found if one not in objects]
        if at > _MAX_ALTERNATES or len(objects) > _MAX_ALTERNATES:
            raise LeadsOutError
    for place in dict.fromkeys([*places, *objects]):
        _check_tree(place, root)
    for place in places:
        for name in ("config", "config.worktree"):
            if (place / name).exists() and _INCLUDES.search((place / name).read_bytes()):
                raise LeadsOutError


def _pointer(file: Path, word: bytes) -> str:
    with file.open("rb") as stream:
        text = stream.read(_MAX_POINTER_BYTES + 1)
    if len(text) > _MAX_POINTER_BYTES or not text.startswith(word):
        raise LeadsOutError
    return os.fsdecode(text.removeprefix(word).strip())


def _alternates(file: Path) -> list[str]:
    with file.open("rb") as stream:
        text = stream.read(_MAX_POINTER_BYTES * _MAX_ALTERNATES + 1)
    named = [line for line in text.split(b"\n") if line and not line.startswith(b"#")]
    # Git unescapes a quoted name, and reads beyond our limit.
    if len(text) > _MAX_POINTER_BYTES * _MAX_ALTERNATES or any(line.startswith(b'"') for line in named):
        raise LeadsOutError
    return [os.fsdecode(line) for line in named]


def _inside(folder: Path, name: str, root: Path) -> Path:
    """Return the real path of a name in a folder.

    Raises:
        LeadsOutError, OSError: the path is outside of ``root``, or does not exist.
    """
    place = (folder / name).resolve(strict=True)
    if not place.is_relative_to(root):
        raise LeadsOutError
    return place


def _check_tree(place: Path, root: Path) -> None:
    """Raise LeadsOutError if a link below ``place`` leads out of ``root``, or there are more than MAX_ENTRIES."""
    count = 0
    for at, folders, files in os.walk(place, onerror=_note_failure):
        count += len(folders) + len(files)
        if count > MAX_ENTRIES:
            raise LeadsOutError
        for name in (*folders, *files):
            if os.path.islink(os.path.join(at, name)):  # noqa: PTH114, PTH118 - one object for each file is slow
                _inside(Path(at), name, root)


def _note_failure(error: OSError) -> None:
    raise error
