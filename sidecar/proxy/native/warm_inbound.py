"""Warm requests of peers: prepares permits for the native engine, and makes its requests real."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING

from delegation_core.bearer import bearer_of
from delegation_core.permit import Permit
from delegation_core.route import InboundRoute
from sidecar.engine import PREPARED_BYTES
from sidecar.identity.jwks import IssuerKeys
from sidecar.identity.tls import guard_of
from sidecar.observe.entry import request_record
from sidecar.proxy.journeys.forward import Forwarding, Way
from sidecar.proxy.journeys.headers import IDENTITY, source_of, told_by_route
from sidecar.proxy.journeys.inbound import Inbound
from sidecar.proxy.journeys.journey import OnDemand
from sidecar.proxy.journeys.verdicts import Given, new_call
from sidecar.proxy.native.ghosts import new_request
from sidecar.proxy.native.warm import InFlight, WarmSide, prepare
from sidecar.wire.h1_server import ServerConnection, Warm
from sidecar.wire.limits import ClientLimits, ServerLimits

if TYPE_CHECKING:
    from sidecar.proxy.native.warm_operations import InboundMessages, WarmMessage, WholeMessage


class WarmInbound(WarmSide):
    """Warm requests of the inbound side. ``begin`` is called with a waiting connection and the bytes that arrived."""

    def __init__(self, inbound: Inbound, *, limits: ServerLimits, upstream_limits: ClientLimits) -> None:
        super().__init__("inbound", inbound, limits=limits, upstream_limits=upstream_limits)
        self._inbound = inbound
        self._messages: OnDemand[InboundMessages] = OnDemand(lambda name: inbound.features[name].warm(self))
        self.permits = inbound.permits
        self.permits.warm_bytes = PREPARED_BYTES
        self.given = self.permits.entries
        self.mark = self.handles.mark
        self.new_served = new_request
        self.guard_of = guard_of
        self.keys_of = _keys_of
        self.is_plain = is_plain
        self.begin: Warm = self._native.InboundGate(self)

    def read(
        self,
        connection: ServerConnection,
        message: WholeMessage,
        route: InboundRoute,
        path: str,
        certificate: str,
        now: int,
    ) -> tuple[Given, str, bytes, object, WarmMessage] | bool:
        """Read the operation of a request.

        Returns its permit, name, added fields, kind and state; True: wait for the rest of its body; False: the engine
        in Python serves it (``warm_operations.py``).

        Raises:
            Denied: the engine in Python reads the same bytes, and refuses them.
        """
        from sidecar.proxy.native.warm_operations import head_of, read_operation  # loaded with the protocol

        if path in self._inbound.snapshots.in_force().policy.inbound.cards or self._handed_over.takes(route.name):
            return False
        head = head_of(message)
        peer = guard_of(connection.transport).peer.spiffe_id
        if self._inbound.verdicts.get((bearer_of(head.all(b"authorization")), peer)) is None:
            return False  # a message is read only once its token was verified
        messages = self._messages[route.protocol]
        found = read_operation(messages.new_operation(), head, message[-1], route, path, below=route.below(path))
        if isinstance(found, bool):
            return found
        given = self.permits.get(new_call((head.one(b"authorization"), certificate, found.route.key)))
        if given is None:
            return False
        passed = messages.passed(found, head, given.permit, now, partial(self._handed_over.note, route.name))
        if passed is None:
            return False
        fields, kind, state = passed
        told = told_by_route(given.permit, head, _source(given.permit, connection.transport))
        return given, found.op, b"".join([b"%b: %b\r\n" % field for field in (*told, *fields)]), kind, state

    def prepare(self, given: Given) -> object | None:
        """Prepare the constant part of a permit's requests; None: the engine in Python serves all of them."""
        permit = given.permit
        token, route = permit.token, permit.route
        if not is_plain(route):
            return None
        record = (
            request_record("inbound", self.log.run) | given.of_token | given.facts | {"workload": self.log.workload}
        )
        fields = [*zip(IDENTITY, given.identity, strict=True)]
        leeway_s = token.leeway_s
        return prepare(
            self._native, record, fields, begins=token.not_before - leeway_s, ends=token.expires_at + leeway_s
        )

    def _take_over(self, flight: InFlight) -> None:
        """Make the ghosts of a request real that was sent and is not answered yet."""
        given, message = flight.given, flight.message
        record = request_record("inbound", self.log.run) | given.of_token | given.facts
        sent, read = flight.begin(self.log, self._grammar, record), message.read
        stream, head, entry, agent, _, trace = sent
        permit, handle = given.permit, message.handle
        assert handle is not None  # noqa: S101 - for the type only: every request of a peer has one
        edits = self._inbound.edits(
            head,
            permit,
            given.identity,
            entry=entry,
            handle=handle,
            trace=trace,
            host=agent.authority,
            source=_source(permit, stream.transport),
        )
        way = Way(self._inbound.forwarder, permit, stream, head, entry, agent, head.target, edits)
        made = (Forwarding, *way) if read is None else read.forwarding(way)
        asked = None if read is None else read.message
        refuse = partial(self._inbound.refuse, route=permit.route, asked=asked)
        flight.wait_for_answer(self._rest(sent, refuse=refuse, handle=handle), *made)


def _source(permit: Permit, transport: asyncio.BaseTransport) -> str | None:
    """Return the peer's address for X-Forwarded-For if the route sets ``forwarded``, else None."""
    return source_of(transport.get_extra_info("peername")) if permit.route.forwarded else None


def _keys_of(keys: IssuerKeys) -> list[object]:
    """Return the keys of each issuer. Their generations add up to the generation of ``keys``."""
    return list(keys.by_issuer)


def is_plain(route: InboundRoute) -> bool:
    """Tell if a permit, a handle and the fields that every agent gets are enough to serve requests of a route."""
    if route.linger_s or route.human or route.record_first:
        return False
    if route.protocol == "http":
        return not (route.forwarded or route.pass_token)
    return route.protocol in {"mcp", "a2a"}  # whose reader adds fields
