"""Watches every forwarding from its first byte to its last: none outlives its authority.

Theory of operation. A forwarding is a request between its first and its last forwarded byte. It starts in ``young``, so
a forwarding that ends before the next tick costs one insertion in a set. Each tick moves the others into a timer wheel
by their next deadline (``deadlines``). After a change of policy, keys, trust or our own identity, each forwarding is
re-evaluated by the code that judged it first; if it would be refused now, it ends with that reason in its record. A
request that waited for keys or a token is re-evaluated before its first byte. Handles are re-evaluated at their next
use.

Our own identity: after a withdrawal everything ends within ``DENIED_S``, not at once, because SPIRE denies an identity
for a tenth of a second while another authority signs it. After its expiry everything ends within ``IDENTITY_GRACE_S``.

The work is done in slices of ``TURN_S``, one per event-loop iteration. A bug in one forwarding cuts that forwarding
alone, and its record says ``internal``.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from typing import Final, Protocol

from delegation_core.errors import Reason, SidecarError, Unavailable
from delegation_core.records.record import Direction
from sidecar.identity.source import IdentitySource, State
from sidecar.proxy.journeys.deadlines import TICK_S, Timed, Wheel, end_of
from sidecar.proxy.journeys.snapshot import Snapshots

_log: Final = logging.getLogger("sidecar.watch")

DENIED_S: Final = 0.5
IDENTITY_GRACE_S: Final = 10.0
TURN_S: Final = 0.005
_CLOCK_SET_S: Final = 1.0  # smallest step of the wall clock that counts as setting it
_NEVER: Final = float("inf")


class Watched(Timed, Protocol):
    """One forwarding."""

    @property
    def direction(self) -> Direction: ...  # noqa: D102

    def live(self) -> None:
        """Apply the limits of the forwarding's kind, once its kind is known."""
        ...

    def judge(self, now: int) -> None:
        """Return if the current snapshot would permit the forwarding. Raises ``SidecarError``."""
        ...

    def withdraw(self, error: SidecarError, *, begun: bool) -> None:
        """Note in the record that a re-evaluation refuses the request. ``begun``: its first byte has gone upstream."""
        ...

    def end(self, error: SidecarError) -> None:
        """End the forwarding as its protocol requires. It calls ``forget`` when it has ended, perhaps later."""
        ...

    def cut_off(self, error: SidecarError) -> None:
        """Close both connections at once and record ``error``."""
        ...


class Watch:
    """All forwardings of one process. ``wall`` is the clock of expiry, ``monotonic`` measures durations; in seconds.

    ``on_change`` is called after each change of policy, keys, trust or our own identity.
    """

    def __init__(
        self,
        snapshots: Snapshots,
        source: IdentitySource,
        *,
        wall: Callable[[], float],
        monotonic: Callable[[], float],
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        self.young: set[Watched] = set()
        self.wall = wall
        self.monotonic = monotonic
        self.snapshots = snapshots
        self._source = source
        self._on_change = on_change
        self._old: set[Watched] = set()
        self._wheel: Wheel[Watched] = Wheel(monotonic())
        self._suspects: deque[Watched] = deque()
        self._seen: tuple[object, int, object, bool] = (None, 0, None, False)
        self._clock_offset = wall() - monotonic()
        self._ends_without_identity_at = _NEVER
        self._gives_way_at = _NEVER
        self._woken = asyncio.Event()

    def __len__(self) -> int:
        return len(self.young) + len(self._old)

    def count(self) -> Mapping[str, int]:
        """Return the number of unfinished answers and of tunnels in each direction."""
        found = Counter(one.direction for one in self._all() if one.answered_at is not None)
        return {"inbound": found["inbound"], "outbound": found["outbound"]}

    @property
    def endless(self) -> int:
        """The number of forwardings without a natural end, such as event streams."""
        return sum(one.endless for one in self._all())

    # --- for forwardings: one begins by adding itself to ``young``

    def admit(self, one: Watched) -> None:
        """Re-evaluate a forwarding before its first byte, because its journey has waited since the decision.

        Raises:
            SidecarError: the forwarding would be refused now.
        """
        try:
            self.snapshots.now()
            one.judge(int(self.wall()))
        except SidecarError as error:
            one.withdraw(error, begun=False)
            raise

    def touch(self, one: Watched) -> None:
        """Have the next tick compute the forwarding's deadline again."""
        self._old.discard(one)
        self._wheel.drop(one)
        self.young.add(one)

    def forget(self, one: Watched) -> None:
        """Remove a forwarding that has ended."""
        self.young.discard(one)
        self._old.discard(one)
        self._wheel.drop(one)

    # --- for the server

    def drain(self, within_s: float) -> None:
        """End endless forwardings once all others have ended, at the latest after ``within_s`` seconds."""
        self._gives_way_at = self.monotonic() + within_s

    def notice(self) -> None:
        """Detect a change of policy, keys, trust or our own identity, and have every forwarding re-evaluated."""
        snapshot, identity = self.snapshots.current, self._source.current
        keys = 0 if snapshot is None else snapshot.keys.generation
        denied = self._source.state is State.DENIED
        if snapshot is self._seen[0] and identity is self._seen[2] and (keys, denied) == (self._seen[1], self._seen[3]):
            return
        self._seen = (snapshot, keys, identity, denied)
        if snapshot is not None:
            self._ends_without_identity_at = _NEVER
        else:
            grace_s = DENIED_S if denied else IDENTITY_GRACE_S
            self._ends_without_identity_at = min(self._ends_without_identity_at, self.monotonic() + grace_s)
        self._suspects = deque(self._all())
        self._on_change()
        self._woken.set()

    async def run(self, in_flight: Callable[[], int]) -> None:
        """Watch until cancelled. ``in_flight`` counts all requests in flight."""
        while True:
            try:
                async with asyncio.timeout(TICK_S):
                    await self._woken.wait()
            except TimeoutError:
                pass
            self._woken.clear()
            turn_ends_at = self.monotonic() + TURN_S
            for _ in self.steps(in_flight()):
                if self.monotonic() >= turn_ends_at:
                    await asyncio.sleep(0)
                    turn_ends_at = self.monotonic() + TURN_S

    def steps(self, in_flight: int) -> Iterator[None]:
        """Do the work that is due; yield after each forwarding."""
        self.notice()
        self._follow_clock()
        yield from self._give_way(in_flight)
        yield from self._judge_suspects()
        for one in tuple(self.young):
            if one in self.young:
                self.young.discard(one)
                self._old.add(one)
                self._place(one)
                yield
        for one in self._wheel.turn(self.monotonic()):
            self._place(one)
            yield

    def _all(self) -> list[Watched]:
        return [*self.young, *self._old]

    def _place(self, one: Watched) -> None:
        """Put a forwarding into the wheel at its next deadline, or end it if that has passed."""
        passed = self.monotonic()
        try:
            one.live()
            end = end_of(one, wall=self.wall(), passed=passed)
        except Exception:  # noqa: BLE001  a forwarding that cannot be watched must not go on
            self._cut(one)
            return
        if end is None or one in self.young:  # ``live`` saw its answer begin: the next tick places it
            return
        if end.left_s <= 0:
            self._end(one, end.error(begun=one.answered_at is not None))
        elif end.left_s < _NEVER:
            self._wheel.put(one, passed + end.left_s)

    def _follow_clock(self) -> None:
        """Place all forwardings again if the wall clock was set, which moves the expiry of tokens."""
        offset = self.wall() - self.monotonic()
        if abs(offset - self._clock_offset) >= _CLOCK_SET_S:
            self._clock_offset = offset
            for one in tuple(self._old):
                self.touch(one)

    def _give_way(self, in_flight: int) -> Iterator[None]:
        if self._gives_way_at == _NEVER:
            return
        endless = [one for one in self._all() if one.endless]
        if self.monotonic() >= self._gives_way_at or in_flight <= len(endless):
            for one in endless:
                self._end(one, Unavailable(Reason.DRAINING, "the sidecar stops"))
                yield

    def _judge_suspects(self) -> Iterator[None]:
        if self.monotonic() >= self._ends_without_identity_at:
            self._suspects = deque(self._all())
        while self._suspects:
            one = self._suspects.popleft()
            if one in self.young or one in self._old:
                self._judge(one)
                yield

    def _judge(self, one: Watched) -> None:
        if self.snapshots.current is None:
            if self.monotonic() >= self._ends_without_identity_at:
                withdrawn = self._source.state is State.DENIED
                detail = "our own identity was withdrawn" if withdrawn else "our own identity has run out"
                self._withdraw(one, Unavailable(Reason.NOT_READY, detail))
            return
        try:
            one.judge(int(self.wall()))
        except SidecarError as error:
            if error.reason is not Reason.NOT_READY:  # our identity is gone: handled for all forwardings together
                self._withdraw(one, error)
        except Exception:  # noqa: BLE001  a forwarding that cannot be judged must not go on
            self._cut(one)

    def _withdraw(self, one: Watched, error: SidecarError) -> None:
        """End a forwarding that a re-evaluation refuses, and note the reason in its record."""
        one.withdraw(error, begun=True)
        self._end(one, error)

    def _end(self, one: Watched, error: SidecarError) -> None:
        try:
            one.end(error)
        except Exception:  # noqa: BLE001  the forwarding must end in any case
            self._cut(one)

    def _cut(self, one: Watched) -> None:
        """Cut a forwarding after a bug, and log the bug."""
        _log.exception("a forwarding failed")
        self.forget(one)
        try:
            one.cut_off(SidecarError(Reason.INTERNAL, "a forwarding failed"))
        except Exception:  # noqa: BLE001  as above
            _log.exception("a forwarding failed twice")
