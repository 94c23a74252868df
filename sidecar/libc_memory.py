"""Memory that the C library and the kernel keep for this process, and its return.

Does nothing with another libc than glibc, or on another system than Linux.
"""

from __future__ import annotations

import ctypes
import re
import threading
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

LOOKUP_THREAD: Final = "resolver"  # the name of each thread that looks a host name up

_SMAPS: Final = Path("/proc/self/smaps")
_MAPPING: Final = re.compile(r"([0-9a-f]+)-([0-9a-f]+) r-[-x]p \S+ \S+ [0-9]+ +(/.*)")  # proc_pid_smaps(5)
_CHANGED: Final = frozenset({"Anonymous", "Swap"})  # pages that differ from their file, in memory and out of it
_DONT_NEED: Final = 4  # MADV_DONTNEED in mman.h
_MMAP_THRESHOLD: Final = -3  # M_MMAP_THRESHOLD in malloc.h
_TRIM_THRESHOLD: Final = -1
_LARGE: Final = 32 * 1024
_BUFFER: Final = 256 * 1024  # uvloop's for each TLS connection, of which it rarely fills more than a page
_KEPT_AT_TOP: Final = 512 * 1024  # as the C library itself chooses after the first of these buffers was freed


def give_back() -> None:
    """Let the C library give freed memory back to the system; otherwise it stays with the process."""
    trim = _find_in_libc("malloc_trim")
    if trim is not None:
        trim(0)


def forget_unused_code(smaps: Path = _SMAPS) -> None:
    """Unmap the pages of program files: those in use are mapped again, at once and without reading a file.

    Start and bursts touch twice as much code as a sidecar at rest. The kernel would reclaim those pages before it ends
    a process, but reports them as resident. Takes some milliseconds. Does nothing during a lookup of a name: the C
    library may load a library for it, whose variables would be unmapped with a mapping that was code when we read it.
    """
    advise = _find_in_libc("madvise")
    if advise is None or any(thread.name == LOOKUP_THREAD for thread in threading.enumerate()):
        return
    try:
        ranges = clean_files(smaps.read_text())
    except OSError:  # another system, or out of descriptors
        return
    for begin, end in ranges:
        advise(ctypes.c_void_p(begin), ctypes.c_size_t(end - begin), _DONT_NEED)


def clean_files(smaps: str) -> list[tuple[int, int]]:
    """Find the private mappings of files that are not writable and of which no page differs from its file.

    A changed page that was swapped out is no longer "Anonymous" to the kernel, and would be lost too.
    """
    found: list[tuple[int, int]] = []
    mapping: tuple[int, int] | None = None
    unproven: set[str] = set()
    for line in smaps.splitlines():
        name, _, value = line.partition(":")
        if " " in name:  # the head of a mapping
            head = _MAPPING.fullmatch(line)
            mapping = None if head is None else (int(head[1], 16), int(head[2], 16))
            unproven = set(_CHANGED)
        elif mapping is not None and name in unproven and value.split() == ["0", "kB"]:
            unproven.remove(name)
            if not unproven:
                found.append(mapping)
    return found


class _Mallinfo2(ctypes.Structure):
    """``struct mallinfo2`` of malloc.h."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks"),
            "keepcost",
        )
    ]


def allocated_bytes() -> int | None:
    """Return the bytes allocated by the C library: TLS, buffers, long texts. None if it does not tell.

    Takes about a tenth of a millisecond, and more with many free pieces. Python's small objects are not included.
    """
    mallinfo2 = _find_in_libc("mallinfo2")
    if mallinfo2 is None:
        return None
    mallinfo2.restype = _Mallinfo2  # type: ignore[attr-defined]
    info: Any = mallinfo2()
    return int(info.uordblks + info.hblkhd)


def keep_large_ones_apart() -> None:
    """Let the C library map large allocations one by one, so that each goes back to the system when freed.

    Among small ones they fragment the heap: after a flood most of it stays with the process.
    """
    mallopt = _find_in_libc("mallopt")
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, _LARGE)


def keep_buffers_apart() -> None:
    """Let the C library map the buffers of TLS connections one by one: each takes the one page that it fills.

    It goes back to the system with its connection, whatever was allocated after it. In the heap it begins inside a page
    and fills two. Call this before the first connection.
    """
    mallopt = _find_in_libc("mallopt")
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, _BUFFER)
        mallopt(_TRIM_THRESHOLD, _KEPT_AT_TOP)


@lru_cache(maxsize=16)
def _find_in_libc(name: str) -> Callable[..., int] | None:
    try:
        found: Callable[..., int] = getattr(ctypes.CDLL(None), name)
    except (OSError, AttributeError):  # another libc than glibc
        return None
    return found
