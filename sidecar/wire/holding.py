"""How much of what passes through waits here: written and not yet taken by the other end, or arrived and not yet read.

The source of an answer has to wait once so much of it is not taken. What a kernel may hold unread bounds one read, and
with it what is written at once however little may wait.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Final

from sidecar.wire.kernel import hold_received, receives

_LITTLE_SENT: Final = 16 * 1024
# Half of what a connection begins with, and no less: a sender waits for a whole segment, of 64 KiB on loopback, or for
# half of the largest window it has seen (RFC 9293 section 3.8.6.2.1). With less a transfer moves by its timer only.
_LITTLE_RECEIVED: Final = 32 * 1024
_AGAIN: Final = 256 * 1024  # where the kernel found the size by itself before; once it was told it never does again


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
        sent, received = (_LITTLE_SENT, _LITTLE_RECEIVED) if self._little else (self._sent, self._received)
        if sent is not None:
            transport.set_write_buffer_limits(high=sent)
        if received is not None:
            hold_received(transport, received)

    def change(self, transports: Iterable[asyncio.Transport], *, little: bool) -> None:
        """From now on little, or as usual; also for these, which are the ones there are.

        One whose window the kernel has found by itself keeps that: nobody knows how large its sender saw it.
        """
        if little == self._little:
            return
        self._little = little
        for transport in transports:
            if not transport.is_closing():  # uvloop takes no word of a closed one
                transport.set_write_buffer_limits(high=_LITTLE_SENT if little else self._sent)
                if self._received is not None:
                    hold_received(transport, _LITTLE_RECEIVED if little else self._received)
                elif receives(transport) == _LITTLE_RECEIVED:
                    hold_received(transport, _AGAIN)
