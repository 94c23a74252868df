"""Bindings of A2A tasks and contexts to whoever they were made for: those that this process saw.

Theory of operation. An id is no secret that holds: it stands in logs, and in messages between agents. A task that was
seen when it was made is bound to the subject, its issuer and the peer; to everybody else it does not exist. So is a
context, which the agent makes or its first sender chooses. Nothing is refused for want of room: an older binding is
given up, of the same principal if it has its share, else of the peer that has the most. So a peer that fills a table
loses its own. An id that is not known here passes, unless the route is strict.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from hashlib import sha256
from typing import Final, NamedTuple, TypeAlias

from sidecar.delegation.a2a_tasks import Named, Shown
from sidecar.errors import Denied, Reason

_Key: TypeAlias = bytes

MAX_BOUND: Final = 16_384  # tasks, and as many contexts
MAX_OF_ONE: Final = MAX_BOUND // 16
BOUND_S: Final = 86_400.0  # since it was made, or its principal named it
_COST: Final = 896  # bytes of a binding, with its places in three orders: 860 if each is of another user
_SWEPT_AT_ONCE: Final = 1024
UNSEEN: Final = "names a task that was not seen made here"
UNSEEN_CONTEXT: Final = "names a context that was not seen here"


class Principal(NamedTuple):
    """The user that something is for, and the workload that had it made. An observed request has no proven user."""

    issuer: str
    subject: str
    peer: str


class _Bound(NamedTuple):
    principal: Principal
    until: float
    firm: bool  # False: it may be released


class Bindings:
    """The bindings of one process, of one kind. ``clock`` is wall time in seconds."""

    hits = misses = 0  # not a cache: what is unknown passes, or is refused

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

    def bind(self, name: str, principal: Principal, *, firm: bool = True) -> bool:
        """Bind what was just made. Return if it is new: what is bound already stays whose it is.

        A binding that is not ``firm`` may be released, until its principal binds it again.
        """
        key = _key(name)
        bound = self._find(key)
        if bound is not None:
            if firm and bound.principal == principal:
                self._bound[key] = bound._replace(firm=True)
            return False
        own = self._of.setdefault(principal, OrderedDict())
        if len(own) >= MAX_OF_ONE:
            self._evict(next(iter(own)))
        if len(self._bound) >= MAX_BOUND:
            most = max(self._at, key=lambda peer: len(self._at[peer]))
            self._evict(next(iter(self._at[most])))
        self._bound[key] = _Bound(principal, self._clock() + BOUND_S, firm)
        self._of.setdefault(principal, OrderedDict())[key] = None
        self._at.setdefault(principal.peer, OrderedDict())[key] = None
        return True

    def owner(self, name: str) -> Principal | None:
        """Return whom something was made for; None: it is not known here."""
        bound = self._find(_key(name))
        return None if bound is None else bound.principal

    def are_of(self, names: Iterable[str], principal: Principal, reason: Reason) -> bool:
        """Tell if all are bound to a principal, and renew them; else some are not known here.

        Raises:
            Denied: ``reason``, one is another's.
        """
        known = True
        for name in names:
            key = _key(name)
            bound = self._find(key)
            if bound is None:
                known = False
            elif bound.principal != principal:
                raise Denied(reason, "it was made for another subject, or by another peer")
            else:
                self._renew(key, bound)
        return known

    def release(self, name: str, principal: Principal) -> None:
        """Undo a binding of this principal that is not firm."""
        key = _key(name)
        bound = self._find(key)
        if bound is not None and bound.principal == principal and not bound.firm:
            self._drop(key)

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


class TaskBindings:
    """The tasks and the contexts of one process."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.tasks = Bindings(clock)
        self.contexts = Bindings(clock)

    def check(self, named: Named, principal: Principal, *, strict: bool) -> str | None:
        """Return if a principal may name these. The text, if any, is for the record: some are not known here.

        Raises:
            Denied: TASK_UNKNOWN or CONTEXT_UNKNOWN, one is another's, or, if ``strict``, not known; or no task is
                named where one is needed. OPERATION_MALFORMED, two places name its task, and disagree.
        """
        seen = self.tasks.are_of(named.tasks, principal, Reason.TASK_UNKNOWN)
        self.tasks.are_of(named.beside, principal, Reason.TASK_UNKNOWN)  # one may be of a configuration, and unknown
        if named.differs:
            raise Denied(Reason.OPERATION_MALFORMED, "two members name the task of this request, and disagree")
        seen = seen and not (named.about_one and not named.tasks)
        seen_context = self.contexts.are_of(named.contexts, principal, Reason.CONTEXT_UNKNOWN)
        if strict and not seen:
            raise Denied(Reason.TASK_UNKNOWN, UNSEEN)
        if strict and not seen_context:
            raise Denied(Reason.CONTEXT_UNKNOWN, UNSEEN_CONTEXT)
        noted = [text for text, known in ((UNSEEN, seen), (UNSEEN_CONTEXT, seen_context)) if not known]
        return "; ".join(noted) or None

    def may_see(self, task: str, context: str | None, principal: Principal, *, strict: bool) -> bool:
        """Tell if a principal may see a task in a list: its own, or an unknown one that is in no other's context."""
        owner = self.tasks.owner(task)
        if owner is None and not strict and context is not None:
            owner = self.contexts.owner(context)
        return owner == principal if owner is not None else not strict


class Making:
    """Binds what one message makes. ``named`` has passed ``check``.

    A context that its sender chose is bound from the start: others must not write into it before it is answered. It is
    released if there is no answer, or it is an error, or about another context: whoever only knows the id of somebody's
    context, from before a restart, does not keep its user out once the agent has refused.
    """

    def __init__(self, bindings: TaskBindings, named: Named, principal: Principal) -> None:
        self._bindings = bindings
        self._named = named
        self._principal = principal
        self._chosen: list[str] = []

    def begin(self) -> None:
        """Bind the contexts that nobody named before."""
        contexts = self._bindings.contexts
        self._chosen = [one for one in self._named.contexts if contexts.bind(one, self._principal, firm=False)]

    def show(self, shown: Shown) -> None:
        """Bind what the answer shows.

        A task that the message only refers to is not new. Nor may a context be, if it refers to one that is not known.
        """
        named, bindings, principal = self._named, self._bindings, self._principal
        if shown.failed:
            self.fail()
            return
        if shown.context in named.contexts:
            bindings.contexts.bind(shown.context, principal)
        elif shown.context is not None:
            self.fail()
            if all(bindings.tasks.owner(task) == principal for task in named.tasks):
                bindings.contexts.bind(shown.context, principal)
        if shown.task is not None and shown.task not in named.tasks:
            bindings.tasks.bind(shown.task, principal)

    def fail(self) -> None:
        """Release the contexts that were bound at the start."""
        for context in self._chosen:
            self._bindings.contexts.release(context, self._principal)
        self._chosen = []


def _key(name: str) -> _Key:
    return sha256(name.encode("utf-8", "surrogatepass")).digest()[:16]
