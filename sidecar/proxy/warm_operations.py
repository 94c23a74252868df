"""Operations of warm requests: the native engine gives each message of MCP and A2A to Python, before anything is sent.

Theory of operation. The native engine reads heads, and no message. On a route of MCP or A2A a gate calls a *reader*
with the bytes of the request. The reader reads the operation by ``find_operation``, as the journey does, and has no
effect that the journey would not have, or have again: it does not answer, and a refusal leaves it as an error, upon
which the engine in Python reads the same bytes and refuses. It returns what the gate goes on with: the route of the
operation, or what is remembered for it; the operation's name in records; fields to add; the kind of the message; and a
state, which is told of the answer where its kind says so, and from which a ghost becomes real.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple, TypeVar

from sidecar.delegation.a2a_tasks import AnswerReader
from sidecar.delegation.route import InboundRoute, OutboundRoute
from sidecar.delegation.target import CanonicalTarget
from sidecar.proxy.journey import BodyUpTo
from sidecar.proxy.mcp_sessions import SESSION_FIELD, RequestSession
from sidecar.proxy.operations import Asked, find_operation
from sidecar.proxy.task_bindings import Making
from sidecar.wire.message import Request

MAX_READ: Final = 64 * 1024  # bytes of a request: one that is left to Python after all is read twice

_Route = TypeVar("_Route", InboundRoute, OutboundRoute)


class WarmMessage:
    """A message that the native engine passes on, and what is done with its answer.

    ``session``: of MCP, towards the agent. ``making``: of A2A, of a message that may begin a task.
    """

    __slots__ = ("making", "message", "session")

    def __init__(self, message: Asked, *, session: RequestSession | None = None, making: Making | None = None) -> None:
        self.message = message
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


class _Noted:
    """Stands for the open record of a request that may not have one yet."""

    op: str | None = None
    operation: str | None = None


class OperationRead(NamedTuple):
    """The operation of a message: ``route`` is its own, ``op`` its name in records."""

    asked: Asked
    route: Any
    op: str


def read_operation(
    head: Request, data: bytes, size: int, route: _Route, path: str, *, below: str | None
) -> OperationRead | bool:
    """Read what a request asks for, which has a head of ``size`` bytes and a canonical ``path``.

    False: the engine in Python serves it. True: it may be served natively, when the rest of its body has come.

    Raises:
        Denied: as ``find_operation``.
    """
    if len(data) > MAX_READ or head.method != "POST":
        return False
    target = CanonicalTarget(path, head.target.partition(b"?")[2])
    asked, noted, stream = Asked(route.protocol), _Noted(), _WholeRequest()
    journey: Any = find_operation(asked, stream, head, target, route, noted, below=below)  # type: ignore[arg-type]
    length, there = head.content_length or 0, len(data) - size
    try:
        wait = next(journey)
        if not isinstance(wait, BodyUpTo) or length > wait.limit:
            journey.close()
            return False
        if there < length:
            journey.close()
            return True
        journey.send(data[size:])
    except StopIteration as end:
        return OperationRead(asked, end.value, noted.op or "")
    raise AssertionError("an operation waits for more than its message")
