"""The compiled parts: the load generator and the backend, built with ``cc`` on demand."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

SOURCES: Final = Path(__file__).parent / "native"
_PROGRAMS: Final = {
    "load": ("load.c", "options.c", "connection.c", "histogram.c"),
    "backend": ("backend.c",),
    "relay": ("relay.c",),
}
_FLAGS: Final = ("-O2", "-std=c11", "-Wall", "-Wextra")


class BuildError(Exception):
    """The programs cannot be built. The text names the missing package."""


@dataclass(frozen=True, slots=True)
class Programs:
    """Paths of the compiled programs."""

    load: Path
    backend: Path


def build(folder: Path) -> Programs:
    """Compile into ``folder``.

    Raises:
        BuildError: there is no compiler, OpenSSL's headers are missing, or the compiler refuses.
    """
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        raise BuildError("there is no C compiler; install one, for example: apt-get install gcc libc6-dev libssl-dev")
    folder.mkdir(parents=True, exist_ok=True)
    for name, sources in _PROGRAMS.items():
        files = [str(SOURCES / source) for source in sources]
        command = [compiler, *_FLAGS, *files, "-o", str(folder / name), "-lssl", "-lcrypto", "-lpthread"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            continue
        if "openssl/" in done.stderr or "-lssl" in done.stderr:
            raise BuildError("OpenSSL's headers are missing; install them, for example: apt-get install libssl-dev")
        raise BuildError(f"{name} cannot be compiled:\n{done.stderr.strip()}")
    return Programs(load=folder / "load", backend=folder / "backend")
