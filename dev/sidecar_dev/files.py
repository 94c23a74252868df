"""Files that other processes read: whole or not there, and private from their first moment where they have to be."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def write_whole(path: Path, content: bytes, *, private: bool = False) -> None:
    """Put a file in place at once. A ``private`` one has mode 0600, others 0644.

    Raises:
        OSError: it cannot be written; what was there before is still there.
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
