"""Who comes next of those who have more here than is served at a time: one of each group in each round of the loop.

A peer may send thousands of requests at once (RFC 9112 section 9.3.2), and one read holds all of them. Served in one
go, they would keep everybody else waiting for as long as that takes. So only the first is served with the bytes that
brought it. Those behind it wait for a turn; and who opens many connections has many requests waiting, but one turn.
So it is with tens of thousands of tiny chunks or frames in one read: a few hundred are read, and the others wait.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Hashable

Turn = Callable[[], None]


class Turns:
    """Everybody who waits at one listener. ``take`` is called once, in a later round of the running loop."""

    def __init__(self) -> None:
        self._waiting: dict[Hashable, deque[Turn]] = {}
        self._round: asyncio.Handle | None = None

    def __len__(self) -> int:
        return sum(map(len, self._waiting.values()))

    def wait(self, group: Hashable, take: Turn) -> None:
        """Wait behind those of the same group."""
        self._waiting.setdefault(group, deque()).append(take)
        if self._round is None:
            self._round = asyncio.get_running_loop().call_soon(self._next)

    def _next(self) -> None:
        self._round = None
        waiting, self._waiting = self._waiting, {}
        for group, turns in waiting.items():
            take = turns.popleft()
            if turns:  # before those who come meanwhile
                self._waiting[group] = turns
            take()
        if self._waiting and self._round is None:
            self._round = asyncio.get_running_loop().call_soon(self._next)
