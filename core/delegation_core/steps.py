"""Long computations in steps, so that they do not block the event loop.

Such a computation is a generator: it yields after every step of about a millisecond, and returns its result. A thread
would not help: pure Python holds the interpreter's lock, and the loop would wait for it at every system call.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from itertools import islice
from typing import Final, TypeAlias, TypeVar

T = TypeVar("T")
Steps: TypeAlias = Generator[None, None, T]

IN_A_STEP: Final = 256  # items of a list that is worked through in steps


def at_once(steps: Steps[T]) -> T:
    """Run a computation to its end without a pause, if no event loop waits."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: T = end.value
            return result


def drained(items: list[T], size: int = IN_A_STEP) -> Iterator[list[T]]:
    """Remove and yield at most ``size`` items of a list at a time, so that freeing them is spread over steps too."""
    while items:
        some = items[:size]
        del items[:size]
        yield some


def slices(items: Iterable[T], size: int = IN_A_STEP) -> Iterator[list[T]]:
    """Cut into lists of at most ``size`` items."""
    rest = iter(items)
    while found := list(islice(rest, size)):
        yield found
