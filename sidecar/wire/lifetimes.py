"""Lifetimes: limits that end a request in progress, by the kind of its body, for both sides and both versions of HTTP.

A *message* needs a minimum rate, and its answer must begin in time. A *stream* is meant to stay open: it has no minimum
rate, and ends by a silence in both directions. Other reasons to end a request do not depend on the kind: a deny, a
change of policy or trust, a drain, the number of a peer's requests in progress.
"""

from __future__ import annotations

from enum import Enum
from typing import Final, Literal, NamedTuple

from sidecar.wire.grpc import is_grpc
from sidecar.wire.limits import ClientLimits
from sidecar.wire.message import Response, is_event_stream


class Kind(Enum):
    """Kinds of bodies. A request is a MESSAGE until it is permitted, and its route or upstream is known."""

    MESSAGE = "message"  # an ordinary upload or answer
    EVENTS = "events"  # an ordinary request whose answer is an event stream
    GRPC = "grpc"  # a call of gRPC, of any of its four kinds: they look alike until they end
    STREAM = "stream"  # of a route with ``stream``
    WEBSOCKET = "websocket"
    TUNNEL = "tunnel"  # of a CONNECT


class Rules(NamedTuple):
    """Limits of one kind; ``stays_open``: it is a stream.

    A stream has no minimum rate; from its head on, silence in both directions may last ``stream_idle_timeout_s``. A
    message must keep ``min_rate``, its answer must begin within ``first_byte_timeout_s``, and silence inside that
    answer may last ``silence``. ``ends_with_token``: a call of this kind has no natural end, and clients reconnect.
    Other kinds may outlast their token: ``upload`` then limits the request, ``max_stream_s`` the answer.
    """

    stays_open: bool
    silence: Literal["idle_timeout_s", "stream_idle_timeout_s"]
    ends_with_token: bool
    upload: Literal["max_upload_s", "max_stream_s"]


RULES: Final = {
    Kind.MESSAGE: Rules(False, "idle_timeout_s", False, "max_upload_s"),  # noqa: FBT003 - a table
    Kind.EVENTS: Rules(False, "stream_idle_timeout_s", True, "max_upload_s"),  # noqa: FBT003
    Kind.GRPC: Rules(True, "stream_idle_timeout_s", False, "max_stream_s"),  # noqa: FBT003
    Kind.STREAM: Rules(True, "stream_idle_timeout_s", False, "max_stream_s"),  # noqa: FBT003
    Kind.WEBSOCKET: Rules(True, "stream_idle_timeout_s", True, "max_stream_s"),  # noqa: FBT003
    Kind.TUNNEL: Rules(True, "stream_idle_timeout_s", True, "max_stream_s"),  # noqa: FBT003
}


def kind_of_request(*, grpc: bool, to_http2: bool, declared: bool) -> Kind:
    """Return the kind of a permitted request.

    ``grpc``: the request looks like gRPC, which any caller can imitate; it counts only with ``to_http2``, which gRPC
    servers need. ``declared``: its route has ``stream``.
    """
    if grpc and to_http2:
        return Kind.GRPC
    return Kind.STREAM if declared else Kind.MESSAGE


def kind_of_answer(kind: Kind, head: Response) -> Kind:
    """Return the kind of a request whose answer has begun: GRPC only with a gRPC answer, EVENTS for an event stream."""
    if kind is Kind.GRPC and not is_grpc(head):
        kind = Kind.MESSAGE
    if kind is Kind.MESSAGE and is_event_stream(head):
        return Kind.EVENTS
    return kind


class Patience(NamedTuple):
    """Seconds of silence that an upstream connection allows.

    ``head_s`` before the answer, from the end of the request; with ``while_sending`` also between pieces of the
    request. ``answer_s`` inside the answer, ``taking_s`` while the upstream reads nothing more of the request.
    """

    head_s: float
    while_sending: bool
    answer_s: float
    taking_s: float


def patience_of(kind: Kind, limits: ClientLimits, *, deadline: bool = False) -> Patience:
    """Return the patience with an upstream. ``deadline``: one of the caller limits the wait for an answer."""
    rules = RULES[kind]
    silence_s: float = getattr(limits, rules.silence)
    if rules.stays_open:
        head_s = float("inf") if deadline else silence_s
        return Patience(head_s, while_sending=True, answer_s=silence_s, taking_s=silence_s)
    head_s, taking_s = limits.first_byte_timeout_s, limits.idle_timeout_s
    return Patience(head_s, while_sending=False, answer_s=silence_s, taking_s=taking_s)


def patience_with(sink: object, head: Response | None, limits: ClientLimits) -> Patience:
    """Return the patience for the request of ``sink``, whose answer began with ``head``; None: it has not begun.

    A sink that forwards an answer has the ``kind`` of its request; every other sink waits for a message.
    """
    kind = getattr(sink, "kind", Kind.MESSAGE)
    deadline = getattr(sink, "has_deadline", False)
    return patience_of(kind if head is None else kind_of_answer(kind, head), limits, deadline=deadline)
