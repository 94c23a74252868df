"""Observe mode: a second decision on calls that policy refuses, on routes that only observe.

The core decides (``decide_observed``, ``decide_observed_call``). This module supplies its input: it verifies the JWT
of a request for any audience, and finds the issuers of all tokens in an agent's call. A request or call that contains
a live handle stays refused: the recipient could act for the request behind the handle.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

from delegation_core.bearer import Bearer, bearer_of
from delegation_core.decide import decide_observed, decide_observed_call, decide_plain, trusted_issuer
from delegation_core.errors import Denied, Reason
from delegation_core.observed import is_jwt, jwt_of, observed_bearer
from delegation_core.outside import OutsideRoute
from delegation_core.permit import ObservedPermit
from delegation_core.records.record import RecordFields
from delegation_core.route import InboundRoute, OutboundRoute
from delegation_core.scope import ScopeSet, sorted_scope
from delegation_core.verify import ANY_AUDIENCE, VerifiedToken, verify_token
from sidecar.features.observing.shown_credentials import ShownCredentials
from sidecar.identity.svid import VerifiedPeer
from sidecar.observe.access_log import Entry
from sidecar.observe.attribution import facts_of_token
from sidecar.proxy.journeys.call_authority import any_alive
from sidecar.proxy.journeys.handles import Handles
from sidecar.proxy.journeys.inbound import Inbound
from sidecar.proxy.journeys.journey import Async, Journey, Tasks
from sidecar.proxy.journeys.outbound import Outbound
from sidecar.proxy.journeys.remote_handles import RemoteHandles
from sidecar.proxy.journeys.snapshot import Snapshot
from sidecar.proxy.journeys.stray_credentials import issuers_shown, stray_handles
from sidecar.wire.message import Request


class Feature:
    """Factory of ``Observing``, one for each side."""

    def __init__(self, _features: object) -> None:
        import_module("sidecar.proxy.journeys.revalidation_exceptions")  # now, so that no re-evaluation waits for it

    def inbound(self, side: Inbound) -> Observing:
        """Return the observer of requests to the agent."""
        return _judge_of(side)

    def outbound(self, side: Outbound) -> Observing:
        """Return the observer of the agent's calls."""
        return _judge_of(side)


def _judge_of(side: Inbound | Outbound) -> Observing:
    return Observing(handles=side.handles, remote_handles=side.remote_handles, tasks=side.tasks, clock=side.clock)


class Observing:
    """Decides on refused calls in observe mode. ``clock`` returns wall time in seconds."""

    def __init__(
        self,
        *,
        handles: Handles,
        remote_handles: RemoteHandles | None,
        tasks: Tasks,
        clock: Callable[[], float],
    ) -> None:
        self._handles = handles
        self._remote_handles = remote_handles
        self._tasks = tasks
        self._clock = clock
        self.credentials = ShownCredentials(tasks)

    def request(
        self,
        denied: Denied,
        head: Request,
        peer: VerifiedPeer,
        route: InboundRoute,
        snapshot: Snapshot,
        entry: Entry,
    ) -> Journey[ObservedPermit]:
        """Return a permit for a request to the agent refused by ``denied``, and record it as observed.

        Raises:
            SidecarError: ``denied``, or a reason that observe mode does not relax.
        """
        bearer = observed_bearer(denied, head.all(b"authorization"))
        token = yield from self._verify(bearer, peer, route, snapshot)
        permit = decide_observed(
            denied,
            token=token,
            peer=peer.spiffe_id,
            route=route,
            policy=snapshot.policy,
            now=int(self._clock()),
            peer_certificate_sha256=peer.fingerprint,
        )
        yield from self._refuse_handles(denied, head)
        return (yield from self._note_permit(permit, head, route, entry))

    def plain(
        self, head: Request, route: InboundRoute, until: int, snapshot: Snapshot, entry: Entry
    ) -> Journey[ObservedPermit]:
        """Return a permit for a request without TLS, accepted before ``until`` (wall seconds); record it as observed.

        Raises:
            SidecarError: as ``decide_plain``; the JWT is invalid; POLICY_DENIED, a live handle.
        """
        token = yield from self._verify(jwt_of(head.all(b"authorization")), None, route, snapshot)
        permit = decide_plain(token, route=route, policy=snapshot.policy, now=int(self._clock()), until=until)
        yield from self._refuse_handles(Denied(Reason.POLICY_DENIED), head)
        return (yield from self._note_permit(permit, head, route, entry))

    def _note_permit(
        self, permit: ObservedPermit, head: Request, route: InboundRoute, entry: Entry
    ) -> Journey[ObservedPermit]:
        credential = (yield from self.credentials.of(head)) if permit.token is None else None
        entry.permitted(_facts_of_observed(permit, credential, peer=permit.peer, scopes=route.scopes))
        return permit

    def call(
        self, denied: Denied, head: Request, route: OutboundRoute | OutsideRoute, snapshot: Snapshot, entry: Entry
    ) -> Journey[ObservedPermit]:
        """Return a permit for a call of the agent refused by ``denied``, and record it as observed.

        A call with a ``Delegation-Handle`` field belongs to a request, so it stays refused.

        Raises:
            SidecarError: ``denied``, or a reason that observe mode does not relax.
        """
        shown = bearer_of(head.all(b"authorization")) if denied.reason is Reason.MALFORMED_TOKEN else ""
        if head.all(b"delegation-handle") or is_jwt(shown):
            raise denied
        permit = decide_observed_call(
            denied, issuers=issuers_shown(head), route=route, policy=snapshot.policy, now=int(self._clock())
        )
        yield from self._refuse_handles(denied, head)
        peer = route.peer if isinstance(route, OutboundRoute) else None
        credential = yield from self.credentials.of(head)
        entry.permitted(_facts_of_observed(permit, credential or "none", peer=peer))
        return permit

    def _refuse_handles(self, denied: Denied, head: Request) -> Journey[None]:
        strays = stray_handles(head, in_authorization=False)
        if (yield from any_alive(strays, self._handles, self._remote_handles, self._tasks)):
            raise Denied(denied.reason, "a live handle of this sidecar, which is nobody's own credential")

    def _verify(
        self, bearer: Bearer | None, peer: VerifiedPeer | None, route: InboundRoute, snapshot: Snapshot
    ) -> Journey[VerifiedToken | None]:
        """Verify the JWT of a request, for any audience; None without one. Raises SidecarError."""
        if bearer is None:
            return None
        issuer = trusted_issuer(bearer, route=route, policy=snapshot.policy)
        key = snapshot.keys.find(bearer.issuer, bearer.kid)
        if key is None:
            key = yield Async(self._tasks, lambda: snapshot.keys.wait_for_key(bearer.issuer, bearer.kid))
        return verify_token(
            bearer,
            issuer=issuer,
            key=key,
            audiences=ANY_AUDIENCE,
            now=int(self._clock()),
            peer_certificate_sha256=None if peer is None else peer.fingerprint,
            slim=True,
        )


def _facts_of_observed(
    permit: ObservedPermit, credential: str | None, *, peer: str | None, scopes: ScopeSet | None = None
) -> RecordFields:
    """Return the facts of an observed call, allowed despite a refusal: the reason, and the claims its token proves.

    ``peer``: the other end, as in any record; ``scopes``: required by an inbound route. ``credential``: kind and
    fingerprint of a credential sent instead of a verifiable token.
    """
    return {
        **({} if permit.token is None else facts_of_token(permit.token)),
        "decision": "observed_deny",
        "reason": permit.reason,
        "peer": peer,
        "route": permit.route.name,
        "scope_needed": None if scopes is None else sorted_scope(scopes),
        "credential": None if credential is None else f"observed:{credential}",
    }
