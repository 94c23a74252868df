"""Per-request handles, which an agent holds instead of tokens.

A handle is 258 random bits that stand for one request in progress. It works only at the sidecar that made it, permits
only the outbound routes that this request may call, at most ``max_calls`` times, and ends with the request. On a route
with ``linger_s`` it *lingers*: it outlives its request by that many seconds, and each later request of its chain
restarts the count. It never outlives its token. After a change of policy, keys or trust, the next call with a handle
re-evaluates its request. The handle of a user's login, at an entry, belongs to no request: it lives until the login
token expires.

Memory: the handle of a request in progress is never evicted; it adds ``OPEN_BYTES`` to its request, which holds the
token anyway. Lingering handles and handles of logins hold their tokens themselves; both kinds together stay within
``max_bytes``. Lingering handles are evicted first from the peer whose handles use most bytes, the longest ended first.
Handles of logins are never evicted: a login beyond the limit is refused.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from weakref import WeakValueDictionary

from delegation_core.bounded import ENTRY_BYTES, BoundedCache
from delegation_core.errors import Denied, Reason, Unavailable
from delegation_core.plan import Delegation
from delegation_core.records.record import RecordFields
from sidecar.observe.attribution import facts_of_token
from sidecar.proxy.journeys.random_text import random_258
from sidecar.proxy.journeys.revalidation import Guard

if TYPE_CHECKING:
    from delegation_core.txn_token import TxnToken
    from sidecar.proxy.journeys.linger_cache import Chain, LingerCache, Renewal
    from sidecar.proxy.journeys.workload_handle import WorkloadHandle

MAX_BYTES: Final = 64 * 1024 * 1024
MAX_PER_SUBJECT: Final = 64  # logins
OPEN_BYTES: Final = 384  # the handle, its place, its ServedRequest
HELD_BYTES: Final = 3072  # ``OPEN_BYTES``, and the delegation with its facts and its chain; the token is extra
_LOGINS_PART: Final = 2  # handles of logins take at most 1 / 2 of ``max_bytes``

# With several workers, a handle begins with the mark of the worker that made it.
MARKS: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
HANDLE_CHARS: Final = 43
MARKED_CHARS: Final = 44  # with several workers: the mark, then the handle

_REFUSED: Final = -1  # never an epoch of ``Handles``

Counting = Callable[[], Coroutine[Any, Any, object]]


class ServedRequest:
    """One request in progress: the authority behind its handle, and the number of calls left (None: no limit).

    The handle outlives the request by ``linger_s``. ``call_in`` is the request's call id, ``guard`` the proof of its
    peer (None: a user's login). ``facts`` are its token's claims for records; do not change them. ``epoch`` is the
    ``Handles.epoch`` of its last evaluation. ``ended_at`` and ``renewal`` are set once its handle lingers.
    """

    __slots__ = (
        "call_in",
        "calls_left",
        "delegation",
        "ended_at",
        "epoch",
        "facts",
        "guard",
        "linger_s",
        "renewal",
        "warm",
    )

    epoch: int
    renewal: Renewal

    def __init__(
        self,
        delegation: Delegation,
        max_calls: int | None,
        linger_s: float,
        call_in: str | None,
        guard: Guard | None = None,
        facts: RecordFields | None = None,
    ) -> None:
        self.delegation = delegation
        self.facts = facts or facts_of_token(delegation.token)
        self.guard = guard
        self.call_in = call_in
        self.calls_left = max_calls
        self.linger_s = linger_s
        self.ended_at: float | None = None

    def count_call(self) -> Counting | None:
        """Take one call from the budget. Returns None; a ``RemoteRequest`` returns a coroutine function to await.

        Raises:
            Denied: CALLS_EXHAUSTED, the request has made all its calls.
        """
        if self.calls_left is not None:
            if self.calls_left <= 0:
                raise Denied(Reason.CALLS_EXHAUSTED)
            self.calls_left -= 1
        return None


class _Login(NamedTuple):
    """The handle of a login, and the login's subject (iss, sub)."""

    handle: str
    subject: tuple[str, str]


class Handles:
    """All handles alive at this sidecar. ``clock`` is wall time in seconds, ``monotonic`` measures the linger.

    ``judge`` raises ``SidecarError`` if a request would be refused now; ``resolve`` calls it at a handle's first use
    after each ``suspect``. ``max_bytes`` limits lingering and login handles, ``max_per_subject`` the login handles of
    one subject. ``own`` is the workload handle, for the agent's own calls; None: not configured. ``alive`` maps handles
    to requests: call ``resolve`` instead of reading it. The native engine reads it and compares epochs itself.
    """

    __slots__ = (
        "_clock",
        "_judge",
        "_lingering",
        "_logins",
        "_logins_of",
        "_max_bytes",
        "_max_per_subject",
        "_monotonic",
        "alive",
        "chains",
        "epoch",
        "mark",
        "on_request_of",
        "own",
    )

    def __init__(
        self,
        *,
        clock: Callable[[], float],
        monotonic: Callable[[], float],
        max_bytes: int = MAX_BYTES,
        max_per_subject: int = MAX_PER_SUBJECT,
        mark: str = "",
        own: WorkloadHandle | None = None,
        judge: Callable[[ServedRequest], None] = lambda _served: None,
    ) -> None:
        self.epoch = 0
        self.own = own
        self._judge = judge
        self._clock = clock
        self._monotonic = monotonic
        self._max_bytes = max_bytes
        self._max_per_subject = max_per_subject
        self.mark = mark
        self.alive: dict[str, ServedRequest] = {}
        self._lingering: LingerCache | None = None  # until a handle lingers
        self.on_request_of: Callable[[Chain], None] = lambda _chain: None  # called by ``let_in``
        self.chains: WeakValueDictionary[Chain, Renewal] = WeakValueDictionary()  # of lingering handles
        self._logins: BoundedCache[str, _Login] = BoundedCache(max_bytes // _LOGINS_PART)  # by token
        self._logins_of: Counter[tuple[str, str]] = Counter()

    def __len__(self) -> int:
        return len(self.alive)

    @property
    def bytes(self) -> int:
        """The accounted bytes of all handles; tokens count for lingering and login handles only."""
        opened, lingering = len(self.alive) - len(self._logins), self._lingering
        if lingering is None:
            return opened * OPEN_BYTES + self._logins.bytes
        return (opened - len(lingering)) * OPEN_BYTES + self._logins.bytes + lingering.bytes

    hits = misses = 0  # not a cache: an unknown handle is refused

    @property
    def evicted(self) -> int:
        """The number of lingering handles that were evicted, or dropped at once for lack of memory."""
        return 0 if self._lingering is None else self._lingering.evicted

    def open(self, served: ServedRequest) -> str:
        """Make and store a new handle for ``served``; return it."""
        handle = self.mark + random_258()
        served.epoch = self.epoch
        self.alive[handle] = served
        return handle

    def let_in(self, served: ServedRequest, linger_s: float) -> None:
        """Set ``linger_s`` of a permitted request; renew its chain's lingering handles, also at other workers."""
        from sidecar.proxy.journeys.linger_cache import chain_of  # loaded with the route

        served.linger_s = linger_s
        chain = chain_of(served.delegation)
        if chain is not None:
            self.renew(chain)
            self.on_request_of(chain)

    def carry(self, handle: str, txn_token: TxnToken) -> None:
        """Add a transaction token to the delegation of the request behind ``handle``, for its outbound calls."""
        served = self.alive[handle]
        served.delegation = replace(served.delegation, txn_token=txn_token)
        if served.facts.get("txn") is None:
            served.facts = {**served.facts, "txn": txn_token.txn}

    def is_own(self, handle: str) -> bool:
        """Return True for a workload handle in force. It stands for no request: ``resolve`` refuses it."""
        return self.own is not None and self.own.accepts(handle)

    def call_ids(self, most: int) -> list[str]:
        """Return up to ``most`` call ids of requests in progress or lingering, the last stored first."""
        found = (served.call_in for served in reversed(self.alive.values()))
        return list(islice((call for call in found if call is not None), most))

    def suspect(self) -> None:
        """Mark every handle for re-evaluation at its next use, after a change of policy, keys, trust or identity."""
        self.epoch += 1

    def keep(self, served: ServedRequest) -> str:
        """Return the handle of a login, made at its first use. It lives until the login token expires.

        Raises:
            Unavailable: OVERLOADED, the subject has ``max_per_subject`` of them, or there is no memory for another.
        """
        self._sweep_logins()
        token = served.delegation.token
        known = self._logins.get(token.raw)
        if known is not None:
            return known.handle
        subject = token.issuer, token.subject
        if self._logins_of[subject] >= self._max_per_subject:
            raise Unavailable(Reason.OVERLOADED, "too many logins of this subject have handles")
        cost = token.held_bytes + HELD_BYTES
        if not self._logins.fits(cost):
            raise Unavailable(Reason.OVERLOADED, "handles of logins use all the memory allowed for them")
        self._make_room(cost)
        handle = self.open(served)
        self._logins.keep(token.raw, _Login(handle, subject), cost=cost, expires_at=token.expires_at)
        self._logins_of[subject] += 1
        return handle

    def resolve(self, handle: str) -> ServedRequest:
        """Return the request behind a handle, re-evaluated if ``suspect`` was called since the last time.

        Raises:
            Denied: NO_REQUEST_CONTEXT, as ``find``, or the peer is no longer trusted, or an earlier re-evaluation
                refused the request; the reason of ``judge``, if the request would be refused now.
            Unavailable: as ``judge``.
        """
        served = self.alive.get(handle)
        if served is None or self.is_over(served):
            served = self.find(handle)  # raises with the reason
        if served.epoch != self.epoch:
            self._judge_again(served)
        return served

    def find(self, handle: str) -> ServedRequest:
        """Return the request behind a handle without a re-evaluation, even if an earlier one refused it.

        Raises:
            Denied: NO_REQUEST_CONTEXT, the handle is unknown here, or ``is_over``.
        """
        served = self.alive.get(handle)
        if served is None:
            raise Denied(Reason.NO_REQUEST_CONTEXT, "unknown handle")
        if self.is_over(served):
            self._forget(handle, served)
            raise Denied(Reason.NO_REQUEST_CONTEXT, "the handle's request has ended")
        return served

    def occurs_in(self, text: str) -> bool:
        """Return True if a text contains a live handle of this worker, or a workload handle in force."""
        if self.own is not None and any(one in text for one in self.own.in_force()):
            return True
        chars = HANDLE_CHARS + len(self.mark)
        found = (self.alive.get(text[start : start + chars]) for start in range(len(text) - chars + 1))
        return any(served is not None and not self.is_over(served) for served in found)

    def _judge_again(self, served: ServedRequest) -> None:
        """Re-evaluate a request. After a Denied, its handle is refused for good.

        The handle stays stored: an unknown handle could pass as the agent's own credential on a route that observes.

        Raises:
            Denied: as ``resolve``.
            Unavailable: as ``judge``.
        """
        if served.epoch == _REFUSED:
            raise Denied(Reason.NO_REQUEST_CONTEXT, "the authority of the handle's request was withdrawn")
        try:
            self._judge(served)
        except Denied as error:
            served.epoch = _REFUSED
            if error.answer.status:
                raise
            raise Denied(Reason.NO_REQUEST_CONTEXT, f"the handle's peer is no longer trusted: {error}") from error
        served.epoch = self.epoch

    def end(self, handle: str) -> None:
        """End a handle with its request, or let it linger for ``linger_s``. Calls in flight go on."""
        served = self.alive.pop(handle, None)
        if served is None or served.linger_s <= 0:
            return
        from sidecar.proxy.journeys.linger_cache import Renewal, chain_of  # loaded with the route

        chain = chain_of(served.delegation)
        renewal = Renewal() if chain is None else self.chains.setdefault(chain, Renewal())
        self._linger(handle, served, self._monotonic(), renewal)

    def _linger(self, handle: str, served: ServedRequest, ended_at: float, renewal: Renewal) -> None:
        """Keep the handle of an ended request if memory allows; else count an eviction."""
        lingering, peer = self._lingering, _peer_of(served)
        if lingering is None:
            from sidecar.proxy.journeys.linger_cache import LingerCache

            lingering = self._lingering = LingerCache(self._max_bytes)
        cost = served.delegation.held_bytes + HELD_BYTES + lingering.cost_of(peer, served.guard)
        self._make_room(cost)
        if self.bytes + cost + ENTRY_BYTES > self._max_bytes:  # requests in progress and logins use the rest
            lingering.evicted += 1
            return
        served.ended_at, served.renewal = ended_at, renewal
        ends_at = min(_lingers_until(served), self._monotonic() + served.delegation.ends_at - self._clock())
        served.guard = lingering.add(handle, peer, served.guard, cost=cost, ends_at=ends_at)
        self.alive[handle] = served

    def renew(self, chain: Chain) -> None:
        """Restart the linger of a chain's handles, because the chain has a new request."""
        renewal = self.chains.get(chain)
        if renewal is not None:
            while self._sweep_lingering():  # first, so that no expired handle is renewed
                pass
            renewal.at = self._monotonic()

    def sweep(self, now: float = 0.0) -> None:  # noqa: ARG002 - handles have clocks of their own
        """Free expired handles, about once a second. ``resolve`` refuses expired handles even before that."""
        self._sweep_logins()
        self._sweep_lingering()

    def _sweep_lingering(self) -> bool:
        """Free handles whose linger is over; put renewed ones back. Return True if any was due."""
        found = [] if self._lingering is None else self._lingering.sweep(self._monotonic())
        for handle in found:
            served = self.alive.pop(handle)
            if served.ended_at is not None and not self.is_over(served):
                self._linger(handle, served, served.ended_at, served.renewal)
        return bool(found)

    def shed(self, to_bytes: int) -> None:
        """Evict lingering handles until all handles use at most ``to_bytes``, or none lingers."""
        if self._lingering is not None:
            self._kill(self._lingering.shed(to_bytes - self.bytes + self._lingering.bytes))

    def _make_room(self, cost: int) -> None:
        if self.bytes + cost + ENTRY_BYTES > self._max_bytes:
            self.shed(self._max_bytes - cost - ENTRY_BYTES)

    def _sweep_logins(self) -> None:
        for _, (handle, subject) in self._logins.sweep(self._clock()):
            self.alive.pop(handle, None)
            self._logins_of[subject] -= 1
            if not self._logins_of[subject]:
                del self._logins_of[subject]

    def _forget(self, handle: str, served: ServedRequest) -> None:
        del self.alive[handle]
        if served.ended_at is not None and self._lingering is not None:
            self._lingering.drop(handle, _peer_of(served))

    def _kill(self, handles: Iterable[str]) -> None:
        for handle in handles:
            del self.alive[handle]

    def is_over(self, served: ServedRequest) -> bool:
        """Return True if the handle of ``served`` has expired, by ``Delegation.ends_at`` or the end of its linger."""
        if self._clock() >= served.delegation.ends_at:
            return True
        return served.ended_at is not None and self._monotonic() >= _lingers_until(served)


def _lingers_until(served: ServedRequest) -> float:
    """Return the end of a linger, in monotonic seconds. The delegation may end earlier."""
    return max(served.ended_at or 0.0, served.renewal.at) + served.linger_s


def _peer_of(served: ServedRequest) -> str:
    """Return the actor that a request's token names; for a token without an actor its subject."""
    token = served.delegation.token
    return token.actor_id or token.subject
