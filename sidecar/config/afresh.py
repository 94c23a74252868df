"""Load settings again while the process runs: in a fresh interpreter, because forking a process with threads is unsafe.

Run as a module (``-m sidecar.config.afresh KIND PATH [PLATFORM]``) it is that interpreter: it writes the finished
settings, or all their problems, to its standard output and ends.

It takes ``LOADING_BYTES`` of its own for a second. Where that is too much, the kernel is to end it, not us; and of
several workers that read one file again, one loads at a time.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import pickle
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from sidecar.errors import ConfigError, Problem

TIMEOUT_S: Final = 60.0
LOADING_BYTES: Final = 48 * 1024 * 1024  # 44 MiB measured, and 22 more of files that all processes share
_LOOK_S: Final = 0.05
_TURN_S: Final = 5.0  # who holds a lock for longer is not one of us


async def load_afresh(
    kind: str, path: Path, environ: Mapping[str, str], *platform: Path, timeout_s: float = TIMEOUT_S
) -> Any:
    """The settings of a ``sidecar`` or an ``sts``, as ``load_sidecar`` or ``load_sts`` returns them.

    A sidecar's may have a ``platform`` file above them.

    Raises:
        ConfigError: as those do; or the interpreter could not be started, died or took longer than ``timeout_s``.
    """
    try:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", __name__, kind, str(path), *map(str, platform)),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            env=dict(environ),
        )
    except OSError as error:  # out of descriptors, processes or memory: whoever follows the file must outlive that
        raise _failed(path, f"could not be loaded ({error.strerror})") from error
    try:
        async with asyncio.timeout(timeout_s):
            answer, _ = await process.communicate()
    except TimeoutError:
        raise _failed(path, "took too long to load") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode != 0:
        raise _failed(path, "could not be loaded")
    settings, problems = pickle.loads(answer)  # noqa: S301 - written by our own child, through a pipe nobody else has
    if problems:
        raise ConfigError(problems)
    return settings


def _failed(path: Path, wrong: str) -> ConfigError:
    return ConfigError([Problem(str(path), wrong, "see standard error, and try again")])


def _answer(kind: str, path: Path, environ: Mapping[str, str], *platform: Path) -> bytes:
    from sidecar.config import load_sidecar, load_sts

    loads: dict[str, Callable[..., object]] = {"sidecar": load_sidecar, "sts": load_sts}
    try:
        answer: tuple[object, tuple[Problem, ...]] = (loads[kind](path, environ, *platform), ())
    except ConfigError as error:
        answer = (None, error.problems)
    return pickle.dumps(answer)


def be_expendable(adjustment: Path = Path("/proc/self/oom_score_adj")) -> None:
    """Ask the kernel to end this process before any other one of its cgroup, when memory is out."""
    with suppress(OSError):  # no such system, or no such right
        adjustment.write_text("1000")


def wait_for_turn(path: Path, *, patience_s: float = _TURN_S) -> int | None:
    """Wait until no other process loads the same file, at most so long. The lock ends with the returned descriptor."""
    try:
        file = os.open(path, os.O_RDONLY)
    except OSError:  # told by whoever reads it
        return None
    deadline = time.monotonic() + patience_s
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            if time.monotonic() >= deadline:
                return file
            time.sleep(_LOOK_S)
        else:
            return file


if __name__ == "__main__":
    be_expendable()
    turn = wait_for_turn(Path(sys.argv[2]))
    sys.stdout.buffer.write(_answer(sys.argv[1], Path(sys.argv[2]), os.environ, *map(Path, sys.argv[3:])))
