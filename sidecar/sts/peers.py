"""The other replicas of this token service: the last synchronisation with each, and which of our orders it may lack.

A replica counts as heard once all of its orders are merged here and on the disk. A replica that has since heard a
majority knows every order that a majority holds: any two majorities share a replica. So one dead replica of three
changes nothing, and a replica that is cut off from the others knows that its list is ageing.

Another replica counts as holding an order of ours once it acknowledges the order, or sends it among its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

SILENT_S: Final = 30.0  # six rounds without an answer


@dataclass(slots=True)
class _Peer:
    """One address of a replica. ``own``: the address of this replica."""

    heard_at: float | None = None  # on the monotonic clock
    own: bool = False
    unkept: str | None = None  # the reason why its orders could not be merged here
    lacks: set[str] | None = None  # our orders that it is not known to hold; None: it was never heard


class Peers:
    """The addresses that the settings' ``names`` lead to now. ``monotonic`` is the clock of ages, in seconds."""

    def __init__(self, names: Sequence[str], *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.monotonic = monotonic
        self._members: dict[str, _Peer] = {name: _Peer() for name in names}
        self._looked_up = not names

    def follow(self, addresses: Collection[str]) -> None:
        """Set the members, and forget all others."""
        self._members = {one: self._members.get(one) or _Peer() for one in addresses}
        self._looked_up = True

    def note_own_address(self, address: str) -> None:
        """Note that this address is our own."""
        self._members[address] = _Peer(own=True)

    def note_heard(self, address: str, at: float, lacks: Collection[str] | None = None) -> None:
        """Note that all orders of another replica, as of ``at``, are merged.

        ``lacks``: the orders of ours that the replica lacks; None: unchanged since the last call.
        """
        known = self._members.get(address)
        if lacks is None:
            lacks = known.lacks if known is not None and known.lacks is not None else ()
        self._members[address] = _Peer(heard_at=at, lacks=set(lacks))

    def note_gained(self, orders: Collection[str]) -> None:
        """Note orders that are new here."""
        for one in self._others():
            if one.lacks is not None:
                one.lacks.update(orders)

    def note_acknowledged(self, address: str, orders: Collection[str]) -> None:
        """Note that another replica holds these orders of ours."""
        known = self._members.get(address)
        if known is not None and known.lacks is not None:
            known.lacks.difference_update(orders)

    def lacked(self, address: str) -> frozenset[str]:
        """Return the IDs of our orders that one replica may lack; empty if the replica was never heard."""
        known = self._members.get(address)
        return frozenset() if known is None or known.lacks is None else frozenset(known.lacks)

    def behind(self) -> list[str]:
        """Return the recently heard replicas that may lack some of our orders."""
        now = self.monotonic()
        return [
            address
            for address, one in self._members.items()
            if one.lacks and one.heard_at is not None and now - one.heard_at <= SILENT_S
        ]

    def without(self, order: str) -> list[str]:
        """Return the replicas that may lack an order of ours."""
        members = self._members.items()
        return [address for address, one in members if not one.own and (one.lacks is None or order in one.lacks)]

    def majority_holds(self, order: str) -> bool:
        """Return True if a majority of the replicas, this one included, is known to hold an order of ours."""
        replicas = 1 + len(self._others())
        return self._looked_up and 2 * (replicas - len(self.without(order))) > replicas

    def unacknowledged(self, orders: Collection[str]) -> int:
        """Count our ``orders`` that at least one other replica may lack."""
        sets = [one.lacks for one in self._others()]
        if any(lacks is None for lacks in sets):
            return len(orders)
        lacked = set[str]().union(*(lacks for lacks in sets if lacks))
        return sum(one in lacked for one in orders) if lacked else 0

    def note_not_kept(self, address: str, why: str) -> None:
        """Note why another replica's orders could not be merged here: our list is incomplete."""
        self._members[address].unkept = why

    def note_kept(self, addresses: Collection[str]) -> None:
        """Note that a write succeeded, after orders of these replicas could not be written."""
        for address in addresses:
            self._members[address].unkept = None

    def unkept(self) -> str | None:
        """Return the reason why another replica's orders could not be merged; None if all were."""
        return next((one.unkept for one in self._members.values() if one.unkept is not None), None)

    def silence_s(self) -> float | None:
        """Return the seconds since a majority of the replicas, this one included, was heard; None: never."""
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
        """Count the other replicas by state, recently heard or silent, for the metric."""
        ages = self._ages(self.monotonic())
        heard = sum(age is not None and age <= SILENT_S for age in ages)
        return {"heard": heard, "silent": len(ages) - heard}

    def _others(self) -> list[_Peer]:
        return [one for one in self._members.values() if not one.own]

    def _ages(self, now: float) -> list[float | None]:
        return [None if one.heard_at is None else max(0.0, now - one.heard_at) for one in self._others()]
