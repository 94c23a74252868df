"""Operations of warm requests: the native engine gives each message of MCP and A2A to Python, before anything is sent.

Theory of operation. The native engine reads heads, and no message. On a route of MCP or A2A a gate calls a *reader*
with the head that it has read, and the body. The reader finds the operation by ``Operation.find``, as the journey does,
and changes nothing that the journey would not change, or change again. A refusal leaves it as an error, upon which the
engine in Python reads the same bytes and refuses. It returns what the gate goes on with: the route of the operation, or
what is remembered for it; the operation's name in records; fields to add; the kind of the message; and a state, which
is told of the answer where its kind says so, and from which a ghost becomes real.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple, TypeVar

from sidecar.delegation.a2a_tasks import AnswerReader
from sidecar.delegation.route import InboundRoute, OutboundRoute
from sidecar.delegation.target import CanonicalTarget
from sidecar.features.a2a.task_bindings import Making
from sidecar.features.mcp.operation import SESSION_FIELD
from sidecar.features.mcp.sessions import RequestSession
from sidecar.features.operations.operation import Operation
from sidecar.wire.h1_fields import request_layouts
from sidecar.wire.message import Request

MAX_READ: Final = 64 * 1024  # bytes of a body: one that is left to Python after all is read twice

WholeMessage = tuple[tuple[bytes, ...], tuple[bytes, ...], str, bytes, str, int | None, bytes | None]
"""A message as the native engine gives it: (names, values, method, target, authority, content length, body)."""

PYTHONS: Final = 15  # messages of a route that Python serves after an answer was handed over
_MOST_ROUTES: Final = 1024

_Route = TypeVar("_Route", InboundRoute, OutboundRoute)


class HandedOver:
    """Routes whose answers the native engine hands over, such as streams of events. Python begins their next messages.

    A request that changes engines costs more than one that Python serves from the beginning.
    """

    __slots__ = ("_left", "_pythons")

    def __init__(self, pythons: int = PYTHONS) -> None:
        self._pythons = pythons
        self._left: dict[str, int] = {}  # messages until the native engine begins one again, by route

    def note(self, route: str) -> None:
        """Note that an answer was handed over."""
        if len(self._left) >= _MOST_ROUTES:
            self._left.clear()
        self._left[route] = self._pythons

    def takes(self, route: str) -> bool:
        """Tell if Python serves the next message from the beginning."""
        left = self._left.get(route, 0)
        if left:
            self._left[route] = left - 1
        return left > 0


class WarmMessage:
    """A message that the native engine passes on, and what is done with its answer.

    ``session``: of MCP, towards the agent. ``making``: of A2A, of a message that may begin a task. ``handed_over`` is
    called if the engine in Python passes the answer on.
    """

    __slots__ = ("handed_over", "making", "message", "session")

    def __init__(
        self,
        message: Operation,
        handed_over: Callable[[], None],
        *,
        session: RequestSession | None = None,
        making: Making | None = None,
    ) -> None:
        self.message = message
        self.handed_over = handed_over
        self.session = session
        self.making = making

    def answered(self, status: int, told: bytes | None, body: bytes) -> bytes | None:
        """Return lines to add to the head of an answer in one piece; None: the engine in Python passes it on.

        ``told`` is the value of the field that the kind of the message names.

        Raises:
            Denied: the engine in Python refuses it.
        """
        if self.session is not None and told is not None:
            shown = self.session.shown_to_peer([told], status)
            return b"" if shown is None else b"%b: %b\r\n" % (SESSION_FIELD, shown)
        if self.making is not None:
            read_answer(self.making, status, body)
            return b""
        return None


def read_answer(making: Making, status: int, body: bytes) -> None:
    """Bind what a whole answer shows, as ``TaskForwarding``."""
    if 200 <= status < 300:
        reader = AnswerReader(events=False)
        for shown in (*reader.feed(body), *reader.end()):
            making.show(shown)
    else:
        making.fail()


class _WholeRequest:
    """Stands for the stream of a request of HTTP/1.1, whose body is given and not waited for."""

    http2: Final = False


_WHOLE: Final = _WholeRequest()


class _Noted:
    """Stands for the open record of a request that may not have one yet."""

    op: str | None = None
    operation: str | None = None


class OperationRead(NamedTuple):
    """The operation of a message: ``route`` is its own, ``op`` its name in records."""

    asked: Any  # the operation of its protocol
    route: Any
    op: str


def head_of(message: WholeMessage) -> Request:
    """Return the head of a message that the native engine has read."""
    names, values, method, target, authority, length, _ = message
    return Request(request_layouts[names], values, method, target, authority, length, bool(length))


def read_operation(
    asked: Operation, head: Request, body: bytes | None, route: _Route, path: str, *, below: str | None
) -> OperationRead | bool:
    """Read the operation of a request with a canonical ``path`` into ``asked``.

    ``body`` is None if some of it has not come yet.

    False: the engine in Python serves it. True: it may be served natively, when the rest of its body has come.

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
