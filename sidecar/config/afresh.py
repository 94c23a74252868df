"""Load settings again while the process runs: in a fresh interpreter, because forking a process with threads is unsafe.

Run as a module (``-m sidecar.config.afresh KIND PATH [PLATFORM]``) it is that interpreter: it writes the finished
settings, or all their problems, to its standard output and ends.
"""

from __future__ import annotations

import asyncio
import pickle
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from sidecar.errors import ConfigError, Problem

TIMEOUT_S: Final = 60.0


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


if __name__ == "__main__":
    import os

    sys.stdout.buffer.write(_answer(sys.argv[1], Path(sys.argv[2]), os.environ, *map(Path, sys.argv[3:])))
