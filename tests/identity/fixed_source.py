"""An identity source that never changes by itself: tests set the current identity."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping

from delegation_core.errors import Reason, Unavailable
from delegation_core.keyset import KeySet
from delegation_core.spiffe_id import TrustDomain
from sidecar.identity.bundle import parse_bundle
from sidecar.identity.generation import new_identity, parse_x509_svid
from sidecar.identity.source import Identity, State, Subscriber, UpdateCounts
from tests.identity.shapes import NOW, Issued, der_of


class FixedSource:
    def __init__(self, current: Identity | None) -> None:
        self.current = current

    @property
    def state(self) -> State:
        return State.READY if self.current else State.STARTING

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
        raise Unavailable(Reason.NOT_READY)

    def subscribe(self, callback: Subscriber) -> None:
        pass

    def unsubscribe(self, callback: Subscriber) -> None:
        pass


def identity_of(
    own: Iterable[Issued], spiffe_id: str, bundles: Mapping[str, Iterable[Issued]], *, number: int = 1
) -> Identity:
    """Build a generation from a chain, leaf first, and the authorities of each trust domain."""
    chain = list(own)
    parsed = {
        TrustDomain(name): parse_bundle(TrustDomain(name), b"".join(der_of(*held))) for name, held in bundles.items()
    }
    svid = parse_x509_svid(spiffe_id, der_of(*chain), chain[0].key_der)
    return new_identity(number, svid, parsed, now=NOW)
