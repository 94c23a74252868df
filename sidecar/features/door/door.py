"""Door of an entry: users' own clients, such as IDEs and browsers, call tool servers of the mesh with a login token.

Theory of operation. Callers prove no identity by TLS, so checks run from cheap to dear: Origin and Host, path, method,
token; only then the message is read. From there the request is served like a front app's call with a login token
(``outbound.py``): policy, exchange and record are the same, and the target's own sidecar decides again. The sidecar
itself answers CORS preflights, and requests for the metadata that names the door's token issuers (RFC 9728).

An MCP session is bound to its user here, because the target sees this workload as the peer of all users.
"""

from __future__ import annotations

from collections.abc import Container
from typing import Any, Final

from delegation_core.bearer import bearer_of
from delegation_core.door import METADATA_METHODS, METHODS, Door
from delegation_core.errors import Denied, Reason, SidecarError, Unavailable
from delegation_core.mcp_session import Holder
from delegation_core.operation import OTHER
from delegation_core.permit import IssuedPermit
from delegation_core.plan import Delegation
from delegation_core.route import OutboundRoute
from delegation_core.target import canonical_target
from sidecar.features.door.forwarding import DoorForwarding, cors
from sidecar.features.logins.logins import Logins
from sidecar.features.mcp.operation import McpOperation
from sidecar.features.mcp.sessions import session_held_by
from sidecar.observe.access_log import Entry
from sidecar.observe.entry import UnprovenEntry
from sidecar.observe.record_rate import UnprovenRecords
from sidecar.proxy.journeys.answers import close, refuse, refuse_unread, serve
from sidecar.proxy.journeys.call_authority import Authority, CallAuthority
from sidecar.proxy.journeys.feature import Features
from sidecar.proxy.journeys.forward import Way
from sidecar.proxy.journeys.headers import source_of
from sidecar.proxy.journeys.journey import Journey
from sidecar.proxy.journeys.outbound import Outbound
from sidecar.proxy.journeys.refusal import JSON
from sidecar.proxy.journeys.snapshot import Snapshot
from sidecar.wire.message import Field, Request
from sidecar.wire.stream import Stream

_METADATA_S: Final = 300  # max-age of the metadata
_PREFLIGHT: Final[tuple[Field, ...]] = (
    (b"access-control-allow-methods", ", ".join(METHODS).encode()),
    (b"access-control-allow-headers", b"*, Authorization"),  # without credentials mode, * means all but Authorization
    (b"access-control-max-age", b"600"),
)


class DoorCalls(Outbound):
    """Serves the door's requests. Shares the caches of logins and plans with ``outbound``, which serves the agent.

    ``unproven``: rate limit for the records of requests without a verified user.
    """

    def __init__(self, outbound: Outbound, *, unproven: UnprovenRecords, features: Features, **parts: Any) -> None:
        super().__init__(features=features, **parts)
        self._logins: Logins = outbound.features["logins"]
        self.plans = outbound.plans
        self._unproven = unproven
        self._session_ids = features.of("mcp").session_ids
        self.authority = _DoorAuthority(self._logins)
        self.own_authorities = _Checked()

    def on_request(self, stream: Stream) -> None:
        """Serve one request: create its record and run its journey."""
        serve(self.log, "outbound", stream, self.journey, self._unproven)

    def on_refused(self, stream: Stream, error: SidecarError) -> None:
        """Refuse input that is not a valid request, and write its record."""
        refuse_unread(self.log, "outbound", stream, error, unproven=self._unproven)

    def journey(self, stream: Stream, head: Request, entry: Entry) -> Journey[None]:
        """Answer one request of the door, or forward it to a tool server of the mesh."""
        if (yield from self._is_call(stream, head, entry)):
            yield from super().journey(stream, head, entry)

    def _is_call(self, stream: Stream, head: Request, entry: Entry) -> Journey[bool]:
        """Return True if the route is listed and the user verified. Otherwise answer the request; return False."""
        goes_on = False
        try:
            entry.source = source_of(stream.remote_address)
            snapshot = self.snapshots.now()
            door = _door_of(snapshot)
            origin = door.check_origin(head.all(b"origin"))
            if not door.is_named_by(head.authority):
                raise Denied(Reason.TARGET_DENIED, "the Host is not the door's")
            target = canonical_target(head.target)
            entry.path = target.path
            if head.method == "OPTIONS" and origin is not None and head.all(b"access-control-request-method"):
                entry.answer_preflight()
                stream.answer(204, [*_PREFLIGHT, *cors(door, origin)], b"")
                return False
            if door.tells_metadata_at(target.path):
                self._tell_metadata(stream, head, door, origin, snapshot, entry)
                return False
            entry.route = door.route_of(target, snapshot.policy.outbound).name
            if head.method not in METHODS:
                raise Denied(Reason.METHOD_REFUSED, "MCP has no such method")
            if head.all(b"delegation-handle"):
                raise Denied(Reason.NO_REQUEST_CONTEXT, "expected a login token, got a handle")
            yield from self._logins.at_door(bearer_of(head.all(b"authorization")), snapshot, entry)
            if isinstance(entry, UnprovenEntry):
                entry.prove()
            goes_on = True
        except SidecarError as error:
            self.refuse(stream, error, entry, asked=None)
        finally:
            if not goes_on:
                close(stream, entry)
        return goes_on

    def _tell_metadata(
        self, stream: Stream, head: Request, door: Door, origin: str | None, snapshot: Snapshot, entry: Entry
    ) -> None:
        if head.method not in METADATA_METHODS:
            raise Denied(Reason.METHOD_REFUSED)
        scopes = (route.scopes for route in snapshot.policy.outbound.routes if route.name in door.routes)
        entry.tell_metadata()
        fields = [JSON, (b"cache-control", b"max-age=%d" % _METADATA_S), *cors(door, origin)]
        stream.answer(200, fields, door.resource.document(door.words_for(frozenset().union(*scopes))))

    def refuse(self, stream: Stream, error: SidecarError, entry: Entry, *, asked: Any) -> None:
        """Refuse a request, with the door's challenge, and CORS fields for a listed origin, if there is a door."""
        current, head = self.snapshots.current, stream.head
        door = None if current is None or current.policy.entry is None else current.policy.entry.door
        if current is None or door is None or head is None:
            refuse(stream, error, entry, asked=asked)
            return
        routes = [_narrow(route, asked) for route in current.policy.outbound.routes if route.name == entry.route]
        told = door.tells_metadata_at(entry.path or "")
        refuse(
            stream,
            error,
            entry,
            scope=door.words_for(frozenset().union(*(route.scopes for route in routes))),
            allow=METADATA_METHODS if told else METHODS,
            resource=door.resource,
            asked=asked,
            also=[] if error.reason is Reason.ORIGIN_REFUSED else cors(door, _listed_origin(door, head)),
        )

    def _make_forwarding(self, asked: Any, way: Way) -> DoorForwarding:
        """Return the forwarding to the tool server, in the MCP session that the request names.

        Raises:
            Denied: as ``session_held_by``.
        """
        permit, head = way.permit, way.head
        assert isinstance(permit, IssuedPermit)  # noqa: S101 - for the type only: each call of the door has one
        door, delegation = _door_of(self.snapshots.in_force()), permit.plan.delegation
        assert delegation is not None  # noqa: S101 - for the type only: each call of the door has a login
        holder = Holder("subject", None, delegation.token.issuer, delegation.token.subject)
        session = session_held_by(
            self._session_ids, asked, head, route=f"door/{permit.plan.route.name}", holders=(holder,)
        )
        served = way._replace(served=None)
        return DoorForwarding(served, session, door, _listed_origin(door, head))


class _Checked(Container[str]):
    """Set that contains every authority: ``_is_call`` has compared the Host with the door's."""

    def __contains__(self, _authority: object) -> bool:
        return True


class _DoorAuthority(CallAuthority):
    """Authority of a request at the door: its login token only."""

    def __init__(self, logins: Logins) -> None:
        self._logins = logins

    def of_call(self, head: Request, snapshot: Snapshot, entry: Entry) -> Journey[Authority]:
        """Return the login token's delegation. Raises SidecarError, as ``Logins.at_door``."""
        raw = bearer_of(head.all(b"authorization"))
        delegation: Delegation = yield from self._logins.at_door(raw, snapshot, entry)
        return None, delegation

    def note_attempt(self, _head: Request, _entry: Entry) -> Journey[None]:
        """Do nothing: the agent does not call the door, so no attempt to leave the mesh is recorded."""
        yield from ()

    def note_request(self, _head: Request, _entry: Entry) -> Journey[bool]:
        """Return True and do nothing: the user is recorded before the message is read."""
        yield from ()
        return True


def _door_of(snapshot: Snapshot) -> Door:
    entry = snapshot.policy.entry
    if entry is None or entry.door is None:
        raise Unavailable(Reason.NOT_READY, "the settings have no door any more")
    return entry.door


def _narrow(route: OutboundRoute, asked: McpOperation | None) -> OutboundRoute:
    """Return ``route`` narrowed to the requested operation, or ``route`` if that is unknown or refused."""
    if asked is None or asked.key == OTHER:
        return route
    try:
        return route.for_operation(asked.key)
    except Denied:
        return route


def _listed_origin(door: Door, head: Request) -> str | None:
    try:
        return door.check_origin(head.all(b"origin"))
    except Denied:
        return None
