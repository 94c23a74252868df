"""Finds entries that one process can match together: equal sets of selectors, subsets, and overlapping sets.

SPIRE gives a process the identity of each entry whose selectors it has. Comparing all pairs of entries would take
quadratic time, and an attacker could write entries for which no index helps. Instead, each selector has a bit mask of
the sets that hold it: a few operations on big integers answer for one set, for any distribution of selectors. Only
selectors in more than ``_RARE`` sets have a stored mask, which keeps memory small.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from functools import cache
from typing import Final

from delegation_audit.selectors.entries import Entry, Selector
from delegation_audit.selectors.kinds import slot_of

_RARE: Final = 32
_MOST_LOOKED_AT: Final = 256  # sets examined for one overlap; more are subsets, which have findings of their own


class Relation(Enum):
    """Relation of an entry's selectors to those of another entry."""

    EQUAL = auto()
    PART = auto()  # a proper subset: the other requires all of them, and more
    OVERLAP = auto()


@dataclass(frozen=True, slots=True)
class Related:
    """An entry, its relation to other entries, an example of these, and their count."""

    entry: Entry
    relation: Relation
    other: Entry
    count: int


@dataclass(slots=True)
class Work:
    """Step counter of a comparison, for tests: operations on masks, and sets examined one by one."""

    steps: int = 0


def find_relations(entries: Iterable[Entry], work: Work | None = None) -> Iterator[Related]:
    """Yield the relations of each workload's entry to entries of the same nodes. Other nodes run other processes."""
    groups: dict[str, list[Entry]] = defaultdict(list)
    for entry in entries:
        if entry.selectors and not entry.is_node:
            groups[entry.nodes].append(entry)
    for group in groups.values():
        yield from _Group(group, work or Work()).relations()


def hint_collisions(entries: Iterable[Entry], work: Work | None = None) -> Iterator[tuple[Entry, Entry]]:
    """Yield each entry, with another one of the same hint but another identity that the same process can match."""
    groups: dict[tuple[str, str], list[Entry]] = defaultdict(list)
    for entry in entries:
        if entry.hint and entry.selectors and not entry.is_node:
            groups[entry.nodes, entry.hint].append(entry)
    for group in groups.values():
        if len(group) > 1:
            yield from _Group(group, work or Work()).compatible()


class _Group:
    """Entries of the same nodes, by their distinct sets of selectors. Bit *i* of a mask stands for set *i*.

    Selectors, properties and their values have numbers; ``_holders`` lists the sets that hold each, ascending.
    """

    def __init__(self, entries: Sequence[Entry], work: Work) -> None:
        owners: dict[frozenset[Selector], list[Entry]] = defaultdict(list)
        for entry in entries:
            owners[entry.selectors].append(entry)
        self._sets = list(owners)
        self._owners = list(owners.values())
        self._work = work
        self._all = (1 << len(self._sets)) - 1
        self._holders: list[list[int]] = []
        self._numbers: dict[object, int] = {}
        keys_of = cache(self._keys)
        self._keys_of = [[keys_of(one) for one in selectors] for selectors in self._sets]
        for number, keys in enumerate(self._keys_of):
            for key in {key for of_one in keys for key in of_one}:
                self._holders[key].append(number)
        self._masks = {key: _mask(found) for key, found in enumerate(self._holders) if len(found) > _RARE}
        self._alone_in: dict[str, list[int]] = defaultdict(list)
        for number, of_set in enumerate(self._owners):
            ids = {entry.spiffe_id for entry in of_set}
            if len(ids) == 1:
                self._alone_in[ids.pop()].append(number)
        self._alone: dict[str, int] = {}

    def _keys(self, one: Selector) -> tuple[int, ...]:
        """Return the number of a selector; for a single-valued property, also the numbers of property and value."""
        slot = slot_of(one)
        if slot is None:
            return (self._number(one),)
        return self._number(one), self._number(("property", slot[0])), self._number(("value", slot))

    def _number(self, key: object) -> int:
        if key not in self._numbers:
            self._numbers[key] = len(self._holders)
            self._holders.append([])
        return self._numbers[key]

    def relations(self) -> Iterator[Related]:
        for number in range(len(self._sets)):
            yield from self._equal(number)
            wider = self._supersets(number)
            if wider:
                yield from self._relate_set(number, Relation.PART, wider)
            overlapping = self._overlapping(number) & ~wider
            if overlapping:
                yield from self._overlaps(number, overlapping)

    def compatible(self) -> Iterator[tuple[Entry, Entry]]:
        for number, of_set in enumerate(self._owners):
            others = self._not_excluded(number) & ~(1 << number)
            for entry in of_set:
                other = next((one for one in of_set if one.spiffe_id != entry.spiffe_id), None)
                if other is None:
                    strangers = others & ~self._only(entry.spiffe_id)
                    other = self._first(strangers, entry) if strangers else None
                if other is not None:
                    yield entry, other

    def _equal(self, number: int) -> Iterator[Related]:
        of_set = self._owners[number]
        first: dict[str, Entry] = {}
        for entry in of_set if len(of_set) > 1 else ():
            stranger = next((one for one in of_set if one.spiffe_id != entry.spiffe_id), None)
            # A manifest and the server's entry made from it count as one entry.
            other = stranger or first.setdefault(entry.origin, entry)
            if other is not entry:
                yield Related(entry, Relation.EQUAL, other, len(of_set) - 1)

    def _relate_set(self, number: int, relation: Relation, others: int) -> Iterator[Related]:
        for entry in self._owners[number]:
            strangers = others & ~self._only(entry.spiffe_id)
            chosen = strangers or others
            yield Related(entry, relation, self._first(chosen, entry), chosen.bit_count())

    def _overlaps(self, number: int, others: int) -> Iterator[Related]:
        own = self._sets[number]
        for entry in self._owners[number]:
            strangers = others & ~self._only(entry.spiffe_id)
            for at in _bits(strangers, _MOST_LOOKED_AT):
                self._work.steps += 1
                if not self._sets[at] <= own:
                    yield Related(entry, Relation.OVERLAP, self._first(1 << at, entry), strangers.bit_count())
                    break

    def _supersets(self, number: int) -> int:
        own = self._sets[number]
        keys = [key[0] for key in self._keys_of[number]]
        candidates = min((self._holders[key] for key in keys), key=len)
        if len(candidates) <= _RARE:
            self._work.steps += len(candidates)
            return _mask([at for at in candidates if own < self._sets[at]])
        found = self._all
        for key in keys:
            self._work.steps += 1
            found &= self._masks[key]
        return found & ~(1 << number)

    def _overlapping(self, number: int) -> int:
        """Return the mask of the other sets that share a selector and that a process of this set could match."""
        sharing = 0
        for key in self._keys_of[number]:
            if len(self._holders[key[0]]) > 1:
                sharing |= self._get_mask(key[0])
        sharing &= ~(1 << number)
        return sharing & self._not_excluded(number) if sharing else 0

    def _not_excluded(self, number: int) -> int:
        """Return the mask of the sets that have the same value or none for each single-valued property of this set."""
        found = self._all
        for key in self._keys_of[number]:
            if len(key) > 1 and found:
                found &= self._get_mask(key[2]) | ~self._get_mask(key[1])
        return found

    def _get_mask(self, key: int) -> int:
        self._work.steps += 1
        mask = self._masks.get(key)
        return _mask(self._holders[key]) if mask is None else mask

    def _only(self, spiffe_id: str) -> int:
        """Return the mask of the sets that grant only this identity."""
        if spiffe_id not in self._alone_in:
            return 0
        if spiffe_id not in self._alone:
            found = _mask(self._alone_in[spiffe_id])
            if len(self._alone_in[spiffe_id]) <= _RARE:
                return found
            self._alone[spiffe_id] = found
        return self._alone[spiffe_id]

    def _first(self, others: int, entry: Entry) -> Entry:
        at = (others & -others).bit_length() - 1
        of_set = self._owners[at]
        return next((one for one in of_set if one.spiffe_id != entry.spiffe_id), of_set[0])


def _mask(numbers: Sequence[int]) -> int:
    """Return the mask with these bits; ``numbers`` ascend."""
    if len(numbers) <= _RARE:
        return sum(1 << number for number in numbers)
    raw = bytearray(numbers[-1] // 8 + 1)
    for number in numbers:
        raw[number >> 3] |= 1 << (number & 7)
    return int.from_bytes(raw, "little")


def _bits(mask: int, most: int) -> Iterator[int]:
    """Yield the positions of at most ``most`` bits, lowest first."""
    for _ in range(most):
        if not mask:
            return
        lowest = mask & -mask
        yield lowest.bit_length() - 1
        mask ^= lowest
