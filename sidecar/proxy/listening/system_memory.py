"""Reads memory use and its limit: of this process from ``/proc``, or of its cgroup from the kernel's counters.

Memory that the kernel can reclaim, such as pages of files, does not count. A cgroup's counter includes socket buffers
and all its processes, as does the kernel's limit, so every worker compares the whole cgroup with it.
"""

from __future__ import annotations

import resource
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

from sidecar.proxy.listening.memory_pressure import Memory

_STATM: Final = Path("/proc/self/statm")
_MEMBERSHIP: Final = Path("/proc/self/cgroup")
_CGROUPS: Final = Path("/sys/fs/cgroup")
_ABSURD: Final = 1 << 50  # bytes; version 1 shows "no limit" as a number near 2**63
_MIB: Final = 1024 * 1024


def memory_of(max_mib: int | None, *, processes: int) -> Memory | None:
    """Return the memory and limit of one of a sidecar's ``processes``; None: there is no limit.

    ``max_mib`` limits all of them together and is divided among them; None: the limit of their cgroup applies.
    """
    if max_mib is not None:
        return Memory(max_mib * _MIB // processes, own_bytes)
    cgroup = find_cgroup()
    return None if cgroup is None else Memory(cgroup.limit_bytes, cgroup.used_bytes, enforced=True)


def own_bytes(statm: Path = _STATM) -> int | None:
    """Return the resident bytes of this process that no file backs; None if they are not readable."""
    try:
        _, resident, shared, *_ = statm.read_text().split()
        return (int(resident) - int(shared)) * resource.getpagesize()
    except (OSError, ValueError):  # no free descriptor, or no ``/proc``
        return None


def file_bytes(statm: Path = _STATM) -> int | None:
    """Return the resident bytes of files that this process has mapped; None if they are not readable."""
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
        """Return the bytes in use that the kernel cannot reclaim; None if they are not readable."""
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
    """Return the cgroup with the lowest limit: ours or an ancestor. None: none has a limit, or none is readable.

    In a container the path is often the host's, while our own cgroup is mounted as the root of the tree.
    """
    try:
        rows = [line.split(":", 2) for line in membership.read_text().splitlines()]
    except OSError:
        return None
    controlled = {controllers: path for _, controllers, path in (row for row in rows if len(row) == 3)}
    first = next((path for names, path in controlled.items() if "memory" in names.split(",")), None)
    if first is not None:
        found = _find_limits(cgroups / "memory", first, version=1)
    else:
        found = _find_limits(cgroups, controlled.get("", "/"), version=2)
    return min(found, key=lambda one: one.limit_bytes, default=None)


def _find_limits(root: Path, path: str, *, version: int) -> Iterator[Cgroup]:
    """Yield the cgroups with a limit, from the root to ``path``."""
    parts = [part for part in PurePosixPath(path).parts if part != "/"]
    if ".." in parts:  # the cgroup lies outside our cgroup namespace
        parts = []
    for depth in range(len(parts) + 1):
        folder = root.joinpath(*parts[:depth])
        for name in _LIMITS[version]:
            try:
                limit = int((folder / name).read_text())
            except (OSError, ValueError):  # no such file, or "max": no limit
                continue
            if 0 < limit < _ABSURD:
                yield Cgroup(folder=folder, version=version, limit_bytes=limit)
