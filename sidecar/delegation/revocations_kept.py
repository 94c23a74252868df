"""Revocations of one issuer as a reader keeps them: its lists, merged one after the other. Pure.

A revocation stays in force until it expires or is lifted, even if a replica that never heard of it answers next. A list
with a lower number than one before it is refused: its replica has lost something.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Final

from sidecar.delegation.revocation import NAMED_BY_ISSUER, Kind
from sidecar.steps import Steps, slices

MAX_REVOCATIONS: Final = 10_000
MAX_LISTED: Final = 8 * MAX_REVOCATIONS  # that a reader keeps: replicas that were apart merge what each has kept
MAX_SEQ: Final = 2**53 - 1  # of a list, for writers and readers
MAX_AHEAD: Final = (
    2**48
)  # of a list's number beyond the reader's, which begins at 0; numbers of replicas stay far below

_NEVER: Final = 2**53


class RevocationsError(ValueError):
    """A list that is not used. The message quotes nothing of it but numbers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Revocation:
    """One thing that is stopped until ``expires_at``. ``issuer`` names whose subject or login ``value`` is."""

    id: str
    kind: Kind
    value: str = field(repr=False)
    issuer: str | None = None
    expires_at: int

    @property
    def name(self) -> object:
        """The value, of a subject or login a pair (issuer, value)."""
        return (self.issuer, self.value) if self.kind in NAMED_BY_ISSUER else self.value


@dataclass(frozen=True, slots=True, kw_only=True)
class Knowledge:
    """Times when a replica ``heard`` each of its peers (0: never), as of ``issued_at``, by its own clock."""

    issued_at: int
    heard: tuple[int, ...] = ()

    @property
    def complete_at(self) -> int:
        """Time up to which it has every order that a majority of the replicas held.

        It is when a majority was heard: any two majorities share a replica.
        """
        times = sorted((self.issued_at, *self.heard), reverse=True)
        return times[len(times) // 2]

    @property
    def lag_s(self) -> int:
        """Seconds from the last contact with a majority of replicas to the issue of the list."""
        return self.issued_at - self.complete_at


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """One list, as its issuer signed it."""

    seq: int
    issued_at: int
    ttl_s: int
    heard: tuple[int, ...] = ()
    revoked: Mapping[str, Revocation]
    lifted: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Revocations:
    """The revocations of one issuer that are in force, and the IDs of ``lifted`` ones with the end they had.

    ``issued_at`` is the time of the newest list, ``ttl_s`` how long its issuer lets a reader rely on it.
    """

    seq: int = 0
    issued_at: int = 0
    ttl_s: int = 0
    in_force: Mapping[str, Revocation] = field(default_factory=dict)
    lifted: Mapping[str, int] = field(default_factory=dict)
    _named: Mapping[Kind, frozenset[object]] = field(init=False, repr=False, compare=False)
    ends_at: int = field(init=False, repr=False, compare=False)  # the first end of a revocation or a lift

    def __post_init__(self) -> None:
        named: dict[Kind, set[object]] = {}
        for one in self.in_force.values():
            named.setdefault(one.kind, set()).add(one.name)
        ends = [one.expires_at for one in self.in_force.values()]
        lifted = not self.in_force.keys().isdisjoint(self.lifted)
        object.__setattr__(self, "_named", {kind: frozenset(names) for kind, names in named.items()})
        object.__setattr__(self, "ends_at", 0 if lifted else min(*ends, *self.lifted.values(), _NEVER, _NEVER))

    def names(self, kind: Kind) -> frozenset[object]:
        """Return what of this kind is stopped: values, of a subject or login pairs (issuer, value)."""
        return self._named.get(kind, frozenset())

    def kind_of(self, names: Mapping[Kind, frozenset[object]]) -> Kind | None:
        """Return the kind of a revocation of one of these names; None if there is none."""
        return next((kind for kind in Kind if not self.names(kind).isdisjoint(names[kind])), None)

    def merged(self, newer: Listed, *, now: int) -> Steps[Revocations]:
        """Return both together, in steps, without what has expired by ``now`` or was lifted.

        Raises:
            RevocationsError: the number of ``newer`` is lower, or far higher, or both together are too many.
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
            raise RevocationsError(f"with those of earlier lists more than {MAX_LISTED} are in force")
        return found

    def at(self, now: int) -> Steps[Revocations]:
        """Return the same, in steps, without what has expired by ``now`` or was lifted."""
        if now < self.ends_at:
            return self
        return (yield from _in_force(replace(self, in_force={}), self.in_force.values(), self, now))

    @property
    def stopped(self) -> Mapping[Kind, frozenset[object]]:
        """All that is stopped, by kind."""
        return self._named


def _in_force(numbers: Revocations, listed: Iterable[Revocation], before: Revocations, now: int) -> Steps[Revocations]:
    """Return ``numbers`` with the listed revocations that count, the first of each ID. Names that are the same as
    ``before`` are shared with it, so that a comparison costs nothing.
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
