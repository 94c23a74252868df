"""Walk over files and folders: bounded, without following symlinks in folders, each file once."""

from __future__ import annotations

import os
import stat
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from sidecar.audit.credentials.decoys import words
from sidecar.audit.credentials.recorded import is_records
from sidecar.audit.log_lines import MAX_LINE_BYTES, opened

MAX_FILE_BYTES: Final = 8 << 20
MAX_STDIN_BYTES: Final = 32 << 20
MAX_FILES: Final = 100_000
MAX_DEPTH: Final = 32

SKIPPED_FOLDERS: Final = words(
    ".git .hg .svn node_modules .venv venv __pycache__ .tox .mypy_cache .ruff_cache .pytest_cache .terraform"
)
_SNIFFED: Final = 8192
_STREAMS: Final = frozenset((".jsonl", ".ndjson", ".log", ".json", ".gz"))
_BINARY: Final = words(
    ".png .jpg .jpeg .gif .ico .webp .pdf .zip .gz .zst .xz .bz2 .tar .whl .jar .so .dll .exe .pyc .woff .woff2 .ttf"
    " .mp3 .mp4 .parquet .onnx .bin .class .o .a"
)


BENIGN: Final = frozenset(("binary", "folders of tools, or too deep", "no regular files"))  # reasons to skip


class TooLargeError(Exception):
    """A path that was given is beyond a limit; the message names it."""


class TextFile(NamedTuple):
    """A file with its text, by the name it was found under. Without text it is a stream of records, of any size."""

    name: str
    text: str | None


def text_files(paths: Sequence[str], skipped: Counter[str]) -> Iterator[TextFile]:
    """Yield each text file below the paths; ``-`` is standard input. ``skipped`` counts the rest by its reason.

    Raises:
        OSError: a path that was given cannot be read. Files below a folder that cannot be read are counted.
        TooLargeError: there are more files than the limit, or a given file or standard input is too large.
    """
    seen: set[tuple[int, int]] = set()
    count = 0
    for path in paths:
        if path == "-":
            yield TextFile("-", _standard_input())
            continue
        given = Path(path)
        below = _below(given, skipped) if given.is_dir() else iter((given,))
        for file in below:
            count += 1
            if count > MAX_FILES:
                raise TooLargeError(f"{path}: more than {MAX_FILES} files; name the folders that matter")
            if _is_new(file, seen, skipped, given=file is given):
                if file.suffix in _STREAMS and _begins_with_record(file):
                    yield TextFile(str(file), None)
                    continue
                text = _text(file, skipped, given=file is given)
                if text is not None:
                    yield TextFile(str(file), text)


def _below(folder: Path, skipped: Counter[str]) -> Iterator[Path]:
    base = len(folder.parts)
    for at, folders, files in os.walk(folder, onerror=lambda _: skipped.update(("unreadable",))):
        here = Path(at)
        deep = len(here.parts) - base >= MAX_DEPTH
        left_out = [name for name in folders if deep or name in SKIPPED_FOLDERS]
        skipped["folders of tools, or too deep"] += len(left_out)
        folders[:] = sorted(set(folders) - set(left_out))
        for name in sorted(files):
            yield here / name


def _standard_input() -> str:
    raw = sys.stdin.buffer.read(MAX_STDIN_BYTES + 1)
    if len(raw) > MAX_STDIN_BYTES:
        raise TooLargeError(f"standard input is larger than {MAX_STDIN_BYTES >> 20} MiB; write it to several files")
    return raw.decode("utf-8", "replace")


def _is_new(file: Path, seen: set[tuple[int, int]], skipped: Counter[str], *, given: bool) -> bool:
    """Tell if a file is a regular one, or was given, and was not read under another name."""
    try:
        status = file.stat() if given else file.lstat()
    except OSError:
        if given:
            raise
        skipped["unreadable"] += 1
        return False
    if not given and not stat.S_ISREG(status.st_mode):
        skipped["no regular files"] += 1
        return False
    identity = status.st_dev, status.st_ino
    if identity in seen:
        return False
    seen.add(identity)
    return True


def _begins_with_record(file: Path) -> bool:
    try:
        with opened(str(file)) as (stream, _):  # no further: a small file may unpack to a line without end
            beginning = stream.read(MAX_LINE_BYTES)
    except OSError:
        return False
    return is_records(beginning.lstrip().partition(b"\n")[0])


def _text(file: Path, skipped: Counter[str], *, given: bool) -> str | None:
    """Return the text of a file, or None if it is counted as skipped."""
    if file.suffix.lower() in _BINARY:
        skipped["binary"] += 1
        return None
    try:
        with os.fdopen(os.open(file, os.O_RDONLY | (0 if given else os.O_NOFOLLOW | os.O_NONBLOCK)), "rb") as stream:
            raw = stream.read(MAX_FILE_BYTES + 1)
    except OSError:
        if given:
            raise
        skipped["unreadable"] += 1
        return None
    if len(raw) > MAX_FILE_BYTES and b"\0" in raw[:_SNIFFED]:
        skipped["binary"] += 1
        return None
    if len(raw) > MAX_FILE_BYTES and given:
        raise TooLargeError(f"{file}: larger than {MAX_FILE_BYTES >> 20} MiB; split it")
    if len(raw) > MAX_FILE_BYTES:
        skipped[f"larger than {MAX_FILE_BYTES >> 20} MiB"] += 1
        return None
    return decoded(raw, skipped)


def decoded(raw: bytes, skipped: Counter[str]) -> str | None:
    """Return the text of bytes, UTF-16 with a mark too; binary content is counted and is None."""
    if raw[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return raw.decode("utf-16", "replace")
    if b"\0" in raw[:_SNIFFED]:
        skipped["binary"] += 1
        return None
    return raw.decode("utf-8", "replace").removeprefix("\ufeff")
