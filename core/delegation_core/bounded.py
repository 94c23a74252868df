"""Cache bounded in bytes, valid for one epoch, with an expiry for each entry.

Theory of operation. An entry costs what its owner says plus ``ENTRY_BYTES`` for the bookkeeping; `bytes_of` measures
values. When an entry does not fit, the oldest ones are evicted. Where more are used in turn than fit, that evicts each
just before it would be found: a cache that asks ``worth`` keeps most of its entries then, and finds those. ``sweep``
frees expired entries without a lookup; its cost per call is bounded, however many expire at once. ``find`` ignores the
clock: the owner checks expiry, because it names the reason. A new epoch empties the cache.
"""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from heapq import heapify, heappop, heappush
from typing import Final, Generic, NamedTuple, Protocol, TypeVar

ENTRY_BYTES: Final = 512  # the slots of dict and heap, and the tuples in them
SWEPT_AT_ONCE: Final = 1024  # entries: about a millisecond of the event loop
_EMPTY: Final[tuple[()]] = ()  # one object for all
_ONE_IN: Final = 8  # entries replaces others while none of those is found
_STALE_ENDS: Final = 64  # in the heap, beside as many as there are entries, before it is rebuilt

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Bounded(Protocol):
    """Memory that can be freed on demand: a ``BoundedCache``, or a store built on one."""

    @property
    def bytes(self) -> int:
        """The accounted bytes."""
        ...

    @property
    def hits(self) -> int:
        """The lookups that found an entry."""
        ...

    @property
    def misses(self) -> int:
        """The lookups that found none."""
        ...

    @property
    def evicted(self) -> int:
        """The entries that were evicted for others."""
        ...

    def sweep(self, now: float) -> object:
        """Free entries that have expired at ``now``."""
        ...

    def shed(self, to_bytes: int) -> object:
        """Evict the oldest entries until no more than ``to_bytes`` are left, or no more may be evicted."""
        ...


class Kept(NamedTuple, Generic[V]):
    """An entry of a cache: its value, cost and expiry."""

    value: V
    cost: int
    number: int
    expires_at: float


class BoundedCache(Generic[K, V]):
    """Values by key, at most ``max_bytes`` of them.

    ``entries`` has them, the oldest first: reading it counts as no lookup. ``bytes`` is what they cost, ``hits`` and
    ``misses`` count lookups, ``evicted`` the entries that were evicted for others. Times are
    of the clock that the owner sweeps with.
    """

    __slots__ = (
        "_ends",
        "_found",
        "_number",
        "_unfound",
        "bytes",
        "entries",
        "epoch",
        "evicted",
        "hits",
        "max_bytes",
        "misses",
    )

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.bytes = 0
        self.hits = 0
        self.misses = 0
        self.evicted = 0
        self.epoch: Hashable = None
        self.entries: OrderedDict[K, Kept[V]] = OrderedDict()
        self._ends: list[tuple[float, int, K]] = []  # a heap; an end whose entry is gone counts for nothing
        self._number = 0
        self._found = 0  # hits when an entry was last worth others
        self._unfound = 0  # entries since then

    def __len__(self) -> int:
        return len(self.entries)

    def __contains__(self, key: K) -> bool:
        return key in self.entries

    def find(self, key: K, epoch: Hashable = None) -> V | None:
        """Return the value for ``key``, or None. If ``epoch`` is not the current one, begin it with an empty cache."""
        if epoch != self.epoch:
            self.turn_to(epoch)
        try:  # on the warm path: a hit costs less than by ``get``
            value = self.entries[key][0]
        except KeyError:
            self.misses += 1
            return None
        self.hits += 1
        return value

    def get(self, key: K) -> V | None:
        """Find the value for ``key`` in the current epoch; not counted as a lookup."""
        entry = self.entries.get(key)
        return None if entry is None else entry[0]

    def values(self) -> Iterator[V]:
        """All values, the oldest first."""
        return (entry.value for entry in self.entries.values())

    def turn_to(self, epoch: Hashable) -> None:
        """Begin another epoch with an empty cache."""
        self.epoch = epoch
        self.clear()

    def carry(self, epoch: Hashable, *, drop: Callable[[V], bool]) -> None:
        """Begin another epoch with the entries of this one, without those to ``drop``."""
        for key in [key for key, entry in self.entries.items() if drop(entry.value)]:
            self.drop(key)
        self.epoch = epoch

    def keep(self, key: K, value: V, *, cost: int, expires_at: float, epoch: Hashable = None) -> bool:
        """Store a value of ``cost`` bytes. Return False if ``epoch`` is not current or the value exceeds the cache."""
        cost += ENTRY_BYTES
        if epoch != self.epoch or cost > self.max_bytes:
            return False
        self.drop(key)
        self.shed(self.max_bytes - cost)
        self._number += 1
        self.entries[key] = Kept(value, cost, self._number, expires_at)
        self.bytes += cost
        heappush(self._ends, (expires_at, self._number, key))
        if len(self._ends) > 2 * len(self.entries) + _STALE_ENDS:
            self._ends = [(entry.expires_at, entry.number, key) for key, entry in self.entries.items()]
            heapify(self._ends)
        return True

    def fits(self, cost: int) -> bool:
        """Return True if a value of ``cost`` bytes fits without an eviction."""
        return self.bytes + cost + ENTRY_BYTES <= self.max_bytes

    def worth(self, cost: int, found: int | None = None) -> bool:
        """Return True if a value of ``cost`` bytes fits, or should replace the oldest entries.

        It should while lookups hit. Without a hit since the last replacement, only one value in ``_ONE_IN`` should.
        ``found`` is a number of hits to use instead of this cache's own.
        """
        if self.fits(cost):
            return True
        if found is None:
            found = self.hits
        if found != self._found:
            self._found, self._unfound = found, 0
            return True
        self._unfound += 1
        return self._unfound % _ONE_IN == 0

    def replace(self, key: K, value: V) -> None:
        """Replace the value for ``key``, which must be there; cost and expiry stay."""
        self.entries[key] = self.entries[key]._replace(value=value)

    def touch(self, key: K) -> None:
        """Mark the value for ``key``, which must be there, as the newest: it is evicted after all others."""
        self.entries.move_to_end(key)

    def drop(self, key: K) -> None:
        """Forget the value for ``key``, if there is one."""
        entry = self.entries.pop(key, None)
        if entry is not None:
            self.bytes -= entry.cost

    def clear(self) -> None:
        """Forget everything."""
        self.entries.clear()
        self._ends.clear()
        self.bytes = 0

    def sweep(self, now: float) -> list[tuple[K, V]]:
        """Free entries that expire at ``now`` or before, at most ``SWEPT_AT_ONCE`` of them, and return them."""
        swept: list[tuple[K, V]] = []
        ends, entries = self._ends, self.entries
        for _ in range(SWEPT_AT_ONCE):
            if not ends or ends[0][0] > now:
                break
            _, number, key = heappop(ends)
            entry = entries.get(key)
            if entry is not None and entry.number == number:
                self.drop(key)
                swept.append((key, entry.value))
        return swept

    def shed(self, to_bytes: float) -> list[tuple[K, V]]:
        """Evict the oldest entries until no more than ``to_bytes`` are left, and return them."""
        shed: list[tuple[K, V]] = []
        while self.bytes > to_bytes and self.entries:
            key, entry = self.entries.popitem(last=False)
            self.bytes -= entry.cost
            self.evicted += 1
            shed.append((key, entry.value))
        return shed


def bytes_of(value: object) -> int:
    """Measure a value with all it refers to, each object once. Follows containers and dataclasses.

    Objects of other kinds count without their members: a route or a policy is shared.
    """
    seen: set[int] = set()
    todo = [value]
    total = 0
    while todo:
        one = todo.pop()
        if id(one) in seen or one is None or one is _EMPTY:
            continue
        seen.add(id(one))
        total += sys.getsizeof(one)
        if isinstance(one, str | bytes | int | float):
            continue
        if isinstance(one, Mapping):
            todo.extend(one.keys())
            todo.extend(one.values())
        elif isinstance(one, list | tuple | set | frozenset):
            todo.extend(one)
        elif is_dataclass(one):
            todo += [getattr(one, field.name) for field in fields(one)]
    return total


EMPTY: Final[Bounded] = BoundedCache[str, object](0)  # of a part that is not in use
