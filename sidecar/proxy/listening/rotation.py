"""Round-robin over members: each search examines a few and continues where the last search ended."""

from __future__ import annotations

from collections import OrderedDict
from itertools import islice
from typing import Generic, TypeVar

T = TypeVar("T")


class Rotation(Generic[T]):
    """Members in rotation. ``found``: matches of the last search, at ``looked_at``; the best is the last.

    ``fruitless``: members examined in a row without a match; once it reaches ``len``, no member matches.
    """

    __slots__ = ("_members", "found", "fruitless", "looked_at")

    def __init__(self) -> None:
        self._members: OrderedDict[T, None] = OrderedDict()
        self.found: list[T] = []
        self.fruitless = 0
        self.looked_at = float("-inf")

    def __len__(self) -> int:
        return len(self._members)

    def add(self, member: T) -> None:
        """Add a member at the end."""
        self._members[member] = None

    def discard(self, member: T) -> None:
        """Remove a member."""
        self._members.pop(member, None)

    def next(self, most: int) -> tuple[T, ...]:
        """Return the next members, at most ``most``, each once, and move them to the end."""
        some = tuple(islice(self._members, most))
        for member in some:
            self._members.move_to_end(member)
        return some
