"""What is written in one round of the event loop leaves together, at its end.

A write wakes whoever reads it, on an idle core by an interrupt: with 32 requests at once that was a fifth of a warm
request's cost. Twenty microseconds lie between two requests, in which the woken one has done its work and sleeps again.
Put off until all that came in this round was looked at, writes follow each other closely, and each reader is woken
once. So few are put off, and so little, that nobody waits long for another's request to be served (ADR 0027).
"""

from __future__ import annotations

import asyncio
import logging
from asyncio import get_running_loop
from collections import deque
from typing import Final

MOST_TOGETHER: Final = 32  # the first has waited by then for so many other requests to be served: about a millisecond
_MAX_PUT_OFF: Final = 16 * 1024  # bytes; what is longer is worth the trouble of its own

_log: Final = logging.getLogger("sidecar.wire")


class Writes:
    """The writes of one side's connections, in their order. At most so many are put off; with 1 none is.

    Whoever ends a connection, or one direction of it, calls ``write_out`` before.
    """

    __slots__ = ("_most", "_most_alone", "_waiting")

    def __init__(self, most: int = MOST_TOGETHER) -> None:
        self._most = most
        self._most_alone = _MAX_PUT_OFF if most > 1 else -1  # bytes of the first one
        self._waiting: deque[tuple[asyncio.Transport, bytes]] = deque()

    def put_off(self, transport: asyncio.Transport, data: bytes) -> None:
        """Write, at the end of the running loop's round at the latest."""
        waiting = self._waiting
        if waiting:
            waiting.append((transport, data))
            if len(waiting) >= self._most or len(data) > _MAX_PUT_OFF:
                self.write_out()
            return
        waiting.append((transport, data))
        if len(data) > self._most_alone:
            self.write_out()
        else:
            get_running_loop().call_soon(self.write_out)

    def write_out(self) -> None:
        """Write everything that was put off. What is for somebody who is gone is dropped.

        A write may pause its connection, and who is told of that may end one: called from inside itself it goes on
        where it is, so that nothing is left for after that end.
        """
        waiting = self._waiting
        while waiting:
            transport, data = waiting.popleft()
            try:
                if not transport.is_closing():
                    transport.write(data)
            except Exception:  # noqa: BLE001  a bug costs the connection it is in, and not the others
                _log.exception("a write failed")
                transport.abort()
