"""Revocations: what operators have stopped, what that stops, and how a reader merges one list with the next. Pure.

Every check gets a ``Use``: the token, the workload that presents it, and the names that its subject gets next. It has
no defaults, so a caller cannot omit a member. All other names are read from the token.

A revocation stays in force until it expires or is lifted, even if a replica that never heard of it answers next. A list
with a lower number than one before it is refused: its replica has lost something.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from itertools import chain
from typing import Final, NamedTuple, Protocol

from sidecar.delegation.act import ActChain
from sidecar.errors import Denied, Reason, Unavailable
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


class Kind(StrEnum):
    """Kinds of what can be stopped: a user, a workload, a chain, one token, or one login of a user.

    ``ACTOR`` stops a workload as the current actor, ``THROUGH`` also every chain that it took part in.
    """

    SUBJECT = "subject"
    ACTOR = "actor"
    THROUGH = "through"
    TXN = "txn"
    JTI = "jti"
    LOGIN = "login"


NAMED_BY_ISSUER: Final = frozenset({Kind.SUBJECT, Kind.LOGIN})
OF_WORKLOADS: Final = frozenset({Kind.ACTOR, Kind.THROUGH})

Pair = tuple[str, str]  # an issuer, and a name there
NO_NAMES: Final[frozenset[Pair]] = frozenset()


class Token(Protocol):
    """A verified token, as far as a revocation names it."""

    @property
    def issuer(self) -> str: ...  # noqa: D102
    @property
    def subject(self) -> str: ...  # noqa: D102
    @property
    def sub_id(self) -> tuple[str, str] | None: ...  # noqa: D102
    @property
    def jti(self) -> str | None: ...  # noqa: D102
    @property
    def parent_jti(self) -> str | None: ...  # noqa: D102
    @property
    def txn(self) -> str | None: ...  # noqa: D102
    @property
    def ancestors(self) -> tuple[str, ...]: ...  # noqa: D102
    @property
    def sid(self) -> str | None: ...  # noqa: D102
    @property
    def client_id(self) -> str | None: ...  # noqa: D102
    @property
    def chain(self) -> ActChain | None: ...  # noqa: D102
    @property
    def actor_id(self) -> str | None: ...  # noqa: D102
    @property
    def prior_ids(self) -> tuple[str, ...]: ...  # noqa: D102


class Use(NamedTuple):
    """One use of authority, with every name by which an order can stop it.

    ``token`` is None for a call without one. ``presenter`` is the workload that presents it; None: the caller proved no
    name. ``becomes`` are the names that the subject gets at the token service that the token is sent to (``NO_NAMES``
    if it keeps its own); without a token, the names that the workload has as a subject.
    """

    token: Token | None
    presenter: str | None
    becomes: frozenset[Pair]

    @property
    def issuer(self) -> str | None:
        """The issuer of the token."""
        return None if self.token is None else self.token.issuer

    def names(self) -> Mapping[Kind, frozenset[object]]:
        """Return every name by which an order can stop this use, for every kind of order."""
        token = self.token
        actors: set[str | None] = {self.presenter}
        earlier: set[str | None] = set()
        ids: tuple[tuple[str | None, ...], ...] = ((), (), ())
        subjects: set[object] = {*self.becomes}
        if token is not None:
            actors |= {token.subject, token.actor_id, token.client_id}  # a workload may be the subject of its own chain
            if token.chain is not None:
                # An actor keeps the members that its first issuer wrote, whose profile may name actors by client_id.
                actors |= {token.chain.current.subject, token.chain.current.client_id}
                earlier = {*token.chain.subjects, *token.chain.client_ids, *token.prior_ids}
            subjects |= {(token.issuer, token.subject), token.sub_id}
            issuers = {token.issuer} if token.sub_id is None else {token.issuer, token.sub_id[0]}
            ids = (token.txn,), (token.jti, token.parent_jti, *token.ancestors), (token.sid,)
        txns, jtis, sids = (frozenset(one for one in some if one is not None) for some in ids)
        return {
            Kind.SUBJECT: frozenset(subjects - {None}),
            Kind.ACTOR: frozenset(actors - {None}),
            Kind.THROUGH: frozenset((actors | earlier) - {None}),
            Kind.TXN: txns,
            Kind.JTI: jtis,
            Kind.LOGIN: frozenset((issuer, sid) for sid in sids for issuer in issuers),
        }


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


@dataclass(frozen=True, slots=True, kw_only=True)
class InForce:
    """The lists of all issuers. That of one in ``own`` (our token services) counts for every token, that of another
    issuer only for its own tokens. A list in ``stale`` is too old: what it would decide is refused.
    """

    lists: Mapping[str, Revocations] = field(default_factory=dict)
    own: frozenset[str] = frozenset()
    stale: frozenset[str] = frozenset()

    def check(self, use: Use) -> None:
        """Refuse a use that is stopped.

        Raises:
            Denied: REVOKED.
            Unavailable: REVOCATIONS_STALE.
        """
        if self.stale and (use.issuer in self.stale or not self.stale.isdisjoint(self.own)):
            raise Unavailable(Reason.REVOCATIONS_STALE, "the list of revocations is too old")
        kind = self.kind_of(use)
        if kind is not None:
            raise Denied(Reason.REVOKED, f"by a revocation of this {kind}")

    def kind_of(self, use: Use) -> Kind | None:
        """Return the kind of a revocation that stops this use; None if none does."""
        found = [
            one for issuer, one in self.lists.items() if one.stopped and (issuer == use.issuer or issuer in self.own)
        ]
        if not found:
            return None
        names = use.names()
        return next((kind for one in found if (kind := one.kind_of(names)) is not None), None)

    def only_names_tokens_since(self, before: InForce) -> bool:
        """Return True if since ``before`` no workload was stopped or let go, and no list came, went or became stale.

        Then what was decided before still holds, except for the tokens that ``kind_of`` names.
        """
        if (self.own, self.stale, self.lists.keys()) != (before.own, before.stale, before.lists.keys()):
            return False
        workloads = [
            (one.names(kind), before.lists[name].names(kind))
            for name, one in self.lists.items()
            for kind in OF_WORKLOADS
        ]
        return all(one is other or one == other for one, other in workloads)


NOTHING: Final = InForce()
