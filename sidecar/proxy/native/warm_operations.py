"""Operations of warm requests: the native engine gives each message of MCP and A2A to Python, before anything is sent.

Theory of operation. The native engine parses heads; Python parses messages. On a route of MCP or A2A a gate calls a
*reader* with the parsed head and the body. The reader finds the operation by ``Operation.find``, as the journey does.
All its side effects are safe to repeat, because the engine in Python may read the same bytes again. If the reader
raises ``Denied``, that engine does so, and refuses. The reader returns the route of the operation (or the cached permit
for it), the operation's name in records, fields to add, the kind of the message, and a state. The gate passes the
answer to the state if the kind asks for it; a ghost that becomes real reads the state, too.

What differs by protocol is in its feature (``features/*/warm.py``), which the gate asks for at the first message.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol, TypeVar

from delegation_core.permit import Permit
from delegation_core.route import InboundRoute, OutboundRoute
from delegation_core.target import CanonicalTarget
from sidecar.proxy.journeys.forward import Forwarding, Way
from sidecar.wire.h1_fields import request_layouts
from sidecar.wire.message import Field, Request

if TYPE_CHECKING:
    from sidecar.proxy.journeys.operation import Operation

MAX_READ: Final = 64 * 1024  # bytes of a body; a message that falls back to Python is parsed twice

WholeMessage = tuple[tuple[bytes, ...], tuple[bytes, ...], str, bytes, str, int | None, bytes | None]
"""A message as the native engine gives it: (names, values, method, target, authority, content length, body)."""

PYTHONS: Final = 15  # messages of a route that Python serves after the native engine handed over an answer
_MOST_ROUTES: Final = 1024

_Route = TypeVar("_Route", InboundRoute, OutboundRoute)


class HandedOver:
    """Counts, for each route, the messages that Python serves after the native engine handed over an answer.

    An event stream is such an answer. A request that changes engines costs more than one that Python serves alone.
    """

    __slots__ = ("_left", "_pythons")

    def __init__(self, pythons: int = PYTHONS) -> None:
        self._pythons = pythons
        self._left: dict[str, int] = {}  # messages until the native engine begins one again, by route

    def note(self, route: str) -> None:
        """Leave the next messages of a route to Python: the native engine handed over an answer."""
        if len(self._left) >= _MOST_ROUTES:
            self._left.clear()
        self._left[route] = self._pythons

    def takes(self, route: str) -> bool:
        """Tell if Python serves the next message of a route, and count it."""
        left = self._left.get(route, 0)
        if left:
            self._left[route] = left - 1
        return left > 0


class WarmMessage:
    """A message that the native engine forwards. A subclass also handles its answer.

    ``handed_over`` is called if the engine in Python forwards the answer.
    """

    __slots__ = ("handed_over", "message")

    def __init__(self, message: Operation, handed_over: Callable[[], None]) -> None:
        self.message = message
        self.handed_over = handed_over

    def answered(self, _status: int, _told: bytes | None, _body: bytes) -> bytes | None:
        """Return lines to add to the head of a whole answer; None: the engine in Python forwards it.

        ``_told`` is the value of the answer's field that the message's kind names; None if the field is absent.

        Raises:
            Denied: the engine in Python refuses the answer.
        """
        return None

    def forwarding(self, way: Way) -> tuple[Any, ...]:
        """Return the class that replaces the ghost of the forwarding, and its arguments."""
        return Forwarding, *way


Passed = tuple[list[Field], object, WarmMessage]
"""A message of a peer that the native engine forwards: (fields to add, kind, state)."""


class InboundMessages(Protocol):
    """Messages of one protocol to the agent."""

    def new_operation(self) -> Operation:
        """Return the operation of a message that is not read yet."""

    def passed(
        self, found: OperationRead, head: Request, permit: Permit, now: int, handed_over: Callable[[], None]
    ) -> Passed | None:
        """Return how the native engine forwards a permitted message; None: the engine in Python serves it.

        Raises:
            Denied: the engine in Python refuses it.
        """


class OutboundMessages(Protocol):
    """Messages of one protocol to next hops, all of one ``kind``."""

    kind: object

    def new_operation(self) -> Operation:
        """Return the operation of a message that is not read yet."""

    def is_answered(self, path: str) -> bool:
        """Tell if the sidecar itself answers calls for a canonical path."""

    def is_rewritten(self, found: OperationRead) -> bool:
        """Tell if the engine in Python must rewrite the answer."""


class _WholeRequest:
    """Stands for the stream of an HTTP/1.1 request whose body has arrived."""

    http2: Final = False


_WHOLE: Final = _WholeRequest()


class _Noted:
    """Stands for an open record: collects the operation of a request before its record is opened."""

    op: str | None = None
    operation: str | None = None


class OperationRead(NamedTuple):
    """The operation of a message, with the route of that operation; ``op`` is its name in records."""

    asked: Any  # the operation of its protocol
    route: Any
    op: str


def head_of(message: WholeMessage) -> Request:
    """Return the head of a message that the native engine has parsed."""
    names, values, method, target, authority, length, _ = message
    return Request(request_layouts[names], values, method, target, authority, length, bool(length))


def read_operation(
    asked: Operation, head: Request, body: bytes | None, route: _Route, path: str, *, below: str | None
) -> OperationRead | bool:
    """Read the operation of a request with a canonical ``path`` into ``asked``.

    ``body`` is None while a part of it is missing. Returns False if the engine in Python must serve the request, and
    True if the native engine may serve it once the body is complete.

    Raises:
        Denied: as ``Operation.find``.
    """
    length = head.content_length or 0
    if length > MAX_READ or head.method != "POST":
        return False
    target = CanonicalTarget(path, head.target.partition(b"?")[2])
    noted = _Noted()
    journey: Any = asked.find(_WHOLE, head, target, route, noted, below=below)  # type: ignore[arg-type]
    try:
        wait = next(journey)
        if body is None or length > wait.limit:
            journey.close()
            return body is None and length <= wait.limit
        journey.send(body)
    except StopIteration as end:
        return OperationRead(asked, end.value, noted.op or "")
    raise AssertionError("an operation waits for more than its message")
