"""Matching of revocations with uses of authority; ``revocations_kept`` merges the lists. Pure.

Every check gets a ``Use``: the token, its presenter, and the subject's names after the next exchange. The members have
no defaults, so a caller cannot omit one. All other names are read from the token.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, NamedTuple, Protocol

from delegation_core.act import ActChain
from delegation_core.errors import Denied, Reason, Unavailable


class Kind(StrEnum):
    """Kinds of revocations: a user, a workload, a chain, one token, or one login of a user.

    ``ACTOR`` stops a workload as current actor or presenter, ``THROUGH`` also every chain with it as an earlier actor.
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
    """The claims of a verified token that revocations match."""

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
    """One use of authority, to match with revocations and the deny list.

    ``token``: None for a call without a token. ``presenter``: the workload that presents it; None: it proved no SPIFFE
    ID. ``becomes``: the subject's names after an exchange at the token service (``NO_NAMES`` if unchanged); without a
    token, the workload's names as a subject.
    """

    token: Token | None
    presenter: str | None
    becomes: frozenset[Pair]

    @property
    def issuer(self) -> str | None:
        """Issuer of the token; None without one."""
        return None if self.token is None else self.token.issuer

    def names(self) -> Mapping[Kind, frozenset[object]]:
        """Return the names that a revocation of each kind can match."""
        token = self.token
        actors: set[str | None] = {self.presenter}
        earlier: set[str | None] = set()
        ids: tuple[tuple[str | None, ...], ...] = ((), (), ())
        subjects: set[object] = {*self.becomes}
        if token is not None:
            actors |= {token.subject, token.actor_id, token.client_id}  # a workload may be the subject of its own chain
            if token.chain is not None:
                # Exchanges copy earlier actors unchanged, and some issuers identify actors by client_id.
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


class Stopped(Protocol):
    """Revocations of one issuer, as far as a check asks them: see ``Revocations``."""

    @property
    def stopped(self) -> Mapping[Kind, frozenset[object]]: ...  # noqa: D102
    def names(self, kind: Kind) -> frozenset[object]: ...  # noqa: D102
    def kind_of(self, names: Mapping[Kind, frozenset[object]]) -> Kind | None: ...  # noqa: D102


@dataclass(frozen=True, slots=True, kw_only=True)
class InForce:
    """The revocation lists of all issuers. A list of an issuer in ``own`` (our token services) applies to every token,
    a list of another issuer only to its own tokens. Uses to which a list in ``stale`` applies are refused.
    """

    lists: Mapping[str, Stopped] = field(default_factory=dict)
    own: frozenset[str] = frozenset()
    stale: frozenset[str] = frozenset()

    def check(self, use: Use) -> None:
        """Refuse a revoked use.

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
        """Return the kind of a revocation that matches ``use``; None if none does."""
        found = [
            one for issuer, one in self.lists.items() if one.stopped and (issuer == use.issuer or issuer in self.own)
        ]
        if not found:
            return None
        names = use.names()
        return next((kind for one in found if (kind := one.kind_of(names)) is not None), None)

    def only_names_tokens_since(self, before: InForce) -> bool:
        """True if revocations of workloads, the set of lists and their staleness are the same as in ``before``.

        Then earlier decisions remain valid, except for uses that ``kind_of`` now matches.
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
