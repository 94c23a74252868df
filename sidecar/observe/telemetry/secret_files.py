"""Secrets of the telemetry settings. Each is read from a file, which holds it on a single line."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Final

MIN_KEY_BYTES: Final = 16
_MAX_FILE_BYTES: Final = 8192


def read_secret(path: Path) -> str:
    """Return the one line of a secret's file.

    Raises:
        OSError: the file is missing, open to others, too large, or holds no single printable line.
    """
    with path.open("rb") as file:
        if stat.S_IMODE(os.fstat(file.fileno()).st_mode) & 0o007:
            raise PermissionError(f"{path} is open to others; chmod o= {path}")
        content = file.read(_MAX_FILE_BYTES + 1)
    text = content.decode("latin-1").strip()
    if len(content) > _MAX_FILE_BYTES or not text or not (text.isascii() and text.isprintable()):
        raise OSError(f"{path} is not one line of printable text; write the value alone")
    return text


def read_subject_key(path: Path) -> bytes:
    """Return the key of the subjects' hashes.

    Raises:
        OSError: as ``read_secret``, or the key is too short.
    """
    key = read_secret(path).encode("ascii")
    if len(key) < MIN_KEY_BYTES:
        raise OSError(f"{path} holds less than {MIN_KEY_BYTES} bytes; make a key: openssl rand -hex 32 > {path}")
    return key
