"""Handles of an agent that serves one subject at a time.

A handle tells requests apart, but inside one agent process nothing keeps one user's data from another user's request.
Where ``subjects_at_once`` is 1, a second subject is refused while a request of the first is in progress, or its handle
lingers. The subject is the pair (iss, sub).
"""

from __future__ import annotations

from sidecar.errors import Reason, Unavailable
from sidecar.proxy.journeys.handles import Handles, ServedRequest


class OneSubject(Handles):
    """Handles of the requests of one subject, until none is in progress and none lingers."""

    _subject: tuple[str, str] | None = None
    _in_progress = 0  # counted apart from handles: one may end before its request does

    def open(self, served: ServedRequest) -> str:
        """Make the handle of a request that starts now.

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
        """End the handle with its request. An empty one is of a request that was refused."""
        if handle:
            self._in_progress -= 1
        super().end(handle)

    def _any_lingers(self) -> bool:
        self.sweep()
        return len(self._lingering) > 0
