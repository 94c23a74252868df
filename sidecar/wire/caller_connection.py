"""Connection of a caller, as a listener sees it, for any version of HTTP."""

from __future__ import annotations

import asyncio
from typing import Protocol

from sidecar.errors import SidecarError
from sidecar.wire.stream import RequestHandler


class CallerConnection(Protocol):
    """One accepted connection. ``handler`` serves its requests."""

    transport: asyncio.Transport
    handler: RequestHandler

    @property
    def waits_since(self) -> float | None:
        """Start of the current wait for a request, or for the peer to stop (monotonic seconds); None: there is none."""

    @property
    def behind_since(self) -> float | None:
        """Start of the period in which the peer takes next to nothing (monotonic seconds); None if it is not behind."""

    @property
    def kept(self) -> bool:
        """Tell if it is idle, waiting for another request."""

    def hand_over(self, handler: RequestHandler) -> None:
        """Let another handler serve its requests from now on."""

    def stop(self, error: SidecarError) -> None:
        """End what is in progress for ``error``; then close."""

    def give_way(self, error: SidecarError) -> None:
        """End at once, as evicted."""

    def give_way_stuck(self, since: float, error: SidecarError) -> None:
        """End those of its requests whose peer has taken next to nothing since then (monotonic seconds)."""

    def give_up(self) -> None:
        """Cut it off if only its peer keeps it open."""

    def finish(self) -> None:
        """Close after the requests in progress; at once if there are none."""

    def end_unused(self) -> None:
        """End now if no request is in progress, else after it."""

    def cut_off(self) -> None:
        """End the connection at once."""

    def sweep(self, now: float) -> None:
        """Act on every deadline that has passed at ``now`` (monotonic seconds)."""
