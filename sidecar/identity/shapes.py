"""Cache of field positions in messages, by message size: a message of a known shape is split without a loop. Pure.

Peers of one kind send hellos and lists of certificates that differ only in random bytes, keys and certificates. Where
all other bytes, every length among them, are equal and in the same places, the fields are in the same places as well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from operator import itemgetter
from typing import Final

_Pieces = Callable[[bytes], tuple[bytes, ...]]

_NONE: Final = slice(0)
MAX_SHAPES: Final = 64  # of one kind of message; anybody may send hellos
MAX_BYTES: Final = 4096  # of a message whose shape is remembered


class Shapes:
    """Shapes of one kind of message: the last one of each size. Cleared when full."""

    __slots__ = ("_of_size",)

    def __init__(self) -> None:
        self._of_size: dict[int, tuple[_Pieces, tuple[bytes, ...], _Pieces]] = {}

    def __len__(self) -> int:
        return len(self._of_size)

    def cut(self, message: bytes) -> tuple[bytes, ...] | None:
        """Return the fields of a message of a known shape, else None."""
        shape = self._of_size.get(len(message))
        if shape is None:
            return None
        fixed, same, fields = shape
        return fields(message)[2:] if fixed(message) == same else None

    def keep(self, message: bytes, fields: Sequence[tuple[int, int]]) -> None:
        """Remember the positions of a message's fields: start and end of each, in order. Everything else is fixed."""
        if len(message) > MAX_BYTES:
            return
        if len(self._of_size) >= MAX_SHAPES:
            self._of_size.clear()
        ends = [0, *(end for _, end in fields)]
        starts = [*(start for start, _ in fields), len(message)]
        fixed = _pieces(zip(ends, starts, strict=True))
        self._of_size[len(message)] = (fixed, fixed(message), _pieces(fields))


def _pieces(bounds: Iterable[tuple[int, int]]) -> _Pieces:
    """Return a function that extracts these pieces, preceded by two empty ones, so that it always returns a tuple."""
    return itemgetter(_NONE, _NONE, *(slice(start, end) for start, end in bounds))
