"""Fallback for records unwritten when the process ends: a file, or their names in the log."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import orjson

_log: Final = logging.getLogger("sidecar")

_NAMED_BY: Final = ("run", "seq", "event", "request_id", "decision", "reason", "status")


def spill(lines: bytes, folder: Path | None, run: str) -> None:
    """Write ``lines`` to ``records-RUN.jsonl`` in ``folder``, mode 0600, and sync it.

    Without a folder, or where that fails, the operations log names each record.
    """
    count = lines.count(b"\n")
    if folder is not None:
        path = folder / f"records-{run}.jsonl"
        try:
            _write_new(path, lines)
        except OSError as error:
            _log.error("records cannot be spilled", extra={"file": path, "errno": error.errno})
        else:
            _log.error(
                "records were spilled: append the file to the record stream", extra={"count": count, "file": path}
            )
            return
    _log.error("records were not written: each is named below", extra={"count": count})
    for line in lines.splitlines():
        _log.error("record not written", extra=_name(line))


def name_unwritten(record: Mapping[str, object]) -> None:
    """Name a record that was not written in the operations log."""
    _log.error("record not written", extra=_names(record))


def warn_if_unusable(folder: Path | None) -> None:
    """Warn in the operations log at startup if nothing can be written to ``folder``."""
    if folder is not None and not (folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)):
        _log.warning("records.spill is not a folder that this process can write to", extra={"folder": folder})


def _write_new(path: Path, lines: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(lines)
        file.flush()
        os.fsync(fd)


def _name(line: bytes) -> dict[str, object]:
    try:
        return _names(orjson.loads(line))
    except orjson.JSONDecodeError:
        return {"record": "unreadable"}


def _names(record: Mapping[str, object]) -> dict[str, object]:
    return {name: record.get(name) for name in _NAMED_BY}
