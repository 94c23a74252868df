"""Revocations of one issuer in a reader: the merged contents of successive lists. Pure.

A revocation stays in force until it expires or is lifted, even if the next list, from a replica that does not know it,
omits it. A list with a lower sequence number than an earlier one is refused: its replica has lost data.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Final

from delegation_core.revocation import NAMED_BY_ISSUER, Kind
from delegation_core.steps import Steps, slices

MAX_REVOCATIONS: Final = 10_000
MAX_LISTED: Final = 8 * MAX_REVOCATIONS  # in a reader: after a partition, replicas merge their lists
MAX_SEQ: Final = 2**53 - 1  # of a list, for writers and readers
MAX_AHEAD: Final = 2**48  # of a list's number beyond the reader's, which begins at 0; real numbers stay far below

_NEVER: Final = 2**53


class RevocationsError(ValueError):
    """The list is refused. The message quotes only numbers from it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Revocation:
    """One revocation, in force until ``expires_at``. ``issuer``: that of a subject or login; None for other kinds."""

    id: str
    kind: Kind
    value: str = field(repr=False)
    issuer: str | None = None
    expires_at: int

    @property
    def name(self) -> object:
        """The value to match: for a subject or login the pair (issuer, value), else ``value``."""
        return (self.issuer, self.value) if self.kind in NAMED_BY_ISSUER else self.value


@dataclass(frozen=True, slots=True, kw_only=True)
class Knowledge:
    """Times when a replica last ``heard`` from each peer (0: never), as of ``issued_at``, by its own clock."""

    issued_at: int
    heard: tuple[int, ...] = ()

    @property
    def complete_at(self) -> int:
        """Latest time since which the replica has heard from a majority of the replicas, itself included.

        It has every revocation that a majority held then: any two majorities share a replica.
        """
        times = sorted((self.issued_at, *self.heard), reverse=True)
        return times[len(times) // 2]

    @property
    def lag_s(self) -> int:
        """Seconds from ``complete_at`` to ``issued_at``."""
        return self.issued_at - self.complete_at


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """Contents of one signed list."""

    seq: int
    issued_at: int
    ttl_s: int
    heard: tuple[int, ...] = ()
    revoked: Mapping[str, Revocation]
    lifted: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Revocations:
    """The revocations of one issuer that are in force, by id, and the original ends of ``lifted`` ones, by id.

    ``issued_at``: time of the newest list. ``ttl_s``: seconds for which a reader may rely on it.
    """

    seq: int = 0
    issued_at: int = 0
    ttl_s: int = 0
    in_force: Mapping[str, Revocation] = field(default_factory=dict)
    lifted: Mapping[str, int] = field(default_factory=dict)
    _named: Mapping[Kind, frozenset[object]] = field(init=False, repr=False, compare=False)
    ends_at: int = field(init=False, repr=False, compare=False)  # the earliest end of a revocation or a lift

    def __post_init__(self) -> None:
        named: dict[Kind, set[object]] = {}
        for one in self.in_force.values():
            named.setdefault(one.kind, set()).add(one.name)
        ends = [one.expires_at for one in self.in_force.values()]
        lifted = not self.in_force.keys().isdisjoint(self.lifted)
        object.__setattr__(self, "_named", {kind: frozenset(names) for kind, names in named.items()})
        object.__setattr__(self, "ends_at", 0 if lifted else min(*ends, *self.lifted.values(), _NEVER, _NEVER))

    def names(self, kind: Kind) -> frozenset[object]:
        """Return the revoked names of ``kind``, as of ``Revocation.name``."""
        return self._named.get(kind, frozenset())

    def kind_of(self, names: Mapping[Kind, frozenset[object]]) -> Kind | None:
        """Return the kind of a revocation that matches one of ``names``; None if none does."""
        return next((kind for kind in Kind if not self.names(kind).isdisjoint(names[kind])), None)

    def merged(self, newer: Listed, *, now: int) -> Steps[Revocations]:
        """Merge with a newer list, in steps, and drop revocations that were lifted or have expired by ``now``.

        Raises:
            RevocationsError: the number of ``newer`` is lower or far higher, or the result is too large.
        """
        if newer.seq < self.seq:
            raise RevocationsError(f"its number fell from {self.seq} to {newer.seq}")
        if newer.seq - self.seq > MAX_AHEAD:
            raise RevocationsError(f"its number jumps from {self.seq} to {newer.seq}")
        numbers = Revocations(
            seq=newer.seq,
            issued_at=max(self.issued_at, newer.issued_at),
            ttl_s=newer.ttl_s,
            lifted={**self.lifted, **newer.lifted},
        )
        yield
        both = chain(newer.revoked.values(), self.in_force.values())
        found = yield from _in_force(numbers, both, self, now)
        if max(len(found.in_force), len(found.lifted)) > MAX_LISTED:
            raise RevocationsError(f"with earlier lists, more than {MAX_LISTED} revocations are in force")
        return found

    def at(self, now: int) -> Steps[Revocations]:
        """Return a copy, in steps, without revocations that were lifted or have expired by ``now``."""
        if now < self.ends_at:
            return self
        return (yield from _in_force(replace(self, in_force={}), self.in_force.values(), self, now))

    @property
    def stopped(self) -> Mapping[Kind, frozenset[object]]:
        """All revoked names, by kind."""
        return self._named


def _in_force(numbers: Revocations, listed: Iterable[Revocation], before: Revocations, now: int) -> Steps[Revocations]:
    """Return ``numbers`` with the ``listed`` revocations that are in force, the first of each id. Sets of names that
    are unchanged since ``before`` are shared with it, so comparison is by identity.
    """
    in_force: dict[str, Revocation] = {}
    named: dict[Kind, set[object]] = {}
    ends_at = _NEVER
    lifted = {name: end for name, end in numbers.lifted.items() if end > now}
    for some in slices(listed):
        yield
        for one in some:
            if one.expires_at > now and one.id not in in_force and one.id not in numbers.lifted:
                in_force[one.id] = one
                named.setdefault(one.kind, set()).add(one.name)
                ends_at = min(ends_at, one.expires_at)
    shared: dict[Kind, frozenset[object]] = {}
    for kind, names in named.items():
        known = before.names(kind)
        same = len(known) == len(names)
        for names_of_step in slices(names):
            yield
            same = same and known.issuperset(names_of_step)
        shared[kind] = known if same else frozenset(names)
    made = replace(numbers, lifted=lifted)
    object.__setattr__(made, "in_force", in_force)
    object.__setattr__(made, "_named", shared)
    object.__setattr__(made, "ends_at", min(ends_at, made.ends_at))
    return made


NONE: Final = Revocations()
