"""Counts the observed calls of each workload by place, method and caller, in bounded memory.

Records may be forged: calls count only if a settings file could hold their values (SPIFFE IDs, canonical paths,
methods); the others count as unusable. A route that observes lets every mesh peer pass, so an observed call proves only
that it was made. It is accepted if the caller's own sidecar recorded it too, on a route of its settings.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import date
from hashlib import blake2b
from ipaddress import ip_address
from secrets import token_bytes
from typing import Final, NamedTuple

from delegation_core.records.paths import first_id
from delegation_core.records.reading import Record, is_login
from delegation_core.records.record_text import mask_tokens
from delegation_core.route_checks import require_method, require_path
from delegation_core.scope import ScopeError, ScopeSet, parse_scope
from delegation_core.spiffe_id import SpiffeId

MAX_USES: Final = 20_000  # of all workloads; a use: one caller, method and place
MAX_PATHS: Final = 100  # distinct paths counted for a use
MAX_DAYS: Final = 31  # distinct days counted for a use
MAX_NAMES: Final = 3  # record names kept for a use
MAX_CLAIMS: Final = 100_000  # calls of all workloads that wait for the caller's own record

# Reasons to skip records that hold no observed call: no proposal is missing without them.
NOT_A_REQUEST: Final = "not a request"
A_LOGIN: Final = "a login; an entry is never proposed"
REFUSED: Final = "refused"
NOT_DELEGATED: Final = "allowed on the workload's own authority or with a static key; neither is proposed"
HARMLESS: Final = frozenset({NOT_A_REQUEST, A_LOGIN, REFUSED, NOT_DELEGATED})
# Reasons to propose no route for calls that passed.
OUTSIDE: Final = "to a host outside the mesh; choose between federate, inject and passthrough"
UNUSABLE: Final = "a name, method, path or time that no settings file can hold"
BEYOND: Final = "too many different calls; give the records of one workload at a time"

_MAX_PATH: Final = 1024
_MAX_SCOPES: Final = 1024
_SAMPLES: Final = 8
_MOST_SCOPES: Final = 64  # of an outbound route
_CLAIMS: Final = 16  # of a use
_CLAIMS_PER_DAY: Final = 4
_LONGEST_RUN: Final = 64
_FILTER_BYTES: Final = 1 << 24
_PROBES: Final = 6


class Call(NamedTuple):
    """One call. ``day``: proleptic ordinal. ``name``: RUN/SEQ of its record. ``scopes``: required by the route."""

    day: int
    path: str
    long_id: bool
    name: str
    scopes: ScopeSet


@dataclass(slots=True)
class Seen:
    """Counter of calls. ``names``: of the first records. ``scopes``: of all records; None if they differ.

    ``long_id``: an id in one of the paths may be a secret. ``samples``: the first distinct paths.
    """

    calls: int = 0
    days: set[int] = field(default_factory=set)
    samples: list[str] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    scopes: ScopeSet | None = None
    long_id: bool = False
    _paths: set[int] = field(default_factory=set)

    @property
    def paths(self) -> int:
        """Number of distinct paths, at most MAX_PATHS."""
        return len(self._paths)

    def has_path(self, path: str) -> bool:
        """Return True if a call had this path; may return False if there are more than MAX_PATHS paths."""
        return hash(path) in self._paths

    def add(self, call: Call) -> None:
        """Count one call."""
        self.scopes = call.scopes if not self.calls or self.scopes == call.scopes else None
        self.calls += 1
        self.long_id |= call.long_id
        if len(self.days) < MAX_DAYS:
            self.days.add(call.day)
        if len(self.names) < MAX_NAMES:
            self.names.append(call.name)
        known = hash(call.path)
        if known not in self._paths and len(self._paths) < MAX_PATHS:
            self._paths.add(known)
            if len(self.samples) < _SAMPLES:
                self.samples.append(call.path)


@dataclass(slots=True)
class Use:
    """Calls of one caller by one method to one place.

    ``accepted``: calls with evidence besides the callee's record: a verified token that names the caller, or a record
    of the caller's own sidecar. ``claims``: calls that wait for such a record, by the key of ``MadeCalls``.
    """

    seen: Seen = field(default_factory=Seen)
    accepted: Seen = field(default_factory=Seen)
    claims: dict[int, Call] = field(default_factory=dict)

    def claim(self, key: int, call: Call) -> bool:
        """Keep a call until its caller's record is read, at most a few per day. Returns True if the call was added."""
        same_day = sum(one.day == call.day for one in self.claims.values())
        if key in self.claims or same_day >= _CLAIMS_PER_DAY or len(self.claims) >= _CLAIMS:
            return False
        self.claims[key] = call
        return True

    def settle(self, made: MadeCalls) -> None:
        """Move the claims that the callers' own sidecars recorded to ``accepted``."""
        for key in [key for key in self.claims if key in made]:
            self.accepted.add(self.claims.pop(key))


class Spot(NamedTuple):
    """Key of a place: a path without an id; with ``ids``, the common prefix of paths that continue with an id."""

    path: str
    ids: bool


@dataclass(slots=True)
class Place:
    """Calls to the paths of one place. ``uses``: by method and caller, "" for a caller without a proven identity.

    ``sources``: IP addresses of callers without a proven identity.
    """

    uses: dict[tuple[str, str], Use] = field(default_factory=dict)
    sources: set[str] = field(default_factory=set)

    def add_source(self, address: str | None) -> None:
        """Add the address of a caller without a proven identity; ignore text that is no IP address."""
        if address is not None and len(self.sources) < _SAMPLES:
            with suppress(ValueError):
                self.sources.add(str(ip_address(address)))


@dataclass(slots=True)
class Calls:
    """Calls of one outbound route to one next hop, by method."""

    uses: dict[str, Seen] = field(default_factory=dict)
    scopes: set[str] = field(default_factory=set)


@dataclass(slots=True)
class Witness:
    """The calls that one workload's sidecar saw: ``inbound`` by place, ``outbound`` by route and next hop."""

    inbound: dict[Spot, Place] = field(default_factory=dict)
    outbound: dict[tuple[str, str], Calls] = field(default_factory=dict)


class MadeCalls:
    """Bloom filter of 16 MiB, with a secret key, of the calls that callers' own sidecars recorded.

    It contains each call that was added. After 2 million calls, one in a million other calls is a false positive;
    without the key nobody can construct one.
    """

    def __init__(self) -> None:
        self._key = token_bytes(16)
        self._bits = bytearray(_FILTER_BYTES)

    def key(self, caller: str, callee: str, method: str, path: str, call_id: str) -> int:
        """Return the key of one call."""
        text = "\0".join((caller, callee, method, path, call_id)).encode("utf-8", "surrogatepass")
        return int.from_bytes(blake2b(text, key=self._key, digest_size=_PROBES * 4).digest())

    def add(self, key: int) -> None:
        """Add one call."""
        for place in _places(key):
            self._bits[place >> 3] |= 1 << (place & 7)

    def __contains__(self, key: int) -> bool:
        return all(self._bits[place >> 3] >> (place & 7) & 1 for place in _places(key))


def _places(key: int) -> Iterator[int]:
    for number in range(_PROBES):
        yield (key >> (32 * number) & 0xFFFFFFFF) % (_FILTER_BYTES * 8)


class Evidence:
    """All observed calls (``calls``), and in ``others`` the number of records that do not count, by reason.

    All evidence of one mesh must share ``made``: a caller's record supports the callee's.
    """

    def __init__(self, made: MadeCalls | None = None) -> None:
        self._witnesses: dict[str, Witness] = {}
        self.calls = 0
        self.others: Counter[str] = Counter()
        self.days: set[int] = set()
        self._made = made or MadeCalls()
        self._uses = 0
        self._claims = 0

    @property
    def witnesses(self) -> dict[str, Witness]:
        """Witnesses by workload. Each read accepts the calls that their callers have recorded so far."""
        for witness in self._witnesses.values():
            for place in witness.inbound.values():
                for use in place.uses.values():
                    use.settle(self._made)
        return self._witnesses

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
        workload = str(SpiffeId(record.workload or ""))
        day = date.fromisoformat(record.ts[:10]).toordinal()
        method, peer = record.method or "", str(SpiffeId(record.peer)) if record.peer else ""
        if record.direction == "outbound" and not peer:
            return OUTSIDE
        require_method(method)
        path = record.path or ""
        if record.direction == "inbound":
            _require_path(path)
        else:
            self._note_made(workload, peer, method, record)
        if self._uses >= MAX_USES and not self._is_known(workload, method, peer, record):
            return BEYOND
        witness = self._witnesses.setdefault(workload, Witness())
        if record.direction == "outbound":
            seen = self._outbound(witness, method, peer, record)
            call = Call(day, "", long_id=False, name=_name(record), scopes=frozenset())
        else:
            spot, long_id = _spot(path)
            call = Call(day, path, long_id, _name(record), _scopes(record.scope_needed))
            seen = self._inbound(witness.inbound.setdefault(spot, Place()), workload, call, record)
        self._uses += not seen.calls
        seen.add(call)
        self.calls += 1
        if len(self.days) < MAX_USES:
            self.days.add(day)
        return None

    def _is_known(self, workload: str, method: str, peer: str, record: Record) -> bool:
        witness = self._witnesses.get(workload, Witness())
        if record.direction == "outbound":
            calls = witness.outbound.get((record.route or "", peer))
            return calls is not None and method in calls.uses
        place = witness.inbound.get(_spot(record.path or "")[0])
        return place is not None and (method, peer) in place.uses

    def _inbound(self, place: Place, workload: str, call: Call, record: Record) -> Seen:
        method, peer = record.method or "", str(SpiffeId(record.peer)) if record.peer else ""
        use = place.uses.setdefault((method, peer), Use())
        if not peer:
            place.add_source(record.source)
        elif record.allowed:  # a verified token names the caller as its actor
            use.accepted.add(call)
        elif record.call_in and self._claims < MAX_CLAIMS:
            self._claims += use.claim(self._made.key(peer, workload, method, call.path, record.call_in), call)
        return use.seen

    def _note_made(self, workload: str, peer: str, method: str, record: Record) -> None:
        """Add an outbound call under the paths that the callee may see: unchanged, and without the first segment."""
        if record.call_out:
            path = record.path or ""
            below = path[1:].partition("/")
            for one in {path, f"/{below[2]}"}:
                self._made.add(self._made.key(workload, peer, method, one, record.call_out))

    def _outbound(self, witness: Witness, method: str, peer: str, record: Record) -> Seen:
        calls = witness.outbound.setdefault((record.route or "", peer), Calls())
        if len(calls.scopes) < _MOST_SCOPES:
            calls.scopes |= _scopes(record.scope_needed)
        return calls.uses.setdefault(method, Seen())


def _no_evidence(record: Record) -> str | None:
    """Return the reason to skip a record, or None for a call that passed."""
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


def _name(record: Record) -> str:
    return f"{record.run[:_LONGEST_RUN]}/{record.seq}"


def _scopes(names: Iterable[str] | None) -> ScopeSet:
    """Return the scopes of a record; the empty set if one of them is invalid in a settings file."""
    scopes = sorted(names or ())
    try:
        bounded = sum(map(len, scopes)) <= _MAX_SCOPES
        if bounded and all(len(parse_scope(one)) == 1 and mask_tokens(one) == one for one in scopes):
            return frozenset(scopes)
    except ScopeError:
        pass
    return frozenset()
