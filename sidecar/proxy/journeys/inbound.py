"""The inbound journey: an mTLS peer calls the agent.

Theory of operation. The TLS handshake proved the peer's SPIFFE ID; each request proves it again if trust has changed
since. Then, in this order: canonical target -> route -> bearer -> token verified (or cached) -> on a route of a
protocol above HTTP its operation (``feature.py``) -> decision of the core (or its cached permit for the same call,
with expiry checked again) -> identity headers rewritten, token replaced by a handle -> the agent. A route that only
observes forwards a refused request with the caller's own credential, and without a handle (``features/observing``). One
snapshot, taken at the start, decides the whole request, so a reload never splits a decision. On the warm path a request
waits only for the agent.

Read ``Inbound.journey`` top to bottom: it is the whole journey.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from delegation_core.bearer import bearer_of, parse_bearer
from delegation_core.decide import check_again, decide_verified, trusted_issuer
from delegation_core.errors import Denied, SidecarError, Unavailable
from delegation_core.permit import ObservedPermit, Permit
from delegation_core.policy import Policy
from delegation_core.route import InboundRoute
from delegation_core.target import CanonicalTarget, canonical_target
from delegation_core.verify import VerifiedToken, verify_token
from sidecar.identity.svid import VerifiedPeer
from sidecar.identity.tls import guard_of
from sidecar.observe.access_log import AccessLog, Entry
from sidecar.proxy.journeys.answers import close, refuse, refuse_unread, serve
from sidecar.proxy.journeys.forward import Forwarder, Forwarding, Way
from sidecar.proxy.journeys.handles import Handles, ServedRequest
from sidecar.proxy.journeys.headers import CALL_ID, call_id, source_of, to_agent, to_observed_agent
from sidecar.proxy.journeys.journey import Async, Journey, OnDemand, Tasks
from sidecar.proxy.journeys.snapshot import Snapshot, Snapshots
from sidecar.proxy.journeys.verdicts import Given, Permits, Verdicts, new_call
from sidecar.proxy.listening.memory_pressure import MIB, MemoryLimits
from sidecar.wire.dialer import Origin
from sidecar.wire.message import Edits, Request
from sidecar.wire.stream import Stream

if TYPE_CHECKING:
    from sidecar.proxy.journeys.feature import Features, InboundProtocol
    from sidecar.proxy.journeys.operation import Operation
    from sidecar.proxy.journeys.remote_handles import RemoteHandles

_UNPROVEN_BYTES: Final = 16 * 1024  # of the body of a message without a verified token


class Inbound:
    """Serves the requests of peers. ``clock`` is wall time in seconds; ``remote_handles`` as in ``Outbound``.

    ``edits`` returns the field edits of a permitted request: ``to_agent``, or a function that also adds an agent's key
    or a transaction token. ``features`` are those of the whole sidecar.
    """

    def __init__(
        self,
        *,
        snapshots: Snapshots,
        log: AccessLog,
        handles: Handles,
        forwarder: Forwarder,
        tasks: Tasks,
        clock: Callable[[], float],
        features: Features,
        memory: MemoryLimits | None = None,
        remote_handles: RemoteHandles | None = None,
        edits: Callable[..., Edits] = to_agent,
    ) -> None:
        self.edits = edits
        memory = memory or MemoryLimits()
        self.snapshots = snapshots
        self.log = log
        self.forwarder = forwarder
        self.tasks = tasks
        self.handles = handles
        self.remote_handles = remote_handles
        self.clock = clock
        self.features: OnDemand[Any] = OnDemand(lambda name: features.of(name).inbound(self))
        self.verdicts = Verdicts(memory.max_verdicts_mib * MIB)
        self.permits = Permits(memory.max_permits_mib * MIB, self.verdicts)
        log.metrics.verdict_cache = self._look_ups

    def on_request(self, stream: Stream) -> None:
        """Serve one request: reserve its record, then start its journey."""
        serve(self.log, "inbound", stream, self.journey)

    def on_refused(self, stream: Stream, error: SidecarError) -> None:
        """Refuse a request before its journey, and write its record."""
        refuse_unread(self.log, "inbound", stream, error)

    def journey(self, stream: Stream, head: Request, entry: Entry) -> Journey[None]:
        """Serve one request of a peer: decide, forward it to the agent, answer, and close its record."""
        policy: Policy | None = None
        route: InboundRoute | None = None
        protocol: InboundProtocol | None = None  # None: plain HTTP
        asked: Operation | None = None
        handle = ""
        try:
            now = int(self.clock())
            guard = guard_of(stream.transport)
            entry.peer = guard.peer.spiffe_id
            snapshot = self.snapshots.now()
            policy, keys, agent = snapshot.policy, snapshot.keys, snapshot.agent or snapshot.require_agent()
            peer = guard.check(now)
            if CALL_ID in head.layout.places:
                entry.call_in = call_id(head)

            target = canonical_target(head.target)
            entry.path = target.path
            route = policy.inbound.find(head.method, target.path)
            entry.route = route.name
            if route.protocol != "http":
                protocol = self.features[route.protocol]
                if protocol.answers(target, policy):
                    yield from protocol.answer(stream, head, target, route, peer.spiffe_id, snapshot, entry)
                    return
                asked = protocol.new_operation()
                found = yield from self._operation(asked, stream, head, target, peer, route, snapshot, entry, now)
                route, unproven = found
                if unproven is not None:
                    raise unproven  # after the operation is known, because the answer names its scopes
                if asked.grpc:
                    agent = snapshot.require_grpc_agent()
                now = int(self.clock())  # the body may have taken longer than the token had left

            epoch = keys.generation, policy.number
            call = new_call((head.one(b"authorization"), peer.fingerprint, route.key))
            given = self.permits.find(call, epoch)
            if given is not None:
                self._check_again(given, entry, now)
            else:
                try:
                    permit = yield from self._decide(head, peer, route, snapshot, entry, now)
                except Denied as denied:
                    if now >= route.observe_until:
                        raise
                    observing = self.features["observing"]
                    observed = yield from observing.request(denied, head, peer, route, snapshot, entry)
                    session = None if protocol is None else protocol.open(asked, head, observed, now)
                    way = self._make_observed_way(observed, route, stream, head, agent, target, entry)
                    yield self._forwarding(protocol, asked, session, way, policy)
                    return
                given = self.permits.give(call, permit, (keys.generation, policy.number))
            permit, delegation, facts, of_token, identity, _ = given
            if protocol is not None:
                session = self._open(protocol, asked, head, permit, entry, now)
            served = ServedRequest(delegation, route.max_calls, 0.0, entry.call_in, guard, of_token)
            try:
                handle = self.handles.open(served)
            except Unavailable:
                entry.attribute_token(permit.token)
                raise
            entry.permitted(facts, of_token)
            trace = entry.next_trace(head.all(b"traceparent"), head.all(b"tracestate"))
            _, entry.trace_id, entry.span_id, _ = trace
            edits = self.edits(
                head,
                permit,
                identity,
                entry=entry,
                handle=handle,
                trace=trace,
                host=agent.authority,
                source=source_of(stream.remote_address) if route.forwarded else None,
            )
            if not route.forwards_as_is:
                way = Way(self.forwarder, permit, stream, head, entry, agent, target.encode(), edits)
                forwarding = (
                    Forwarding(*way) if protocol is None else self._forwarding(protocol, asked, session, way, policy)
                )
                if route.linger_s:
                    self.handles.let_in(served, route.linger_s)
                yield forwarding
                return
            yield Forwarding(self.forwarder, permit, stream, head, entry, agent, target.encode(), edits)
        except SidecarError as error:
            self.refuse(stream, error, entry, route=route, asked=asked, policy=policy)
        finally:
            self.handles.end(handle)
            close(stream, entry)

    def refuse(
        self,
        stream: Stream,
        error: SidecarError,
        entry: Entry,
        *,
        route: InboundRoute | None,
        asked: Operation | None,
        policy: Policy | None = None,
    ) -> None:
        """Refuse a request. ``policy`` lists the methods of a 405; None: the request is past it."""
        refuse(
            stream,
            error,
            entry,
            scope=route.scopes_of_any if route else (),
            allow=policy.inbound.allowed_methods(entry.path or "") if policy else (),
            human=route.human if route else None,
            resource=route.resource if route else None,
            asked=asked,
        )

    def _forwarding(
        self, protocol: InboundProtocol | None, asked: Operation | None, session: object, way: Way, policy: Policy
    ) -> Forwarding:
        """Return the forwarding to the agent. Raises Denied, as ``InboundProtocol.forwarding``."""
        return Forwarding(*way) if protocol is None else protocol.forwarding(asked, session, way, policy)

    def _decide(
        self, head: Request, peer: VerifiedPeer, route: InboundRoute, snapshot: Snapshot, entry: Entry, now: int
    ) -> Journey[Permit]:
        """Verify the token unless it is cached, and decide the request. Raises SidecarError if it is refused."""
        policy = snapshot.policy
        raw = bearer_of(head.all(b"authorization"))
        token = self.verdicts.find((raw, peer.spiffe_id), (snapshot.keys.generation, policy.number)) or (
            yield from self._verify(raw, peer, route, snapshot, entry)
        )
        try:
            return decide_verified(
                token,
                peer=peer.spiffe_id,
                route=route,
                policy=policy,
                now=now,
                peer_certificate_sha256=peer.fingerprint,
            )
        except Exception:
            entry.attribute_token(token)
            raise

    def _open(
        self,
        protocol: InboundProtocol,
        asked: Operation | None,
        head: Request,
        permit: Permit,
        entry: Entry,
        now: int,
    ) -> object:
        """Return the session of a permitted request. Raises Denied, as ``InboundProtocol.open``."""
        try:
            return protocol.open(asked, head, permit, now)
        except Denied:
            entry.attribute_token(permit.token)
            raise

    def _operation(
        self,
        asked: Operation,
        stream: Stream,
        head: Request,
        target: CanonicalTarget,
        peer: VerifiedPeer,
        route: InboundRoute,
        snapshot: Snapshot,
        entry: Entry,
        now: int,
    ) -> Journey[tuple[InboundRoute, Denied | None]]:
        """Verify the token, then read the operation of a message. Return its route, and None.

        If the token does not verify, the second result is the refusal (401 or 403). While the route observes, the token
        is not verified here.

        Raises:
            Denied: that refusal, or as ``Operation.find``.
            Unavailable: as ``_verify``.
        """
        unproven: Denied | None = None
        if now >= route.observe_until:
            unproven = yield from self._prove(head, peer, route, snapshot, entry)
        if unproven is not None:
            asked.max_bytes = _UNPROVEN_BYTES
        below = route.below(target.path)
        try:
            found = yield from asked.find(stream, head, target, route, entry, below=below)
            if asked.grpc:
                snapshot.require_grpc_agent()
        except Denied as denied:
            self._note_bearer(head, peer, snapshot, entry)
            raise unproven or denied from None
        return found, unproven

    def _prove(
        self, head: Request, peer: VerifiedPeer, route: InboundRoute, snapshot: Snapshot, entry: Entry
    ) -> Journey[Denied | None]:
        """Verify the token of a request before its body is read. Return the refusal (401 or 403) if it does not verify.

        The body of such a request is still read, up to ``_UNPROVEN_BYTES``: a JSON-RPC error must repeat the request's
        id and name the operation's scopes.

        Raises:
            Denied: a refusal with another status.
            Unavailable: as ``_verify``.
        """
        try:
            raw = bearer_of(head.all(b"authorization"))
            if self.verdicts.get((raw, peer.spiffe_id)) is None:
                yield from self._verify(raw, peer, route, snapshot, entry)
        except Denied as denied:
            if denied.answer.status not in {401, 403}:
                raise
            return denied
        return None

    def _note_bearer(self, head: Request, peer: VerifiedPeer, snapshot: Snapshot, entry: Entry) -> None:
        """Note the token of a request refused before a decision in the record; as unverified unless it is cached."""
        try:
            raw = bearer_of(head.all(b"authorization"))
            token = self.verdicts.find((raw, peer.spiffe_id), (snapshot.keys.generation, snapshot.policy.number))
            if token is None:
                entry.claim_unverified(parse_bearer(raw))
            else:
                entry.attribute_token(token)
        except Denied:
            return

    def _make_observed_way(
        self,
        permit: ObservedPermit,
        route: InboundRoute,
        stream: Stream,
        head: Request,
        agent: Origin,
        target: CanonicalTarget,
        entry: Entry,
    ) -> Way:
        """Return the arguments that forward a refused request on a route that observes."""
        trace = entry.next_trace(head.all(b"traceparent"), head.all(b"tracestate"))
        _, entry.trace_id, entry.span_id, _ = trace
        edits = to_observed_agent(
            head,
            request_id=entry.request_id,
            trace=trace,
            host=agent.authority,
            forwarded=(b"https", source_of(stream.remote_address)) if route.forwarded else None,
        )
        return Way(self.forwarder, permit, stream, head, entry, agent, target.encode(), edits)

    def _check_again(self, given: Given, entry: Entry, now: int) -> None:
        permit = given[0]
        try:
            check_again(permit, now)
        except SidecarError:
            entry.attribute_token(permit.token)
            raise

    def _look_ups(self) -> Mapping[str, int]:
        """Return the hits (a permit or a verdict was cached) and misses of the cache of verified tokens."""
        return {"hit": self.permits.hits + self.verdicts.hits, "miss": self.verdicts.misses}

    def _verify(
        self, raw: str, peer: VerifiedPeer, route: InboundRoute, snapshot: Snapshot, entry: Entry
    ) -> Journey[VerifiedToken]:
        """Verify a token and cache it. Waits for its issuer's key if the key is unknown. Raises SidecarError."""
        policy, keys = snapshot.policy, snapshot.keys
        bearer = parse_bearer(raw)
        try:
            issuer = trusted_issuer(bearer, route=route, policy=policy)
            key = keys.find(bearer.issuer, bearer.kid)
            if key is None:
                entry.claim_unverified(bearer)  # before the wait, during which ``request.opened`` may be written
                key = yield Async(self.tasks, lambda: keys.wait_for_key(bearer.issuer, bearer.kid))
            token = verify_token(
                bearer,
                issuer=issuer,
                key=key,
                audiences=policy.audiences,
                now=int(self.clock()),
                peer_certificate_sha256=peer.fingerprint,
                slim=True,
            )
        except Exception:
            entry.claim_unverified(bearer)
            raise
        self.verdicts.add(token, peer.spiffe_id, (keys.generation, policy.number))
        actors = () if token.chain is None else token.chain.subjects
        self.log.metrics.population.saw(token.issuer, token.subject, actors)
        return token
