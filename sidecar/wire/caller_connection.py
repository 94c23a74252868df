"""Connection of a caller, as a listener sees it, for any version of HTTP."""

from __future__ import annotations

import asyncio
from typing import Protocol

from delegation_core.errors import SidecarError
from sidecar.wire.stream import RequestHandler


class CallerConnection(Protocol):
    """One accepted connection. ``handler`` serves its requests."""

    transport: asyncio.Transport
    handler: RequestHandler

    @property
    def waits_since(self) -> float | None:
        """Start of the current wait for a request, or for the peer to stop (monotonic seconds); None if not waiting."""

    @property
    def behind_since(self) -> float | None:
        """Start of the period in which the peer reads almost nothing (monotonic seconds); None if it keeps up."""

    @property
    def kept(self) -> bool:
        """True if the connection is idle between requests."""

    def hand_over(self, handler: RequestHandler) -> None:
        """Replace the handler of later requests."""

    def stop(self, error: SidecarError) -> None:
        """End the requests in progress with ``error``; then close."""

    def give_way(self, error: SidecarError) -> None:
        """Evict the connection: end it at once."""

    def give_way_stuck(self, since: float, error: SidecarError) -> None:
        """End the requests whose peer has read almost nothing since ``since`` (monotonic seconds)."""

    def give_up(self) -> None:
        """End the connection at once if only its peer keeps it open."""

    def finish(self) -> None:
        """Close when the requests in progress have ended; at once if there are none."""

    def end_unused(self) -> None:
        """Close when the request in progress has ended; at once if there is none."""

    def cut_off(self) -> None:
        """End the connection at once."""

    def sweep(self, now: float) -> None:
        """Act on every deadline that has passed at ``now`` (monotonic seconds)."""
