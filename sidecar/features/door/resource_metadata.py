"""Protected resource metadata (RFC 9728): names a route's token issuers. The sidecar answers, never the agent."""

from __future__ import annotations

from contextlib import suppress
from typing import Final

from delegation_core.bearer import bearer_of, parse_bearer
from delegation_core.errors import Denied
from delegation_core.policy import Policy
from delegation_core.route import InboundRoute
from delegation_core.spiffe_id import SpiffeId
from delegation_core.target import CanonicalTarget
from sidecar.features.operations.operation import Operation
from sidecar.features.operations.sides import InboundSide
from sidecar.observe.access_log import Entry
from sidecar.proxy.journeys.journey import Journey
from sidecar.proxy.journeys.refusal import JSON
from sidecar.proxy.journeys.snapshot import Snapshot
from sidecar.wire.message import Request
from sidecar.wire.stream import Stream

_SECONDS: Final = 300  # max-age of the metadata


class Feature:
    """Metadata of routes, served to all callers, including those without TLS."""

    def __init__(self, _features: object) -> None:
        pass

    def inbound(self, _side: object) -> Metadata:
        """Return the inbound protocol."""
        return Metadata()


class Metadata(InboundSide):
    """Inbound protocol that answers every request with metadata."""

    def new_operation(self) -> Operation:
        """Raise NotImplementedError: a request for metadata has no operation."""
        raise NotImplementedError

    def answers(self, _target: CanonicalTarget, _policy: Policy) -> bool:
        """Return True: the sidecar answers every request."""
        return True

    def answer(
        self,
        stream: Stream,
        head: Request,
        _target: CanonicalTarget,
        route: InboundRoute,
        _peer: SpiffeId | None,
        _snapshot: Snapshot,
        entry: Entry,
    ) -> Journey[None]:
        """Answer a request with the metadata of ``route``."""
        yield from ()
        tell_metadata(route, stream, head, entry)


def tell_metadata(route: InboundRoute, stream: Stream, head: Request, entry: Entry) -> None:
    """Answer with the metadata of a route. Needs no token; a token's claims are recorded as unverified."""
    resource = route.resource
    assert resource is not None  # noqa: S101 - for the type only: only such routes lead here
    if head.all(b"authorization"):
        with suppress(Denied):  # the token does not affect the answer
            entry.claim_unverified(parse_bearer(bearer_of(head.all(b"authorization"))))
    entry.tell_metadata()
    body = resource.document(route.scopes)
    stream.answer(200, [JSON, (b"cache-control", b"max-age=%d" % _SECONDS)], body)
