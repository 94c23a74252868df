"""Writes files that other processes read: atomically, and with a private mode from the start where needed."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def write_whole(path: Path, content: bytes, *, private: bool = False) -> None:
    """Write a file atomically. A ``private`` one has mode 0600, others 0644.

    Raises:
        OSError: writing failed; the old file is unchanged.
    """
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # mode 0600
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            if not private:
                os.fchmod(file.fileno(), 0o644)
        Path(name).replace(path)
    except OSError:
        Path(name).unlink(missing_ok=True)
        raise
