"""Rows of a deny list that can match nothing under the settings beside it, most often because a name is misspelled.

They stay in force like all others: a list is never refused because of a name that is unknown here.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from typing import NamedTuple

from sidecar.delegation.inbound_routes import InboundRoutes
from sidecar.delegation.near_names import nearest_name, reads_like
from sidecar.delegation.outbound_routes import OutboundRoutes
from sidecar.delegation.policy import Deny
from sidecar.delegation.profile import TrustedIssuer
from sidecar.delegation.spiffe_id import SpiffeId, SpiffeIdError


class Unmatched(NamedTuple):
    """A row, the reason why it matches nothing, and the fix."""

    row: str
    wrong: str
    fix: str


def unmatched(deny: Deny, *, domains: Collection[str], issuers: Collection[str]) -> Iterator[Unmatched]:
    """Yield each row for a workload of an unknown trust domain, or with another spelling of a known issuer.

    An issuer of no likeness may be one that only the token service knows, so it is not reported.
    """
    for actor in sorted(deny.actors):
        domain = _domain(actor)
        if domain is not None and domain not in domains:
            near = nearest_name(domain, domains)
            yield Unmatched(
                f"actor {actor}",
                f"no issuer and no route of the settings has the trust domain {domain}, so the row stops nobody",
                f"did you mean {near}?" if near else "correct it, or remove the row",
            )
    for issuer, subject in sorted((issuer, subject) for issuer, subject in deny.subjects if issuer is not None):
        near = None if issuer in issuers else next((one for one in issuers if reads_like(one, issuer)), None)
        if near is not None:
            yield Unmatched(
                f"subject {subject}",
                f"the settings write the issuer {issuer} as {near}, so the row stops nobody",
                f"write {near}",
            )


def domains_of(issuers: Iterable[TrustedIssuer], inbound: InboundRoutes, outbound: OutboundRoutes) -> set[str]:
    """Return the trust domains of all workloads that tokens or routes can name."""
    peers = {peer for route in inbound.routes for peer in route.peers}
    peers |= {route.peer for route in outbound.routes if route.peer is not None}
    domains = {domain for issuer in issuers for domain in issuer.actor_trust_domains}
    return set(map(str, domains | {peer.trust_domain for peer in peers}))


def _domain(actor: str) -> str | None:
    try:
        return str(SpiffeId(actor).trust_domain)
    except SpiffeIdError:
        return None
