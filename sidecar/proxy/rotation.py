"""Members looked at in turn, a few at a time: the next look goes on where the last one ended."""

from __future__ import annotations

from collections import OrderedDict
from itertools import islice
from typing import Generic, TypeVar

T = TypeVar("T")


class Rotation(Generic[T]):
    """``found``: those of the last look that were what is sought, the best at the end; ``looked_at``: when that was.

    ``fruitless``: so many members in a row were looked at in vain. From ``len`` on there is none among all.
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
        """Add a member, to be looked at after all others."""
        self._members[member] = None

    def discard(self, member: T) -> None:
        """Take a member out."""
        self._members.pop(member, None)

    def next(self, most: int) -> tuple[T, ...]:
        """The next members, at most so many, and each once. They come last in the next looks."""
        some = tuple(islice(self._members, most))
        for member in some:
            self._members.move_to_end(member)
        return some
