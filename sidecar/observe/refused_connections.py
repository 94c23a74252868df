"""Connections that end before they make a request: each is counted, and recorded at its listener's rate."""

from __future__ import annotations

from typing import Protocol, Unpack

from delegation_core.errors import Reason
from delegation_core.records.record import Direction, RecordFields
from sidecar.observe.record_rate import Counted, UnprovenRecords


class Log(Counted, Protocol):
    """The part of the record stream used here."""

    def event(self, event: str, **fields: Unpack[RecordFields]) -> None:
        """Write one record."""
        ...


class RefusedConnections:
    """Writes ``connection.refused``: for failed handshakes, and for connections abandoned or cut before a request."""

    def __init__(self, log: Log, direction: Direction, unproven: UnprovenRecords | None = None) -> None:
        self._log = log
        self._direction = direction
        self.unproven = unproven or UnprovenRecords(log)

    def __call__(self, reason: Reason, detail: str, address: str | None) -> None:
        """Count and record a refused connection from ``address``."""
        log = self._log
        log.metrics.handshake_refused(reason)
        if self.unproven.take():
            log.event(
                "connection.refused",
                decision="deny",
                reason=reason,
                direction=self._direction,
                source=address,
                detail=detail,
                suppressed=self.unproven.suppressed(),
            )
