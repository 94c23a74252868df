"""Encoding of finished settings on their way from the process that validated them to the one that serves.

The writer is our own child, and only we hold the other end of its pipe. It reads files that others may write, with a
parser in C, so its answer is decoded as if it were not ours: only classes of ours and paths are made, and no
function is called (ADR 0009).
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from enum import Enum
from typing import Any, Final

from delegation_core.errors import ConfigError, Problem

MAX_BYTES: Final = 32 * 1024 * 1024  # 10,000 rules take 2.5 MiB

_OURS: Final = ("sidecar.", "delegation_core.")
_PATHS: Final = frozenset({"Path", "PosixPath"})


class HandoverError(Exception):
    """The answer did not come from our loader. The text quotes no part of it."""


def encode(load: Callable[[], object]) -> bytes:
    """Encode the result of ``load``, or the problems and included files of its ConfigError."""
    try:
        answer: tuple[object, tuple[Problem, ...]] = (load(), ())
    except ConfigError as error:
        answer = (error.followed, error.problems)
    written = io.BytesIO()
    _Answer(written).dump(answer)
    return written.getvalue()


def decode(answer: bytes) -> Any:
    """Return the settings.

    Raises:
        ConfigError: the answer holds problems instead of settings.
        HandoverError: the answer is malformed, or holds an object that settings never contain.
    """
    try:
        settings, problems = _Settings(io.BytesIO(answer)).load()
    except Exception as error:  # of the format, of an import, of a class that is given anything
        raise HandoverError("the loader's answer cannot be read") from error
    if not isinstance(problems, tuple) or not all(isinstance(problem, Problem) for problem in problems):
        raise HandoverError("the loader's answer cannot be read")
    if problems:
        raise ConfigError(problems, followed=settings if isinstance(settings, tuple) else ())
    return settings


class _Answer(pickle.Pickler):
    def reducer_override(self, value: object) -> Any:
        """Write the member of an enumeration by its value: Python before 3.11.4 writes a call of ``getattr``."""
        return (type(value), (value.value,)) if isinstance(value, Enum) else NotImplemented


class _Settings(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        """Return a class by name. Raise UnpicklingError for functions and for names that a module imports."""
        if module.partition(".")[0] == "pathlib" and name in _PATHS:
            return super().find_class("pathlib", name)
        if module.startswith(_OURS) and "." not in name:
            found = super().find_class(module, name)
            if isinstance(found, type) and found.__module__ == module:
                return found
        raise pickle.UnpicklingError("the answer names what is not part of settings")
