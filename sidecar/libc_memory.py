"""Returns memory that the C library and the kernel keep for this process.

The functions do nothing with a libc other than glibc, or on a system other than Linux.
"""

from __future__ import annotations

import ctypes
import re
import threading
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

LOOKUP_THREAD: Final = "resolver"  # name of the threads that resolve host names

_SMAPS: Final = Path("/proc/self/smaps")
_MAPPING: Final = re.compile(r"([0-9a-f]+)-([0-9a-f]+) r-[-x]p \S+ \S+ [0-9]+ +(/.*)")  # proc_pid_smaps(5)
_CHANGED: Final = frozenset({"Anonymous", "Swap"})  # pages that differ from their file, in memory and swapped out
_DONT_NEED: Final = 4  # MADV_DONTNEED in mman.h
_MMAP_THRESHOLD: Final = -3  # M_MMAP_THRESHOLD in malloc.h
_TRIM_THRESHOLD: Final = -1
_LARGE: Final = 32 * 1024
_BUFFER: Final = 256 * 1024  # uvloop's buffer of a TLS connection, which rarely fills more than a page
_KEPT_AT_TOP: Final = 512 * 1024  # the value that the C library itself sets once it has freed such a buffer


def give_back() -> None:
    """Return freed memory from the C library to the system."""
    trim = _find_in_libc("malloc_trim")
    if trim is not None:
        trim(0)


def forget_unused_code(smaps: Path = _SMAPS) -> None:
    """Unmap the pages of program files; pages in use are mapped again at their next use, from the page cache.

    Start and bursts touch twice as much code as an idle sidecar. The kernel would reclaim those pages before it ends a
    process, but reports them as resident. Takes some milliseconds. Does nothing while a host name is resolved: the C
    library may then load a library, and its variables could be lost in a mapping that was code when we read the list.
    """
    advise = _find_in_libc("madvise")
    if advise is None or any(thread.name == LOOKUP_THREAD for thread in threading.enumerate()):
        return
    try:
        ranges = clean_files(smaps.read_text())
    except OSError:  # no ``/proc``, or no free descriptor
        return
    for begin, end in ranges:
        advise(ctypes.c_void_p(begin), ctypes.c_size_t(end - begin), _DONT_NEED)


def clean_files(smaps: str) -> list[tuple[int, int]]:
    """Return the ranges of private, read-only file mappings without changed pages, from proc_pid_smaps(5) text.

    A changed page that was swapped out does not count as "Anonymous", so "Swap" must be zero as well.
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
    """Return the bytes allocated through the C library: TLS, buffers, long texts; None if it has no mallinfo2.

    Takes about a tenth of a millisecond, and more in a fragmented heap. Python's small objects are not included.
    """
    mallinfo2 = _find_in_libc("mallinfo2")
    if mallinfo2 is None:
        return None
    mallinfo2.restype = _Mallinfo2  # type: ignore[attr-defined]
    info: Any = mallinfo2()
    return int(info.uordblks + info.hblkhd)


def keep_large_ones_apart() -> None:
    """Have the C library map each large allocation separately, so that it returns to the system when freed.

    In the heap, large allocations among small ones cause fragmentation: after a flood most of it stays allocated.
    """
    mallopt = _find_in_libc("mallopt")
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, _LARGE)


def keep_buffers_apart() -> None:
    """Have the C library map the buffer of each TLS connection separately. Call it before the first connection.

    A mapped buffer occupies the one page that it fills and returns to the system with its connection. In the heap it
    would begin inside a page, occupy two, and stay if anything was allocated after it.
    """
    mallopt = _find_in_libc("mallopt")
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, _BUFFER)
        mallopt(_TRIM_THRESHOLD, _KEPT_AT_TOP)


@lru_cache(maxsize=16)
def _find_in_libc(name: str) -> Callable[..., int] | None:
    try:
        found: Callable[..., int] = getattr(ctypes.CDLL(None), name)
    except (OSError, AttributeError):  # not glibc
        return None
    return found
