"""The compiled parts: the load generator and the backend, built with ``cc`` on demand."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

SOURCES: Final = Path(__file__).parent / "native"
_PROGRAMS: Final = {
    "load": ("load.c", "calls.c", "options.c", "connection.c", "histogram.c", "common.c"),
    "backend": ("backend.c",),
    "relay": ("relay.c",),
}
_OF_HTTP2: Final = {
    "h2_load": ("h2_load.c", "calls.c", "options.c", "connection.c", "histogram.c", "common.c"),
    "h2_backend": ("h2_backend.c",),
}
_FLAGS: Final = ("-O2", "-std=c11", "-Wall", "-Wextra")


class BuildError(Exception):
    """The programs cannot be built. The text names the missing package."""


@dataclass(frozen=True, slots=True)
class Programs:
    """Paths of the compiled programs. Those of HTTP/2 are compiled only if they are needed."""

    load: Path
    backend: Path
    h2_load: Path
    h2_backend: Path


def http2_missing() -> str | None:
    """Return the reason why the scenarios of HTTP/2 cannot run; None if they can."""
    compiler = _compiler()
    if compiler is None:
        return None  # without a compiler build() raises
    command = [compiler, "-x", "c", "-E", "-include", "nghttp2/nghttp2.h", "-"]
    done = subprocess.run(command, input=b"", capture_output=True, check=False)
    return None if done.returncode == 0 else "nghttp2's headers are missing (apt-get install libnghttp2-dev)"


def build(folder: Path, *, http2: bool = False) -> Programs:
    """Compile into ``folder``; with ``http2``, also the programs that speak it.

    Raises:
        BuildError: there is no compiler, OpenSSL's headers are missing, or the compiler refuses.
    """
    compiler = _compiler()
    if compiler is None:
        raise BuildError("there is no C compiler; install one, for example: apt-get install gcc libc6-dev libssl-dev")
    folder.mkdir(parents=True, exist_ok=True)
    for name, sources in {**_PROGRAMS, **(_OF_HTTP2 if http2 else {})}.items():
        files = [str(SOURCES / source) for source in sources]
        libraries = ["-lssl", "-lcrypto", "-lpthread", *(["-lnghttp2"] if name in _OF_HTTP2 else [])]
        command = [compiler, *_FLAGS, *files, "-o", str(folder / name), *libraries]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            continue
        if "openssl/" in done.stderr or "-lssl" in done.stderr:
            raise BuildError("OpenSSL's headers are missing; install them, for example: apt-get install libssl-dev")
        raise BuildError(f"{name} cannot be compiled:\n{done.stderr.strip()}")
    return Programs(**{name: folder / name for name in ("load", "backend", *_OF_HTTP2)})


def _compiler() -> str | None:
    return shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
