"""Inbound plain HTTP for callers without a sidecar, on a separate port, until a configured date.

Callers are not authenticated, so only routes that observe serve them. The record says *observed* and has the caller's
address, but no peer. The agent gets no handle. HTTP is parsed as strictly as from a peer. Records of refused requests
are rate-limited.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from delegation_core.errors import SidecarError
from delegation_core.policy import Policy
from delegation_core.target import canonical_target
from sidecar.features.observing.observing import Observing
from sidecar.observe.access_log import AccessLog, Entry
from sidecar.observe.record_rate import UnprovenRecords
from sidecar.proxy.journeys.answers import close, refuse, refuse_unread, serve
from sidecar.proxy.journeys.feature import Features, InboundProtocol
from sidecar.proxy.journeys.forward import Forwarder, Forwarding, Way
from sidecar.proxy.journeys.headers import source_of, to_observed_agent
from sidecar.proxy.journeys.journey import Journey, OnDemand, Tasks
from sidecar.proxy.journeys.operation import Operation
from sidecar.proxy.journeys.snapshot import Snapshots
from sidecar.wire.message import Request
from sidecar.wire.stream import Stream


class PlainInbound:
    """Serves requests without TLS, until ``plain_until`` of the settings in force."""

    def __init__(
        self,
        *,
        snapshots: Snapshots,
        log: AccessLog,
        forwarder: Forwarder,
        observing: Observing,
        unproven: UnprovenRecords,
        tasks: Tasks,
        features: Features,
        clock: Callable[[], float],
    ) -> None:
        self.forwarder = forwarder
        self.tasks = tasks
        self.features: OnDemand[Any] = OnDemand(lambda name: features.of(name).inbound(self))
        self._clock = clock
        self._snapshots = snapshots
        self._log = log
        self._observing = observing
        self._unproven = unproven

    def on_request(self, stream: Stream) -> None:
        """Serve one request: create its record and run its journey."""
        serve(self._log, "inbound", stream, self.journey, self._unproven)

    def on_refused(self, stream: Stream, error: SidecarError) -> None:
        """Refuse input that is not a valid request, and write its record."""
        refuse_unread(self._log, "inbound", stream, error, unproven=self._unproven)

    def journey(self, stream: Stream, head: Request, entry: Entry) -> Journey[None]:
        """Decide on one request, then answer it or forward it to the agent."""
        policy: Policy | None = None
        protocol: InboundProtocol | None = None  # above HTTP
        asked: Operation | None = None
        try:
            entry.source = source = source_of(stream.remote_address)
            snapshot, until = self._snapshots.now(), self._snapshots.setup.plain_until
            policy, agent = snapshot.policy, snapshot.require_agent()
            target = canonical_target(head.target)
            entry.path = target.path
            route = policy.inbound.find(head.method, target.path)
            entry.route = route.name
            if route.protocol != "http":
                protocol = self.features[route.protocol]
                if route.protocol == "metadata":
                    yield from protocol.answer(stream, head, target, route, None, snapshot, entry)
                    return
                asked = protocol.new_operation()
                below = route.below(target.path)
                route = yield from asked.find(stream, head, target, route, entry, below=below)
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
            way = Way(self.forwarder, permit, stream, head, entry, agent, target.encode(), edits)
            if protocol is None:
                yield Forwarding(*way)
                return
            session = protocol.open(asked, head, permit, int(self._clock()))
            yield protocol.forwarding(asked, session, way, policy)
        except SidecarError as error:
            allow = policy.inbound.allowed_methods(entry.path or "") if policy else ()
            refuse(stream, error, entry, allow=allow, asked=asked)
        finally:
            close(stream, entry)
