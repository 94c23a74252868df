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
    reader = _Settings(io.BytesIO(answer))
    try:
        settings, problems = reader.load()
    except Exception as error:  # of the format, of an import, of a class that is given anything
        raise HandoverError("the loader's answer cannot be read") from error
    finally:
        changed = reader.restore()
    if changed:
        raise HandoverError("the loader's answer cannot be read")
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
    """Reads an answer. The format can set attributes of a class or a member too: call ``restore`` afterwards."""

    def __init__(self, answer: io.BytesIO) -> None:
        super().__init__(answer)
        self._before: dict[Any, dict[str, Any]] = {}

    def find_class(self, module: str, name: str) -> Any:
        """Return a class by name. Raise UnpicklingError for functions and for names that a module imports."""
        if module.partition(".")[0] == "pathlib" and name in _PATHS:
            return self._remember(super().find_class("pathlib", name))
        if module.startswith(_OURS) and module != __name__ and "." not in name:
            found = super().find_class(module, name)
            if isinstance(found, type) and found.__module__ == module:
                return self._remember(found)
        raise pickle.UnpicklingError("the answer names what is not part of settings")

    def _remember(self, found: type) -> type:
        for one in (found, *(found if issubclass(found, Enum) else ())):
            if one not in self._before:
                self._before[one] = _attributes(one)
        return found

    def restore(self) -> bool:
        """Give the classes and members of the answer their own attributes again. Return True if any had others."""
        changed = False
        for one, before in self._before.items():
            base = type if isinstance(one, type) else object  # an enumeration refuses to set its own
            now = _attributes(one)
            for name in now.keys() - before.keys():
                base.__delattr__(one, name)
                changed = True
            for name, value in before.items():
                if name not in now or now[name] is not value:
                    base.__setattr__(one, name, value)
                    changed = True
        return changed


def _attributes(one: Any) -> dict[str, Any]:
    """Return the attributes of a class or a member, and those that its dictionary lacks."""
    beside = ("__class__", "__bases__", "__name__", "__qualname__") if isinstance(one, type) else ("__class__",)
    return {name: getattr(one, name) for name in beside} | dict(vars(one))
