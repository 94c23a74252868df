"""Streams an authorised request to its upstream and the answer back. Without a permit no byte goes upstream."""

from __future__ import annotations

import asyncio
import logging
from typing import Final, NamedTuple, TypeAlias

from delegation_core.errors import Denied, Reason, SidecarError, Unavailable
from delegation_core.permit import IssuedPermit, ObservedPermit, OwnPermit, Permit
from delegation_core.records.record import Direction
from sidecar.identity.handshake import PeerGuard
from sidecar.identity.tls import guard_of
from sidecar.observe.access_log import Entry
from sidecar.proxy.journeys.journey import Waiter
from sidecar.proxy.journeys.revalidation import Served, judge_call, judge_request
from sidecar.proxy.journeys.snapshot import Snapshot
from sidecar.proxy.journeys.watch import Watch
from sidecar.wire.dialer import Origin
from sidecar.wire.lifetimes import RULES, Kind, kind_of_answer, kind_of_request
from sidecar.wire.limits import ServerLimits
from sidecar.wire.message import Edits, Request, Response, is_event_stream
from sidecar.wire.pool import UpstreamPool
from sidecar.wire.pump import Pump
from sidecar.wire.stream import Stream, refuses_by_grpc

_log: Final = logging.getLogger("sidecar.journey")

_PERMITS: Final = (Permit, IssuedPermit, OwnPermit, ObservedPermit)
_WITH_AN_END: Final = (OwnPermit, ObservedPermit)

AnyPermit: TypeAlias = Permit | IssuedPermit | OwnPermit | ObservedPermit


class Forwarder:
    """Shared arguments of all forwardings in one direction.

    ``answer_edits`` apply to the fields of every answer. Only ``max_upload_s`` and ``max_stream_s`` of ``limits`` are
    used: they bound an upload and an answer that outlast their token.
    """

    __slots__ = ("answer_edits", "limits", "pool", "watch")

    def __init__(self, pool: UpstreamPool, answer_edits: Edits, watch: Watch, limits: ServerLimits) -> None:
        self.pool = pool
        self.answer_edits = answer_edits
        self.watch = watch
        self.limits = limits


class Way(NamedTuple):
    """Arguments of every ``Forwarding``. ``served``: the inbound request of an outbound call, if it has one."""

    forwarder: Forwarder
    permit: AnyPermit
    stream: Stream
    head: Request
    entry: Entry
    origin: Origin
    target: bytes
    edits: Edits
    served: Served | None = None


class Forwarding(Pump):
    """Wait that forwards one request and its whole answer; its result is the status of the answer.

    The arguments are those of ``Way``: the request goes upstream with ``target`` and ``edits``. Subclasses take a
    ``Way`` and arguments of their own.

    The wait raises:
        SidecarError: UPSTREAM_*, TIMEOUT or TOO_LARGE (the body), PEER_GONE, or the reason of a re-evaluation or of a
            deadline. If ``stream.status`` is set, a begun answer was cut; else the journey must answer.
    """

    __slots__ = ("_entry", "_forwarder", "_permit", "_served", "_waiter", "_written", "answered_at", "warm")

    _waiter: Waiter | None  # set by ``begin``
    _written: bool  # True once the first record is written, with ``records: before_answer``; else unset

    def __init__(
        self,
        forwarder: Forwarder,
        permit: AnyPermit,
        stream: Stream,
        head: Request,
        entry: Entry,
        origin: Origin,
        target: bytes,
        edits: Edits,
        served: Served | None = None,
    ) -> None:
        if not isinstance(permit, _PERMITS):
            raise TypeError("nothing is forwarded without a permit")
        Pump.__init__(self, stream, head, forwarder.pool, origin, target, edits)
        self._forwarder = forwarder
        self._permit = permit
        self._entry = entry
        self._served = served
        self.answered_at: float | None = None

    def begin(self, waiter: Waiter) -> None:
        """Send the request; with ``records: before_answer``, after its first record is written.

        Raises:
            SidecarError: the journey has waited, and a re-evaluation refuses the request; or the log has no space.
        """
        self._waiter = waiter
        if self._permit.route.record_first and not getattr(self, "_written", False):
            waiter.waited = True
            self._entry.open_first(self._send_after_record)
            return
        if waiter.waited:
            self._forwarder.watch.admit(self)
        self._entry.forwarded()
        self._forwarder.watch.young.add(self)
        try:
            self.start()
        except BaseException:
            self._forwarder.watch.forget(self)
            raise

    def _send_after_record(self, trouble: str | None) -> None:
        """Send the request after its first record was written, or fail it if the sink has ``trouble``."""
        waiter = self._waiter
        if waiter is None or self._over:
            return
        try:
            if trouble is not None:
                raise Unavailable(Reason.AUDIT_UNAVAILABLE, trouble)  # noqa: TRY301
            self._written = True
            Forwarding.begin(self, waiter)  # not ``self.begin``: a subclass's ``begin`` has run already
        except SidecarError as error:
            self._finish(error)
        except Exception:  # noqa: BLE001  as in ``Async``: log the bug, fail this request alone
            _log.exception("a wait failed")
            self._finish(Unavailable(Reason.INTERNAL, "a wait failed"))

    def resumed_by(self, waiter: Waiter) -> None:
        """Set the waiter of a request that the native engine has sent; it is called at the end of the answer."""
        self._waiter = waiter

    def cancel(self) -> None:
        """Cut the transfer without calling the waiter."""
        self._waiter = None
        self.cut(Denied(Reason.PEER_GONE))

    def rewrite(self, head: Response) -> Edits:
        """Note the answer's head in the record; return the edits to its fields."""
        self._entry.responded(head.status)
        return self._forwarder.answer_edits

    def unfinished(self, head: Response) -> None:
        """Note an answer whose end has not arrived: write ``request.opened`` for a stream, and update its deadlines."""
        if _streams(head):
            self._entry.opened()
            self._entry.event_stream = is_event_stream(head)
        watch = self._forwarder.watch
        self.answered_at = watch.monotonic()
        watch.touch(self)

    def cut_answer(self, error: SidecarError) -> None:
        """End an answer that has begun: with gRPC by trailers that give the reason, else by an abort."""
        if refuses_by_grpc(self._stream) and error.reason is not Reason.PEER_GONE:
            from sidecar.proxy.journeys.grpc_refusal import grpc_trailers  # only HTTP/2 needs it

            self._stream.send_end(grpc_trailers(error, self._entry.request_id))
        else:
            self._stream.abort()

    def done(self, error: SidecarError | None) -> None:
        """Stop watching the request, and resume the journey with the status or ``error``."""
        watch = self._forwarder.watch
        try:
            watch.young.remove(self)
        except KeyError:  # a tick of the watch has moved it
            watch.forget(self)
        waiter = self._waiter
        if waiter is None:
            return
        if error is not None:
            waiter.fail(error)
        else:
            waiter.resume(self._stream.status)

    # --- for ``Watch``

    def live(self) -> None:
        """Apply the limits of the forwarding's kind, which follows from the request and the answer's head."""
        route, stream = self._permit.route, self._stream
        declared = route.stream
        kind = kind_of_request(grpc=stream.grpc, to_http2=bool(self._origin.http2), declared=declared)
        if self.response is not None:
            kind = kind_of_answer(kind, self.response)
        if kind is not stream.kind and stream.kind is not Kind.WEBSOCKET:
            self.live_as(kind, unbounded=declared or route.protocol == "grpc")

    @property
    def direction(self) -> Direction:
        """The direction: ``inbound`` or ``outbound``."""
        return self._entry.direction

    @property
    def endless(self) -> bool:
        """True if the forwarding has no natural end: a WebSocket, or a GET answered by an event stream.

        After the settings withdraw the caller's plaintext port, event streams of other methods count too, because they
        must not outlive that port. A route's ``stream`` does not change this.
        """
        answer = self.response
        if answer is None or self.answered_at is None:
            return False
        kind = kind_of_answer(self._stream.kind, answer)
        if is_event_stream(answer) and kind in (Kind.EVENTS, Kind.STREAM):
            return self._head.method == "GET" or self._plain_is_gone
        return RULES[kind].ends_with_token

    @property
    def uploading(self) -> bool:
        """True if the request body is incomplete."""
        return not self._stream.body_complete

    @property
    def began_at(self) -> float:
        """Arrival of the request's head, in monotonic seconds."""
        return self._entry.started_at

    @property
    def token_expires_at(self) -> float:
        """Expiry of the permit's token, in wall seconds; an own or observed permit has an end of its own.

        0 after the settings withdraw the caller's plaintext port, so that the limits of an expired token apply at once.
        """
        permit = self._permit
        if self._plain_is_gone:
            return 0.0
        return float(permit.ends_at if isinstance(permit, _WITH_AN_END) else permit.token.expires_at)

    @property
    def login_expires_at(self) -> float:
        """Time at which the user's login becomes too old for the route, in wall seconds; inf: never."""
        permit, served = self._permit, self._served
        if isinstance(permit, Permit):
            fresh_until = permit.fresh_until
        else:
            fresh_until = None if served is None else served.delegation.fresh_until
        return float("inf") if fresh_until is None else float(fresh_until)

    @property
    def peer_expires_at(self) -> float:
        """The earliest expiry on the certificate path of the caller (inbound) or next hop (outbound); inf: no path."""
        guard = self._caller_guard() if self._entry.direction == "inbound" else self._next_hop_guard()
        return float("inf") if guard is None else float(guard.until)

    @property
    def max_life_s(self) -> float:
        """inf: only a tunnel has this limit."""
        return float("inf")

    @property
    def max_upload_s(self) -> float:
        """Seconds from the request's head to the end of its body; a longer-lived authority extends them."""
        limits = self._forwarder.limits
        upload = RULES[self._stream.kind].upload
        return limits.max_upload_s if upload == "max_upload_s" else limits.max_stream_s

    @property
    def max_stream_s(self) -> float:
        """Seconds from the answer's head to its end; a longer-lived authority extends them."""
        return self._forwarder.limits.max_stream_s

    @property
    def max_wait_s(self) -> float:
        """Seconds until a call that stays open is answered; a longer-lived authority extends them. Others: inf."""
        return self._forwarder.limits.max_stream_s if RULES[self._stream.kind].stays_open else float("inf")

    @property
    def deadline_s(self) -> float:
        """The route's limit for the whole request and its answer, in seconds; inf: none."""
        deadline_s = self._permit.route.deadline_s
        return float("inf") if deadline_s is None else deadline_s

    def judge(self, now: int) -> None:
        """Re-evaluate the request against the current snapshot. Raises SidecarError if it would be refused."""
        snapshot, permit = self._forwarder.watch.snapshots.in_force(), self._permit
        operation = getattr(self._entry, "operation", None)
        if isinstance(permit, IssuedPermit):
            judge_call(permit, self._served, self._next_hop_guard(), snapshot, now, operation=operation)
        elif isinstance(permit, OwnPermit):
            from sidecar.proxy.journeys.revalidation_exceptions import judge_outside  # loaded with the feature

            judge_outside(permit, self._served, snapshot, now)
        elif isinstance(permit, ObservedPermit) and self._entry.direction == "outbound":
            from sidecar.proxy.journeys.revalidation_exceptions import judge_observed_call

            judge_observed_call(permit, self._next_hop_guard(), snapshot, now)
        else:
            entry = self._entry
            method, path = entry.method or "", entry.path or ""
            if isinstance(permit, ObservedPermit):
                self._judge_observed(permit, snapshot, method, path, now)
            else:
                guard = guard_of(self._stream.transport)
                judge_request(permit, guard, snapshot, method=method, path=path, operation=operation, now=now)

    def withdraw(self, error: SidecarError, *, begun: bool) -> None:
        """Note in the record that a re-evaluation refuses the request. ``begun``: its first byte has gone upstream."""
        self._entry.withdraw(error, begun=begun)

    def _judge_observed(self, permit: ObservedPermit, snapshot: Snapshot, method: str, path: str, now: int) -> None:
        from sidecar.proxy.journeys.revalidation_exceptions import judge_observed

        watch = self._forwarder.watch
        under_way = self._connecting is not None or self.upstream is not None
        finishes = under_way and not self.endless
        plain_until = permit.ends_at if finishes else watch.snapshots.setup.plain_until
        guard = self._caller_guard()
        judge_observed(
            permit,
            guard,
            snapshot,
            method=method,
            path=path,
            operation=getattr(self._entry, "operation", None),
            now=now,
            plain_until=plain_until,
        )
        if self._plain_is_gone:
            watch.touch(self)  # its deadline has moved

    @property
    def _plain_is_gone(self) -> bool:
        """True if the caller has no TLS, and the settings now close the plaintext port before the permit ends."""
        permit = self._permit
        if not isinstance(permit, ObservedPermit) or permit.reason is not Reason.NO_CLIENT_CERT:
            return False
        return self._forwarder.watch.snapshots.setup.plain_until < permit.ends_at

    def cut_off(self, error: SidecarError) -> None:
        """Stop the answer for ``error`` and close the caller's connection, even if stopping fails."""
        try:
            self._stream.stop(error)
        finally:
            self._stream.cut_off()

    def _caller_guard(self) -> PeerGuard | None:
        """Return the proof of the caller's identity; None: its connection has no TLS."""
        return _guard_on(self._stream.transport)

    def _next_hop_guard(self) -> PeerGuard | None:
        """Return the proof of the next hop's identity; None: not connected, no TLS, or a host outside the mesh."""
        upstream = self.upstream
        if upstream is None or _leads_outside(self._permit):
            return None
        return _guard_on(upstream.transport)


def _leads_outside(permit: AnyPermit) -> bool:
    return isinstance(permit, OwnPermit) or (isinstance(permit, ObservedPermit) and permit.route.protocol == "outside")


def _guard_on(transport: asyncio.BaseTransport) -> PeerGuard | None:
    return None if transport.get_extra_info("ssl_object") is None else guard_of(transport)


def _streams(head: Response) -> bool:
    """Return True for an answer that states no length, or is an event stream."""
    return head.content_length is None or is_event_stream(head)
