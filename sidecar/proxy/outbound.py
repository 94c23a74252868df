"""The outbound journey: the agent calls the next hop.

Theory of operation. The agent speaks plain HTTP on loopback and holds no token, only the handle of the request it is
serving (or, at an entry, a user's login token). In this order: canonical target -> outbound route -> whose authority
the call is made on -> what may be asked for -> an issued token from the cache or one exchange -> mTLS to the next hop,
whose SPIFFE ID the route pins. A call without a request it belongs to is refused, except on a route that only observes:
there it goes out with its own credential (``observing.py``). Nothing falls back to anything else, and the inbound token
never leaves.

Read ``Outbound.journey`` top to bottom: it is the whole of it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from sidecar.delegation.decide import Delegation, Plan, decide_connect, decide_own
from sidecar.delegation.outside import FederatedKey, InjectedKey, OutsideRoute
from sidecar.delegation.route import OutboundRoute
from sidecar.delegation.target import CanonicalTarget, canonical_target
from sidecar.errors import Denied, Reason, SidecarError
from sidecar.exchange.cache import Issued
from sidecar.exchange.client import TokenExchange
from sidecar.exchange.federation.tokens import FederatedToken, FederatedTokens
from sidecar.observe.access_log import AccessLog, Entry
from sidecar.observe.attribution import facts_of_own, facts_of_tunnel
from sidecar.observe.entry import OWN
from sidecar.observe.record import MAX_ITEMS
from sidecar.observe.tracing import next_traceparent
from sidecar.proxy.answers import close, refuse, refuse_unread, serve
from sidecar.proxy.credentials import (
    credential_of,
    handle_for_outside,
    handle_for_tunnel,
    handles_of,
    issuers_shown,
    own_credential,
    stray_handles,
    stray_handles_of_tunnel,
)
from sidecar.proxy.forward import Forwarder, Forwarding, KeyedForwarding
from sidecar.proxy.handles import Handles, ServedRequest
from sidecar.proxy.headers import new_call_id, to_next_hop, to_observed_next_hop, to_outside, to_outside_as_is
from sidecar.proxy.journey import Async, Journey, Tasks
from sidecar.proxy.logins import OWN_PATHS, SUBJECT_METHODS, Logins
from sidecar.proxy.memory_pressure import MIB, MemoryLimits
from sidecar.proxy.observing import Observing
from sidecar.proxy.origins import Origins
from sidecar.proxy.plans import Plans
from sidecar.proxy.remote_handles import RemoteHandles, RemoteRequest, is_alive
from sidecar.proxy.snapshot import Snapshot, Snapshots
from sidecar.proxy.static_keys import StaticKey, StaticKeys
from sidecar.proxy.tunnel_forwarding import TunnelForwarding
from sidecar.wire.message import Request
from sidecar.wire.stream import Stream


class Outbound:
    """Serves the agent's calls. ``clock`` is wall time in seconds; ``own_authorities`` are our listener's names.

    ``remote_handles`` asks the other workers for their handles; None: there are none.
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
        remote_handles: RemoteHandles | None = None,
        memory: MemoryLimits | None = None,
    ) -> None:
        memory = memory or MemoryLimits()
        self._snapshots = snapshots
        self._log = log
        self._handles = handles
        self._forwarder = forwarder
        self._tasks = tasks
        self.logins = Logins(handles=handles, tasks=tasks, clock=clock, max_bytes=memory.max_verdicts_mib * MIB)
        self.plans = Plans(memory.max_permits_mib * MIB)
        self._origins = origins
        self._static_keys = StaticKeys()
        self._federated = federated
        self._own_authorities = own_authorities
        self._clock = clock
        self._remote_handles = remote_handles
        self._observing = Observing(handles=handles, remote_handles=remote_handles, tasks=tasks, clock=clock)

    def on_request(self, stream: Stream) -> None:
        """Serve one call: make its record, then its journey."""
        serve(self._log, "outbound", stream, self.journey)

    def on_refused(self, stream: Stream, error: SidecarError) -> None:
        """Answer input that was not a request, and write its record."""
        refuse_unread(self._log, "outbound", stream, error)

    def journey(self, stream: Stream, head: Request, entry: Entry) -> Journey[None]:
        """One call of the agent to the next hop and back."""
        try:
            now = int(self._clock())
            snapshot = self._snapshots.now()
            policy = snapshot.policy

            if head.method == "CONNECT":
                yield from self._tunnel(stream, head, snapshot, entry)
                return
            try:
                target = canonical_target(head.target)
            except Denied:
                if not policy.outbound.has_host(head.authority):
                    yield from self._note_attempt(head, entry)
                raise
            entry.path = target.path
            if target.path.startswith(OWN_PATHS) and head.authority in self._own_authorities:
                yield from self.logins.hand_over(stream, head, target, snapshot, entry)
                return
            try:
                route, target = policy.outbound.find(head.authority, target, own_authorities=self._own_authorities)
            except Denied:
                yield from self._note_attempt(head, entry)
                raise
            entry.route = route.name
            if isinstance(route, OutsideRoute):
                yield from self._outside(stream, head, route, target, snapshot, entry)
                return

            try:
                served, delegation = yield from self._authority(head, snapshot, entry)
            except Denied as denied:
                if now >= route.observe_until:
                    raise
                yield from self._observed(denied, stream, head, route, target, snapshot, entry)
                return
            plan = self.plans.plan(delegation, route, policy=policy, now=now)
            if served is not None and (counting := served.count_call()) is not None:
                yield Async(self._tasks, counting)

            tokens = snapshot.exchange(plan.sts_issuer)
            issued = tokens.cached(plan, policy=policy, now=now)
            if issued is None:
                issued = yield from self._ask(plan, tokens, snapshot, entry)
            permit = issued.permit
            entry.permitted(issued.facts)
            if plan.delegation is None:
                self._log.metrics.own_calls += 1

            entry.call_out = new_call_id()
            trace = next_traceparent(head.all(b"traceparent"), head.all(b"tracestate"))
            entry.trace_id, entry.span_id = trace.trace_id, trace.span_id
            origin = self._origins.of(route, policy.workload)
            edits = to_next_hop(permit, call=entry.call_out, trace=trace, host=origin.authority)
            status = yield Forwarding(
                self._forwarder, permit, stream, head, entry, origin, target.encode(), edits, served
            )
            if status == 401:
                tokens.reject(permit)  # the next hop does not believe it: have a new one for the next call
        except SidecarError as error:
            refuse(stream, error, entry, allow=SUBJECT_METHODS)
        finally:
            close(stream, entry)

    def _authority(
        self, head: Request, snapshot: Snapshot, entry: Entry
    ) -> Journey[tuple[ServedRequest | RemoteRequest | None, Delegation | None]]:
        """On whose authority the agent calls: the request its handle stands for, a user's login at an entry, or (None)
        its own.
        """
        credential = credential_of(head)
        if credential.handle is not None:
            if credential.token is not None and snapshot.policy.entry is not None:
                raise Denied(Reason.NO_REQUEST_CONTEXT, "a handle and a login token: two authorities for one call")
            try:
                served = yield from self._resolve(credential.handle)
            except Denied:
                if not self._handles.is_own(credential.handle):
                    raise
                entry.op = OWN
                yield from self._refuse_strays(head, in_authorization=True)
                return None, None
            _note_served(served, entry)
            if served.delegation.entry:
                return served, (yield from self.logins.again(served.delegation, snapshot, entry))
            return served, served.delegation
        return None, (yield from self.logins.verify(credential.token or "", snapshot, entry))

    def _note_attempt(self, head: Request, entry: Entry) -> Journey[None]:
        """An attempt to leave is evidence: name the host, and whose request it was, or whose it may have been."""
        if head.authority in self._own_authorities:
            return
        entry.host = head.authority
        self._log.metrics.attempts_to_leave += 1
        for handle in handles_of(head):
            if self._handles.is_own(handle):
                entry.op = OWN
                continue
            try:
                served = yield from self._resolve(handle)
            except SidecarError:
                continue
            entry.op = None
            _note_served(served, entry)
            break
        else:  # with the workload handle too: it says nothing of the request that the agent was serving
            entry.candidates = self._handles.call_ids(MAX_ITEMS)

    def _outside(
        self,
        stream: Stream,
        head: Request,
        route: OutsideRoute,
        target: CanonicalTarget,
        snapshot: Snapshot,
        entry: Entry,
    ) -> Journey[None]:
        """A call to a host outside the mesh: with a key of the sidecar's, or with the agent's own."""
        try:
            served, delegation = yield from self._authority_outside(head, route, snapshot, entry)
        except Denied as denied:
            if self._clock() >= route.observe_until:
                raise
            yield from self._observed(denied, stream, head, route, target, snapshot, entry)
            return
        if any(map(snapshot.policy.knows_issuer, issuers_shown(head))):
            raise Denied(Reason.NO_REQUEST_CONTEXT, "a token of the mesh, or of a login, never leaves it")
        now = int(self._clock())
        permit = decide_own(delegation, route, method=head.method, path=target.path, policy=snapshot.policy, now=now)
        if head.upgrade is not None:
            raise Denied(Reason.UPGRADE_REFUSED, "an upgrade cannot be searched for the key")
        if served is not None and (counting := served.count_call()) is not None:
            yield Async(self._tasks, counting)
        of_token = None if served is None else served.facts
        origin = self._origins.outside(route)
        if route.key is None:
            credential = own_credential(head)
            edits = to_outside_as_is(host=route.authority)
            entry.permitted(facts_of_own(permit, of_token, f"passthrough:{credential or 'none'}"))
            key = None
            forwarding = Forwarding(
                self._forwarder, permit, stream, head, entry, origin, target.encode(), edits, served
            )
        else:
            key = yield from self._key_of(route.key, entry)
            edits = to_outside(
                host=route.authority,
                field=route.key.field.encode("ascii"),
                value=route.key.scheme.encode("ascii") + key.value,
                also=[(name.encode("ascii"), value.encode("ascii")) for name, value in route.key.also],
            )
            entry.permitted(facts_of_own(permit, of_token, f"{route.key.kind}:{key.fingerprint}"))
            forwarding = KeyedForwarding(
                self._forwarder, permit, stream, head, entry, origin, target.encode(), edits, served, key=key.value
            )
        if served is None:
            self._log.metrics.own_calls += 1
        status = yield forwarding
        if status == 401 and isinstance(key, FederatedToken):
            self._federated.reject(key)  # the provider does not believe it: trade again for the next call

    def _key_of(self, key: InjectedKey | FederatedKey, entry: Entry) -> Journey[StaticKey | FederatedToken]:
        """The key that goes on a call: from its file, or by a trade with the provider."""
        if isinstance(key, InjectedKey):
            return self._static_keys.of(key.file)
        token = self._federated.cached(key)
        if token is None:
            entry.exchanging()
            try:
                token = yield Async(self._tasks, partial(self._federated.of, key))
            finally:
                entry.exchanged()
        return token

    def _authority_outside(
        self, head: Request, route: OutsideRoute, snapshot: Snapshot, entry: Entry
    ) -> Journey[tuple[ServedRequest | RemoteRequest | None, Delegation | None]]:
        """On whose authority the agent calls such a host: a request being served, or (None) the workload's own."""
        in_authorization = route.key is not None
        yield from self._refuse_strays(head, in_authorization=in_authorization)
        handle = handle_for_outside(head, in_authorization=in_authorization)
        if self._handles.is_own(handle):
            entry.op = OWN
            return None, None
        served = yield from self._resolve(handle)
        _note_served(served, entry)
        if served.delegation.entry:
            return served, (yield from self.logins.again(served.delegation, snapshot, entry))
        return served, served.delegation

    def _observed(
        self,
        denied: Denied,
        stream: Stream,
        head: Request,
        route: OutboundRoute | OutsideRoute,
        target: CanonicalTarget,
        snapshot: Snapshot,
        entry: Entry,
    ) -> Journey[None]:
        """A call that belongs to no request and only passes because its route observes, with its own credential."""
        if isinstance(route, OutsideRoute):
            route.check(head.method, target.path)
            if head.upgrade is not None:
                raise Denied(Reason.UPGRADE_REFUSED, "a host outside the mesh gets no upgrade")
        permit = yield from self._observing.call(denied, head, route, snapshot, entry)
        if isinstance(route, OutsideRoute):
            origin, edits = self._origins.outside(route), to_outside_as_is(host=route.authority)
        else:
            entry.call_out = new_call_id()
            trace = next_traceparent(head.all(b"traceparent"), head.all(b"tracestate"))
            entry.trace_id, entry.span_id = trace.trace_id, trace.span_id
            origin = self._origins.of(route, snapshot.policy.workload)
            edits = to_observed_next_hop(call=entry.call_out, trace=trace, host=origin.authority)
        yield Forwarding(self._forwarder, permit, stream, head, entry, origin, target.encode(), edits)

    def _tunnel(self, stream: Stream, head: Request, snapshot: Snapshot, entry: Entry) -> Journey[None]:
        """A CONNECT: an opaque tunnel to a listed host and port, for the request whose handle it shows."""
        policy = snapshot.policy
        try:
            route = policy.outbound.find_tunnel(head.authority)
        except Denied:
            yield from self._note_attempt(head, entry)
            raise
        entry.route = route.name
        for stray in stray_handles_of_tunnel(head):
            if (yield from is_alive(stray, self._handles, self._remote_handles, self._tasks)):
                raise Denied(Reason.NO_REQUEST_CONTEXT, "a live handle in another field than Proxy-Authorization")
        handle = handle_for_tunnel(head)
        own = handle is not None and self._handles.is_own(handle)
        served: ServedRequest | RemoteRequest | None = None
        delegation: Delegation | None = None
        if own:
            entry.op = OWN
        elif handle is None:
            entry.candidates = self._handles.call_ids(MAX_ITEMS)
        else:
            served = yield from self._resolve(handle)
            _note_served(served, entry)
            delegation = served.delegation
            if delegation.entry:
                delegation = yield from self.logins.again(delegation, snapshot, entry)
        permit = decide_connect(delegation, route, own=own, policy=policy, now=int(self._clock()))
        if served is not None and (counting := served.count_call()) is not None:
            yield Async(self._tasks, counting)
        entry.permitted(facts_of_tunnel(permit, None if served is None else served.facts))
        self._log.metrics.own_calls += own
        far = yield Async(self._tasks, partial(self._forwarder.pool.dial_raw, self._origins.tunnel(route)))
        yield TunnelForwarding(self._forwarder, permit, stream, entry, far, served)

    def _refuse_strays(self, head: Request, *, in_authorization: bool) -> Journey[None]:
        """Refuse a call with a live handle where none belongs: it would leave, or be a second authority."""
        for stray in stray_handles(head, in_authorization=in_authorization):
            if (yield from is_alive(stray, self._handles, self._remote_handles, self._tasks)):
                raise Denied(Reason.NO_REQUEST_CONTEXT, "a live handle in a field where none belongs")

    def _resolve(self, handle: str) -> Journey[ServedRequest | RemoteRequest]:
        """The request that a handle stands for, perhaps at another worker."""
        remote_handles = self._remote_handles
        if remote_handles is None or (owner := remote_handles.owner_of(handle)) is None:
            return self._handles.resolve(handle)
        served: RemoteRequest = yield Async(self._tasks, partial(remote_handles.resolve, owner, handle))
        return served

    def _ask(self, plan: Plan, tokens: TokenExchange, snapshot: Snapshot, entry: Entry) -> Journey[Issued]:
        """One exchange, shared with everybody who needs the same token."""
        entry.exchanging()
        try:
            issued: Issued = yield Async(self._tasks, lambda: tokens.exchange(plan, snapshot.policy))
        finally:
            entry.exchanged()
        return issued


def _note_served(served: ServedRequest | RemoteRequest, entry: Entry) -> None:
    """Note in the record whose request a call belongs to."""
    entry.call_in = served.call_in
    entry.after_request = served.ended_at is not None
    entry.attribute_served(served.facts)
