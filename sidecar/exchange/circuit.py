"""Circuit breaker of one endpoint: prefers, avoids or excludes it. Pure; times are monotonic seconds.

After a failure the endpoint is avoided for a pause: calls go elsewhere if they can, and one call after the pause is the
probe. Each failed probe doubles the pause, up to a limit. The circuit opens after several failures without any answer
in between, over a second at least, so that calls which fail together do not open it; an open one gets probes alone.

The calls of one user cannot open it for the others. An answer of any kind, even a 503, keeps it closed. Silence counts
once per subject since the last answer, however often that subject's calls hang; a failed connection counts each time.
Subjects that got no answer have a pause and a probe of their own, so that none of them uses up the probe of the others.

A failure is forgotten after a minute without a call to the endpoint.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Hashable
from enum import Enum, auto
from typing import Final

OPEN_AFTER: Final = 5
OPEN_AFTER_S: Final = 1.0
FIRST_PAUSE_S: Final = 0.5
MAX_PAUSE_S: Final = 4.0
FORGET_AFTER_S: Final = 60.0
MAX_KNOWN: Final = 256  # subjects; any more share the pause of those without a failure
_SPREAD: Final = 0.25  # so that replicas of a workload do not probe in the same moment


class Failure(Enum):
    """Kinds of failures of an endpoint."""

    UNREACHED = auto()  # nothing was sent
    SILENT = auto()  # no answer, at least for this subject
    ANSWERED = auto()  # the endpoint said itself that it cannot serve


class Pause:
    """The time until the next probe, doubled by each that fails."""

    __slots__ = ("_length_s", "until")

    def __init__(self) -> None:
        self.until = 0.0
        self._length_s = 0.0

    def lengthen(self, now: float, spread: float) -> None:
        """Begin a pause: ``FIRST_PAUSE_S``, or twice the last one up to ``MAX_PAUSE_S``; ``spread`` adds up to 25 %."""
        self._length_s = min(2 * self._length_s, MAX_PAUSE_S) or FIRST_PAUSE_S
        self.until = now + self._length_s * (1 + _SPREAD * spread)


class Circuit:
    """State of one endpoint, closed at first. ``spread`` is random, from 0 to 1."""

    __slots__ = (
        "_failed_at",
        "_failures",
        "_failures_since",
        "_known",
        "_pause",
        "_pause_of_known",
        "_spread",
        "failing_since",
        "open",
    )

    def __init__(self, spread: Callable[[], float] = random.random) -> None:
        self._spread = spread
        self._failed_at = 0.0
        self._failures = 0
        self._failures_since = 0.0
        self.record_success()

    def should_avoid(self, now: float, subject: Hashable) -> bool:
        """True if calls of this subject should go elsewhere."""
        return self.failing_since is not None and now < self._pause_for(subject).until

    def admits(self, now: float, subject: Hashable) -> bool:
        """True if the endpoint may receive a call of this subject."""
        return not (self.open and self.should_avoid(now, subject))

    def begin(self, now: float, subject: Hashable, *, at_most_s: float) -> Pause | None:
        """Begin an attempt. If it is a probe, return its pause, and keep others away for ``at_most_s``; else None."""
        if self.failing_since is None or self.should_avoid(now, subject):
            return None
        pause = self._pause_for(subject)
        pause.until = now + at_most_s
        return pause

    def forget(self, now: float) -> None:
        """Close the circuit if its last failure is older than ``FORGET_AFTER_S``."""
        if self.failing_since is not None and now - self._failed_at > FORGET_AFTER_S:
            self.record_success()

    def record_success(self) -> None:
        """Close the circuit: the endpoint works."""
        self.failing_since: float | None = None  # None: the last attempt succeeded
        self._pause, self._pause_of_known = Pause(), Pause()
        self._answered()

    def record_failure(self, now: float, subject: Hashable, failure: Failure, *, probe: Pause | None) -> None:
        """Record a failed attempt. ``probe``: the result of ``begin``."""
        if failure is Failure.ANSWERED:
            self._answered()
        else:
            self._count(now, subject, failure)
            self.open = self._failures >= OPEN_AFTER and now - self._failures_since >= OPEN_AFTER_S
        if self.failing_since is None:
            self.failing_since = now
            self._pause.lengthen(now, self._spread())
            self._pause_of_known.lengthen(now, self._spread())
        elif probe is not None:
            probe.lengthen(now, self._spread())
        self._failed_at = now

    def _answered(self) -> None:
        self.open = False
        self._failures = 0
        self._known: set[Hashable] = set()

    def _count(self, now: float, subject: Hashable, failure: Failure) -> None:
        if failure is Failure.SILENT:
            if subject in self._known:
                return
            if len(self._known) < MAX_KNOWN:
                self._known.add(subject)
        self._failures += 1
        if self._failures <= 2:  # not from the first: one user's silence may be much older than an outage
            self._failures_since = now

    def _pause_for(self, subject: Hashable) -> Pause:
        return self._pause_of_known if subject in self._known else self._pause
