"""The machine of a run: its cores, the binding of processes to them, and facts for the report."""

from __future__ import annotations

import os
import platform
import shutil
import ssl
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Cores:
    """Core of the proxy under test, and core of all other processes. None: any core."""

    proxy: int | None
    others: int | None

    @property
    def caveat(self) -> str | None:
        """Return a reason that makes all results of the run less reliable; None if there is none."""
        if self.others is None:
            return (
                "There is one core only (or no taskset): proxy, load and backend share it. CPU per request is still the"
                " proxy's own, latencies and throughput are not."
            )
        return None

    def bound(self, command: Sequence[str], *, proxy: bool) -> list[str]:
        """Return the command, bound to its core."""
        core = self.proxy if proxy else self.others
        return [*command] if core is None else ["taskset", "-c", str(core), *command]


def cores() -> Cores:
    """Return the first two cores that we may use."""
    usable = sorted(os.sched_getaffinity(0))
    if len(usable) < 2 or shutil.which("taskset") is None:
        return Cores(None, None)
    return Cores(usable[0], usable[1])


def process_tree(pid: int) -> list[int]:
    """Return the process and all its live descendants."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            parents[int(entry.name)] = int(fields[1])
    tree = [pid]
    for one in tree:
        tree += [child for child, parent in parents.items() if parent == one]
    return tree


def memory_mib(pids: Sequence[int], key: str = "VmRSS") -> float:
    """Return the resident memory of these processes together, in MiB. ``VmHWM`` is the peak."""
    total = 0
    for pid in pids:
        try:
            lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) for line in lines if line.startswith(f"{key}:"))
    return total / 1024


def shared_memory(pids: Sequence[int]) -> tuple[float, float, float]:
    """Return the resident, proportional and anonymous memory of these processes together, in MiB.

    Proportional memory divides each page among the processes that map it; anonymous memory is of no file
    (proc_pid_smaps(5)).
    """
    resident = proportional = anonymous = 0
    for pid in pids:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
            name, kib = line.split()[:2]
            resident += int(kib) if name == "Rss:" else 0
            proportional += int(kib) if name == "Pss:" else 0
            anonymous += int(kib) if name == "Anonymous:" else 0
    return resident / 1024, proportional / 1024, anonymous / 1024


def user_and_kernel(pids: Sequence[int]) -> tuple[int, int]:
    """Return the CPU time of these processes together, in ticks of 10 ms: their own, and the kernel's for them."""
    user = kernel = 0
    for pid in pids:
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        user, kernel = user + int(fields[11]), kernel + int(fields[12])
    return user, kernel


def core_times(core: int | None) -> tuple[float, float]:
    """Return the idle and the whole time of a core, or of all (None), in ticks since the start (proc_stat(5))."""
    name = "cpu" if core is None else f"cpu{core}"
    for line in Path("/proc/stat").read_text().splitlines():
        label, *ticks = line.split()
        if label == name:
            spent = [float(value) for value in ticks[:8]]  # the other values, guest times, are included in these
            return spent[3] + spent[4], sum(spent)
    return 0.0, 0.0


def forget_peak(pids: Sequence[int]) -> None:
    """Reset ``VmHWM`` (proc_pid_clear_refs(5)); without permission it keeps its value."""
    for pid in pids:
        try:
            Path(f"/proc/{pid}/clear_refs").write_text("5")
        except OSError:
            continue


def described() -> dict[str, str]:
    """Return facts for comparison: processor, kernel, Python, OpenSSL, load."""
    cpu = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    return {
        "cpu": cpu,
        "cores": str(len(os.sched_getaffinity(0))),
        "kernel": platform.release(),
        "python": sys.version.split()[0],
        "openssl of Python": ssl.OPENSSL_VERSION,
        "load average": " ".join(f"{load:.1f}" for load in os.getloadavg()),
    }
