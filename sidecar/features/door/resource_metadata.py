"""Tells a client who issues tokens for a route: the sidecar's own answer, which the agent never gives (RFC 9728)."""

from __future__ import annotations

from contextlib import suppress
from typing import Final

from sidecar.delegation.bearer import bearer_of, parse_bearer
from sidecar.delegation.route import InboundRoute
from sidecar.errors import Denied
from sidecar.observe.access_log import Entry
from sidecar.proxy.journeys.refusal import JSON
from sidecar.wire.message import Request
from sidecar.wire.stream import Stream

_SECONDS: Final = 300  # that clients may keep it


def tell_metadata(route: InboundRoute, stream: Stream, head: Request, entry: Entry) -> None:
    """Answer with the metadata of a route. No token is needed; the record has what one that is shown claims."""
    resource = route.resource
    assert resource is not None  # noqa: S101 - for the type only: only such routes lead here
    if head.all(b"authorization"):
        with suppress(Denied):  # what is shown decides nothing here
            entry.claim_unverified(parse_bearer(bearer_of(head.all(b"authorization"))))
    entry.tell_metadata()
    body = resource.document(route.scopes)
    stream.answer(200, [JSON, (b"cache-control", b"max-age=%d" % _SECONDS)], body)
