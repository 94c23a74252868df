"""The outbound journey: the agent calls the next hop.

Theory of operation. The agent speaks plain HTTP on loopback and holds no token, only the handle of the request it is
serving (or, at an entry, a user's login token). In this order: canonical target -> outbound route -> authority of the
call (``call_authority.py``) -> plan of the exchange -> an issued token from the cache or one exchange -> mTLS to the
next hop, whose SPIFFE ID the route pins. A call that belongs to no request is refused, except on a route that only
observes: there it goes out with its own credential (``features/observing``). There is no fallback, and the inbound
token never leaves.

Read ``Outbound.journey`` top to bottom. ``features/outside`` serves calls to hosts outside the mesh, and tunnels.
"""

from __future__ import annotations

from collections.abc import Callable, Container
from typing import TYPE_CHECKING, Any, Final

from delegation_core.errors import Denied, SidecarError
from delegation_core.permit import IssuedPermit
from delegation_core.plan import Plan
from delegation_core.route import OutboundRoute
from delegation_core.target import OWN_PATHS, CanonicalTarget, canonical_target
from sidecar.exchange.cache import Issued
from sidecar.exchange.client import TokenExchange
from sidecar.observe.access_log import AccessLog, Entry
from sidecar.proxy.journeys.answers import close, refuse, refuse_unread, serve
from sidecar.proxy.journeys.call_authority import CallAuthority
from sidecar.proxy.journeys.forward import Forwarder, Forwarding, Way
from sidecar.proxy.journeys.handles import Handles
from sidecar.proxy.journeys.headers import new_call_id, to_next_hop, to_observed_next_hop
from sidecar.proxy.journeys.journey import Async, Journey, OnDemand, Tasks
from sidecar.proxy.journeys.origins import Origins
from sidecar.proxy.journeys.plans import Plans
from sidecar.proxy.journeys.snapshot import Snapshot, Snapshots
from sidecar.proxy.listening.memory_pressure import MIB, MemoryLimits
from sidecar.wire.message import Edits, Request
from sidecar.wire.stream import Stream

if TYPE_CHECKING:
    from sidecar.exchange.federation.tokens import FederatedTokens
    from sidecar.proxy.journeys.feature import Features, OutboundProtocol
    from sidecar.proxy.journeys.operation import Operation
    from sidecar.proxy.journeys.remote_handles import RemoteHandles

LOGINS_PATH: Final = "/.sidecar/logins"
SUBJECT_METHODS: Final = ("POST",)


class Outbound:
    """Serves the agent's calls. ``clock`` is wall time in seconds.

    ``own_authorities`` are the Host values of the sidecar's own listener. ``remote_handles`` resolves the handles of
    other workers; None: this is the only worker. ``edits`` returns the field edits of a permitted call:
    ``to_next_hop``, or a function that also adds a transaction token.
    """

    def __init__(
        self,
        *,
        snapshots: Snapshots,
        log: AccessLog,
        handles: Handles,
        forwarder: Forwarder,
        tasks: Tasks,
        origins: Origins,
        own_authorities: frozenset[str],
        clock: Callable[[], float],
        features: Features,
        remote_handles: RemoteHandles | None = None,
        federated: Callable[[], FederatedTokens],
        memory: MemoryLimits | None = None,
        edits: Callable[..., Edits] = to_next_hop,
    ) -> None:
        self.edits = edits
        self.memory = memory = memory or MemoryLimits()
        self.snapshots = snapshots
        self.forwarder = forwarder
        self.tasks = tasks
        self.handles = handles
        self.remote_handles = remote_handles
        self.origins = origins
        self.federated = federated
        self.clock = clock
        self.log = log
        self.features: OnDemand[Any] = OnDemand(lambda name: features.of(name).outbound(self))
        self.plans = Plans(memory.max_permits_mib * MIB)
        self.own_authorities: Container[str] = own_authorities
        self.authority = CallAuthority(
            handles=handles,
            features=self.features,
            remote_handles=remote_handles,
            tasks=tasks,
            metrics=log.metrics,
            own_authorities=own_authorities,
        )

    def on_request(self, stream: Stream) -> None:
        """Serve one call: make its record, then its journey."""
        serve(self.log, "outbound", stream, self.journey)

    def on_refused(self, stream: Stream, error: SidecarError) -> None:
        """Answer input that was not a request, and write its record."""
        refuse_unread(self.log, "outbound", stream, error)

    def journey(self, stream: Stream, head: Request, entry: Entry) -> Journey[None]:
        """One call of the agent to the next hop and back."""
        asked: Operation | None = None  # on a route of a protocol above HTTP
        try:
            now = int(self.clock())
            snapshot = self.snapshots.now()
            policy = snapshot.policy

            if head.method == "CONNECT":
                yield from self._tunnel(stream, head, snapshot, entry)
                return
            try:
                target = canonical_target(head.target)
            except Denied:
                if not policy.outbound.has_host(head.authority):
                    yield from self.authority.note_attempt(head, entry)
                raise
            entry.path = target.path
            if target.path.startswith(OWN_PATHS) and head.authority in self.own_authorities:
                login = self.features["user_logins" if target.path.startswith(LOGINS_PATH) else "logins"]
                yield from login.serve(stream, head, target, snapshot, entry)
                return
            try:
                route, target = policy.outbound.find(head.authority, target, own_authorities=self.own_authorities)
            except Denied:
                yield from self.authority.note_attempt(head, entry)
                raise
            entry.route = route.name
            if route.protocol != "http":
                if route.protocol == "outside":
                    yield from self.features["outside"].call(stream, head, target, route, snapshot, entry)
                    return
                protocol: OutboundProtocol = self.features[route.protocol]
                if protocol.answers(target):
                    yield from self._answer(protocol, stream, head, target, route, snapshot, entry)
                    return
                asked = protocol.new_operation()
                try:
                    route = yield from asked.find(stream, head, target, route, entry, below=None)
                except Denied:
                    yield from self.authority.note_request(head, entry)
                    raise
                now = int(self.clock())  # the body may have taken longer than the token had left

            try:
                served, delegation = yield from self.authority.of_call(head, snapshot, entry)
            except Denied as denied:
                if now >= route.observe_until:
                    raise
                yield from self._forward_observed(denied, stream, head, route, target, snapshot, entry)
                return
            if delegation is None and route.for_itself is not None:
                route = route.for_itself
            plan = self.plans.plan(delegation, route, policy=policy, now=now)
            if served is not None and (counting := served.count_call()) is not None:
                yield Async(self.tasks, counting)

            tokens = snapshot.exchange(plan.sts_issuer)
            again = forwarding = None
            while True:
                issued = tokens.cached(plan, policy=policy, now=now)
                if issued is None:
                    issued = yield from self._ask(plan, tokens, snapshot, entry)
                permit = issued.permit
                entry.permitted(issued.facts)
                if plan.delegation is None and not again:
                    self.log.metrics.own_calls += 1
                entry.call_out = new_call_id()
                trace = entry.next_trace(head.all(b"traceparent"), head.all(b"tracestate"))
                _, entry.trace_id, entry.span_id, _ = trace
                try:
                    origin = self.origins.of(route, policy.workload, issued.bound_to, stream)
                    edits = self.edits(issued, plan, entry, call=entry.call_out, trace=trace, host=origin.authority)
                    if asked is None:
                        forwarding = Forwarding(
                            self.forwarder, permit, stream, head, entry, origin, target.encode(), edits, served
                        )
                    else:
                        way = Way(self.forwarder, permit, stream, head, entry, origin, target.encode(), edits, served)
                        forwarding = self._make_forwarding(asked, way)
                    status = yield forwarding
                    break
                except SidecarError:
                    # Our SVID was renewed during the dial, and the token is bound to the previous one: exchange again.
                    if again or tokens.usable(issued) or (forwarding is not None and not forwarding.unsent):
                        raise
                    again = True
            if asked is not None or status == 401:  # spares most calls the call
                self.note_answer(status, forwarding, entry, asked=asked, permit=permit, tokens=tokens)
        except SidecarError as error:
            self.refuse(stream, error, entry, asked=asked)
        finally:
            close(stream, entry)

    def note_answer(
        self,
        status: int,
        forwarding: Forwarding,
        entry: Entry,
        *,
        asked: Operation | None,
        permit: IssuedPermit,
        tokens: TokenExchange,
    ) -> None:
        """Note the next hop's answer in the record. A 401 rejects the token: the next call gets another."""
        if asked is not None:
            self.features[asked.protocol].note_answer(forwarding.response, entry)
        if status == 401:
            tokens.reject(permit)

    def refuse(self, stream: Stream, error: SidecarError, entry: Entry, *, asked: Operation | None) -> None:
        """Refuse a call, or answer it with the error of its next hop."""
        refuse(stream, error, entry, allow=SUBJECT_METHODS, asked=asked)

    def _make_forwarding(self, asked: Operation, way: Way) -> Forwarding:
        """Make the forwarding to the next hop. Raises Denied, as ``OutboundProtocol.forwarding``."""
        protocol: OutboundProtocol = self.features[asked.protocol]
        return protocol.forwarding(asked, way)

    def _answer(
        self,
        protocol: OutboundProtocol,
        stream: Stream,
        head: Request,
        target: CanonicalTarget,
        route: OutboundRoute,
        snapshot: Snapshot,
        entry: Entry,
    ) -> Journey[None]:
        """Answer a call in place of the next hop."""
        try:
            yield from protocol.answer(stream, head, target, route, snapshot, entry)
        except SidecarError as error:
            refuse(stream, error, entry, allow=protocol.methods)

    def _tunnel(self, stream: Stream, head: Request, snapshot: Snapshot, entry: Entry) -> Journey[None]:
        """Serve a CONNECT: an opaque tunnel, by a route for tunnels.

        Raises:
            SidecarError: there is no such route, or as the feature ``outside``.
        """
        try:
            route = snapshot.policy.outbound.find_tunnel(head.authority)
        except Denied:
            yield from self.authority.note_attempt(head, entry)
            raise
        entry.route = route.name
        yield from self.features["outside"].tunnel(stream, head, route, snapshot, entry)

    def _forward_observed(
        self,
        denied: Denied,
        stream: Stream,
        head: Request,
        route: OutboundRoute,
        target: CanonicalTarget,
        snapshot: Snapshot,
        entry: Entry,
    ) -> Journey[None]:
        """Forward a refused call with its own credential, because its route observes.

        Raises:
            SidecarError: as the feature ``observing``, ``Origins.of`` or ``Forwarding``.
        """
        permit = yield from self.features["observing"].call(denied, head, route, snapshot, entry)
        entry.call_out = new_call_id()
        trace = entry.next_trace(head.all(b"traceparent"), head.all(b"tracestate"))
        _, entry.trace_id, entry.span_id, _ = trace
        origin = self.origins.of(route, snapshot.policy.workload, None, stream)
        edits = to_observed_next_hop(call=entry.call_out, trace=trace, host=origin.authority)
        yield Forwarding(self.forwarder, permit, stream, head, entry, origin, target.encode(), edits)

    def _ask(self, plan: Plan, tokens: TokenExchange, snapshot: Snapshot, entry: Entry) -> Journey[Issued]:
        """Exchange for a token; concurrent calls that need the same token share one exchange. Raises SidecarError."""
        entry.exchanging()
        try:
            issued: Issued = yield Async(self.tasks, lambda: tokens.exchange(plan, snapshot.policy))
        finally:
            entry.exchanged()
        return issued
