"""Longest-prefix search over paths, by whole segments; the cost does not depend on the number of prefixes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Generic, TypeVar

T = TypeVar("T")


class Prefixes(Generic[T]):
    """Values by path prefix, matched by whole segments."""

    __slots__ = ("_deepest", "_values")

    def __init__(self, values: Mapping[str, T]) -> None:
        self._values = {path.rstrip("/"): value for path, value in values.items()}
        self._deepest = max((path.count("/") for path in self._values), default=-1)

    def longest(self, path: str) -> tuple[str, T | None]:
        """Return the longest prefix (without trailing slash) and its value; ``("", None)`` if none matches.

        The search goes no deeper than the deepest prefix: a path of a thousand segments costs no more.
        """
        end, ends = 0, []
        for _ in range(self._deepest + 1):
            ends.append(end)
            end = path.find("/", end + 1)
            if end < 0:
                ends.append(len(path))
                break
        for end in reversed(ends):
            value = self._values.get(path[:end])
            if value is not None:
                return path[:end], value
        return "", None
