"""Policy: an immutable snapshot of all inputs of decisions except tokens and peers. Replaced whole, never edited."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from delegation_core.errors import Denied, Reason, Unavailable
from delegation_core.inbound_routes import InboundRoutes
from delegation_core.outbound_routes import OutboundRoutes
from delegation_core.revocation import NOTHING, InForce, Kind, Pair, Use
from delegation_core.route import OutboundRoute
from delegation_core.scope import ScopeSet
from delegation_core.spiffe_id import SpiffeId
from delegation_core.validity import DELEGATION_LIFE_S, FIRST_TOKEN_LIFE_S
from delegation_core.verify import TrustedIssuer

if TYPE_CHECKING:
    from delegation_core.door import Door
    from delegation_core.login_issuer import UserIssuer

ON_DENY_LIST: Final = "on the deny list"  # part of the detail of each refusal by the deny list, also in records


@dataclass(frozen=True, slots=True, kw_only=True)
class Deny:
    """The deny list for incidents: refuses uses of authority that are otherwise allowed. Empty by default.

    ``subjects``: pairs (issuer, sub), with None for any issuer; they also match the login pair in ``sub_id`` and, at an
    entry, the pair that the STS makes of the login.
    ``actors``: SPIFFE IDs, matched with the current actor, the presenter, the subject and the client. Earlier actors
    are never used for decisions (RFC 8693 section 4.1).
    ``jtis`` match a token and all tokens exchanged from it; ``txns`` match a whole chain. ``revoked``: the issuers' own
    revocation lists.
    """

    subjects: frozenset[tuple[str | None, str]] = frozenset()
    actors: frozenset[str] = frozenset()
    jtis: frozenset[str] = frozenset()
    txns: frozenset[str] = frozenset()
    revoked: InForce = NOTHING

    def joined(self, other: Deny) -> Deny:
        """Return the union of both lists, with the ``revoked`` of ``self``."""
        return replace(
            self,
            subjects=self.subjects | other.subjects,
            actors=self.actors | other.actors,
            jtis=self.jtis | other.jtis,
            txns=self.txns | other.txns,
        )

    def check(self, use: Use) -> None:
        """Refuse a use of authority if one of its names is revoked or on the list.

        Raises:
            Denied: POLICY_DENIED or REVOKED.
            Unavailable: REVOCATIONS_STALE.
        """
        self.revoked.check(use)
        if not (self.actors or self.txns or self.jtis or self.subjects):
            return
        names = use.names()
        if not self.actors.isdisjoint(names[Kind.ACTOR]):
            raise Denied(Reason.POLICY_DENIED, f"the actor, or the workload that started this chain, is {ON_DENY_LIST}")
        if not self.txns.isdisjoint(names[Kind.TXN]):
            raise Denied(Reason.POLICY_DENIED, f"the transaction is {ON_DENY_LIST}")
        if not self.jtis.isdisjoint(names[Kind.JTI]):
            raise Denied(Reason.POLICY_DENIED, f"the token, or one that it was exchanged from, is {ON_DENY_LIST}")
        if self.subjects and self._names_subject(use, names[Kind.SUBJECT]):
            raise Denied(Reason.POLICY_DENIED, f"the subject is {ON_DENY_LIST}")

    def _names_subject(self, use: Use, pairs: Iterable[object]) -> bool:
        if use.token is None:  # a workload acts for itself: match its name under any issuer
            return any(subject == use.presenter for _, subject in self.subjects)
        named = {subject for issuer, subject in self.subjects if issuer is None}
        return any(pair in self.subjects or (isinstance(pair, tuple) and pair[1] in named) for pair in pairs)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """Settings of a workload where users log in; only there may a user's chain start.

    The first token of a chain lives as long as its outbound route says, else ``first_token_life_s`` (None: 300 s), but
    at most ``delegation_life_s`` (None: one hour, and not longer than the login token).
    ``redirect_uris``: allowed redirect targets after a login at a token service. ``door``: the listener for users' own
    clients.

    Raises:
        ValueError: subject prefixes that could collide, an issuer under another name, or a life that is not positive.
    """

    issuers: Mapping[str, UserIssuer]
    may_call: frozenset[str]
    delegation_life_s: int | None = None
    first_token_life_s: int | None = None
    redirect_uris: frozenset[str] = frozenset()
    door: Door | None = None

    def __post_init__(self) -> None:
        prefixes = [user.subject_prefix for user in self.issuers.values()]
        from delegation_core.crossing import collide  # of an entry alone

        if collide(prefixes):
            raise ValueError("with several user issuers no subject_prefix may be the start of another")
        if any(issuer != user.trusted.issuer for issuer, user in self.issuers.items()):
            raise ValueError("each key must equal its user issuer's name")
        if self.delegation_life_s is not None and self.delegation_life_s <= 0:
            raise ValueError("delegation_life_s must be positive")
        if self.first_token_life_s is not None and self.first_token_life_s <= 0:
            raise ValueError("first_token_life_s must be positive")

    def users(self, *, at_door: bool) -> Mapping[str, UserIssuer]:
        """Return the user issuers by identifier: those of the front app, or with ``at_door`` those of the door."""
        if not at_door:
            return self.issuers
        return {} if self.door is None else self.door.issuers

    def first_life_s(self, route: OutboundRoute) -> int:
        """Return the maximum life in seconds of a chain's first token, issued for a call on ``route``."""
        wanted_s = route.first_token_life_s or self.first_token_life_s or FIRST_TOKEN_LIFE_S
        return min(wanted_s, self.delegation_life_s or DELEGATION_LIFE_S)


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """One snapshot: our identity (``workload``), our ``audiences``, the trusted issuers, and the allowed calls.

    ``issuers``: by issuer identifier. ``token_services``: those of them whose token services issue tokens to us.
    ``own_may_call``: outbound routes that the workload handle may call. ``platform_issuers``: further issuers whose
    tokens never count as the agent's own credentials. ``number``: serial number of the snapshot.

    Raises:
        ValueError: an issuer under another name, or a token service outside ``issuers``.
    """

    workload: SpiffeId
    audiences: frozenset[str]
    issuers: Mapping[str, TrustedIssuer]
    token_services: frozenset[str]
    inbound: InboundRoutes
    outbound: OutboundRoutes
    entry: Entry | None
    deny: Deny
    number: int
    own_may_call: frozenset[str] = frozenset()
    platform_issuers: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        if any(issuer != trusted.issuer for issuer, trusted in self.issuers.items()):
            raise ValueError("each key must equal its trusted issuer's name")
        if not self.token_services <= self.issuers.keys():
            raise ValueError("each token service must be a trusted issuer")

    @property
    def registered_scopes(self) -> ScopeSet:
        """All scopes that any inbound route requires."""
        return self.inbound.scopes

    def knows_issuer(self, issuer: str) -> bool:
        """True for trusted issuers, user issuers of the entry, and ``platform_issuers``."""
        at_entry = self.entry is not None and issuer in self.entry.issuers
        return at_entry or issuer in self.issuers or issuer in self.platform_issuers

    def sts(self, issuer: str) -> TrustedIssuer:
        """Return the trusted issuer ``issuer``, whose token service issues tokens to us.

        Raises:
            Unavailable: STS_UNAVAILABLE, no token service of this issuer is configured.
        """
        if issuer not in self.token_services:
            raise Unavailable(Reason.STS_UNAVAILABLE, "no token service of this issuer is configured")
        return self.issuers[issuer]

    def names_of_login(self, user: UserIssuer, subject: str) -> frozenset[Pair]:
        """Return the pairs (issuer, sub) of a login's subject in the mesh, one for each token service."""
        return frozenset((issuer, user.mesh_subject(subject)) for issuer in self.token_services)

    def own_use(self, workload: SpiffeId | None) -> Use:
        """Return the use to check for a call without a token by ``workload``; None: the caller proved no SPIFFE ID."""
        names = (
            frozenset() if workload is None else frozenset((issuer, str(workload)) for issuer in self.token_services)
        )
        return Use(None, workload, names)
