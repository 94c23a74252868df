"""Calls to hosts outside the mesh, with a key of the sidecar or of the agent, and tunnels. No token of a user leaves.

``OutsideCalls.call`` and ``tunnel`` are the rest of the outbound journey for such routes: read each top to bottom.
"""

from __future__ import annotations

from functools import partial

from delegation_core.connect import ConnectRoute
from delegation_core.decide import decide_connect, decide_own
from delegation_core.errors import Denied, Reason
from delegation_core.outside import FederatedKey, InjectedKey, OutsideRoute
from delegation_core.permit import OwnPermit, TunnelPermit
from delegation_core.records.record import MAX_ITEMS, OK, RecordFields
from delegation_core.target import CanonicalTarget
from sidecar.exchange.federation.tokens import FederatedToken
from sidecar.features.outside.fields import to_outside, to_outside_as_is
from sidecar.features.outside.keyed_forwarding import KeyedForwarding
from sidecar.features.outside.static_keys import StaticKey, StaticKeys
from sidecar.features.outside.tunnel_forwarding import TunnelForwarding
from sidecar.observe.access_log import Entry
from sidecar.observe.entry import OWN
from sidecar.proxy.journeys.call_authority import Authority, any_alive
from sidecar.proxy.journeys.forward import Forwarding, Way
from sidecar.proxy.journeys.journey import Async, Journey
from sidecar.proxy.journeys.outbound import Outbound
from sidecar.proxy.journeys.snapshot import Snapshot
from sidecar.proxy.journeys.stray_credentials import (
    handle_for_outside,
    handle_for_tunnel,
    issuers_shown,
    stray_handles_of_tunnel,
)
from sidecar.wire.message import Request
from sidecar.wire.stream import Stream


class Feature:
    """Factory of ``OutsideCalls``, one for each outbound side."""

    def __init__(self, _features: object) -> None:
        pass

    def outbound(self, side: Outbound) -> OutsideCalls:
        """Return the calls outside the mesh of an outbound side."""
        return OutsideCalls(side)


class OutsideCalls:
    """Serves calls to hosts outside the mesh, and tunnels."""

    def __init__(self, side: Outbound) -> None:
        self._authority = side.authority
        self._handles = side.handles
        self._remote_handles = side.remote_handles
        self._observing = side.features["observing"]
        self._forwarder = side.forwarder
        self._tasks = side.tasks
        self._origins = side.origins
        self._federated = side.federated()
        self._static_keys = StaticKeys()
        self._metrics = side.log.metrics
        self._clock = side.clock

    def call(
        self,
        stream: Stream,
        head: Request,
        target: CanonicalTarget,
        route: OutsideRoute,
        snapshot: Snapshot,
        entry: Entry,
    ) -> Journey[None]:
        """Serve a call to a host outside the mesh, with a key of the sidecar or the agent's own credential.

        Raises:
            SidecarError: as ``decide_own``, ``_authority_of_call``, ``_key_of`` and the forwarding; NO_REQUEST_CONTEXT,
                the call contains a token of the mesh; UPGRADE_REFUSED.
        """
        try:
            served, delegation = yield from self._authority_of_call(head, route, snapshot, entry)
        except Denied as denied:
            if self._clock() >= route.observe_until:
                raise
            yield from self._forward_observed(denied, stream, head, route, target, snapshot, entry)
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
            credential = yield from self._observing.credentials.of(head)
            edits = to_outside_as_is(host=route.authority)
            entry.permitted(_facts_of_own(permit, of_token, f"passthrough:{credential or 'none'}"))
            key = None
            forwarding = Forwarding(
                self._forwarder, permit, stream, head, entry, origin, target.encode(), edits, served
            )
        else:
            key = yield from self._key_of(route.key, entry)
            edits = to_outside(
                head,
                host=route.authority,
                field=route.key.field.encode("ascii"),
                value=route.key.scheme.encode("ascii") + key.value,
                also=[(name.encode("ascii"), value.encode("ascii")) for name, value in route.key.also],
                fields=route.fields,
            )
            entry.permitted(_facts_of_own(permit, of_token, f"{route.key.kind}:{key.fingerprint}"))
            way = Way(self._forwarder, permit, stream, head, entry, origin, target.encode(), edits, served)
            forwarding = KeyedForwarding(way, key.value)
        if served is None:
            self._metrics.own_calls += 1
        status = yield forwarding
        if status == 401 and isinstance(key, FederatedToken):
            self._federated.reject(key)  # the provider refuses this token: exchange again for the next call

    def tunnel(
        self, stream: Stream, head: Request, route: ConnectRoute, snapshot: Snapshot, entry: Entry
    ) -> Journey[None]:
        """Serve a CONNECT: an opaque tunnel to a listed host and port. Its handle names the inbound request.

        Raises:
            SidecarError: as ``decide_connect``, ``_authority_of_tunnel`` and ``TunnelForwarding``; or the connection to
                the host failed.
        """
        policy = snapshot.policy
        (served, delegation), own = yield from self._authority_of_tunnel(head, snapshot, entry)
        permit = decide_connect(delegation, route, own=own, policy=policy, now=int(self._clock()))
        if served is not None and (counting := served.count_call()) is not None:
            yield Async(self._tasks, counting)
        entry.permitted(_facts_of_tunnel(permit, None if served is None else served.facts))
        self._metrics.own_calls += own
        far = yield Async(self._tasks, partial(self._forwarder.pool.dial_raw, self._origins.tunnel(route)))
        yield TunnelForwarding(self._forwarder, permit, stream, entry, far, served)

    def _authority_of_call(
        self, head: Request, route: OutsideRoute, snapshot: Snapshot, entry: Entry
    ) -> Journey[Authority]:
        """Return the authority of a call to a host outside the mesh: a request, or the workload itself.

        Raises:
            SidecarError: as ``CallAuthority.refuse_strays`` and ``of_request``, and ``handle_for_outside``.
        """
        in_authorization = route.key is not None
        yield from self._authority.refuse_strays(head, in_authorization=in_authorization)
        handle = handle_for_outside(head, in_authorization=in_authorization)
        if self._handles.is_own(handle):
            entry.op = OWN
            return None, None
        return (yield from self._authority.of_request(handle, snapshot, entry))

    def _authority_of_tunnel(self, head: Request, snapshot: Snapshot, entry: Entry) -> Journey[tuple[Authority, bool]]:
        """Return the authority of a CONNECT, and True if the workload itself calls. Without a handle it has none.

        Raises:
            SidecarError: as ``CallAuthority.of_request`` and ``handle_for_tunnel``; NO_REQUEST_CONTEXT, a live handle
                is in another field.
        """
        strays = stray_handles_of_tunnel(head)
        if (yield from any_alive(strays, self._handles, self._remote_handles, self._tasks)):
            raise Denied(Reason.NO_REQUEST_CONTEXT, "a live handle in another field than Proxy-Authorization")
        handle = handle_for_tunnel(head)
        if handle is None:
            entry.candidates = self._handles.call_ids(MAX_ITEMS)
            return (None, None), False
        if self._handles.is_own(handle):
            entry.op = OWN
            return (None, None), True
        return (yield from self._authority.of_request(handle, snapshot, entry)), False

    def _key_of(self, key: InjectedKey | FederatedKey, entry: Entry) -> Journey[StaticKey | FederatedToken]:
        """Return the key for a call: from its file, or by a token exchange with the provider. Raises SidecarError."""
        if isinstance(key, InjectedKey):
            if not self._static_keys.has_looked(key.file):
                yield Async(self._tasks, partial(self._static_keys.first_look, key.file))
            return self._static_keys.of(key.file)
        token = self._federated.cached(key)
        if token is None:
            entry.exchanging()
            try:
                token = yield Async(self._tasks, partial(self._federated.of, key))
            finally:
                entry.exchanged()
        return token

    def _forward_observed(
        self,
        denied: Denied,
        stream: Stream,
        head: Request,
        route: OutsideRoute,
        target: CanonicalTarget,
        snapshot: Snapshot,
        entry: Entry,
    ) -> Journey[None]:
        """Forward a refused call with its own credential, because its route observes.

        Raises:
            SidecarError: as the feature ``observing`` and the route's ``check``; UPGRADE_REFUSED.
        """
        route.check(head.method, target.path)
        if head.upgrade is not None:
            raise Denied(Reason.UPGRADE_REFUSED, "a host outside the mesh gets no upgrade")
        permit = yield from self._observing.call(denied, head, route, snapshot, entry)
        origin, edits = self._origins.outside(route), to_outside_as_is(host=route.authority)
        yield Forwarding(self._forwarder, permit, stream, head, entry, origin, target.encode(), edits)


def _facts_of_own(permit: OwnPermit, of_token: RecordFields | None, credential: str) -> RecordFields:
    """Return the facts of a permitted call with a static key: the inbound request's token, and the credential.

    ``of_token``: the ``facts_of_token`` of the request's token; None if the workload acts for itself.
    """
    return {
        **(of_token or {}),
        "decision": "allow",
        "reason": OK,
        "route": permit.route.name,
        "credential": credential,
    }


def _facts_of_tunnel(permit: TunnelPermit, of_token: RecordFields | None) -> RecordFields:
    """Return the facts of a permitted tunnel: its host and port, and the inbound request's token, if known.

    ``of_token``: the ``facts_of_token`` of the request's token; None if unknown.
    """
    return {
        **(of_token or {}),
        "decision": "allow",
        "reason": OK,
        "route": permit.route.name,
        "host": permit.route.host,
    }
