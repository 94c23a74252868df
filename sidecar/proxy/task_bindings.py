"""Bindings of A2A tasks to whoever they were made for: those that this process saw made.

Theory of operation. The id of a task is no secret that holds: it stands in logs, and in messages between agents. A task
that was seen when it was made is bound to the subject, its issuer and the peer; to everybody else it does not exist.
Nothing is refused for want of room: an older binding is given up, of the same principal if it has its share, else of
the peer that has the most. So a peer that fills the table loses its own. An id that is not known here passes, unless
the route is strict.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from hashlib import sha256
from typing import Final, NamedTuple, TypeAlias

from sidecar.delegation.a2a_tasks import Named
from sidecar.errors import Denied, Reason

_Key: TypeAlias = bytes

MAX_TASKS: Final = 16_384
MAX_OF_ONE: Final = MAX_TASKS // 16
BOUND_S: Final = 86_400.0  # since it was made, or its principal named it
_COST: Final = 768  # bytes of a binding, with its places in three orders
_SWEPT_AT_ONCE: Final = 1024
UNSEEN: Final = "names a task that was not seen made here"


class Principal(NamedTuple):
    """The user that a task is for, and the workload that had it made. An observed request has no proven user."""

    issuer: str
    subject: str
    peer: str


class _Bound(NamedTuple):
    principal: Principal
    until: float


class TaskBindings:
    """The bindings of one process. ``clock`` is wall time in seconds."""

    hits = misses = 0  # not a cache: an unknown task passes, or is refused

    def __init__(self, clock: Callable[[], float]) -> None:
        self.evicted = 0
        self._clock = clock
        self._bound: OrderedDict[_Key, _Bound] = OrderedDict()  # the longest unnamed first
        self._of: dict[Principal, OrderedDict[_Key, None]] = {}
        self._at: dict[str, OrderedDict[_Key, None]] = {}  # by peer

    @property
    def bytes(self) -> int:
        """The accounted bytes."""
        return len(self._bound) * _COST

    def bind(self, task: str, principal: Principal) -> None:
        """Bind a task that was just made. One that is bound already stays whose it is."""
        key = _key(task)
        known = self._find(key)
        if known is not None:
            return
        own = self._of.setdefault(principal, OrderedDict())
        if len(own) >= MAX_OF_ONE:
            self._evict(next(iter(own)))
        if len(self._bound) >= MAX_TASKS:
            most = max(self._at, key=lambda peer: len(self._at[peer]))
            self._evict(next(iter(self._at[most])))
        self._bound[key] = _Bound(principal, self._clock() + BOUND_S)
        self._of.setdefault(principal, OrderedDict())[key] = None
        self._at.setdefault(principal.peer, OrderedDict())[key] = None

    def check(self, named: Named, principal: Principal, *, strict: bool) -> str | None:
        """Return if a principal may name these tasks. The text, if any, is for the record: some are not known here.

        Raises:
            Denied: TASK_UNKNOWN, one is another's, or, if ``strict``, not known, or not named where one is needed.
        """
        unseen = named.about_one and not named.tasks
        for task in named.tasks:
            key = _key(task)
            bound = self._find(key)
            if bound is None:
                unseen = True
            elif bound.principal != principal:
                raise Denied(Reason.TASK_UNKNOWN, "the task was made for another subject, or by another peer")
            else:
                self._renew(key, bound)
        if unseen and strict:
            raise Denied(Reason.TASK_UNKNOWN, UNSEEN)
        return UNSEEN if unseen else None

    def owner(self, task: str) -> Principal | None:
        """Return whom a task was made for; None: it is not known here."""
        bound = self._find(_key(task))
        return None if bound is None else bound.principal

    def sweep(self, now: float) -> None:
        """Free bindings that are over."""
        for _ in range(_SWEPT_AT_ONCE):
            key = next(iter(self._bound), None)
            if key is None or self._bound[key].until > now:
                break
            self._drop(key)

    def shed(self, to_bytes: int) -> None:
        """Evict the oldest bindings until no more than ``to_bytes`` are left."""
        while self.bytes > to_bytes and self._bound:
            self._evict(next(iter(self._bound)))

    def _find(self, key: _Key) -> _Bound | None:
        bound = self._bound.get(key)
        if bound is not None and bound.until <= self._clock():
            self._drop(key)
            return None
        return bound

    def _renew(self, key: _Key, bound: _Bound) -> None:
        self._bound[key] = bound._replace(until=self._clock() + BOUND_S)
        self._bound.move_to_end(key)
        self._of[bound.principal].move_to_end(key)
        self._at[bound.principal.peer].move_to_end(key)

    def _evict(self, key: _Key) -> None:
        self.evicted += 1
        self._drop(key)

    def _drop(self, key: _Key) -> None:
        principal = self._bound.pop(key).principal
        own, at_peer = self._of[principal], self._at[principal.peer]
        del own[key], at_peer[key]
        if not own:
            del self._of[principal]
        if not at_peer:
            del self._at[principal.peer]


def _key(task: str) -> _Key:
    return sha256(task.encode("utf-8", "surrogatepass")).digest()[:16]
