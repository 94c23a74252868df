"""Lists files that paths name and files below folders: bounded, without symbolic links and folders of tools."""

from __future__ import annotations

import glob
import os
import stat
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

MAX_FILES: Final = 100_000
MAX_DEPTH: Final = 32

SKIPPED_FOLDERS: Final = frozenset(
    {
        ".git", ".hg", ".svn", ".mypy_cache", ".pytest_cache", ".ruff_cache", ".terraform", ".tox", ".venv",
        "__pycache__", "node_modules", "venv",
    }
)  # fmt: skip
# Reasons to skip a file or folder: keys of the counters.
LEFT_OUT: Final = "folders of tools, or too deep"
SPECIAL: Final = "no regular files"
UNREADABLE: Final = "unreadable"
ARCHIVES: Final = "archives: unpack them"

LINES: Final = (".records", ".jsonl", ".ndjson", ".json", ".log")  # records, also with .gz or .zst
RECORDS: Final = (*LINES, ".parquet")


class TooLargeError(OSError):
    """An input has too many files or is too large; the message names the input and the fix."""


class File(NamedTuple):
    """A file. ``named``: True if its own path was given, False if it was found below a folder."""

    path: str
    named: bool


def find_files(paths: Sequence[str], skipped: Counter[str] | None = None) -> Iterator[File]:
    """Yield each path that is no folder, ``-`` too, and the regular files below each folder, sorted by folder.

    ``skipped`` counts omitted files and folders by reason; unreadable ones count as well.

    Raises:
        TooLargeError: the folders hold more than MAX_FILES files.
        OSError: a folder or file cannot be read, and ``skipped`` is None.
    """
    skipped, strict = (Counter(), True) if skipped is None else (skipped, False)
    count = 0
    for path in paths:
        if path == "-" or not Path(path).is_dir():
            yield File(path, named=True)
            continue
        for file in _walk(path, skipped, strict=strict):
            count += 1
            if count > MAX_FILES:
                raise TooLargeError(f"{path}: more than {MAX_FILES} files; name the folders that matter")
            yield File(file, named=False)


def _walk(folder: str, skipped: Counter[str], *, strict: bool) -> Iterator[str]:
    def handle(error: OSError) -> None:
        if strict:
            raise error
        skipped[UNREADABLE] += 1

    for at, folders, names in os.walk(folder, onerror=handle):
        depth = len(Path(at).parts) - len(Path(folder).parts)
        left_out = [name for name in folders if depth >= MAX_DEPTH or name in SKIPPED_FOLDERS]
        if left_out:
            skipped[LEFT_OUT] += len(left_out)
        folders[:] = sorted(set(folders) - set(left_out))
        for name in sorted(names):
            file = os.path.join(at, name)  # noqa: PTH118, a path as it was given
            try:
                regular = stat.S_ISREG(os.lstat(file).st_mode)
            except OSError as error:
                handle(error)
                continue
            if regular:
                yield file
            else:
                skipped[SPECIAL] += 1


def record_files(paths: Sequence[str], *, endings: tuple[str, ...] = LINES) -> list[str]:
    """Return the record files that paths name, each once: files, ``-``, glob matches; below folders by ``endings``.

    Raises:
        OSError: a path or pattern matches nothing, or a folder holds no record file or too many; the text names it.
    """
    found: list[str] = []
    for path in paths:
        if path == "-" or (Path(path).exists() and not Path(path).is_dir()):
            found.append(path)
        elif Path(path).is_dir():
            below = [file.path for file in find_files([path]) if _strip_compression(file.path).endswith(endings)]
            if not below:
                raise OSError(
                    f"{path}: holds no record file ({', '.join(endings)}, also compressed; no links); name the files"
                )
            found += below
        elif matches := sorted(glob.glob(path, recursive=True)):  # noqa: PTH207, it may be absolute
            found += [match for match in matches if Path(match).is_file()]
        else:
            raise FileNotFoundError(f"{path}: No such file, folder or pattern")
        if len(found) > MAX_FILES:
            raise TooLargeError(f"{path}: more than {MAX_FILES} files; audit the folders one by one")
    return list(dict.fromkeys(found))


def _strip_compression(file: str) -> str:
    return file.removesuffix(".gz").removesuffix(".zst")
