"""The other replicas of this token service: when each was last heard, and so what this one can know.

A replica is heard when its orders, all that it has, are merged here and on the disk. An order that a majority of the
replicas holds is known to whoever has heard a majority since: any two majorities share a replica. One dead replica of
three therefore changes nothing, and a replica that is cut off from the others knows that its list gets old.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Final

SILENT_S: Final = 30.0  # six rounds without an answer


@dataclass(slots=True)
class _Peer:
    """One address of the names. ``own``: we ourselves answered there."""

    heard_at: float | None = None  # on the monotonic clock
    own: bool = False
    unkept: str | None = None  # the reason why its orders could not be merged here


class Peers:
    """The addresses that the settings' names lead to now. ``monotonic`` is the clock of ages, in seconds."""

    def __init__(self, *, alone: bool, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.monotonic = monotonic
        self._members: dict[str, _Peer] = {}
        self._looked_up = alone

    def follow(self, addresses: Collection[str]) -> None:
        """Set the members. An address that is gone is forgotten, with all that was heard there."""
        self._members = {one: self._members.get(one) or _Peer() for one in addresses}
        self._looked_up = True

    def answered_ourselves(self, address: str) -> None:
        """Note that this address is our own."""
        self._members[address] = _Peer(own=True)

    def heard(self, address: str, at: float) -> None:
        """Note that all orders of another replica, as of ``at``, are merged."""
        self._members[address] = _Peer(heard_at=at)

    def not_kept(self, address: str, why: str) -> None:
        """Note that another replica has orders that this one could not keep: it may not say what is stopped."""
        self._members[address].unkept = why

    def kept_again(self, addresses: Collection[str]) -> None:
        """Note that a write succeeded; of these replicas no more is known than before."""
        for address in addresses:
            self._members[address].unkept = None

    def unkept(self) -> str | None:
        """Return the reason why orders of another replica could not be kept; None if all were."""
        return next((one.unkept for one in self._members.values() if one.unkept is not None), None)

    def silence_s(self) -> float | None:
        """Return the seconds since a majority of the replicas, ourselves included, was heard; None if it never was."""
        if not self._looked_up:
            return None
        now = self.monotonic()
        ages = sorted((0.0, *(float("inf") if age is None else age for age in self._ages(now))))
        longest = ages[len(ages) // 2]
        return None if longest == float("inf") else longest

    def heard_times(self, now: float) -> tuple[int, ...]:
        """Return when each other replica was last heard, by the wall clock that shows ``now``; 0: never."""
        ages = self._ages(self.monotonic())
        return tuple(sorted(0 if age is None else max(0, int(now - age)) for age in ages))

    def counts(self) -> Mapping[str, int]:
        """Count the other replicas that were heard lately, and those that were not, for the metric."""
        ages = self._ages(self.monotonic())
        heard = sum(age is not None and age <= SILENT_S for age in ages)
        return {"heard": heard, "silent": len(ages) - heard}

    def _ages(self, now: float) -> list[float | None]:
        others = [one for one in self._members.values() if not one.own]
        return [None if one.heard_at is None else max(0.0, now - one.heard_at) for one in others]
