"""Sets of selectors that one process can match together: equal ones, parts of each other, and overlapping ones.

SPIRE gives a process the identity of each entry whose selectors it has. Comparing each entry with each other one would
cost the square of their number, and whoever writes entries could choose them so that no index helps. Instead, each
selector has a set of the entries that ask for it, as bits of one number: a few operations on whole numbers answer for
an entry, however the selectors are distributed. Only selectors that more than ``_RARE`` entries ask for have such a
number, so memory stays small too.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from functools import cache
from typing import Final

from sidecar.audit.selectors.entries import Entry, Selector
from sidecar.audit.selectors.kinds import slot_of

_RARE: Final = 32
_MOST_LOOKED_AT: Final = 256  # partners examined for one overlap; more of them means findings of another kind


class Relation(Enum):
    """The relation of the selectors of an entry to those of another."""

    EQUAL = auto()
    PART = auto()  # the other asks for all of them, and for more
    OVERLAP = auto()


@dataclass(frozen=True, slots=True)
class Related:
    """An entry, its relation, one example of the others, and their number."""

    entry: Entry
    relation: Relation
    other: Entry
    count: int


@dataclass(slots=True)
class Work:
    """The steps of a comparison, for tests: operations on whole numbers, and sets that were looked at one by one."""

    steps: int = 0


def related(entries: Iterable[Entry], work: Work | None = None) -> Iterator[Related]:
    """Yield the relations among entries under one parent. Entries of other parents are for other nodes."""
    groups: dict[str, list[Entry]] = defaultdict(list)
    for entry in entries:
        if entry.selectors and not entry.is_node:
            groups[entry.nodes].append(entry)
    for group in groups.values():
        yield from _Group(group, work or Work()).relations()


def hint_collisions(entries: Iterable[Entry], work: Work | None = None) -> Iterator[tuple[Entry, Entry]]:
    """Yield entries of two identities with one hint that one process can match, each with an example of the others."""
    groups: dict[tuple[str, str], list[Entry]] = defaultdict(list)
    for entry in entries:
        if entry.hint and entry.selectors and not entry.is_node:
            groups[entry.nodes, entry.hint].append(entry)
    for group in groups.values():
        if len(group) > 1:
            yield from _Group(group, work or Work()).compatible()


class _Group:
    """The entries of one parent, by their distinct sets of selectors. Bit *i* of a number stands for set *i*.

    Selectors, properties and their values are numbered: ``_holders`` has the sets of each number, in order.
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
        """Return the number of a selector, and those of its property and value if it excludes other values."""
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
                yield from self._of_set(number, Relation.PART, wider)
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
            # A manifest and what a server made of it are one entry.
            other = stranger or first.setdefault(entry.origin, entry)
            if other is not entry:
                yield Related(entry, Relation.EQUAL, other, len(of_set) - 1)

    def _of_set(self, number: int, relation: Relation, others: int) -> Iterator[Related]:
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
        """Return the other sets that share a selector and exclude no process of this one."""
        sharing = 0
        for key in self._keys_of[number]:
            if len(self._holders[key[0]]) > 1:
                sharing |= self._of(key[0])
        sharing &= ~(1 << number)
        return sharing & self._not_excluded(number) if sharing else 0

    def _not_excluded(self, number: int) -> int:
        """Return the sets that have the same value, or none, for each property of this set that has only one value."""
        found = self._all
        for key in self._keys_of[number]:
            if len(key) > 1 and found:
                found &= self._of(key[2]) | ~self._of(key[1])
        return found

    def _of(self, key: int) -> int:
        self._work.steps += 1
        mask = self._masks.get(key)
        return _mask(self._holders[key]) if mask is None else mask

    def _only(self, spiffe_id: str) -> int:
        """Return the sets that give this identity and no other."""
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
    """Return the number with these bits."""
    if len(numbers) <= _RARE:
        return sum(1 << number for number in numbers)
    raw = bytearray(numbers[-1] // 8 + 1)
    for number in numbers:
        raw[number >> 3] |= 1 << (number & 7)
    return int.from_bytes(raw, "little")


def _bits(mask: int, most: int) -> Iterator[int]:
    """Yield the numbers of the lowest bits."""
    for _ in range(most):
        if not mask:
            return
        lowest = mask & -mask
        yield lowest.bit_length() - 1
        mask ^= lowest
