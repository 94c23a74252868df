"""Per-request handles: what an agent holds instead of a token.

A handle is 258 random bits that stand for one request being served. It works only at the sidecar that made it, opens
only the outbound routes that request may call, at most ``max_calls`` times, and dies with the request (or ``linger_s``
later, never past the token's expiry), and before that with the authority of the request: after a change of policy, keys
or trust, the next call judges it again. One that an entry's front app got for a user's login has no request to die
with: it lives until the login token expires. Stealing one from a log is stealing nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Coroutine
from heapq import heappop, heappush
from typing import Any, Final

from sidecar.delegation.decide import Delegation
from sidecar.errors import Denied, Reason, Unavailable
from sidecar.proxy.standing import Guard
from sidecar.proxy.unguessable import random_258

MAX_KEPT: Final = 65_536
MAX_LINGERING: Final = 65_536  # each holds its token: without a limit a long linger_s would hold all of a day's

# Where there are several workers, a handle begins with the mark of the one that made it.
MARKS: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
MARKED_CHARS: Final = 44

Counting = Callable[[], Coroutine[Any, Any, object]]


class ServedRequest:
    """One request being served: the authority its handle stands for, and what is left of its calls (None: no limit).

    ``linger_s`` is how long the handle outlives the request, ``call_in`` the call id it came with, ``guard`` what
    proved its peer (None: a user's login), ``epoch`` the one of ``Handles`` in which it was judged last.
    """

    __slots__ = ("call_in", "calls_left", "delegation", "ended_at", "epoch", "guard", "linger_s")

    epoch: int

    def __init__(
        self,
        delegation: Delegation,
        max_calls: int | None,
        linger_s: float,
        call_in: str | None,
        guard: Guard | None = None,
    ) -> None:
        self.delegation = delegation
        self.guard = guard
        self.call_in = call_in
        self.calls_left = max_calls
        self.linger_s = linger_s
        self.ended_at: float | None = None

    def count_call(self) -> Counting | None:
        """Take one call from the budget. None: it is done (where another worker counts, that has to be awaited).

        Raises:
            Denied: CALLS_EXHAUSTED, the request has made all its calls.
        """
        if self.calls_left is not None:
            if self.calls_left <= 0:
                raise Denied(Reason.CALLS_EXHAUSTED)
            self.calls_left -= 1
        return None


class Handles:
    """All handles alive at this sidecar. ``clock`` is wall time in seconds, ``monotonic`` measures the linger.

    ``judge`` raises ``SidecarError`` where a request would be refused now; it is asked once in each ``epoch``.

    Of more than ``max_lingering`` handles whose requests have ended, the longest ended die first. Handles of logins
    are never more than ``max_kept``: the next one is refused, as no user's may die for another's.
    """

    def __init__(
        self,
        *,
        clock: Callable[[], float],
        monotonic: Callable[[], float],
        max_lingering: int = MAX_LINGERING,
        max_kept: int = MAX_KEPT,
        mark: str = "",
        judge: Callable[[ServedRequest], None] = lambda _served: None,
    ) -> None:
        self.epoch = 0
        self._judge = judge
        self._clock = clock
        self._monotonic = monotonic
        self._max_lingering = max_lingering
        self._max_kept = max_kept
        self._mark = mark
        self._alive: dict[str, ServedRequest] = {}
        self._lingering: deque[str] = deque()
        self._kept: list[tuple[int, str]] = []  # a heap: the next to expire comes first
        self._guards: dict[str, Guard] = {}  # of lingering handles: one for each certificate, not for each connection

    def __len__(self) -> int:
        return len(self._alive)

    def open(self, served: ServedRequest) -> str:
        """Make the handle of a request that starts now."""
        handle = self._mark + random_258()
        served.epoch = self.epoch
        self._alive[handle] = served
        return handle

    def suspect(self) -> None:
        """Judge each handle again when it is used next: policy, keys, trust or our identity have changed."""
        self.epoch += 1

    def keep(self, served: ServedRequest) -> str:
        """Make a handle that no request ends: it lives until its token expires.

        Raises:
            Unavailable: OVERLOADED, there are too many already.
        """
        self._forget_expired()
        if len(self._kept) >= self._max_kept:
            raise Unavailable(Reason.OVERLOADED, "too many logins have handles")
        handle = self.open(served)
        heappush(self._kept, (served.delegation.token.expires_at, handle))
        return handle

    def resolve(self, handle: str) -> ServedRequest:
        """Find the request that a handle stands for.

        Raises:
            Denied: NO_REQUEST_CONTEXT, the handle is unknown here, its request has ended, its token has expired, or its
                peer is no longer trusted. As the inbound journey, if the request would be refused now.
            Unavailable: likewise.
        """
        served = self._alive.get(handle)
        if served is None:
            raise Denied(Reason.NO_REQUEST_CONTEXT, "unknown handle")
        if self._is_over(served):
            del self._alive[handle]
            raise Denied(Reason.NO_REQUEST_CONTEXT, "the handle's request has ended")
        if served.epoch != self.epoch:
            self._judge_again(handle, served)
        return served

    def _judge_again(self, handle: str, served: ServedRequest) -> None:
        try:
            self._judge(served)
        except Denied as error:
            del self._alive[handle]
            if error.answer.status:
                raise
            raise Denied(Reason.NO_REQUEST_CONTEXT, f"the handle's peer is not trusted any more: {error}") from error
        served.epoch = self.epoch

    def end(self, handle: str) -> None:
        """The request is answered, aborted or has lost its peer. Calls in flight finish; new ones need linger."""
        served = self._alive.pop(handle, None)
        if served is None or served.linger_s <= 0:
            return
        served.ended_at = self._monotonic()
        if served.guard is not None:
            served.guard = self._guards.setdefault(served.guard.peer.fingerprint, served.guard)
        self._alive[handle] = served
        self._lingering.append(handle)
        if len(self._lingering) > self._max_lingering:
            self._alive.pop(self._lingering.popleft(), None)

    def sweep(self) -> None:
        """Forget the handles whose time is over. Runs about once a second; ``resolve`` is exact without it."""
        still: deque[str] = deque()
        for handle in self._lingering:
            served = self._alive.get(handle)
            if served is None:
                continue
            if self._is_over(served):
                del self._alive[handle]
            else:
                still.append(handle)
        self._lingering = still
        self._guards = {
            guard.peer.fingerprint: guard for handle in still if (guard := self._alive[handle].guard) is not None
        }
        self._forget_expired()

    def _forget_expired(self) -> None:
        now = self._clock()
        while self._kept and self._kept[0][0] <= now:
            self._alive.pop(heappop(self._kept)[1], None)

    def _is_over(self, served: ServedRequest) -> bool:
        if self._clock() >= served.delegation.token.expires_at:
            return True
        return served.ended_at is not None and self._monotonic() >= served.ended_at + served.linger_s
