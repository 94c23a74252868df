"""Circuit breaker of one endpoint: which calls go there first, last, or not at all. Pure; times are monotonic seconds.

After a failure the endpoint is avoided for a pause: calls go elsewhere if they can, and one call after the pause is the
probe. Each failed probe doubles the pause, up to a limit. The circuit opens after several attempts in a row that got no
answer, over a second at least, so that calls which fail together do not open it; an open one gets the probe alone. An
answer of any kind keeps it closed: one user's call that is always answered 503 must not stop the others.

A failure is forgotten after a minute in which no call went there, because another works or nothing is called.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final

OPEN_AFTER: Final = 5
OPEN_AFTER_S: Final = 1.0
FIRST_PAUSE_S: Final = 0.5
MAX_PAUSE_S: Final = 4.0
FORGET_AFTER_S: Final = 60.0
_SPREAD: Final = 0.25  # so that replicas of a workload do not probe in the same moment


class Circuit:
    """State of one endpoint, closed at first. ``spread`` is random, from 0 to 1."""

    __slots__ = (
        "_avoided_until",
        "_failed_at",
        "_pause_s",
        "_silent",
        "_silent_since",
        "_spread",
        "failing_since",
        "open",
    )

    def __init__(self, spread: Callable[[], float] = random.random) -> None:
        self.open = False
        self.failing_since: float | None = None  # None: the last attempt succeeded
        self._failed_at = 0.0
        self._silent = 0
        self._silent_since = 0.0
        self._pause_s = 0.0
        self._avoided_until = 0.0
        self._spread = spread

    def avoided(self, now: float) -> bool:
        """Tell if calls should go elsewhere."""
        return self.failing_since is not None and now < self._avoided_until

    def admits(self, now: float) -> bool:
        """Tell if a call may go there at all."""
        return not (self.open and self.avoided(now))

    def begin(self, now: float, *, at_most_s: float) -> bool:
        """Begin an attempt. True: it is the probe, and until it ends (``at_most_s``) the others stay away."""
        if self.failing_since is None or self.avoided(now):
            return False
        self._avoided_until = now + at_most_s
        return True

    def forget(self, now: float) -> None:
        """Close the circuit if its last failure is too old to tell anything."""
        if self.failing_since is not None and now - self._failed_at > FORGET_AFTER_S:
            self.succeeded()

    def succeeded(self) -> None:
        """Close the circuit: the endpoint works."""
        self.open = False
        self.failing_since = None
        self._silent = 0
        self._pause_s = 0.0

    def failed(self, now: float, *, probe: bool, answered: bool) -> None:
        """Note a failure; ``answered``: the endpoint said itself that it cannot serve."""
        if answered:
            self.open, self._silent = False, 0
        else:
            if self._silent == 0:
                self._silent_since = now
            self._silent += 1
            self.open = self._silent >= OPEN_AFTER and now - self._silent_since >= OPEN_AFTER_S
        if probe or self.failing_since is None:
            self._pause_s = min(2 * self._pause_s, MAX_PAUSE_S) or FIRST_PAUSE_S
            self._avoided_until = now + self._pause_s * (1 + _SPREAD * self._spread())
        if self.failing_since is None:
            self.failing_since = now
        self._failed_at = now
