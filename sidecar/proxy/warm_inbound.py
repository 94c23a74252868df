"""Warm requests of peers: what the native engine remembers of a permit, and such a request made real."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sidecar.delegation.permit import Permit
from sidecar.delegation.route import InboundRoute
from sidecar.engine import PREPARED_BYTES, require_native
from sidecar.errors import SidecarError
from sidecar.identity.jwks import IssuerKeys
from sidecar.identity.tls import guard_of
from sidecar.observe.access_log import AccessLog, Entry
from sidecar.observe.entry import request_record
from sidecar.proxy.answers import close, refuse
from sidecar.proxy.forward import Forwarder, Forwarding
from sidecar.proxy.ghosts import new_request
from sidecar.proxy.handles import Handles
from sidecar.proxy.headers import IDENTITY, passes_to_mesh, to_agent
from sidecar.proxy.journey import Journey
from sidecar.proxy.snapshot import Snapshots
from sidecar.proxy.verdicts import Given, Permits
from sidecar.proxy.warm import (
    Parts,
    begin_record,
    begin_stream,
    prepare,
    read_again,
    trace_of,
    wait_for_answer,
)
from sidecar.wire.dialer import Origin
from sidecar.wire.h1_client import ClientConnection
from sidecar.wire.h1_head import RequestGrammar
from sidecar.wire.h1_server import ServerConnection, Warm
from sidecar.wire.h1_stream import H1Stream
from sidecar.wire.limits import ClientLimits, ServerLimits


class WarmInbound:
    """The warm requests of the inbound side. ``begin`` is called with a waiting connection and what arrived there.

    ``permits`` are those of ``Inbound``, whose agents get the fields of ``to_agent``.

    Raises:
        LookupError: the native engine is not installed.
    """

    def __init__(
        self,
        permits: Permits,
        *,
        snapshots: Snapshots,
        log: AccessLog,
        handles: Handles,
        forwarder: Forwarder,
        wall: Callable[[], float],
        limits: ServerLimits,
        upstream_limits: ClientLimits,
    ) -> None:
        self._native = require_native()
        self._log = log
        self._handles = handles
        self._forwarder = forwarder
        self._grammar = RequestGrammar(
            max_target_bytes=limits.max_target_bytes, max_fields=limits.max_fields, proxy_form=False
        )
        permits.warm_bytes = PREPARED_BYTES
        parts = Parts(
            self._native,
            "inbound",
            snapshots=snapshots,
            log=log,
            forwarder=forwarder,
            wall=wall,
            limits=limits,
            upstream_limits=upstream_limits,
            inflate=self._inflate,
            passes=passes_to_mesh,
            permits=permits,
            given=permits._entries,
            handles=handles,
            alive=handles._alive,
            mark=handles._mark,
            new_served=new_request,
            guard_of=guard_of,
            prepare=self._prepare,
            keys_of=_keys_of,
            is_plain=is_plain,
        )
        self.begin: Warm = self._native.InboundGate(parts)

    def _prepare(self, given: Given) -> object | None:
        """Make what is the same for every request of a permit; None: the engine in Python serves them all."""
        permit = given.permit
        token, route = permit.token, permit.route
        if not is_plain(route):
            return None
        record = (
            request_record("inbound", self._log.run) | given.of_token | given.facts | {"workload": self._log.workload}
        )
        fields = [*zip(IDENTITY, given.identity, strict=True)]
        leeway_s = token.leeway_s
        return prepare(
            self._native, record, fields, begins=token.not_before - leeway_s, ends=token.expires_at + leeway_s
        )

    def _inflate(
        self,
        *,
        connection: ServerConnection,
        upstream: ClientConnection,
        stream: Any,
        entry: Any,
        forwarding: Any,
        data: bytes,
        given: Given,
        origin: Origin,
        handle: str,
        started_at: float,
        forwarded_at: float,
        traceparent: str,
        bytes_in: int,
        known: dict[str, object],
    ) -> None:
        """Make the ghosts of a request real: it was sent, and is not answered yet."""
        head, permit, trace = read_again(self._grammar, data), given.permit, trace_of(traceparent)
        upstream.take_back(head.method)
        record = request_record("inbound", self._log.run) | given.of_token | given.facts | known
        begin_record(entry, self._log, record, started_at=started_at, forwarded_at=forwarded_at)
        begin_stream(stream, connection, head, bytes_in)
        edits = to_agent(head, permit, given.identity, entry=entry, handle=handle, trace=trace, host=origin.authority)
        rest = self._rest(stream, entry, forwarding, permit, handle)
        forwarded = self._forwarder, permit, stream, head, entry, origin, head.target, edits
        wait_for_answer(forwarding, stream, connection, upstream, rest, *forwarded)

    def _rest(
        self, stream: H1Stream, entry: Entry, forwarding: Forwarding, permit: Permit, handle: str
    ) -> Journey[None]:
        """Serve the rest of ``Inbound.journey``, from the wait for the agent on."""
        route = permit.route
        try:
            yield forwarding
        except SidecarError as error:
            refuse(stream, error, entry, scope=route.scopes_of_any, human=route.human, resource=route.resource)
        finally:
            self._handles.end(handle)
            close(stream, entry)


def _keys_of(keys: IssuerKeys) -> list[object]:
    """Return the parts of all issuers' keys whose generations add up to that of ``keys``."""
    return list(keys.by_issuer)


def is_plain(route: InboundRoute) -> bool:
    """Tell if requests of a route need nothing but a permit, a handle and the fields that every agent gets."""
    return route.forwards_as_is and not (route.forwarded or route.pass_token or route.human)
