"""Answers that last: until when each may go on, and how it is ended when it may no longer.

An answer to one authorised request may finish after its token has expired, within ``max_stream_s`` of its start and
while its peer is trusted. What never finishes by itself (a WebSocket, a GET answered by an event stream) lives on the
authority of every moment: it ends with its token or its peer's certificate, whichever is first, and is judged again
when policy, keys or trust change. Both are ended in a way that the other ends understand, and the record says why.

When the sidecar stops, ordinary answers may finish; what would not is told as soon as they have, and after half of the
drain time at the latest, so that its callers can go elsewhere while there is time.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Final, Protocol

from sidecar.errors import Denied, Reason, SidecarError, Unavailable
from sidecar.observe.record import Direction
from sidecar.proxy.snapshot import Snapshot, Snapshots

_log: Final = logging.getLogger("sidecar.streams")

_NEVER: Final = float("inf")
_InForce = tuple[Snapshot, int]  # and the number of the issuers' keys


class Stream(Protocol):
    """One answer under way. Times are wall seconds; ``stops_at`` is monotonic.

    ``endless``: it does not finish by itself. ``transport``: that of the peer who must be trusted, in front or behind.
    """

    direction: Direction
    endless: bool
    transport: asyncio.BaseTransport
    token_expires_at: float
    peer_expires_at: float
    stops_at: float

    def judge(self, snapshot: Snapshot, now: int) -> None:
        """Return if the request would be permitted now as well. Raises ``SidecarError``."""
        ...

    def end(self, error: SidecarError) -> None:
        """End it, so that the other ends understand; it then leaves by ``discard``, at once or in a moment."""
        ...

    def cut_off(self, error: SidecarError) -> None:
        """Close it, whatever the other ends make of that; the record says ``error``."""
        ...


class Streams:
    """All answers that last. ``wall`` tells expiry, ``monotonic`` measures; in seconds.

    A bug in one of them costs that one: it is cut, and its record says ``internal``. The others, and the process that
    asks them all in turn, go on.
    """

    def __init__(self, snapshots: Snapshots, *, wall: Callable[[], float], monotonic: Callable[[], float]) -> None:
        self.wall = wall
        self.monotonic = monotonic
        self._snapshots = snapshots
        self._members: dict[Stream, _InForce | None] = {}  # and what each was last judged by
        self._gives_way_at = _NEVER

    def __len__(self) -> int:
        return len(self._members)

    def count(self) -> Mapping[str, int]:
        """How many there are in each direction."""
        found = Counter(stream.direction for stream in self._members)
        return {"inbound": found["inbound"], "outbound": found["outbound"]}

    @property
    def endless(self) -> int:
        """How many there are that do not finish by themselves."""
        return sum(stream.endless for stream in self._members)

    def add(self, stream: Stream) -> None:
        """Watch an answer that did not end with its beginning."""
        self._members[stream] = None

    def discard(self, stream: Stream) -> None:
        """It has ended."""
        self._members.pop(stream, None)

    def drain(self, within_s: float) -> None:
        """The sidecar stops: what does not finish by itself ends as soon as all else has, or ``within_s`` from now."""
        self._gives_way_at = self.monotonic() + within_s

    def distrust(self, transport: asyncio.BaseTransport, error: SidecarError) -> None:
        """The peer on this connection is no longer to be believed."""
        for stream in self._endless():
            if stream.transport is transport:
                self._end(stream, error)

    def sweep(self, *, in_flight: int) -> None:
        """End what may not go on. ``in_flight``: all requests under way, those of the streams among them."""
        if not self._members:
            return
        passed = self.monotonic()
        if self._gives_way_at < _NEVER and (passed >= self._gives_way_at or in_flight <= self.endless):
            for stream in self._endless():
                self._end(stream, Unavailable(Reason.DRAINING, "the sidecar stops"))
        now = self.wall()
        for stream in tuple(self._members):
            over = _why_over(stream, now, passed)
            if over is not None:
                self._end(stream, over)
        self._judge_again(int(now))

    def _endless(self) -> list[Stream]:
        return [stream for stream in self._members if stream.endless]

    def _judge_again(self, now: int) -> None:
        """After a change of policy or keys, and once soon after the beginning: there may have been one since then.

        Without an identity nobody is judged: it may come back.
        """
        snapshot = self._snapshots.current
        if snapshot is None:
            return
        in_force = (snapshot, snapshot.keys.generation)
        for stream in self._endless():
            if self._members.get(stream, in_force) == in_force:  # or it has just ended with another
                continue
            self._members[stream] = in_force
            try:
                stream.judge(snapshot, now)
            except SidecarError as error:
                self._end(stream, error)
            except Exception:  # noqa: BLE001  who cannot be judged may not go on
                self._cut(stream)

    def _end(self, stream: Stream, error: SidecarError) -> None:
        try:
            stream.end(error)
        except Exception:  # noqa: BLE001  it must end all the same
            self._cut(stream)

    def _cut(self, stream: Stream) -> None:
        """After a bug, which is told here."""
        _log.exception("a stream failed")
        self.discard(stream)
        try:
            stream.cut_off(SidecarError(Reason.INTERNAL, "a stream failed"))
        except Exception:  # noqa: BLE001  as above
            _log.exception("a stream failed twice")


def _why_over(stream: Stream, now: float, passed: float) -> SidecarError | None:
    if not stream.endless:
        late = now >= stream.token_expires_at and passed >= stream.stops_at
        return Denied(Reason.TIMEOUT, "the answer took longer than max_stream_s") if late else None
    if now >= stream.token_expires_at:
        return Denied(Reason.TOKEN_EXPIRED, "a stream ends with its token")
    if now >= stream.peer_expires_at:
        return Denied(Reason.SVID_EXPIRED, "a stream ends with its peer's certificate")
    return None
