"""Reads the files that may hold entries: all named files, and those below folders that mention SPIFFE."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from delegation_audit.selectors.documents import MAX_BYTES
from delegation_core.records.folders import find_files

_SUFFIXES: Final = frozenset({".json", ".jsonl", ".ndjson", ".yaml", ".yml"})
_TEMPLATES: Final = "/templates/"


@dataclass(frozen=True, slots=True)
class Text:
    """The text of one file. ``is_template``: True for a chart's template found below a folder."""

    file: str
    content: str
    is_template: bool = False


def read_texts(paths: Sequence[str]) -> Iterator[Text]:
    """Yield the text of each file. ``-`` is standard input. Does not follow links below folders.

    Raises:
        OSError: a path cannot be read, is too large, or is not text; a folder holds too many files. The text names it.
    """
    for path, named in find_files(paths):
        if not named:
            raw = _read(path, follow=False) if Path(path).suffix.lower() in _SUFFIXES else None
            if raw is not None and (b"spiffe" in raw or b"SPIFFE" in raw):
                yield Text(path, raw.decode("utf-8", "replace"), is_template=_TEMPLATES in path and b"{{" in raw)
            continue
        raw = sys.stdin.buffer.read(MAX_BYTES + 1) if path == "-" else _read(path)
        if raw is None or len(raw) > MAX_BYTES:
            raise OSError(f"{path}: larger than {MAX_BYTES >> 20} MiB, or not a regular file; split it")
        try:
            yield Text(path, raw.decode("utf-8-sig"))
        except UnicodeDecodeError:
            raise OSError(f"{path}: not UTF-8 text; unpack it, or save it as UTF-8") from None


def _read(file: str, *, follow: bool = True) -> bytes | None:
    """Read a regular file. Returns None for other files, since a pipe could block forever, and above MAX_BYTES."""
    descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW))
    with os.fdopen(descriptor, "rb") as opened:
        kind = os.fstat(descriptor)
        if not stat.S_ISREG(kind.st_mode) or kind.st_size > MAX_BYTES:
            return None
        return opened.read(MAX_BYTES + 1)
