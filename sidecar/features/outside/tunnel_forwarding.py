"""The wait for the end of one tunnel, watched like any forwarding. Takes a permit: no permit, no tunnel."""

from __future__ import annotations

from typing import Final

from sidecar.delegation.permit import TunnelPermit
from sidecar.errors import Denied, Reason, SidecarError
from sidecar.observe.access_log import Entry
from sidecar.observe.record import Direction
from sidecar.proxy.journeys.forward import Forwarder
from sidecar.proxy.journeys.journey import Waiter
from sidecar.proxy.journeys.revalidation import Served, judge_outside
from sidecar.wire.raw_tunnel import RawEnd, RawTunnel
from sidecar.wire.stream import Stream

_NEVER: Final = float("inf")


class TunnelForwarding:
    """Joins a CONNECT to its ``far`` end, and ends when both have ended.

    ``served`` is the request that the tunnel belongs to, if one is known. The tunnel ends with the request's token,
    after ``max_stream_s``, and when it would be refused now.

    The wait raises:
        SidecarError: UPSTREAM_*, TIMEOUT, PEER_GONE, PEER_SLOW, or why the tunnel may not go on. If ``stream.status``
            is set by then, the tunnel was open and is cut, else the caller must answer.
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
        self._tunnel = RawTunnel(stream, far, finished=self._finished)
        self._waiter: Waiter | None = None
        self.answered_at: float | None = None

    def begin(self, waiter: Waiter) -> None:
        """Open the tunnel.

        Raises:
            SidecarError: the decision from before the wait for a connection would be a refusal now, or the connection
                is gone already.
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
        """Give it up."""
        self._waiter = None
        self._tunnel.end(Denied(Reason.PEER_GONE))

    def _finished(self, error: SidecarError | None) -> None:
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
        """Change nothing: the limits of a tunnel apply from its grant on."""

    @property
    def direction(self) -> Direction:
        """The side it is on."""
        return self._entry.direction

    @property
    def endless(self) -> bool:
        """A tunnel does not finish by itself."""
        return True

    @property
    def uploading(self) -> bool:
        """A CONNECT has no content."""
        return False

    @property
    def began_at(self) -> float:
        """Arrival of the request's head, in monotonic seconds."""
        return self._entry.started_at

    @property
    def token_expires_at(self) -> float:
        """In wall seconds; never without a request that is known."""
        return self._permit.ends_at

    @property
    def login_expires_at(self) -> float:
        """The time at which the user's login is too old for the route of the request; in wall seconds."""
        served = self._served
        fresh_until = None if served is None else served.delegation.fresh_until
        return _NEVER if fresh_until is None else float(fresh_until)

    @property
    def peer_expires_at(self) -> float:
        """Never: the sidecar sees no certificate in a tunnel."""
        return _NEVER

    @property
    def max_life_s(self) -> float:
        """The longest that it lasts, however long its token lives."""
        return self._forwarder.limits.max_stream_s

    @property
    def max_upload_s(self) -> float:
        """No limit: see ``max_life_s``."""
        return _NEVER

    @property
    def max_stream_s(self) -> float:
        """No limit: see ``max_life_s``."""
        return _NEVER

    @property
    def max_wait_s(self) -> float:
        """No limit: the answer of a tunnel is its grant."""
        return _NEVER

    @property
    def deadline_s(self) -> float:
        """No limit: the route of a tunnel has no deadline."""
        return _NEVER

    def judge(self, now: int) -> None:
        """Return if the tunnel is permitted by the policy in force. Raises ``SidecarError``."""
        judge_outside(self._permit, self._served, self._forwarder.watch.snapshots.in_force(), now)

    def withdraw(self, error: SidecarError, *, begun: bool) -> None:
        """Note in its record that the tunnel would be refused now."""
        self._entry.withdraw(error, begun=begun)

    def end(self, error: SidecarError) -> None:
        """Cut both ends."""
        self._tunnel.end(error)

    def cut_off(self, error: SidecarError) -> None:
        """End it with the caller's connection, whatever else fails."""
        try:
            self._stream.stop(error)
        finally:
            self._stream.cut_off()
