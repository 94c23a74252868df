"""Revocations: what operators have stopped, and the signed list by which every sidecar learns of it. Pure.

A list is a JWS of its issuer: a sequence number that never falls, the revocations in force, and those lifted early. A
reader merges lists: a revocation stays in force until it expires or is lifted, even if a replica that never heard of it
answers next. A list with a lower number than one before it is refused: its replica has lost something.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Final, Protocol

import orjson

from sidecar.delegation.claims import is_name
from sidecar.delegation.jws import CompactJws, encode_part, parse_compact
from sidecar.delegation.keyset import VerificationKey
from sidecar.delegation.signature import verify_signature
from sidecar.delegation.strict_json import StrictJsonError, parse_object
from sidecar.errors import Denied, Reason, Unavailable

TYP: Final = "revocations+jwt"  # no verifier of access tokens accepts it
MAX_REVOCATIONS: Final = 10_000
MAX_LISTED: Final = 8 * MAX_REVOCATIONS  # that a reader takes: replicas that were apart merge what each has kept
MAX_LIST_BYTES: Final = 8 * 1024 * 1024
SKEW_S: Final = 60

_MAX_NUMBER: Final = 2**53 - 1


class RevocationsError(ValueError):
    """A list that is not used. The message quotes nothing of it but numbers."""


class Kind(StrEnum):
    """Things that can be stopped: a user, a workload, a chain, one token, or one login of a user."""

    SUBJECT = "subject"
    ACTOR = "actor"
    TXN = "txn"
    JTI = "jti"
    LOGIN = "login"


NAMED_BY_ISSUER: Final = frozenset({Kind.SUBJECT, Kind.LOGIN})


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
    def sid(self) -> str | None: ...  # noqa: D102


@dataclass(frozen=True, slots=True, kw_only=True)
class Revocation:
    """One thing that is stopped until ``expires_at``. ``issuer`` names whose subject or login ``value`` is."""

    id: str
    kind: Kind
    value: str = field(repr=False)
    issuer: str | None = None
    expires_at: int


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

    def __post_init__(self) -> None:
        named: dict[Kind, set[object]] = {}
        for one in self.in_force.values():
            name = (one.issuer, one.value) if one.kind in NAMED_BY_ISSUER else one.value
            named.setdefault(one.kind, set()).add(name)
        object.__setattr__(self, "_named", {kind: frozenset(names) for kind, names in named.items()})

    def names(self, kind: Kind) -> frozenset[object]:
        """Return what of this kind is stopped: values, of a subject or login pairs (issuer, value)."""
        return self._named.get(kind, frozenset())

    def kind_of(self, token: Token, actor: str | None) -> Kind | None:
        """Return the kind of a revocation that stops this token, or the ``actor`` that uses it; None if none does."""
        if not self._named:
            return None
        actors = self.names(Kind.ACTOR)
        if (actor is not None and actor in actors) or token.subject in actors:  # also for a chain that it started
            return Kind.ACTOR
        if token.txn is not None and token.txn in self.names(Kind.TXN):
            return Kind.TXN
        if not self.names(Kind.JTI).isdisjoint((token.jti, token.parent_jti)):
            return Kind.JTI
        subjects = {(token.issuer, token.subject), token.sub_id}
        if not self.names(Kind.SUBJECT).isdisjoint(subjects):
            return Kind.SUBJECT
        if token.sid is not None:
            issuers = {token.issuer} if token.sub_id is None else {token.issuer, token.sub_id[0]}
            if not self.names(Kind.LOGIN).isdisjoint((issuer, token.sid) for issuer in issuers):
                return Kind.LOGIN
        return None

    def merged(self, newer: Revocations, *, now: int) -> Revocations:
        """Return both together, without what has expired by ``now`` or was lifted.

        Raises:
            RevocationsError: the number of ``newer`` is lower.
        """
        if newer.seq < self.seq:
            raise RevocationsError(f"its number fell from {self.seq} to {newer.seq}")
        joined = replace(
            newer,
            issued_at=max(self.issued_at, newer.issued_at),
            in_force={**self.in_force, **newer.in_force},
            lifted={**self.lifted, **newer.lifted},
        )
        return joined.at(now)

    def at(self, now: int) -> Revocations:
        """Return the same without what has expired by ``now`` or was lifted."""
        lifted = {name: end for name, end in self.lifted.items() if end > now}
        in_force = {one.id: one for one in self.in_force.values() if one.expires_at > now and one.id not in self.lifted}
        if len(lifted) == len(self.lifted) and len(in_force) == len(self.in_force):
            return self
        return replace(self, in_force=in_force, lifted=lifted)

    def as_of(self, issued_at: int) -> Revocations:
        """Return the same, stated again at ``issued_at``."""
        return replace(self, issued_at=issued_at)

    @property
    def stopped(self) -> Mapping[Kind, frozenset[object]]:
        """All that is stopped, by kind."""
        return self._named

    def claims(self, issuer: str) -> dict[str, object]:
        """Return the claims of the signed list."""
        return {
            "iss": issuer,
            "iat": self.issued_at,
            "exp": self.issued_at + self.ttl_s,
            "ttl": self.ttl_s,
            "seq": self.seq,
            "revoked": [_row(one) for _, one in sorted(self.in_force.items())],
            "lifted": [{"id": name, "exp": end} for name, end in sorted(self.lifted.items())],
        }


NONE: Final = Revocations()


@dataclass(frozen=True, slots=True, kw_only=True)
class InForce:
    """The lists of all issuers. That of one in ``own`` (our token services) counts for every token, that of another
    issuer only for its own tokens. A list in ``stale`` is too old: what it would decide is refused.
    """

    lists: Mapping[str, Revocations] = field(default_factory=dict)
    own: frozenset[str] = frozenset()
    stale: frozenset[str] = frozenset()

    def check(self, token: Token, actor: str | None) -> None:
        """Refuse a token that is stopped, or the ``actor`` that uses it.

        Raises:
            Denied: REVOKED.
            Unavailable: REVOCATIONS_STALE.
        """
        if self.stale and (token.issuer in self.stale or not self.stale.isdisjoint(self.own)):
            raise Unavailable(Reason.REVOCATIONS_STALE, "the list of revocations is too old")
        kind = self.kind_of(token, actor)
        if kind is not None:
            raise Denied(Reason.REVOKED, f"by a revocation of this {kind}")

    def check_actor(self, actor: str | None) -> None:
        """Refuse an ``actor`` that shows no token.

        Raises:
            Denied: REVOKED.
            Unavailable: REVOCATIONS_STALE.
        """
        if not self.stale.isdisjoint(self.own):
            raise Unavailable(Reason.REVOCATIONS_STALE, "the list of revocations is too old")
        if any(actor in self.lists[name].names(Kind.ACTOR) for name in self.own & self.lists.keys()):
            raise Denied(Reason.REVOKED, f"by a revocation of this {Kind.ACTOR}")

    def check_subject(self, issuer: str | None, subject: str) -> None:
        """Refuse a subject by the name that its tokens will have. Raises Denied REVOKED."""
        if self.lists and any(
            (issuer, subject) in self.lists[name].names(Kind.SUBJECT) for name in self.own & self.lists.keys()
        ):
            raise Denied(Reason.REVOKED, f"by a revocation of this {Kind.SUBJECT}")

    def kind_of(self, token: Token, actor: str | None = None) -> Kind | None:
        """Return the kind of a revocation that stops this token or actor; None if none does."""
        for issuer, stopped in self.lists.items():
            if issuer == token.issuer or issuer in self.own:
                kind = stopped.kind_of(token, actor)
                if kind is not None:
                    return kind
        return None

    def only_names_tokens_since(self, before: InForce) -> bool:
        """Return True if since ``before`` no workload was stopped or let go, and no list came, went or became stale.

        Then what was decided before still holds, except for the tokens that ``kind_of`` names.
        """
        if (self.own, self.stale, self.lists.keys()) != (before.own, before.stale, before.lists.keys()):
            return False
        return all(one.names(Kind.ACTOR) == before.lists[name].names(Kind.ACTOR) for name, one in self.lists.items())


NOTHING: Final = InForce()


def sign_list(revocations: Revocations, *, issuer: str, alg: str, kid: str, sign: Callable[[bytes], bytes]) -> bytes:
    """Return the list as a compact JWS. ``sign`` makes a signature in the form of JWS (RFC 7518 section 3)."""
    header = orjson.dumps({"alg": alg, "kid": kid, "typ": TYP})
    signing_input = encode_part(header) + b"." + encode_part(orjson.dumps(revocations.claims(issuer)))
    return signing_input + b"." + encode_part(sign(signing_input))


def parse_list(raw: bytes) -> CompactJws:
    """Take a list apart; nothing is verified yet.

    Raises:
        RevocationsError: with the fault.
    """
    try:
        jws = parse_compact(raw.decode("ascii", "replace"), max_bytes=MAX_LIST_BYTES)
    except Denied as error:
        raise RevocationsError(str(error)) from error
    if jws.typ != TYP:
        raise RevocationsError(f"its typ is not {TYP}")
    return jws


def verify_list(
    jws: CompactJws, *, issuer: str, key: VerificationKey, algorithms: Container[str], now: int
) -> Revocations:
    """Verify a list of ``issuer``.

    Raises:
        RevocationsError: with the fault.
    """
    try:
        verify_signature(jws, key, algorithms)
        claims = parse_object(jws.payload, max_bytes=MAX_LIST_BYTES, max_depth=4)
        found = _read(claims, issuer)
    except (Denied, StrictJsonError) as error:
        raise RevocationsError(str(error)) from error
    if found.issued_at > now + SKEW_S:
        raise RevocationsError("it is from the future")
    if found.issued_at + found.ttl_s <= now - SKEW_S:
        raise RevocationsError("it has expired")
    return found.at(now)


def _read(claims: Mapping[str, object], issuer: str) -> Revocations:
    if claims.get("iss") != issuer:
        raise StrictJsonError("iss is another issuer")
    revoked, lifted = (_rows(claims, name) for name in ("revoked", "lifted"))
    issued_at, ttl_s = _number(claims, "iat"), _number(claims, "ttl")
    if _number(claims, "exp") != issued_at + ttl_s:
        raise StrictJsonError("exp is not iat and ttl")
    in_force = [_revocation(row) for row in revoked]
    ends = {_name(row, "id"): _number(row, "exp") for row in lifted}
    if len({one.id for one in in_force}) != len(revoked) or len(ends) != len(lifted):
        raise StrictJsonError("an id is listed twice")
    return Revocations(
        seq=_number(claims, "seq"),
        issued_at=issued_at,
        ttl_s=ttl_s,
        in_force={one.id: one for one in in_force},
        lifted=ends,
    )


def _revocation(row: Mapping[str, object]) -> Revocation:
    kind = row.get("kind")
    if kind not in set(Kind):
        raise StrictJsonError("kind is unknown: this version cannot enforce it")
    issuer = _name(row, "iss") if kind in NAMED_BY_ISSUER else None
    if row.keys() != {"id", "kind", "value", "exp"} | ({"iss"} if issuer is not None else set()):
        raise StrictJsonError("a revocation has other members")
    return Revocation(
        id=_name(row, "id"),
        kind=Kind(str(kind)),
        value=_name(row, "value"),
        issuer=issuer,
        expires_at=_number(row, "exp"),
    )


def _row(one: Revocation) -> dict[str, object]:
    row: dict[str, object] = {"id": one.id, "kind": one.kind, "value": one.value, "exp": one.expires_at}
    return row if one.issuer is None else row | {"iss": one.issuer}


def _rows(claims: Mapping[str, object], name: str) -> list[Mapping[str, object]]:
    rows = claims.get(name)
    if not isinstance(rows, list) or len(rows) > MAX_LISTED:
        raise StrictJsonError(f"{name} is not a list of at most {MAX_LISTED}")
    objects: Iterable[object] = rows
    found = [row for row in objects if isinstance(row, Mapping)]
    if len(found) != len(rows):
        raise StrictJsonError(f"{name} holds something that is no object")
    return found


def _name(row: Mapping[str, object], member: str) -> str:
    value = row.get(member)
    if not is_name(value):
        raise StrictJsonError(f"{member} is not a name")
    return value


def _number(row: Mapping[str, object], member: str) -> int:
    value = row.get(member)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _MAX_NUMBER:
        raise StrictJsonError(f"{member} is not a number")
    return value
