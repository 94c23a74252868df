"""An identity source without a Workload API: the test controls when the identity comes, changes and goes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping

from delegation_core.errors import Reason, Unavailable
from delegation_core.keyset import KeySet
from delegation_core.spiffe_id import SpiffeId, TrustDomain
from sidecar.identity.bundle import parse_bundle
from sidecar.identity.generation import new_identity, parse_x509_svid, with_bundles
from sidecar.identity.source import Identity, State, Subscriber, UpdateCounts
from sidecar_dev.pki import TrustDomainAuthority


class OwnIdentity:
    """A source with the identity ``spiffe_id`` from the start, unless that is None."""

    def __init__(self, authority: TrustDomainAuthority, spiffe_id: SpiffeId | None) -> None:
        self.authority = authority
        self.audiences: list[str] = []  # of the requested JWT-SVIDs
        self.jwt_refused = False
        self._subscribers: list[Subscriber] = []
        self._number = 0
        self._current = None if spiffe_id is None else self._issue(spiffe_id)

    @property
    def current(self) -> Identity | None:
        return self._current

    @property
    def state(self) -> State:
        return State.READY if self._current else State.DENIED

    @property
    def last_error(self) -> str | None:
        return None

    @property
    def counts(self) -> UpdateCounts:
        return UpdateCounts()

    @property
    def jwt_bundles(self) -> Mapping[TrustDomain, KeySet]:
        return {}

    async def run(self) -> None:
        await asyncio.Event().wait()

    async def jwt_svid(self, audience: str) -> str:
        self.audiences.append(audience)
        if self._current is None or self.jwt_refused:
            raise Unavailable(Reason.NOT_READY)
        return self.authority.issue_jwt(self._current.spiffe_id, audience)

    def subscribe(self, callback: Subscriber) -> None:
        self._subscribers.append(callback)

    def unsubscribe(self, callback: Subscriber) -> None:
        if callback in self._subscribers:
            self._subscribers.remove(callback)

    @property
    def subscribers(self) -> int:
        return len(self._subscribers)

    def become(self, spiffe_id: SpiffeId | None) -> None:
        """Make a new generation: renewed, of another SPIFFE ID, or (None) withdrawn."""
        self._current = None if spiffe_id is None else self._issue(spiffe_id)
        for callback in tuple(self._subscribers):
            callback(self._current)

    def renew_bundles(self, by: TrustDomainAuthority | None = None) -> None:
        """Make a new generation with the same SVID, and the same bundles or those of another authority."""
        assert self._current is not None
        self._number += 1
        svid, bundles = self._current.svid, dict(self._current.bundles)
        if by is not None:
            bundles = {by.trust_domain: parse_bundle(by.trust_domain, by.bundle_der())}
        self._current = with_bundles(self._number, svid, bundles)
        for callback in tuple(self._subscribers):
            callback(self._current)

    def _issue(self, spiffe_id: SpiffeId) -> Identity:
        self._number += 1
        issued = self.authority.issue_x509(spiffe_id)
        domain = self.authority.trust_domain
        bundles = {domain: parse_bundle(domain, self.authority.bundle_der())}
        svid = parse_x509_svid(spiffe_id, issued.chain_der, issued.key_der)
        return new_identity(self._number, svid, bundles, now=int(time.time()))
