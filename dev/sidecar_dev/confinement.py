"""Checks, from inside an agent's container, for foreign resources that a process can reach."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

SECRETS: Final = (
    "run/workload",
    "etc/sidecar",
    "run/sidecar",
    "var/lib/sts-keys",
    "var/run/docker.sock",
    "run/docker.sock",
    "run/secrets",
    "spiffe-workload-api",
)
_WRITABLE: Final = ("", "opt/sidecar", "opt/sidecar/app", "opt/sidecar/lib", "usr", "etc", "home", "var", "run")
_STATUS: Final = {"CapEff": "0000000000000000", "CapBnd": "0000000000000000", "NoNewPrivs": "1", "Seccomp": "2"}

Finding = tuple[str, str, bool]  # what was checked, what was found, and whether that is right


def confinement(root: Path = Path("/"), environ: Mapping[str, str] = os.environ) -> Iterator[Finding]:
    """Sockets, secrets, other processes, rights, and places to write to."""
    there = [f"/{name}" for name in SECRETS if (root / name).exists()]
    yield "sockets and secrets of others", ", ".join(there) or "none", not there
    told = [name for name, value in environ.items() if "eyJ" in value or "PRIVATE KEY" in value]
    yield "secrets in the environment", ", ".join(told) or "none", not told
    others = [name for name in _processes(root / "proc") if "sidecar.cli" in name]
    yield "the sidecar's process", ", ".join(others) or "out of sight", not others
    places = [f"/{name}" for name in _WRITABLE if _can_write(root / name)]
    yield "places to write to", ", ".join(places) or "none", not places
    status = _status(root / "proc/self/status")
    for name, wanted in _STATUS.items():
        found = status.get(name, "unknown")
        yield name, found, found == wanted


def _processes(proc: Path) -> Iterator[str]:
    for folder in proc.glob("[0-9]*"):
        try:
            yield (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        except OSError:  # it has ended, or is another user's
            continue


def _can_write(folder: Path) -> bool:
    probe = folder / ".written"
    try:
        probe.touch()
    except OSError:
        return False
    probe.unlink()
    return True


def _status(path: Path) -> dict[str, str]:
    pairs = (line.partition(":") for line in path.read_text().splitlines())
    return {name: value.strip() for name, _, value in pairs}
