"""Countersigning of the record stream: from time to time the token service signs the head of its hash chain.

Countersigned records cannot be rewritten unnoticed, even by an attacker who controls this host later. Records after the
last checkpoint can; so the interval bounds what such an attacker can change. No request waits for a checkpoint: one
that fails is logged, counted, and tried again at the next interval.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Final

from delegation_core.checkpoint import Checkpoint, Head
from delegation_core.errors import Reason, SidecarError
from sidecar.observe.access_log import AccessLog

_log: Final = logging.getLogger("sidecar")

EVERY_S: Final = 60.0
TIMEOUT_S: Final = 2.0
_ENCODING_S: Final = 0.2  # records are encoded in batches, by another thread

Ask = Callable[[Head], Awaitable[Checkpoint]]
"""Returns a proven checkpoint of a head. Raises SidecarError."""


class Countersigning:
    """Checkpoints of one record stream, every ``every_s`` seconds while there are new records."""

    def __init__(
        self, log: AccessLog, ask: Ask, *, every_s: float = EVERY_S, close: Callable[[], Awaitable[None]] | None = None
    ) -> None:
        self._log = log
        self._ask = ask
        self._every_s = every_s
        self._close = close
        self._failing = False
        self._done_seq = 0  # of the record that holds the last checkpoint: nothing to sign until there is another
        log.metrics.uncountersigned = lambda: log.last_seq - self._done_seq

    async def run(self) -> None:
        """Countersign until cancelled."""
        while True:
            await asyncio.sleep(self._every_s)
            await self.checkpoint()

    async def close(self) -> None:
        """Countersign new records before the process ends, and close the connections."""
        await self.checkpoint()
        if self._close is not None:
            await self._close()

    async def checkpoint(self) -> None:
        """Get the head countersigned and record the checkpoint. Never raises for a failure of the token service."""
        if self._log.last_seq == self._done_seq:
            return
        head = await self._head()
        if head is None:
            return
        try:
            async with asyncio.timeout(TIMEOUT_S):
                checkpoint = await self._ask(head)
        except (SidecarError, TimeoutError) as error:
            self._note_failure(error)
            return
        if self._failing:
            self._failing = False
            _log.warning("records are countersigned again")
        self._log.event("records.countersigned", checkpoint=checkpoint.text())
        self._done_seq = self._log.last_seq

    async def _head(self) -> Head | None:
        """Return the head once all records so far are encoded, or the current head after a time limit."""
        log, wanted = self._log, self._log.last_seq
        deadline = time.monotonic() + _ENCODING_S
        while (log.head is None or log.head[0] < wanted) and time.monotonic() < deadline:  # noqa: ASYNC110 - no event
            await asyncio.sleep(0.005)
        return None if log.head is None else Head(run=log.run, seq=log.head[0], hash=log.head[1])

    def _note_failure(self, error: SidecarError | TimeoutError) -> None:
        self._log.metrics.countersigning_failed()
        if not self._failing:
            self._failing = True
            reason = error.reason if isinstance(error, SidecarError) else Reason.STS_TIMEOUT
            _log.warning("records are not countersigned", extra={"reason": reason})
