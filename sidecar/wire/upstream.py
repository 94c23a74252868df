"""Connections to upstreams, for any version of HTTP, as senders of requests and the pool see them. For types alone.

A ``ClientConnection`` of HTTP/1.1 is both a ``Line`` and an ``Upstream``. An ``H2ClientConnection`` is a ``Line``, and
each of its exchanges is an ``Upstream``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, TypeVar

from sidecar.wire.message import Field
from sidecar.wire.scheduling import Turn
from sidecar.wire.stream import RawSink, ResponseSink

if TYPE_CHECKING:
    from sidecar.wire.websocket import Handshake

E = TypeVar("E", contravariant=True)


class Line(Protocol):
    """A connection to an upstream: a socket with deadlines, which carries one request at a time or many."""

    transport: asyncio.Transport

    def live_at_most(self, seconds: float) -> None:
        """Bound the age at which another request may begin."""

    def end_unused(self) -> None:
        """Close now if no request is in progress, else after the request."""

    def sweep(self, now: float) -> None:
        """Act on every deadline that has passed at ``now`` (monotonic seconds)."""


class Exchange(Protocol):
    """A request in progress: sends its content, and regulates its answer."""

    @property
    def transport(self) -> asyncio.Transport:
        """The upstream's transport, for facts about it. Not for writing."""

    def send_body(self, data: bytes) -> None:
        """Add content to the request."""

    def flush(self) -> None:
        """Write the collected content: one write."""

    def pause_reading(self) -> None:
        """Pause reading the answer."""

    def resume_reading(self) -> None:
        """Resume reading the answer."""


class Upstream(Exchange, Protocol):
    """Carries one request at a time: ``ask``; or ``start``, ``send_body``, ``end_body``, and ``flush`` a batch.

    ``kept``: the connection was idle in the pool, so its upstream may close it just before the next request.
    """

    kept: bool

    @property
    def usable(self) -> bool:
        """True if another request may be sent now."""

    @property
    def trailers(self) -> Sequence[Field]:
        """The trailers of the answer that has just ended."""

    def ask(
        self,
        method: str,
        target: bytes,
        lines: bytes,
        sink: ResponseSink,
        handshake: Handshake | None = None,
        *,
        body: bytes = b"",
    ) -> None:
        """Send a whole request: one write. ``lines`` of its fields, as ``encode_fields`` makes them.

        The fields for its length are added here. ``handshake``: it asks to switch protocols.
        """

    def start(self, method: str, target: bytes, lines: bytes, *, length: int | None, sink: ResponseSink) -> None:
        """Begin a request with a body of ``length`` bytes; None: the version's own framing ends it."""

    def end_body(self) -> None:
        """End the request. RuntimeError if it is shorter than its head says."""

    def switch_protocols(self, sink: RawSink) -> RawUpstream:
        """Carry raw bytes both ways after a 101. RuntimeError if the version of HTTP has no such answer."""

    def abort(self) -> None:
        """Give up the request; no further event is reported. The upstream sees it cut."""

    def close(self) -> None:
        """Use it for no further request."""


class RawUpstream(Exchange, Protocol):
    """Carries raw bytes both ways after a 101, until the connection ends or ``leave``."""

    @property
    def writing_paused(self) -> bool:
        """True if the upstream accepts no more for now."""

    def send_no_more(self) -> bool:
        """Write the added bytes, and end this direction. False: the connection cannot be half-closed."""

    def let_others_first(self, take: Turn) -> None:
        """Continue with ``take`` in a later turn: there is more work than one iteration's share."""

    def leave(self) -> None:
        """Write the pending data and close. No further event is reported; further input is discarded."""


class Carrier(Protocol[E]):
    """A line that carries many exchanges, as each of them uses it."""

    transport: asyncio.Transport
    scheme: bytes

    @property
    def accepts(self) -> bool:
        """True if another request may begin now."""

    def now(self) -> float:
        """Return monotonic seconds."""

    def takes(self, fields: Sequence[Field]) -> bool:
        """True if a head is no larger than the upstream's settings allow."""

    def begin(self, exchange: E, fields: Sequence[Field], *, ends: bool) -> int:
        """Write the head of a request; return the number of its stream."""

    def send_content(self, exchange: E) -> None:
        """Write what the windows admit of the request's content, and its end."""

    def taken(self, stream_id: int, size: int) -> None:
        """Return flow-control credit for ``size`` bytes of content that were delivered."""

    def over(self, exchange: E, code: int | None) -> None:
        """Finish the stream of an exchange; with a code, reset it."""

    def keep(self, exchange: E) -> None:
        """Give the exchange back to its pool."""

    def drop(self, exchange: E) -> None:
        """Forget the exchange: it is used for no further request."""
