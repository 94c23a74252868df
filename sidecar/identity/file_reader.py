"""Reads files and tells apart those that are present, absent and unreadable. Blocking; for a thread."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

MAX_FILE_BYTES: Final = 1 << 20

_OTHERS: Final = 0o007
_GROUP_READS: Final = 0o040
_GROUP_CHANGES: Final = 0o030


@dataclass(frozen=True, slots=True)
class Watched:
    """A file to read. ``private``: other users must not be able to read it."""

    path: Path
    private: bool = False


@dataclass(frozen=True, slots=True)
class Present:
    """A file and its content. Unchanged if the ``facts`` are the same: device, inode, size, times."""

    facts: tuple[int, ...]
    content: bytes = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Absent:
    """The file does not exist."""

    why: str


@dataclass(frozen=True, slots=True)
class Unreadable:
    """The file exists, or may exist, but cannot or must not be read."""

    why: str


Seen = Present | Absent | Unreadable


def look_at_all(files: Iterable[Watched], before: Mapping[Path, Seen]) -> dict[Path, Seen]:
    """Read each file once; one that has not changed since ``before`` is not read again."""
    return {file.path: look_at(file, before.get(file.path)) for file in files}


def look_at(file: Watched, before: Seen | None = None) -> Seen:
    """Read one file, symbolic links followed. Never raises: the result says if the file is absent or unreadable."""
    try:
        if isinstance(before, Present) and _facts(file.path.stat()) == before.facts:
            return before
        return _read(file)
    except (FileNotFoundError, NotADirectoryError):
        return Absent(f"{file.path} is missing")
    except OSError as error:
        return Unreadable(f"{file.path} cannot be read ({error.strerror})")


def _read(file: Watched) -> Seen:
    """Check and read through one descriptor, so that both are of the same file. Never blocks on a pipe."""
    descriptor = os.open(file.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as opened:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            return Unreadable(f"{file.path} is not a file")
        if file.private and too_open(status.st_mode, owner=status.st_uid, user=os.geteuid()):
            return Unreadable(
                f"{file.path} is accessible to users other than its owner (chmod 0600; on Kubernetes, set fsGroup)"
            )
        content = opened.read(MAX_FILE_BYTES + 1)
    if len(content) > MAX_FILE_BYTES:
        return Unreadable(f"{file.path} is too large")
    return Present(_facts(status), content)


def too_open(mode: int, *, owner: int, user: int) -> bool:
    """Return True if others may access a private file of this mode. ``owner`` owns it, we run as ``user``.

    The group may read another user's file: a Kubernetes volume belongs to root and gives a process access by its
    fsGroup alone. A file of our own needs no group access, so group access is a mistake.
    """
    return bool(mode & (_OTHERS | _GROUP_CHANGES)) or (bool(mode & _GROUP_READS) and owner == user)


def facts_of(path: Path) -> tuple[int, ...]:
    """Return a fingerprint of a file from its metadata, following links; the errno alone if ``stat`` fails."""
    try:
        return _facts(path.stat())
    except OSError as error:
        return (error.errno or 0,)


def _facts(status: os.stat_result) -> tuple[int, ...]:
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
