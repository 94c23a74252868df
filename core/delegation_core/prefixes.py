"""Longest-prefix search over paths, by whole segments; the cost does not depend on the number of prefixes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Generic, TypeVar

T = TypeVar("T")


class Prefixes(Generic[T]):
    """Values by path prefix, matched by whole segments. ``deepest``: segments of the longest prefix, -1 without any."""

    __slots__ = ("_values", "deepest")

    def __init__(self, values: Mapping[str, T]) -> None:
        self._values = {path.rstrip("/"): value for path, value in values.items()}
        self.deepest = max((path.count("/") for path in self._values), default=-1)

    def longest(self, path: str) -> tuple[str, T | None]:
        """Return the longest matching prefix (without trailing slash) and its value; ``("", None)`` if none matches.

        The cost grows with the deepest prefix, not with the length of the path.
        """
        values = self._values
        longest, found, end = "", values.get(""), 0
        for _ in range(self.deepest):
            end = path.find("/", end + 1)
            prefix = path if end < 0 else path[:end]
            value = values.get(prefix)
            if value is not None:
                longest, found = prefix, value
            if end < 0:
                break
        return longest, found
