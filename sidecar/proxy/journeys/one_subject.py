"""Handles of an agent that serves one subject at a time.

Handles separate requests, but inside one agent process nothing separates the data of two users. With
``subjects_at_once: 1`` the sidecar refuses a second subject while a request of the first is in progress, or a handle
lingers. A subject is the pair (iss, sub).
"""

from __future__ import annotations

from delegation_core.errors import Reason, Unavailable
from sidecar.proxy.journeys.handles import Handles, ServedRequest


class OneSubject(Handles):
    """Handles of one subject at a time. The next subject may begin when no request is in progress and none lingers."""

    _subject: tuple[str, str] | None = None
    _in_progress = 0  # requests, not handles: a handle may end before its request

    def open(self, served: ServedRequest) -> str:
        """Make and store the handle of a new request; return it.

        Raises:
            Unavailable: SUBJECT_BUSY, the agent serves another subject.
        """
        token = served.delegation.token
        subject = token.issuer, token.subject
        if subject != self._subject:
            if self._in_progress or self._any_lingers():
                raise Unavailable(Reason.SUBJECT_BUSY)
            self._subject = subject
        handle = super().open(served)
        self._in_progress += 1
        return handle

    def end(self, handle: str) -> None:
        """End the handle with its request. ``handle`` is empty for a request that was refused before ``open``."""
        if handle:
            self._in_progress -= 1
        super().end(handle)

    def _any_lingers(self) -> bool:
        self.sweep()
        return bool(self._lingering)
