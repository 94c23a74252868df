"""Reads the texts to search from files and folders, within limits, each file once; of record streams only the name."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from delegation_audit.credentials.decoys import words
from delegation_audit.credentials.recorded import is_records
from delegation_core.records.folders import ARCHIVES, LEFT_OUT, SPECIAL, UNREADABLE, TooLargeError, find_files
from delegation_core.records.log_lines import MAX_LINE_BYTES, open_file
from delegation_core.records.unpacking import ENDINGS, ArchiveError, is_tar

MAX_FILE_BYTES: Final = 8 << 20
MAX_STDIN_BYTES: Final = 32 << 20

_SNIFFED: Final = 8192
_STREAMS: Final = frozenset((".jsonl", ".ndjson", ".log", ".json", *ENDINGS))
_ARCHIVES: Final = (
    ".zip", ".jar", ".whl", ".7z", ".rar", ".tar", ".tar.gz", ".tgz", ".tar.zst", ".tzst", ".tar.xz", ".txz",
    ".tar.bz2", ".tbz2",
)  # fmt: skip
_ZIP: Final = b"PK\x03\x04"
_BINARY: Final = words(
    ".png .jpg .jpeg .gif .ico .webp .pdf .gz .zst .xz .bz2 .so .dll .exe .pyc .woff .woff2 .ttf"
    " .mp3 .mp4 .parquet .onnx .bin .class .o .a"
)


BENIGN: Final = frozenset(("binary", ARCHIVES, LEFT_OUT, SPECIAL))  # reasons to skip


class TextFile(NamedTuple):
    """A file, by the name under which it was found, and its text; None for a stream of records, of any size."""

    name: str
    text: str | None


def text_files(paths: Sequence[str], skipped: Counter[str]) -> Iterator[TextFile]:
    """Yield each text file below the paths once; ``-`` is standard input. ``skipped`` counts unread files by reason.

    Raises:
        OSError: a given file cannot be read; unreadable files below folders are only counted.
        TooLargeError: there are too many files, or a given file or standard input is too large.
    """
    seen: set[tuple[int, int]] = set()
    for path, given in find_files(paths, skipped):
        file = Path(path)
        if path == "-":
            yield TextFile("-", _standard_input())
        elif _is_new(file, seen, skipped, given=given):
            try:
                is_stream = file.suffix in _STREAMS and _begins_with_record(file)
            except ArchiveError:
                skipped[ARCHIVES] += 1
                continue
            if is_stream:
                yield TextFile(path, None)
                continue
            text = _text(file, skipped, given=given)
            if text is not None:
                yield TextFile(path, text)


def _standard_input() -> str:
    raw = sys.stdin.buffer.read(MAX_STDIN_BYTES + 1)
    if len(raw) > MAX_STDIN_BYTES:
        raise TooLargeError(f"standard input is larger than {MAX_STDIN_BYTES >> 20} MiB; write it to several files")
    return raw.decode("utf-8", "replace")


def _is_new(file: Path, seen: set[tuple[int, int]], skipped: Counter[str], *, given: bool) -> bool:
    """Return True if a file was not yet read under another name; False if it is unreadable, which is counted."""
    try:
        status = file.stat() if given else file.lstat()
    except OSError:
        if given:
            raise
        skipped[UNREADABLE] += 1
        return False
    identity = status.st_dev, status.st_ino
    if identity in seen:
        return False
    seen.add(identity)
    return True


def _begins_with_record(file: Path) -> bool:
    """Return True if the first line is a record; False if unreadable. Raises ArchiveError."""
    try:
        with open_file(str(file)) as (stream, _):  # reads no more: a small file may unpack to an endless line
            beginning = stream.read(MAX_LINE_BYTES)
    except ArchiveError:
        raise
    except OSError:
        return False
    return is_records(beginning.lstrip().partition(b"\n")[0])


def _text(file: Path, skipped: Counter[str], *, given: bool) -> str | None:
    """Return the text of a file, or None after counting it as skipped. Raises OSError if it was given."""
    if file.name.lower().endswith(_ARCHIVES):
        skipped[ARCHIVES] += 1
        return None
    if file.suffix.lower() in _BINARY:
        skipped["binary"] += 1
        return None
    try:
        with os.fdopen(os.open(file, os.O_RDONLY | (0 if given else os.O_NOFOLLOW | os.O_NONBLOCK)), "rb") as stream:
            raw = stream.read(MAX_FILE_BYTES + 1)
    except OSError:
        if given:
            raise
        skipped[UNREADABLE] += 1
        return None
    if len(raw) > MAX_FILE_BYTES and b"\0" in raw[:_SNIFFED]:
        return decode_text(raw, skipped)
    if len(raw) > MAX_FILE_BYTES and given:
        raise TooLargeError(f"{file}: larger than {MAX_FILE_BYTES >> 20} MiB; split it")
    if len(raw) > MAX_FILE_BYTES:
        skipped[f"larger than {MAX_FILE_BYTES >> 20} MiB"] += 1
        return None
    return decode_text(raw, skipped)


def decode_text(raw: bytes, skipped: Counter[str]) -> str | None:
    """Decode UTF-8, or UTF-16 with a byte order mark; None for archives and other binary content, which are counted."""
    if raw[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return raw.decode("utf-16", "replace")
    if b"\0" in raw[:_SNIFFED]:
        skipped[ARCHIVES if is_tar(raw) or raw.startswith(_ZIP) else "binary"] += 1
        return None
    return raw.decode("utf-8", "replace").removeprefix("\ufeff")
