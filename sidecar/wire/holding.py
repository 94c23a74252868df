"""How much of what passes through waits here: written and not yet taken by the other end, or arrived and not yet read.

The source of an answer has to wait once so much of it is not taken. What a kernel may hold unread bounds one read, and
with it what is written at once however little may wait.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Final

from sidecar.wire.kernel import hold_received

_LITTLE: Final = 16 * 1024
_AGAIN: Final = 256 * 1024  # of a connection that was told to hold little; a kernel never again finds out by itself


class Holding:
    """How much waits at each connection of a set, in bytes and each way: as usual, or little while memory is short.

    None is as much as the event loop (half a MiB with uvloop's TLS) or the kernel thinks right.
    """

    def __init__(self, *, sent: int | None = None, received: int | None = None) -> None:
        self._sent = sent
        self._received = received
        self._little = False

    def apply(self, transport: asyncio.Transport) -> None:
        """Limit a new connection."""
        sent, received = (_LITTLE, _LITTLE) if self._little else (self._sent, self._received)
        if sent is not None:
            transport.set_write_buffer_limits(high=sent)
        if received is not None:
            hold_received(transport, received)

    def change(self, transports: Iterable[asyncio.Transport], *, little: bool) -> None:
        """From now on little, or as usual; also for these, which are the ones there are."""
        if little == self._little:
            return
        self._little = little
        for transport in transports:
            if not transport.is_closing():  # uvloop takes no word of a closed one
                transport.set_write_buffer_limits(high=_LITTLE if little else self._sent)
                hold_received(transport, _LITTLE if little else self._received or _AGAIN)
