"""Names that an order may name: issuers and trust domains that are configured here, and names that were seen here.

An order that matches nothing looks like one that works. So an issuer or trust domain that this token service does not
know is an error with the nearest known one, and each answer says when the name was last seen, as far as a bounded
memory can tell.
"""

from __future__ import annotations

import hashlib
import time
import unicodedata
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Final
from urllib.parse import unquote

from sidecar.delegation.revocation import NAMED_BY_ISSUER, OF_WORKLOADS, Kind, Use
from sidecar.delegation.spiffe_id import SpiffeId
from sidecar.errors import Denied, Reason
from sidecar.sts.orders import Order
from sidecar.sts.policy import StsPolicy
from sidecar.sts.schedule import GRACE_S

MAX_SEEN: Final = 5_000  # names of each kind
LEAST_S: Final = 86_400  # no order is cut shorter: sidecars may trust issuers that this token service does not know
_MAX_NAME: Final = 256  # characters; of a longer name the digest is kept


@dataclass(frozen=True, slots=True)
class KnownNames:
    """The issuers and trust domains that are configured, and how long anything that a kind names may live."""

    issuers: frozenset[str]
    domains: frozenset[str]
    longest_s: Mapping[Kind, int]

    def admit(self, order: Order) -> Order:
        """Return a new revocation; it ends once whatever it names has expired.

        Raises:
            Denied: ORDER_REFUSED, its issuer or trust domain is not known here.
        """
        if order.kind in NAMED_BY_ISSUER and order.issuer not in self.issuers:
            raise _unknown("issuer", order.issuer or "", self.issuers)
        if order.kind in OF_WORKLOADS and (domain := str(SpiffeId(order.value).trust_domain)) not in self.domains:
            raise _unknown("trust domain", domain, self.domains)
        latest = order.made_at + self.longest_s.get(order.kind, order.expires_at)
        return order if order.expires_at <= latest else replace(order, expires_at=latest)


def known_names(policy: StsPolicy, domains: Iterable[object]) -> KnownNames:
    """Return the names under a policy; ``domains`` are the trust domains whose bundles are there."""
    return KnownNames(
        frozenset({policy.issuer, *policy.login_issuers, *policy.foreign_issuers}),
        frozenset(map(str, domains)),
        _longest_s(policy),
    )


def _longest_s(policy: StsPolicy) -> Mapping[Kind, int]:
    """Return how long what a ``txn`` or ``jti`` names may live, where that has a limit.

    A chain of ours ends with its first token, and what is exchanged for a login begins while that lives. What a foreign
    token service issues under one ``txn``, or for one token, has no limit here.
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
    alike = [one for one in there if _plain(one) == _plain(named)]
    nearest = (alike or get_close_matches(named, there, n=1, cutoff=0.5))[:1]
    hint = f"did you mean {nearest[0]}?" if nearest else f"known are {', '.join(there)}"
    return Denied(
        Reason.ORDER_REFUSED, f"the {what} is unknown here, so the order would match nothing: {hint} Else say --unknown"
    )


def _plain(name: str) -> str:
    """Return a name as a person reads it, whatever its percent-encoding, Unicode form, case and last slash."""
    return unicodedata.normalize("NFKC", unquote(name)).casefold().rstrip("/")


class SeenNames:
    """The names of what was exchanged here since the start, and when each was last seen: ``MAX_SEEN`` of a kind.

    ``clock`` is wall time.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._seen: dict[Kind, OrderedDict[object, int]] = {kind: OrderedDict() for kind in Kind}
        self._since = dict.fromkeys(Kind, int(clock()))

    def note(self, use: Use) -> None:
        """Remember every name of a use that was proven."""
        for kind, names in use.names().items():
            self._note(kind, names)

    def note_issued(self, claims: Mapping[str, object]) -> None:
        """Remember the names that a token brings which is issued here."""
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
        """Return when the name of a revocation was last seen, since when that is known, and one seen that reads alike.

        Times are in seconds since the epoch.
        """
        seen, name = self._seen[order.kind], order.revocation().name
        at = seen.get(_key(name))
        found: dict[str, object] = {"seen_at": at, "seen_since": self._since[order.kind]}
        if at is None:
            plain = _plain(order.value)
            found["alike"] = next((one for one in map(_text, seen) if one is not None and _plain(one) == plain), None)
        return found


def _key(name: object) -> object:
    parts = [str(part) for part in name] if isinstance(name, tuple) else [str(name)]
    if sum(map(len, parts)) > _MAX_NAME:
        return hashlib.sha256("\n".join(parts).encode()).digest()
    return name if isinstance(name, tuple) else parts[0]


def _text(key: object) -> str | None:
    """Return the name that a key stands for, without its issuer; None for a digest."""
    found = key[-1] if isinstance(key, tuple) else key
    return found if isinstance(found, str) else None
