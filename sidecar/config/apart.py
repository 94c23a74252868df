"""Load settings in a process of its own, so that what loading needs is not kept in memory.

The validation library and the models made with it take about 12 MiB, a fifth of an idle sidecar, for a few milliseconds
of work. A forked child does it and hands back the finished settings, which are plain dataclasses.
"""

from __future__ import annotations

import os
import pickle
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from sidecar.errors import ConfigError

T = TypeVar("T")


def load_apart(load: Callable[[Path, Mapping[str, str]], T], path: Path, environ: Mapping[str, str]) -> T:
    """What ``load(path, environ)`` returns. For the start of a process: there must be no other thread yet.

    Raises:
        ConfigError: as ``load`` does.
        RuntimeError: the child died without an answer; what killed it is on standard error.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        _answer(writer, load, path, environ)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        answer = pipe.read()
    _, status = os.waitpid(child, 0)
    if status != 0 or not answer:
        raise RuntimeError("the process that loads the settings ended without an answer")
    settings, problems = pickle.loads(answer)  # noqa: S301 - written by our own child, through a pipe nobody else has
    if problems:
        raise ConfigError(problems)
    result: T = settings
    return result


def _answer(
    writer: int, load: Callable[[Path, Mapping[str, str]], object], path: Path, environ: Mapping[str, str]
) -> None:
    """In the child: answer and end, whatever happens. Nothing of the parent's (exit handlers, buffers) runs twice."""
    status = 1
    try:
        with os.fdopen(writer, "wb") as pipe:
            try:
                answer: tuple[object, object] = (load(path, environ), ())
            except ConfigError as error:
                answer = (None, error.problems)
            pipe.write(pickle.dumps(answer))
        status = 0
    finally:
        if status:
            traceback.print_exc()
            sys.stderr.flush()
        os._exit(status)
