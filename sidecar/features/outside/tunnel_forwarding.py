"""Forwarding of a CONNECT: waits for the end of its tunnel. Without a permit there is no tunnel."""

from __future__ import annotations

from typing import Final

from delegation_core.errors import Denied, Reason, SidecarError
from delegation_core.permit import TunnelPermit
from delegation_core.records.record import Direction
from sidecar.observe.access_log import Entry
from sidecar.proxy.journeys.forward import Forwarder
from sidecar.proxy.journeys.journey import Waiter
from sidecar.proxy.journeys.revalidation import Served
from sidecar.proxy.journeys.revalidation_exceptions import judge_outside
from sidecar.wire.raw_tunnel import RawEnd, RawTunnel
from sidecar.wire.stream import Stream

_NEVER: Final = float("inf")


class TunnelForwarding:
    """Joins a CONNECT to its ``far`` end; the wait ends when both directions have ended.

    ``served`` is the request that the tunnel belongs to, or None. The tunnel is cut when the request's token expires,
    after ``max_stream_s``, and when a re-evaluation refuses it.

    The wait raises:
        SidecarError: UPSTREAM_*, TIMEOUT, PEER_GONE, PEER_SLOW, or the reason of a re-evaluation or a deadline. If
            ``stream.status`` is set, an open tunnel was cut; else the journey must answer.
    """

    __slots__ = ("_entry", "_far", "_forwarder", "_permit", "_served", "_stream", "_tunnel", "_waiter", "answered_at")

    def __init__(
        self,
        forwarder: Forwarder,
        permit: TunnelPermit,
        stream: Stream,
        entry: Entry,
        far: RawEnd,
        served: Served | None,
    ) -> None:
        if not isinstance(permit, TunnelPermit):
            raise TypeError("no tunnel is opened without a permit")
        self._forwarder = forwarder
        self._permit = permit
        self._stream = stream
        self._entry = entry
        self._far = far
        self._served = served
        self._tunnel = RawTunnel(stream, far, finished=self._finish)
        self._waiter: Waiter | None = None
        self.answered_at: float | None = None

    def begin(self, waiter: Waiter) -> None:
        """Open the tunnel.

        Raises:
            SidecarError: the tunnel would be refused now, after the wait for its connection; or the connection has
                closed already.
        """
        watch = self._forwarder.watch
        self._waiter = waiter
        try:
            watch.admit(self)
            self._far.require()
            self.answered_at = watch.monotonic()
            watch.young.add(self)
            self._entry.opened()
            self._tunnel.open()
        except BaseException:
            self._waiter = None
            watch.forget(self)
            self._far.cut_off()
            raise

    def cancel(self) -> None:
        """Cut the tunnel without calling the waiter."""
        self._waiter = None
        self._tunnel.end(Denied(Reason.PEER_GONE))

    def _finish(self, error: SidecarError | None) -> None:
        self._forwarder.watch.forget(self)
        waiter, self._waiter = self._waiter, None
        if waiter is None:
            return
        if error is not None:
            waiter.fail(error)
        else:
            waiter.resume(self._stream.status)

    # --- for ``Watch``

    def live(self) -> None:
        """Do nothing: the limits of a tunnel do not change."""

    @property
    def direction(self) -> Direction:
        """The direction: always ``outbound``."""
        return self._entry.direction

    @property
    def endless(self) -> bool:
        """True: a tunnel has no natural end."""
        return True

    @property
    def uploading(self) -> bool:
        """False: a CONNECT has no body."""
        return False

    @property
    def began_at(self) -> float:
        """Arrival of the request's head, in monotonic seconds."""
        return self._entry.started_at

    @property
    def token_expires_at(self) -> float:
        """End of the permit, in wall seconds; inf for a tunnel of no request."""
        return self._permit.ends_at

    @property
    def login_expires_at(self) -> float:
        """Time at which the user's login becomes too old for the request's route, in wall seconds; inf: never."""
        served = self._served
        fresh_until = None if served is None else served.delegation.fresh_until
        return _NEVER if fresh_until is None else float(fresh_until)

    @property
    def peer_expires_at(self) -> float:
        """inf: the sidecar sees no certificate in a tunnel."""
        return _NEVER

    @property
    def max_life_s(self) -> float:
        """Seconds after which the tunnel is cut, even if its token lives longer."""
        return self._forwarder.limits.max_stream_s

    @property
    def max_upload_s(self) -> float:
        """inf: see ``max_life_s``."""
        return _NEVER

    @property
    def max_stream_s(self) -> float:
        """inf: see ``max_life_s``."""
        return _NEVER

    @property
    def max_wait_s(self) -> float:
        """inf: a tunnel is answered when it opens."""
        return _NEVER

    @property
    def deadline_s(self) -> float:
        """inf: routes of tunnels have no deadline."""
        return _NEVER

    def judge(self, now: int) -> None:
        """Return if the current snapshot would permit the tunnel. Raises ``SidecarError``."""
        judge_outside(self._permit, self._served, self._forwarder.watch.snapshots.in_force(), now)

    def withdraw(self, error: SidecarError, *, begun: bool) -> None:
        """Note in the record that a re-evaluation refuses the tunnel."""
        self._entry.withdraw(error, begun=begun)

    def end(self, error: SidecarError) -> None:
        """Cut both directions."""
        self._tunnel.end(error)

    def cut_off(self, error: SidecarError) -> None:
        """Stop the tunnel and close the caller's connection, even if stopping fails."""
        try:
            self._stream.stop(error)
        finally:
            self._stream.cut_off()
