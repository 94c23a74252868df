"""Requests of callers that have no sidecar yet: plain HTTP, at a port of its own, until a day.

Nobody proves who calls, so only routes that observe serve such a request, and it is recorded as observed: with the
caller's address, and without a peer. It gets no handle. HTTP is read as strictly as from a peer. Records of refused
requests have a rate.
"""

from __future__ import annotations

from collections.abc import Callable

from sidecar.delegation.mcp_session import SessionIds
from sidecar.delegation.policy import Policy
from sidecar.delegation.target import canonical_target
from sidecar.errors import SidecarError
from sidecar.features.a2a.forwarding import forwarding_of as a2a_forwarding_of
from sidecar.features.a2a.task_bindings import TaskBindings
from sidecar.features.door.resource_metadata import tell_metadata
from sidecar.features.mcp.sessions import session_of
from sidecar.features.observing.observing import Observing
from sidecar.features.operations.list_forwarding import forwarding_of
from sidecar.features.operations.operations import Asked, find_operation
from sidecar.observe.access_log import AccessLog, Entry
from sidecar.observe.record_rate import UnprovenRecords
from sidecar.proxy.journeys.answers import close, refuse, refuse_unread, serve
from sidecar.proxy.journeys.forward import Forwarder, Forwarding
from sidecar.proxy.journeys.headers import source_of, to_observed_agent
from sidecar.proxy.journeys.journey import Journey
from sidecar.proxy.journeys.snapshot import Snapshots
from sidecar.wire.message import Request
from sidecar.wire.stream import Stream


class PlainInbound:
    """Serves requests without TLS, for as long as the settings in force name the port."""

    def __init__(
        self,
        *,
        snapshots: Snapshots,
        log: AccessLog,
        forwarder: Forwarder,
        observing: Observing,
        unproven: UnprovenRecords,
        session_ids: SessionIds,
        bindings: TaskBindings,
        clock: Callable[[], float],
    ) -> None:
        self._session_ids = session_ids
        self._bindings = bindings
        self._clock = clock
        self._snapshots = snapshots
        self._log = log
        self._forwarder = forwarder
        self._observing = observing
        self._unproven = unproven

    def on_request(self, stream: Stream) -> None:
        """Serve one request: make its record, then its journey."""
        serve(self._log, "inbound", stream, self.journey, self._unproven)

    def on_refused(self, stream: Stream, error: SidecarError) -> None:
        """Answer input that was not a request, and write its record."""
        refuse_unread(self._log, "inbound", stream, error, unproven=self._unproven)

    def journey(self, stream: Stream, head: Request, entry: Entry) -> Journey[None]:
        """One request to the agent and back."""
        policy: Policy | None = None
        asked: Asked | None = None
        try:
            entry.source = source = source_of(stream.remote_address)
            snapshot, until = self._snapshots.now(), self._snapshots.setup.plain_until
            policy, agent = snapshot.policy, snapshot.require_agent()
            target = canonical_target(head.target)
            entry.path = target.path
            route = policy.inbound.find(head.method, target.path)
            entry.route = route.name
            if route.protocol != "http":
                if route.protocol == "metadata":
                    tell_metadata(route, stream, head, entry)
                    return
                asked = Asked(route.protocol)
                below = route.below(target.path)
                route = yield from find_operation(asked, stream, head, target, route, entry, below=below)
            permit = yield from self._observing.plain(head, route, until, snapshot, entry)

            trace = entry.next_trace(head.all(b"traceparent"), head.all(b"tracestate"))
            _, entry.trace_id, entry.span_id, _ = trace
            edits = to_observed_agent(
                head,
                request_id=entry.request_id,
                trace=trace,
                host=agent.authority,
                forwarded=(b"http", source) if route.forwarded else None,
            )
            path = target.encode()
            if asked is not None and asked.protocol == "mcp":
                session = session_of(self._session_ids, asked, head, permit, int(self._clock()))
                of_mcp = self._forwarder, permit, stream, head, entry, agent, path, edits, session
                yield forwarding_of(*of_mcp, asked=asked)
                return
            of_agent = self._forwarder, permit, stream, head, entry, agent, path, edits
            if asked is None:
                yield Forwarding(*of_agent)
            else:
                yield a2a_forwarding_of(*of_agent, asked=asked, route=route, bindings=self._bindings, policy=policy)
        except SidecarError as error:
            allow = policy.inbound.allowed_methods(entry.path or "") if policy else ()
            refuse(stream, error, entry, allow=allow, asked=asked)
        finally:
            close(stream, entry)
