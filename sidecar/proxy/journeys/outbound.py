"""The outbound journey: the agent calls the next hop.

Theory of operation. The agent speaks plain HTTP on loopback and holds no token, only the handle of the request it is
serving (or, at an entry, a user's login token). In this order: canonical target -> outbound route -> whose authority
the call is made on -> what may be asked for -> an issued token from the cache or one exchange -> mTLS to the next hop,
whose SPIFFE ID the route pins. A call without a request it belongs to is refused, except on a route that only observes:
there it goes out with its own credential (``observing.py``). Nothing falls back to anything else, and the inbound token
never leaves.

Read ``Outbound.journey`` top to bottom. Whose authority a call is made on is found in ``call_authority.py``; a call to
a host outside the mesh, and a tunnel, goes on in ``outside.py``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Container

from sidecar.delegation.a2a import CARD, CARD_METHODS
from sidecar.delegation.outside import OutsideRoute
from sidecar.delegation.permit import IssuedPermit
from sidecar.delegation.plan import Plan
from sidecar.delegation.route import OutboundRoute
from sidecar.delegation.target import OWN_PATHS, CanonicalTarget, canonical_target
from sidecar.errors import Denied, SidecarError
from sidecar.exchange.cache import Issued
from sidecar.exchange.client import TokenExchange
from sidecar.exchange.federation.tokens import FederatedTokens
from sidecar.features.a2a.agent_cards import AgentCards, is_card_of_next_hop, rewritten_for_agent
from sidecar.features.a2a.answers import EXTENDED_CARD, CardForwarding, not_encoded, note_refusal
from sidecar.features.logins.logins import SUBJECT_METHODS, Logins
from sidecar.features.logins.pending_logins import PendingLogins
from sidecar.features.logins.user_logins import LOGINS_PATH, UserLogins
from sidecar.features.observing.observing import Observing
from sidecar.features.operations.operations import Asked, find_operation
from sidecar.features.outside.calls import OutsideCalls
from sidecar.observe.access_log import AccessLog, Entry
from sidecar.proxy.journeys.answers import close, refuse, refuse_unread, serve
from sidecar.proxy.journeys.call_authority import CallAuthority
from sidecar.proxy.journeys.forward import Forwarder, Forwarding
from sidecar.proxy.journeys.handles import Handles
from sidecar.proxy.journeys.headers import new_call_id, to_next_hop, to_observed_next_hop
from sidecar.proxy.journeys.journey import Async, Journey, Tasks
from sidecar.proxy.journeys.origins import Origins
from sidecar.proxy.journeys.plans import Plans
from sidecar.proxy.journeys.remote_handles import RemoteHandles
from sidecar.proxy.journeys.revalidation import Served
from sidecar.proxy.journeys.snapshot import Snapshot, Snapshots
from sidecar.proxy.listening.memory_pressure import MIB, MemoryLimits
from sidecar.wire.dialer import Origin
from sidecar.wire.message import Edits, Request
from sidecar.wire.stream import Stream


class Outbound:
    """Serves the agent's calls. ``clock`` is wall time in seconds; ``own_authorities`` are our listener's names.

    ``remote_handles`` asks the other workers for their handles; None: there are none. ``edits`` makes a permitted call
    the next hop's: ``to_next_hop``, or with transaction tokens.
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
        federated: FederatedTokens,
        own_authorities: frozenset[str],
        clock: Callable[[], float],
        monotonic: Callable[[], float] = time.monotonic,
        remote_handles: RemoteHandles | None = None,
        memory: MemoryLimits | None = None,
        edits: Callable[..., Edits] = to_next_hop,
        pending_logins: PendingLogins | None = None,
    ) -> None:
        self._edits = edits
        memory = memory or MemoryLimits()
        self._snapshots = snapshots
        self._log = log
        self._forwarder = forwarder
        self._tasks = tasks
        self.logins = Logins(handles=handles, tasks=tasks, clock=clock, max_bytes=memory.max_verdicts_mib * MIB)
        self.user_logins = UserLogins(
            handles=handles,
            tasks=tasks,
            pending=PendingLogins(monotonic=monotonic) if pending_logins is None else pending_logins,
            clock=clock,
            alone=remote_handles is None,
        )
        self.plans = Plans(memory.max_permits_mib * MIB)
        self._origins = origins
        self._cards = AgentCards(forwarder.pool, tasks)
        self._own_authorities: Container[str] = own_authorities
        self._clock = clock
        self._authority = CallAuthority(
            handles=handles,
            logins=self.logins,
            remote_handles=remote_handles,
            tasks=tasks,
            metrics=log.metrics,
            own_authorities=own_authorities,
        )
        self._observing = Observing(handles=handles, remote_handles=remote_handles, tasks=tasks, clock=clock)
        self._outside = OutsideCalls(
            authority=self._authority,
            observing=self._observing,
            forwarder=forwarder,
            tasks=tasks,
            origins=origins,
            federated=federated,
            metrics=log.metrics,
            clock=clock,
        )

    def on_request(self, stream: Stream) -> None:
        """Serve one call: make its record, then its journey."""
        serve(self._log, "outbound", stream, self.journey)

    def on_refused(self, stream: Stream, error: SidecarError) -> None:
        """Answer input that was not a request, and write its record."""
        refuse_unread(self._log, "outbound", stream, error)

    def journey(self, stream: Stream, head: Request, entry: Entry) -> Journey[None]:
        """One call of the agent to the next hop and back."""
        asked: Asked | None = None
        try:
            now = int(self._clock())
            snapshot = self._snapshots.now()
            policy = snapshot.policy

            if head.method == "CONNECT":
                yield from self._outside.tunnel(stream, head, snapshot, entry)
                return
            try:
                target = canonical_target(head.target)
            except Denied:
                if not policy.outbound.has_host(head.authority):
                    yield from self._authority.note_attempt(head, entry)
                raise
            entry.path = target.path
            if target.path.startswith(OWN_PATHS) and head.authority in self._own_authorities:
                served_by = self.user_logins.serve if target.path.startswith(LOGINS_PATH) else self.logins.hand_over
                yield from served_by(stream, head, target, snapshot, entry)
                return
            try:
                route, target = policy.outbound.find(head.authority, target, own_authorities=self._own_authorities)
            except Denied:
                yield from self._authority.note_attempt(head, entry)
                raise
            entry.route = route.name
            if route.protocol != "http":
                if isinstance(route, OutsideRoute):
                    yield from self._outside.call(stream, head, route, target, snapshot, entry)
                    return
                if route.protocol == "a2a" and is_card_of_next_hop(target):
                    origin = self._origins.of(route, policy.workload)
                    yield from self._cards.serve_agent(stream, head, target, route, origin, entry)
                    return
                asked = Asked(route.protocol)
                try:
                    route = yield from find_operation(asked, stream, head, target, route, entry, below=None)
                except Denied:
                    yield from self._authority.note_request(head, entry)
                    raise
                now = int(self._clock())  # the body may have taken longer than the token had left

            try:
                served, delegation = yield from self._authority.of_call(head, snapshot, entry)
            except Denied as denied:
                if now >= route.observe_until:
                    raise
                yield from self._observed(denied, stream, head, route, target, snapshot, entry)
                return
            if delegation is None and route.for_itself is not None:
                route = route.for_itself
            plan = self.plans.plan(delegation, route, policy=policy, now=now)
            if served is not None and (counting := served.count_call()) is not None:
                yield Async(self._tasks, counting)

            tokens = snapshot.exchange(plan.sts_issuer)
            again = forwarding = None
            while True:
                issued = tokens.cached(plan, policy=policy, now=now)
                if issued is None:
                    issued = yield from self._ask(plan, tokens, snapshot, entry)
                permit = issued.permit
                entry.permitted(issued.facts)
                if plan.delegation is None and not again:
                    self._log.metrics.own_calls += 1
                entry.call_out = new_call_id()
                trace = entry.next_trace(head.all(b"traceparent"), head.all(b"tracestate"))
                _, entry.trace_id, entry.span_id, _ = trace
                try:
                    origin = self._origins.of(route, policy.workload, issued.bound_to, stream)
                    edits = self._edits(issued, plan, entry, call=entry.call_out, trace=trace, host=origin.authority)
                    if asked is None:
                        forwarding = Forwarding(
                            self._forwarder, permit, stream, head, entry, origin, target.encode(), edits, served
                        )
                    else:
                        forwarding = self._forwarding(asked, permit, stream, head, entry, origin, target, edits, served)
                    status = yield forwarding
                    break
                except SidecarError:
                    # Our SVID was renewed while a connection was opened, and the token is bound to the one before.
                    if again or tokens.usable(issued) or (forwarding is not None and not forwarding.unsent):
                        raise
                    again = True
            if asked is not None and asked.protocol == "a2a":
                note_refusal(forwarding.response, entry)
            if status == 401:
                tokens.reject(permit)  # the next hop does not believe it: have a new one for the next call
        except SidecarError as error:
            self._refuse(stream, error, entry, asked)
        finally:
            close(stream, entry)

    def _refuse(self, stream: Stream, error: SidecarError, entry: Entry, asked: Asked | None) -> None:
        refuse(stream, error, entry, allow=CARD_METHODS if entry.op == CARD else SUBJECT_METHODS, asked=asked)

    def _forwarding(
        self,
        asked: Asked,
        permit: IssuedPermit,
        stream: Stream,
        head: Request,
        entry: Entry,
        origin: Origin,
        target: CanonicalTarget,
        edits: Edits,
        served: Served | None,
    ) -> Forwarding:
        """Make the way to the next hop and back; an extended card of A2A is written again on its way."""
        if asked.protocol != "a2a" or asked.key != EXTENDED_CARD:
            return Forwarding(self._forwarder, permit, stream, head, entry, origin, target.encode(), edits, served)
        return CardForwarding(
            self._forwarder, permit, stream, head, entry, origin, target.encode(), not_encoded(edits), served,
            asked=asked,
            rewrite=lambda card: rewritten_for_agent(card, permit.plan.route, head),
        )  # fmt: skip

    def _observed(
        self,
        denied: Denied,
        stream: Stream,
        head: Request,
        route: OutboundRoute,
        target: CanonicalTarget,
        snapshot: Snapshot,
        entry: Entry,
    ) -> Journey[None]:
        """A call that belongs to no request and only passes because its route observes, with its own credential."""
        permit = yield from self._observing.call(denied, head, route, snapshot, entry)
        entry.call_out = new_call_id()
        trace = entry.next_trace(head.all(b"traceparent"), head.all(b"tracestate"))
        _, entry.trace_id, entry.span_id, _ = trace
        origin = self._origins.of(route, snapshot.policy.workload, None, stream)
        edits = to_observed_next_hop(call=entry.call_out, trace=trace, host=origin.authority)
        yield Forwarding(self._forwarder, permit, stream, head, entry, origin, target.encode(), edits)

    def _ask(self, plan: Plan, tokens: TokenExchange, snapshot: Snapshot, entry: Entry) -> Journey[Issued]:
        """One exchange, shared with everybody who needs the same token."""
        entry.exchanging()
        try:
            issued: Issued = yield Async(self._tasks, lambda: tokens.exchange(plan, snapshot.policy))
        finally:
            entry.exchanged()
        return issued
