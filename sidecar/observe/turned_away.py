"""Connections that ended before they made a request: each is counted, and so many a second are told."""

from __future__ import annotations

from typing import Final

from sidecar.errors import Reason
from sidecar.observe.access_log import AccessLog
from sidecar.observe.record import Direction

EVENTS_PER_S: Final = 20


class TurnedAway:
    """Leaves ``connection.refused``. Anybody can connect, so a flood must not fill the record stream.

    Above ``EVENTS_PER_S`` only the metric counts; the next event says how many went untold.
    """

    def __init__(self, log: AccessLog, direction: Direction) -> None:
        self._log = log
        self._direction = direction
        self._second = 0
        self._told = 0
        self._untold = 0

    def __call__(self, reason: Reason, detail: str, address: str) -> None:
        """A connection from ``address`` was turned away."""
        log = self._log
        log.metrics.handshake_refused(reason)
        second = int(log.monotonic())
        if second != self._second:
            self._second, self._told = second, 0
        if self._told >= EVENTS_PER_S:
            self._untold += 1
            return
        self._told += 1
        if self._untold:
            detail = f"{detail}; {self._untold} before it went untold"
            self._untold = 0
        log.event(
            "connection.refused",
            decision="deny",
            reason=reason,
            direction=self._direction,
            source=address,
            detail=detail,
        )
