"""Bindings of A2A tasks and contexts to the principals that began them, as far as this process saw it.

Theory of operation. Ids are not secret: logs and messages between agents contain them. A task that this process saw
begin is bound to subject, issuer and peer; for everyone else it does not exist. The same holds for a context, which the
agent creates or its first sender chooses. A full table evicts an old binding instead of refusing a request: one of the
same principal if that has its share, else one of the peer with most bindings. So a peer that fills the table loses its
own bindings. An unknown id passes, unless the route is strict.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from hashlib import sha256
from typing import Final, NamedTuple, TypeAlias

from delegation_core.a2a_tasks import Named, Shown
from delegation_core.errors import Denied, Reason

_Key: TypeAlias = bytes

MAX_BOUND: Final = 16_384  # tasks, and separately contexts
MAX_OF_ONE: Final = MAX_BOUND // 16
BOUND_S: Final = 86_400.0  # since its principal last named it
_COST: Final = 896  # bytes of a binding in its three dictionaries: 860 measured with one user each
_SWEPT_AT_ONCE: Final = 1024
UNSEEN: Final = "names a task that was not seen made here"
UNSEEN_CONTEXT: Final = "names a context that was not seen here"


class Principal(NamedTuple):
    """Owner of a task or context: the user, and the peer that acts for the user. Without a user if observed."""

    issuer: str
    subject: str
    peer: str


class _Bound(NamedTuple):
    principal: Principal
    until: float
    firm: bool  # False: ``release`` may remove it


class Bindings:
    """Bindings of tasks, or of contexts, in this process. ``clock`` is wall time in seconds."""

    hits = misses = 0  # not a cache: an unknown id passes, or is refused

    def __init__(self, clock: Callable[[], float]) -> None:
        self.evicted = 0
        self._clock = clock
        self._bound: OrderedDict[_Key, _Bound] = OrderedDict()  # least recently named first
        self._of: dict[Principal, OrderedDict[_Key, None]] = {}
        self._at: dict[str, OrderedDict[_Key, None]] = {}  # by peer

    @property
    def bytes(self) -> int:
        """The accounted bytes."""
        return len(self._bound) * _COST

    def bind(self, name: str, principal: Principal, *, firm: bool = True) -> bool:
        """Bind an id to a principal. Return True if the id is new; never rebind an id of another principal.

        ``firm`` false: ``release`` may undo it, until the same principal binds it with ``firm``.
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
        """Return the principal to whom an id is bound; None: the id is unknown."""
        bound = self._find(_key(name))
        return None if bound is None else bound.principal

    def are_of(self, names: Iterable[str], principal: Principal, reason: Reason) -> bool:
        """Return True if all ids are bound to ``principal``, False if some are unknown. Renew the known ones.

        Raises:
            Denied: ``reason``, an id is bound to another principal.
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
        """Remove the binding of an id if it belongs to ``principal`` and is not firm."""
        key = _key(name)
        bound = self._find(key)
        if bound is not None and bound.principal == principal and not bound.firm:
            self._drop(key)

    def sweep(self, now: float) -> None:
        """Free expired bindings, a bounded number per call."""
        for _ in range(_SWEPT_AT_ONCE):
            key = next(iter(self._bound), None)
            if key is None or self._bound[key].until > now:
                break
            self._drop(key)

    def shed(self, to_bytes: int) -> None:
        """Evict the least recently named bindings until at most ``to_bytes`` are left."""
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
    """Bindings of the tasks and of the contexts of this process."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.tasks = Bindings(clock)
        self.contexts = Bindings(clock)

    def check(self, named: Named, principal: Principal, *, strict: bool) -> str | None:
        """Check that a principal may use the tasks and contexts that its request names.

        Return a note for the record if some are unknown here, else None.

        Raises:
            Denied: TASK_UNKNOWN or CONTEXT_UNKNOWN, one belongs to another principal; with ``strict`` also if one is
                unknown, or a required task is not named. OPERATION_MALFORMED, two members name different tasks.
        """
        seen = self.tasks.are_of(named.tasks, principal, Reason.TASK_UNKNOWN)
        self.tasks.are_of(
            named.beside, principal, Reason.TASK_UNKNOWN
        )  # may be unknown: one may come from a configuration
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
        """Return True if a principal may see a task in a list: its own, or an unknown task outside others' contexts.

        ``strict``: only its own.
        """
        owner = self.tasks.owner(task)
        if owner is None and not strict and context is not None:
            owner = self.contexts.owner(context)
        return owner == principal if owner is not None else not strict


class Making:
    """Binds the tasks and contexts that one message begins. ``named`` has passed ``TaskBindings.check``.

    A context that the sender chose is bound before the message is sent, so that others cannot write into it meanwhile.
    The binding is released if the answer fails, is missing or is about another context. So a sender that learned the
    id of another user's context, bound before a restart, cannot lock that user out.
    """

    def __init__(self, bindings: TaskBindings, named: Named, principal: Principal) -> None:
        self._bindings = bindings
        self._named = named
        self._principal = principal
        self._chosen: list[str] = []

    def begin(self) -> None:
        """Bind the message's contexts that are unknown here, not firmly."""
        contexts = self._bindings.contexts
        self._chosen = [one for one in self._named.contexts if contexts.bind(one, self._principal, firm=False)]

    def show(self, shown: Shown) -> None:
        """Bind the task and context of an answer, unless they are not new.

        A task that the message itself names is not new. A context that it does not name may be old, too, unless all
        tasks that the message names belong to the principal.
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
        """Release the contexts that ``begin`` has bound."""
        for context in self._chosen:
            self._bindings.contexts.release(context, self._principal)
        self._chosen = []


def _key(name: str) -> _Key:
    return sha256(name.encode("utf-8", "surrogatepass")).digest()[:16]
