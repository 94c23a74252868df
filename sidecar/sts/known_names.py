"""Names that an order may use: configured issuers and trust domains, and names that were seen here.

An order with a misspelled name would have no effect, yet look successful. So an unknown issuer or trust domain is
refused with the nearest known name, and each answer says when the name was last seen. The memory is bounded.
"""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from delegation_core.errors import Denied, Reason
from delegation_core.near_names import nearest_name, reads_like
from delegation_core.revocation import NAMED_BY_ISSUER, OF_WORKLOADS, Kind, Use
from delegation_core.spiffe_id import SpiffeId
from sidecar.sts.orders import Order
from sidecar.sts.policy import StsPolicy
from sidecar.sts.schedule import GRACE_S

MAX_SEEN: Final = 5_000  # names of each kind
LEAST_S: Final = 86_400  # shortest end: sidecars may trust issuers that are unknown here
_MAX_NAME: Final = 256  # characters; a longer name is kept as its digest


@dataclass(frozen=True, slots=True)
class KnownNames:
    """Configured issuers and trust domains. ``longest_s``: the longest useful life of an order, by kind."""

    issuers: frozenset[str]
    domains: frozenset[str]
    longest_s: Mapping[Kind, int]

    def admit(self, order: Order) -> Order:
        """Return a new revocation, shortened to the longest life of the tokens that it stops.

        Raises:
            Denied: ORDER_REFUSED, the issuer or trust domain is unknown.
        """
        if order.kind in NAMED_BY_ISSUER and order.issuer not in self.issuers:
            raise _unknown("issuer", order.issuer or "", self.issuers)
        if order.kind in OF_WORKLOADS and (domain := str(SpiffeId(order.value).trust_domain)) not in self.domains:
            raise _unknown("trust domain", domain, self.domains)
        latest = order.made_at + self.longest_s.get(order.kind, order.expires_at)
        return order if order.expires_at <= latest else replace(order, expires_at=latest)


def known_names(policy: StsPolicy, domains: Iterable[object]) -> KnownNames:
    """Return the known names of a policy; ``domains`` are the trust domains with a bundle."""
    return KnownNames(
        frozenset({policy.issuer, *policy.login_issuers, *policy.foreign_issuers}),
        frozenset(map(str, domains)),
        _longest_s(policy),
    )


def _longest_s(policy: StsPolicy) -> Mapping[Kind, int]:
    """Return the longest useful life in seconds of an order for a ``txn`` or a ``jti``, at least a day.

    A kind without an entry has no known limit: both kinds if there are foreign token services, and ``jti`` if the
    tokens of a login issuer have none. A chain that starts here ends with its first token.
    """
    if policy.foreign_issuers:
        return {}
    ours_s = policy.longest_life_s + GRACE_S
    lives = [one.trusted.profile.max_lifetime_s for one in policy.login_issuers.values()]
    known = [one for one in lives if one is not None]
    found = {Kind.TXN: max(LEAST_S, ours_s)}
    if len(known) == len(lives):
        found[Kind.JTI] = max(LEAST_S, ours_s + max(known, default=0))
    return found


def _unknown(what: str, named: str, known: Iterable[str]) -> Denied:
    there = sorted(known)
    nearest = nearest_name(named, there)
    hint = f"known are {', '.join(there)}" if nearest is None else f"did you mean {nearest}?"
    return Denied(
        Reason.ORDER_REFUSED,
        f"the {what} is unknown here, so the order would match nothing: {hint} To send it anyway, add --unknown",
    )


class SeenNames:
    """Names in exchanges since the start, with the time when each was last seen: ``MAX_SEEN`` of a kind.

    ``clock`` is wall time.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._seen: dict[Kind, OrderedDict[object, int]] = {kind: OrderedDict() for kind in Kind}
        self._since = dict.fromkeys(Kind, int(clock()))

    def note(self, use: Use) -> None:
        """Remember every name of a verified use."""
        for kind, names in use.names().items():
            self._note(kind, names)

    def note_issued(self, claims: Mapping[str, object]) -> None:
        """Remember the ``txn`` and ``jti`` of an issued token."""
        self._note(Kind.TXN, (claims["txn"],))
        self._note(Kind.JTI, (claims["jti"],))

    def _note(self, kind: Kind, names: Iterable[object]) -> None:
        seen, now = self._seen[kind], int(self._clock())
        for key in map(_key, names):
            seen[key] = now
            seen.move_to_end(key)
        while len(seen) > MAX_SEEN:
            _, at = seen.popitem(last=False)
            self._since[kind] = max(self._since[kind], at)

    def of(self, order: Order) -> dict[str, object]:
        """Describe a revocation's name: when it was last seen, the start of this memory, and if unseen, a similar one.

        Times are in seconds since 1970.
        """
        seen, name = self._seen[order.kind], order.revocation().name
        at = seen.get(_key(name))
        found: dict[str, object] = {"seen_at": at, "seen_since": self._since[order.kind]}
        if at is None:
            texts = (one for one in map(_text, seen) if one is not None)
            found["alike"] = next((one for one in texts if reads_like(one, order.value)), None)
        return found


def _key(name: object) -> object:
    parts = [str(part) for part in name] if isinstance(name, tuple) else [str(name)]
    if sum(map(len, parts)) > _MAX_NAME:
        return hashlib.sha256("\n".join(parts).encode()).digest()
    return name if isinstance(name, tuple) else parts[0]


def _text(key: object) -> str | None:
    """Return the name in a key of the memory, without its issuer; None for a digest."""
    found = key[-1] if isinstance(key, tuple) else key
    return found if isinstance(found, str) else None
