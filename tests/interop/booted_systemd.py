"""A systemd booted for a test: in its own namespaces, on a copy-on-write view of this machine's files.

Nothing on the machine changes: files are an overlay in memory; processes, network, host name and cgroups are new. Needs
root and /lib/systemd/systemd.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

SYSTEMD: Final = Path("/lib/systemd/systemd")
PATIENCE_S: Final = 60.0

_FILES: Final = """
set -e
mount -t tmpfs tmpfs "$1"
mkdir "$1/upper" "$1/work" "$1/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" "$1/root"
mount --rbind /dev "$1/root/dev"
mount -t proc proc "$1/root/proc"
mount -t tmpfs tmpfs "$1/root/tmp"
mkdir "$1/root/checkout"
mount --bind "$2" "$1/root/checkout"
echo ready
exec sleep infinity
"""
_BOOT: Final = """
set -e
root="$1"
ip link set lo up
mount -t proc proc "$root/proc"
mount -t sysfs -o ro sysfs "$root/sys"
if [ -e /sys/fs/cgroup/cgroup.controllers ]; then
  mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
else
  mount -t tmpfs -o mode=755 tmpfs "$root/sys/fs/cgroup"
  mkdir "$root/sys/fs/cgroup/systemd"
  mount -t cgroup -o none,name=systemd cgroup "$root/sys/fs/cgroup/systemd"
fi
mount -t tmpfs -o mode=755 tmpfs "$root/run"
: > "$root/etc/machine-id"
exec chroot "$root" env -i container=other PATH=/usr/sbin:/usr/bin:/sbin:/bin \
  /lib/systemd/systemd --system systemd.unit=basic.target systemd.log_target=journal
"""


def lacking() -> str | None:
    """Name what this machine lacks to boot a systemd; None if it can."""
    if os.geteuid() != 0:
        return "only root can boot a systemd"
    programs = [name for name in ("unshare", "nsenter", "ip") if shutil.which(name) is None]
    if not SYSTEMD.exists():
        programs.append("systemd")
    return f"not installed: {', '.join(programs)}" if programs else None


class Machine:
    """The booted machine. ``checkout`` is the project's place in it."""

    checkout: Final = "/checkout"

    def __init__(self, holder: int, init: int, root: Path) -> None:
        self._holder = holder
        self._init = init
        self._root = root

    def run(self, command: str, *, fails: bool = False) -> str:
        """Run a command as the machine's root and return its standard output; the exit code must be as expected."""
        spaces = ("--mount", "--pid", "--net", "--uts", "--ipc", "--cgroup", "--root", "--wd")
        done = subprocess.run(
            ["nsenter", f"--target={self._init}", *spaces, "sh", "-c", f"cd {self.checkout} && {command}"],
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
            check=False,
        )
        assert (done.returncode != 0) is fails, f"{command}: exit code {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout


@contextmanager
def machine(folder: Path, checkout: Path, *, before: str) -> Iterator[Machine]:
    """Boot the machine. ``before`` runs on its files while this machine's network is still reachable."""
    holder = subprocess.Popen(
        ["unshare", "--mount", "--propagation=private", "sh", "-c", _FILES, "sh", str(folder), str(checkout)],
        stdout=subprocess.PIPE,
        text=True,
    )
    init: subprocess.Popen[bytes] | None = None
    try:
        assert holder.stdout is not None
        with holder.stdout as said:
            assert said.readline() == "ready\n"
        root = folder / "root"
        enter = ["nsenter", f"--target={holder.pid}", "--mount"]
        done = subprocess.run(
            [*enter, "chroot", str(root), "sh", "-ec", f"cd {Machine.checkout}\n{before}"],
            capture_output=True,
            text=True,
            timeout=600,
            env={**os.environ, "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        spaces = ["unshare", "--pid", "--fork", "--kill-child", "--net", "--uts", "--ipc", "--cgroup", "--mount"]
        init = subprocess.Popen([*enter, *spaces, "sh", "-c", _BOOT, "sh", str(root)])
        booted = Machine(holder.pid, _first_child(init.pid), root)
        _wait_until_running(booted)
        yield booted
        booted.run("systemctl poweroff --no-block")
        init.wait(PATIENCE_S)
    finally:
        for process in (init, holder):
            if process is not None:
                process.kill()
                process.wait()


def _first_child(parent: int) -> int:
    """Return the process that unshare forked: pid 1 of the new machine."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
        if children:
            return int(children[0])
        time.sleep(0.01)
    raise AssertionError("nothing was started")


def _wait_until_running(booted: Machine) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        with contextlib.suppress(AssertionError):
            booted.run("systemctl is-system-running | grep -qx running")
            return
        time.sleep(0.1)
    raise AssertionError("systemd did not come up")
