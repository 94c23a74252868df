"""Lets calls pass that the policy refuses, on routes that only observe. Nothing of this runs for a permitted call.

The decision is the core's (``decide_observed``). Here is what it needs: the JWT that the call shows is verified for any
audience, and a live handle refuses the call, since an agent that got it would act for the request behind it.
"""

from __future__ import annotations

from collections.abc import Callable

from sidecar.delegation.decide import ObservedPermit, decide_observed, trusted_issuer
from sidecar.delegation.observed import observed_bearer
from sidecar.delegation.route import InboundRoute
from sidecar.delegation.verify import ANY_AUDIENCE, VerifiedToken, verify_token
from sidecar.errors import Denied
from sidecar.identity.svid import VerifiedPeer
from sidecar.observe.access_log import Entry
from sidecar.observe.attribution import facts_of_observed
from sidecar.proxy.credentials import own_credential, stray_handles
from sidecar.proxy.handles import Handles
from sidecar.proxy.journey import Async, Journey, Tasks
from sidecar.proxy.remote_handles import RemoteHandles, is_alive
from sidecar.proxy.snapshot import Snapshot
from sidecar.wire.message import Request


class Observing:
    """Judges refused calls once more. ``clock`` is wall time in seconds."""

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

    def request(
        self,
        denied: Denied,
        head: Request,
        peer: VerifiedPeer | None,
        route: InboundRoute,
        snapshot: Snapshot,
        entry: Entry,
    ) -> Journey[ObservedPermit]:
        """Judge a request to the agent that ``denied`` refuses, and note it as observed.

        Raises:
            SidecarError: ``denied``, or another reason that no route relaxes.
        """
        token = yield from self._token(denied, head, peer, route, snapshot)
        permit = decide_observed(
            denied,
            token=token,
            peer=None if peer is None else peer.spiffe_id,
            route=route,
            policy=snapshot.policy,
            now=int(self._clock()),
            peer_certificate_sha256=None if peer is None else peer.fingerprint,
        )
        for stray in stray_handles(head, in_authorization=False):
            if (yield from is_alive(stray, self._handles, self._remote_handles, self._tasks)):
                raise Denied(denied.reason, "a live handle of this sidecar, which is no credential of a caller's")
        entry.permitted(facts_of_observed(permit, own_credential(head) if token is None else None))
        return permit

    def _token(
        self, denied: Denied, head: Request, peer: VerifiedPeer | None, route: InboundRoute, snapshot: Snapshot
    ) -> Journey[VerifiedToken | None]:
        """Verify the JWT that a request shows, for any audience; None: it shows none."""
        bearer = observed_bearer(denied, head.all(b"authorization"))
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
