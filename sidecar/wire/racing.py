"""Several addresses of one name: in which order they are tried, and which is connected first (RFC 8305).

uvloop's ``create_connection`` tries addresses one after another, each as long as the system likes, and the standard
library's race is not there on uvloop. So the race is here, and it is about TCP alone: TLS begins on the one connection
that won, as two handshakes for one call would be twice the work where an upstream is slow because it is busy.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final

ATTEMPT_DELAY_S: Final = 0.25  # RFC 8305 section 8

Connect = Callable[[str], Coroutine[Any, Any, socket.socket]]


def interleaved(addresses: Sequence[str]) -> list[str]:
    """Families in turn, beginning with that of the first address; within a family as they came (RFC 8305 section 4)."""
    first_is_v6 = bool(addresses) and ":" in addresses[0]
    first = [address for address in addresses if (":" in address) is first_is_v6]
    other = [address for address in addresses if (":" in address) is not first_is_v6]
    both = min(len(first), len(other))
    turns = [address for pair in zip(first, other, strict=False) for address in pair]
    return turns + first[both:] + other[both:]


async def connect(address: str, port: int) -> socket.socket:
    """A TCP connection to an IP literal.

    Raises:
        OSError: there is none.
    """
    made = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
    try:
        made.setblocking(False)  # noqa: FBT003 - the library's signature
        await asyncio.get_running_loop().sock_connect(made, (address, port))
    except BaseException:
        made.close()
        raise
    return made


class Race:
    """One race. ``beaten`` are the addresses that failed, or had begun before the winner and came after it."""

    def __init__(self, addresses: Sequence[str], connect: Connect, *, delay_s: float = ATTEMPT_DELAY_S) -> None:
        self._waiting = list(addresses)
        self._connect = connect
        self._delay_s = delay_s
        self._running: dict[asyncio.Task[socket.socket], str] = {}
        self.beaten: list[str] = []

    async def win(self) -> tuple[str, socket.socket]:
        """The first address that is connected, and its socket. All others are closed.

        Raises:
            OSError: no address can be connected: how the last one failed.
        """
        failure: OSError = OSError("no address")
        try:
            while self._waiting or self._running:
                self._begin_next()
                delay_s = self._delay_s if self._waiting else None
                done, _ = await asyncio.wait(self._running, timeout=delay_s, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    try:
                        made = task.result()
                    except OSError as error:
                        failure = error
                        self.beaten.append(self._running.pop(task))
                    else:
                        return self._running.pop(task), made
            raise failure
        finally:
            self.beaten += self._running.values()
            await self._close_the_rest()

    def _begin_next(self) -> None:
        """The next address: the one before it has failed, or had its time alone."""
        if self._waiting:
            address = self._waiting.pop(0)
            task = asyncio.get_running_loop().create_task(self._connect(address))
            self._running[task] = address

    async def _close_the_rest(self) -> None:
        rest = tuple(self._running)
        self._running.clear()
        for task in rest:
            task.cancel()
            task.add_done_callback(_close_late)
        if rest:
            await asyncio.wait(rest)


def _close_late(task: asyncio.Task[socket.socket]) -> None:
    if not task.cancelled() and task.exception() is None:
        task.result().close()
