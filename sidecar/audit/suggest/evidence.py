"""Observed calls of each workload, counted by place, method and caller, in bounded memory.

A forger writes records too: only what a settings file could hold counts (SPIFFE IDs, canonical paths, methods), and
the rest is counted as unusable.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import date
from ipaddress import ip_address
from typing import Final, NamedTuple

from sidecar.audit.paths import first_id
from sidecar.audit.records import Record, is_login
from sidecar.delegation.route import require_method, require_path
from sidecar.delegation.scope import ScopeError, ScopeSet, parse_scope
from sidecar.delegation.spiffe_id import SpiffeId
from sidecar.observe.record_text import mask_tokens

MAX_USES: Final = 20_000  # of all workloads: a caller's use of a method of a place
MAX_PATHS: Final = 100  # of a place that are counted
MAX_DAYS: Final = 31  # of a use that are counted

# Reasons of records that hold no observed call, so that nothing is missing without them.
NOT_A_REQUEST: Final = "not a request"
A_LOGIN: Final = "a login; an entry is never proposed"
REFUSED: Final = "refused"
NOT_DELEGATED: Final = "allowed on the workload's own authority or with a static key; neither is proposed"
HARMLESS: Final = frozenset({NOT_A_REQUEST, A_LOGIN, REFUSED, NOT_DELEGATED})
# Reasons of calls that passed and get no route.
OUTSIDE: Final = "to a host outside the mesh; choose between federate, inject and passthrough"
UNUSABLE: Final = "a name, method, path or time that no settings file can hold"
BEYOND: Final = "too many different calls; give the records of one workload at a time"

_MAX_PATH: Final = 1024
_MAX_SCOPES: Final = 1024
_SAMPLES: Final = 8
_MOST_SCOPES: Final = 64  # of an outbound route


@dataclass(slots=True)
class Seen:
    """Number of calls, and the days of them, as ordinals."""

    calls: int = 0
    days: set[int] = field(default_factory=set)

    def add(self, day: int) -> None:
        """Count one call."""
        self.calls += 1
        if len(self.days) < MAX_DAYS:
            self.days.add(day)


class Spot(NamedTuple):
    """The key of a place: a path without an id, or with ``ids`` the start of paths that go on with one."""

    path: str
    ids: bool


@dataclass(slots=True)
class Place:
    """Paths of one kind. ``uses`` by method and caller, who is "" where none was proven.

    ``sources`` are addresses of callers that proved no name. ``needed`` are the scopes that the sidecar asked for, by
    method; None where records differ. ``long_id``: one of the ids may be a secret.
    """

    uses: dict[tuple[str, str], Seen] = field(default_factory=dict)
    needed: dict[str, ScopeSet | None] = field(default_factory=dict)
    samples: list[str] = field(default_factory=list)
    sources: set[str] = field(default_factory=set)
    long_id: bool = False
    _paths: set[int] = field(default_factory=set)

    @property
    def paths(self) -> int:
        """Number of different paths, at most MAX_PATHS."""
        return len(self._paths)

    def add_path(self, path: str, *, long_id: bool) -> None:
        """Note one path."""
        self.long_id |= long_id
        known = hash(path)
        if known in self._paths or len(self._paths) >= MAX_PATHS:
            return
        self._paths.add(known)
        if len(self.samples) < _SAMPLES:
            self.samples.append(path)

    def add_source(self, address: str | None) -> None:
        """Note the address of a caller without a name."""
        if address is not None and len(self.sources) < _SAMPLES:
            with suppress(ValueError):
                self.sources.add(str(ip_address(address)))

    def add_needed(self, method: str, scopes: ScopeSet) -> None:
        """Note the scopes that a call would have needed."""
        if self.needed.setdefault(method, scopes) != scopes:
            self.needed[method] = None


@dataclass(slots=True)
class Calls:
    """Calls of one outbound route to one next hop."""

    uses: dict[str, Seen] = field(default_factory=dict)
    scopes: set[str] = field(default_factory=set)


@dataclass(slots=True)
class Witness:
    """The calls that one workload's sidecar saw: ``inbound`` by place, ``outbound`` by route and next hop."""

    inbound: dict[Spot, Place] = field(default_factory=dict)
    outbound: dict[tuple[str, str], Calls] = field(default_factory=dict)


class Evidence:
    """All observed calls, and the number of the others by the reason that they do not count."""

    def __init__(self) -> None:
        self.witnesses: dict[str, Witness] = {}
        self.calls = 0
        self.others: Counter[str] = Counter()
        self.days: set[int] = set()
        self._uses = 0

    def add(self, record: Record) -> None:
        """Count one record."""
        other = _no_evidence(record)
        if other is None:
            try:
                other = self._add(record)
            except ValueError:
                other = UNUSABLE
        if other is not None:
            self.others[other] += 1

    def _add(self, record: Record) -> str | None:
        workload = SpiffeId(record.workload or "")
        day = date.fromisoformat(record.ts[:10]).toordinal()
        method, peer = record.method or "", str(SpiffeId(record.peer)) if record.peer else ""
        if record.direction == "outbound" and not peer:
            return OUTSIDE
        require_method(method)
        if record.direction == "inbound":
            _require_path(record.path or "")
        if self._uses >= MAX_USES and not self._is_known(workload, method, peer, record):
            return BEYOND
        witness = self.witnesses.setdefault(str(workload), Witness())
        if record.direction == "outbound":
            seen = self._outbound(witness, method, peer, record)
        else:
            seen = self._inbound(witness, method, peer, record)
        self._uses += not seen.calls
        seen.add(day)
        self.calls += 1
        if len(self.days) < MAX_USES:
            self.days.add(day)
        return None

    def _is_known(self, workload: str, method: str, peer: str, record: Record) -> bool:
        witness = self.witnesses.get(workload, Witness())
        if record.direction == "outbound":
            calls = witness.outbound.get((record.route or "", peer))
            return calls is not None and method in calls.uses
        place = witness.inbound.get(_spot(record.path or "")[0])
        return place is not None and (method, peer) in place.uses

    def _inbound(self, witness: Witness, method: str, peer: str, record: Record) -> Seen:
        path = record.path or ""
        spot, long_id = _spot(path)
        place = witness.inbound.setdefault(spot, Place())
        place.add_path(path, long_id=long_id)
        if not peer:
            place.add_source(record.source)
        place.add_needed(method, _scopes(record.scope_needed))
        return place.uses.setdefault((method, peer), Seen())

    def _outbound(self, witness: Witness, method: str, peer: str, record: Record) -> Seen:
        calls = witness.outbound.setdefault((record.route or "", peer), Calls())
        if len(calls.scopes) < _MOST_SCOPES:
            calls.scopes |= _scopes(record.scope_needed)
        return calls.uses.setdefault(method, Seen())


def _no_evidence(record: Record) -> str | None:
    """Return the reason why a record counts for nothing; None for a call that passed."""
    if record.event != "request" or record.direction not in {"inbound", "outbound"}:
        return NOT_A_REQUEST
    if is_login(record.direction, record.op, record.path):
        return A_LOGIN
    if not (record.allowed or record.decision == "observed_deny"):
        return REFUSED
    if record.allowed and (not record.chain or record.subject == record.actor or not record.peer):
        return NOT_DELEGATED
    return None


def _require_path(path: str) -> None:
    if len(path) > _MAX_PATH or mask_tokens(path) != path:
        raise ValueError("the path is too long, or holds a token")
    require_path(path, prefix=False)


def _spot(path: str) -> tuple[Spot, bool]:
    found = first_id(path)
    return (Spot(path, ids=False), False) if found is None else (Spot(found.before, ids=True), found.long)


def _scopes(names: Iterable[str] | None) -> ScopeSet:
    """Return scopes of a record; none if one of them could not stand in a settings file."""
    scopes = sorted(names or ())
    try:
        bounded = sum(map(len, scopes)) <= _MAX_SCOPES
        if bounded and all(len(parse_scope(one)) == 1 and mask_tokens(one) == one for one in scopes):
            return frozenset(scopes)
    except ScopeError:
        pass
    return frozenset()
