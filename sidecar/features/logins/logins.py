"""Login tokens of users at an entry: verified for each call, or exchanged once for a handle for later calls.

``POST /.sidecar/subject`` on the outbound port, with the login token as bearer, returns JSON with ``handle`` and
``expires_in`` (seconds). The handle permits the calls of ``entry.may_call`` until the login token expires, so the app
need not store the token. After a change of keys or policy, the token behind the handle is verified again. Paths
below ``/.sidecar/`` are reserved: no route can match them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import orjson

from delegation_core.bearer import bearer_of, parse_bearer
from delegation_core.bounded import BoundedCache
from delegation_core.decide import decide_entry, user_issuer
from delegation_core.errors import Denied, Reason
from delegation_core.plan import Delegation
from delegation_core.policy import Policy
from delegation_core.target import CanonicalTarget
from delegation_core.validity import check_times
from sidecar.observe.access_log import Entry
from sidecar.proxy.journeys.handles import Handles, ServedRequest
from sidecar.proxy.journeys.journey import Async, Journey, Tasks
from sidecar.proxy.journeys.outbound import SUBJECT_METHODS, Outbound
from sidecar.proxy.journeys.snapshot import Snapshot
from sidecar.proxy.listening.memory_pressure import MIB
from sidecar.wire.message import Field, Request
from sidecar.wire.stream import Stream

SUBJECT_PATH: Final = "/.sidecar/subject"
_AT_DOOR: Final = "door:"  # prefix of cache keys; no token has a colon
_JUDGED_BYTES: Final = 1024  # of a delegation, without its token
_ANSWER_FIELDS: Final[tuple[Field, ...]] = ((b"content-type", b"application/json"), (b"cache-control", b"no-store"))


class Feature:
    """Factory of ``Logins``, one for each outbound side."""

    def __init__(self, _features: object) -> None:
        pass

    def outbound(self, side: Outbound) -> Logins:
        """Return the login verifier of an outbound side."""
        return Logins(
            handles=side.handles,
            tasks=side.tasks,
            clock=side.clock,
            max_bytes=side.memory.max_verdicts_mib * MIB,
        )


class Logins:
    """Verifies login tokens. ``clock`` returns wall time in seconds.

    ``judged``: cache of delegations by token, at most ``max_bytes``; emptied when keys or policy change.
    """

    def __init__(self, *, handles: Handles, tasks: Tasks, clock: Callable[[], float], max_bytes: int) -> None:
        self._handles = handles
        self._tasks = tasks
        self._clock = clock
        self.judged: BoundedCache[str, Delegation] = BoundedCache(max_bytes)  # by token

    def verify(self, raw: str, snapshot: Snapshot, entry: Entry) -> Journey[Delegation]:
        """Verify a login token and return its delegation. Waits for a fetch if its issuer's key is not cached.

        Raises:
            SidecarError: as ``parse_bearer``, ``user_issuer``, ``wait_for_key`` and ``decide_entry``.
        """
        return (yield from self._judge(raw, snapshot, entry, at_door=False))

    def at_door(self, raw: str, snapshot: Snapshot, entry: Entry) -> Journey[Delegation]:
        """Return the delegation of a login token sent to the entry's door, from the cache if it is there.

        Raises:
            SidecarError: as ``verify`` and ``check_times``.
        """
        known = self.judged.find(_AT_DOOR + raw, (snapshot.keys.generation, snapshot.policy.number))
        if known is None:
            return (yield from self._judge(raw, snapshot, entry, at_door=True))
        check_times(known.token, int(self._clock()))
        entry.attribute_token(known.token)
        return known

    def _judge(self, raw: str, snapshot: Snapshot, entry: Entry, *, at_door: bool) -> Journey[Delegation]:
        policy, keys = snapshot.policy, snapshot.keys
        epoch = keys.generation, policy.number
        if self.judged.epoch != epoch:
            self.judged.turn_to(epoch)
        bearer = parse_bearer(raw)
        entry.claim_unverified(bearer)
        user = user_issuer(bearer, policy=policy, at_door=at_door)
        key = keys.find(user.trusted.issuer, bearer.kid)
        if key is None:
            key = yield Async(self._tasks, lambda: keys.wait_for_key(user.trusted.issuer, bearer.kid))
        delegation = decide_entry(bearer, key=key, policy=policy, now=int(self._clock()), at_door=at_door)
        entry.attribute_token(delegation.token)
        token = delegation.token
        cost, until = token.held_bytes + _JUDGED_BYTES, token.expires_at + token.leeway_s
        name = _AT_DOOR + raw if at_door else raw
        self.judged.keep(name, delegation, cost=cost, expires_at=until, epoch=epoch)
        return delegation

    def holds(self, delegation: Delegation, snapshot: Snapshot) -> bool:
        """Return True if this very ``delegation`` is cached under the current keys and policy.

        Otherwise call ``again``. The look-up is not counted; a caller that proceeds counts it.
        """
        judged = self.judged
        if judged.epoch != (snapshot.keys.generation, snapshot.policy.number):
            return False
        return judged.get(delegation.token.raw) is delegation

    def again(self, delegation: Delegation, snapshot: Snapshot, entry: Entry) -> Journey[Delegation]:
        """Re-evaluate the login behind a handle and return its delegation, never wider than ``delegation``.

        A handle may live for hours; after a change of keys or policy its login token is verified again.

        Raises:
            SidecarError: as ``verify``.
        """
        fresh = self.judged.find(delegation.token.raw, (snapshot.keys.generation, snapshot.policy.number))
        if fresh is None:
            fresh = yield from self.verify(delegation.token.raw, snapshot, entry)
        if fresh is delegation:
            return delegation
        return delegation.narrowed_to(fresh)

    def serve(
        self, stream: Stream, head: Request, target: CanonicalTarget, snapshot: Snapshot, entry: Entry
    ) -> Journey[None]:
        """Answer ``POST /.sidecar/subject``: verify the login token and return a handle for it.

        Raises:
            Denied: NO_ROUTE (another reserved path), NOT_AN_ENTRY, METHOD_REFUSED, PATH_REFUSED (a query),
                NO_REQUEST_CONTEXT (the request has a handle), TOKEN_EXPIRED, INSUFFICIENT_SCOPE (the login has no
                scope here); or as ``bearer_of`` and ``verify``.
            Unavailable: OVERLOADED, too many logins have handles; or as ``verify``.
        """
        _require_form(head, target, snapshot.policy)
        delegation = yield from self.verify(bearer_of(head.all(b"authorization")), snapshot, entry)
        now = int(self._clock())
        expires_in = delegation.token.expires_at - now
        if expires_in <= 0:  # verified within the leeway; a handle would be useless
            raise Denied(Reason.TOKEN_EXPIRED)
        if not delegation.scope:
            raise Denied(Reason.INSUFFICIENT_SCOPE, "scope_from gives this login no scope")
        handle = self._handles.keep(ServedRequest(delegation, max_calls=None, linger_s=0.0, call_in=None))
        entry.attribute_login(delegation.token)
        stream.answer(200, _ANSWER_FIELDS, orjson.dumps({"handle": handle, "expires_in": expires_in}))


def _require_form(head: Request, target: CanonicalTarget, policy: Policy) -> None:
    if target.path != SUBJECT_PATH:
        raise Denied(Reason.NO_ROUTE)
    if policy.entry is None:
        raise Denied(Reason.NOT_AN_ENTRY)
    if head.method not in SUBJECT_METHODS:
        raise Denied(Reason.METHOD_REFUSED)
    if target.query:  # a URL must not carry a token
        raise Denied(Reason.PATH_REFUSED, "no query is allowed here")
    if head.all(b"delegation-handle"):
        raise Denied(Reason.NO_REQUEST_CONTEXT, "expected a login token, got a handle")
