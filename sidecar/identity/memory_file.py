"""Anonymous files in memory, for keys that a library reads from or writes to files only."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

_MFD_NOEXEC_SEAL: Final = 8  # Linux 6.3; not in the os module of every Python


def new_memory_file(name: str) -> int:
    """Make a file and return its descriptor. Not executable, as ``vm.memfd_noexec=2`` requires, from Linux 6.3 on.

    Raises:
        OSError: there is no descriptor left, or the system has no such files.
    """
    try:
        return os.memfd_create(name, os.MFD_CLOEXEC | _MFD_NOEXEC_SEAL)
    except OSError:  # a kernel that does not know the flag
        return os.memfd_create(name, os.MFD_CLOEXEC)


def path_of(descriptor: int) -> str:
    """Return a path under which this process can open the file."""
    return str(Path("/proc/self/fd") / str(descriptor))
