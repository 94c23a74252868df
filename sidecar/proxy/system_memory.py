"""Memory in use and its limit: of this process from ``/proc``, of its cgroup from the kernel's own count.

Memory that the kernel can reclaim without ending us does not count: pages of files are read again when needed. A
cgroup's count includes socket buffers and all processes in it, as the kernel counts before it ends one; so every worker
reads the whole of it.
"""

from __future__ import annotations

import ctypes
import re
import resource
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any, Final

from sidecar.proxy.memory_pressure import Memory
from sidecar.wire.resolver import THREAD_NAME

_STATM: Final = Path("/proc/self/statm")
_MEMBERSHIP: Final = Path("/proc/self/cgroup")
_CGROUPS: Final = Path("/sys/fs/cgroup")
_ABSURD: Final = 1 << 50  # version 1 writes no limit as a number near 2**63
_MIB: Final = 1024 * 1024
_SMAPS: Final = Path("/proc/self/smaps")
_MAPPING: Final = re.compile(r"([0-9a-f]+)-([0-9a-f]+) r-[-x]p \S+ \S+ [0-9]+ +(/.*)")  # proc_pid_smaps(5)
_CHANGED: Final = frozenset({"Anonymous", "Swap"})  # pages that differ from their file, in memory and out of it
_DONT_NEED: Final = 4  # MADV_DONTNEED in mman.h
_MMAP_THRESHOLD: Final = -3  # M_MMAP_THRESHOLD in malloc.h
_TRIM_THRESHOLD: Final = -1
_LARGE: Final = 32 * 1024
_BUFFER: Final = 256 * 1024  # uvloop's for each TLS connection, of which it rarely fills more than a page
_KEPT_AT_TOP: Final = 512 * 1024  # as the C library itself chooses after the first of these buffers was freed


def memory_of(max_mib: int | None, *, processes: int) -> Memory | None:
    """Return the memory of one of so many ``processes`` of a sidecar; None if nothing limits it.

    ``max_mib`` limits all of them together, each has its share; None: the limit of their cgroup.
    """
    if max_mib is not None:
        return Memory(max_mib * _MIB // processes, own_bytes)
    cgroup = find_cgroup()
    return None if cgroup is None else Memory(cgroup.limit_bytes, cgroup.used_bytes, enforced=True)


def own_bytes(statm: Path = _STATM) -> int | None:
    """Return the resident bytes of this process that no file backs; None if they cannot be read."""
    try:
        _, resident, shared, *_ = statm.read_text().split()
        return (int(resident) - int(shared)) * resource.getpagesize()
    except (OSError, ValueError):  # out of descriptors, or no such system
        return None


def file_bytes(statm: Path = _STATM) -> int | None:
    """Return the resident bytes of files that this process has mapped; None if they cannot be read."""
    try:
        return int(statm.read_text().split()[2]) * resource.getpagesize()
    except (OSError, ValueError, IndexError):
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Cgroup:
    """The cgroup in ``folder``, of version 1 or 2, and its limit."""

    folder: Path
    version: int
    limit_bytes: int

    def used_bytes(self) -> int | None:
        """Return the bytes in use that the kernel cannot reclaim; None if they cannot be read."""
        try:
            current = int((self.folder / _CURRENT[self.version]).read_text())
            lines = (line.split() for line in (self.folder / "memory.stat").read_text().splitlines())
            stat = {name: int(value) for name, value in lines}
        except (OSError, ValueError):
            return None
        if self.version == 1:
            reclaimable = stat.get("total_cache", 0) - stat.get("total_shmem", 0)
        else:
            reclaimable = stat.get("file", 0) - stat.get("shmem", 0) + stat.get("slab_reclaimable", 0)
        return max(0, current - max(0, reclaimable))


_CURRENT: Final = {1: "memory.usage_in_bytes", 2: "memory.current"}
_LIMITS: Final = {
    1: ("memory.limit_in_bytes",),
    2: ("memory.max", "memory.high"),
}  # above "high" the kernel throttles it


def find_cgroup(membership: Path = _MEMBERSHIP, cgroups: Path = _CGROUPS) -> Cgroup | None:
    """Find the cgroup with the lowest limit: ours or one around it. None if none has a limit, or cannot be read.

    In a container the path is often that of the host, and our own cgroup is mounted as the root of the tree.
    """
    try:
        rows = [line.split(":", 2) for line in membership.read_text().splitlines()]
    except OSError:
        return None
    controlled = {controllers: path for _, controllers, path in (row for row in rows if len(row) == 3)}
    first = next((path for names, path in controlled.items() if "memory" in names.split(",")), None)
    if first is not None:
        found = _limited(cgroups / "memory", first, version=1)
    else:
        found = _limited(cgroups, controlled.get("", "/"), version=2)
    return min(found, key=lambda one: one.limit_bytes, default=None)


def _limited(root: Path, path: str, *, version: int) -> Iterator[Cgroup]:
    """Yield the cgroups with a limit, from the root to ``path``."""
    parts = [part for part in PurePosixPath(path).parts if part != "/"]
    if ".." in parts:  # of a namespace outside ours
        parts = []
    for depth in range(len(parts) + 1):
        folder = root.joinpath(*parts[:depth])
        for name in _LIMITS[version]:
            try:
                limit = int((folder / name).read_text())
            except (OSError, ValueError):  # "max": none
                continue
            if 0 < limit < _ABSURD:
                yield Cgroup(folder=folder, version=version, limit_bytes=limit)


def give_back() -> None:
    """Let the C library give freed memory back to the system; otherwise it stays with the process."""
    trim = _found_in_libc("malloc_trim")
    if trim is not None:
        trim(0)


def forget_unused_code(smaps: Path = _SMAPS) -> None:
    """Unmap the pages of program files: those in use are mapped again, at once and without reading a file.

    Start and bursts touch twice as much code as a sidecar at rest. The kernel would reclaim those pages before it ends
    a process, but reports them as resident. Takes some milliseconds. Does nothing during a lookup of a name: the C
    library may load a library for it, whose variables would be unmapped with a mapping that was code when we read it.
    """
    advise = _found_in_libc("madvise")
    if advise is None or any(thread.name == THREAD_NAME for thread in threading.enumerate()):
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
    mallinfo2 = _found_in_libc("mallinfo2")
    if mallinfo2 is None:
        return None
    mallinfo2.restype = _Mallinfo2  # type: ignore[attr-defined]
    info: Any = mallinfo2()
    return int(info.uordblks + info.hblkhd)


def keep_large_ones_apart() -> None:
    """Let the C library map large allocations one by one, so that each goes back to the system when freed.

    Among small ones they fragment the heap: after a flood most of it stays with the process.
    """
    mallopt = _found_in_libc("mallopt")
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, _LARGE)


def keep_buffers_apart() -> None:
    """Let the C library map the buffers of TLS connections one by one: each takes the one page that it fills.

    It goes back to the system with its connection, whatever was allocated after it. In the heap it begins inside a page
    and fills two. Call this before the first connection.
    """
    mallopt = _found_in_libc("mallopt")
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, _BUFFER)
        mallopt(_TRIM_THRESHOLD, _KEPT_AT_TOP)


@lru_cache(maxsize=16)
def _found_in_libc(name: str) -> Callable[..., int] | None:
    try:
        found: Callable[..., int] = getattr(ctypes.CDLL(None), name)
    except (OSError, AttributeError):  # another libc than glibc
        return None
    return found
