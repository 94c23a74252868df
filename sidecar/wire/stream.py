"""Streams: the interface to one request and its answer, for any version of HTTP.

``Stream`` is the server's side. ``h1_stream`` implements it for HTTP/1.1; a stream of HTTP/2 can as well. The other
protocols receive events: sinks consume data, an owner and a sender are notified when it must end.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

from delegation_core.errors import SidecarError
from sidecar.wire.grpc import is_grpc
from sidecar.wire.lifetimes import Kind
from sidecar.wire.message import Edits, Field, Request, Response


class BodySink(Protocol):
    """Takes a request body. ``on_body_flush`` follows each batch: collected data may be written now."""

    def on_body(self, data: bytes) -> None:
        """More content, decoded, never empty."""

    def on_body_end(self) -> None:
        """The body is complete, or, after a switch of protocols, the peer sends no more. The last event."""

    def on_body_error(self, error: SidecarError) -> None:
        """The body is broken, too long or too late. The last event; the request can still be answered."""

    def on_body_flush(self) -> None:
        """No more events for now."""


class Owner(Protocol):
    """The party that serves a request, and is notified when it must end."""

    def gone(self) -> None:
        """The peer vanished before the answer ended."""

    def stop(self, error: SidecarError) -> None:
        """End the answer now, for ``error``."""


class Sender(Protocol):
    """The party that forwards an answer, with back-pressure from the peer."""

    def on_caller_gone(self, error: SidecarError | None = None) -> None:
        """The last event before the answer ended: the peer vanished, or we cut it off for ``error``.

        The owner learns it from here.
        """

    def on_caller_pause(self) -> None:
        """Pause: the peer reads no more of the answer for now."""

    def on_caller_resume(self) -> None:
        """Resume: the peer reads more of the answer again."""


class Stream(Protocol):
    """One request (``head``, None if it was unusable) and the one answer to it. Nothing here waits.

    The ``owner`` is notified if the answer must end, or if the peer disconnects before the end of the answer. While
    there is a ``sender``, it gets the second notification instead, and is notified when the peer stops reading.
    ``status`` is 0 until an answer begins. After the stream has ``ended``, or its peer is ``gone``, calls have no
    effect. ``bytes_in`` and ``bytes_out`` count bytes on the wire.
    """

    head: Request | None
    status: int
    ended: bool
    gone: bool
    bytes_in: int
    bytes_out: int
    owner: Owner | None
    sender: Sender | None

    @property
    def kind(self) -> Kind:
        """Kind of its bodies; ``lifetimes`` has the limits of each."""

    def live_as(self, kind: Kind, idle_s: float, *, unbounded: bool = False) -> None:
        """Apply the limits of ``kind`` from now on. ``idle_s``: longest silence, for kinds that stay open.

        ``unbounded``: no size limit for a request body without a stated length.
        """

    @property
    def grpc(self) -> bool:
        """True if the request looks like gRPC, which any caller can imitate."""

    @property
    def has_deadline(self) -> bool:
        """True if the caller set a deadline for its answer."""

    # --- transport facts

    @property
    def http2(self) -> bool:
        """True if the peer speaks HTTP/2."""

    @property
    def transport(self) -> asyncio.Transport:
        """The peer's transport, for facts about the peer. Not for writing."""

    @property
    def ssl_object(self) -> ssl.SSLObject | None:
        """The peer's TLS object; None on a plain connection."""

    @property
    def remote_address(self) -> object:
        """The peer's socket address, as the transport names it."""

    @property
    def writing_paused(self) -> bool:
        """True while the peer is not reading."""

    @property
    def switched(self) -> bool:
        """True if both directions are raw bytes now."""

    # --- the request's body

    @property
    def body_complete(self) -> bool:
        """True if the request is complete: without a body, or with a fully consumed one."""

    def read_body(self, sink: BodySink) -> None:
        """Deliver the body to ``sink``: the received part at once, the rest as it arrives. Reading waits for a sink.

        Sends 100 Continue to a peer that waits for it, so call it only when the request is authorised.
        """

    def take_whole_body(self) -> bytes | None:
        """Return the body if it was received completely and has no sink yet; else None."""

    def hold_body(self, body: bytes) -> None:
        """Store a body that was read and checked: its next reader gets exactly these bytes."""

    def pause_body(self) -> None:
        """Pause the body; back-pressure slows the peer."""

    def resume_body(self) -> None:
        """Resume the body."""

    def let_others_first(self, take: Callable[[], None]) -> None:
        """Yield: call ``take`` in a later turn of this peer, because the work exceeds one iteration's share."""

    # --- the answer

    def answer(self, status: int, fields: Sequence[Field], body: bytes, *, close: bool = False) -> None:
        """Send a whole answer of our own. If part of the request's body is missing, the connection then closes."""

    def send_whole(self, answer: Response, edits: Edits, data: bytes) -> None:
        """Forward a whole answer with ``edits``, in one write.

        ``data`` must be empty after HEAD, and with 204 and 304.
        """

    def send_head(self, answer: Response, edits: Edits) -> None:
        """Forward an answer's head with ``edits``. The wire adds the fields for its length."""

    def switch_protocols(self, answer: Response, edits: Edits) -> None:
        """Forward a 101. From now on content is raw bytes both ways; ``read_body`` starts the peer's direction."""

    def open_tunnel(self) -> None:
        """Grant a CONNECT. From now on content is raw bytes both ways; ``read_body`` starts the peer's direction."""

    def send_no_more(self) -> None:
        """Half-close: end our direction of raw bytes."""

    def send_data(self, data: bytes) -> None:
        """Add content to the answer."""

    def flush(self) -> None:
        """Write the data sent since the last flush, in one write."""

    def send_end(self, trailers: Sequence[Field] = ()) -> None:
        """End the answer and flush. An answer shorter than its head says is aborted.

        ``trailers`` follow it where the answer can carry them; else they are dropped.
        """

    # --- the end

    def abort(self) -> None:
        """Cut the answer so that the peer recognises it as truncated."""

    def stop(self, error: SidecarError) -> None:
        """End the answer for ``error``, as its owner decides."""

    def cut_off(self) -> None:
        """End the whole connection at once. Data already in the kernel is still sent."""


def report_end(stream: Stream, error: SidecarError | None) -> None:
    """Report that the peer vanished, or that the answer must end for ``error``: to the sender, else to the owner."""
    if stream.sender is not None:
        stream.sender.on_caller_gone(error)
    elif stream.owner is not None and error is not None:
        stream.owner.stop(error)
    elif stream.owner is not None:
        stream.owner.gone()


class RequestHandler(Protocol):
    """Handler of a listener's requests."""

    def on_request(self, stream: Stream, /) -> None:
        """Serve a request; ``stream.head`` is its valid head."""

    def on_refused(self, stream: Stream, error: SidecarError, /) -> None:
        """Handle a failed request: the head is unusable, unsupported, or late.

        The connection closes after the answer.
        """


class ResponseSink(Protocol):
    """Takes one answer. ``on_response_flush`` follows each batch: collected data may be written now."""

    def on_whole_response(self, head: Response, data: bytes) -> None:
        """A whole answer at once. The only event; the connection is already back in its pool, or closed."""

    def on_response(self, head: Response, data: bytes) -> None:
        """The final head (interim ones were skipped), and the content that came with it. There is more to come.

        After a 101 ``switch_protocols`` must be called at once; ``data`` is the first of the raw bytes.
        """

    def on_response_data(self, data: bytes) -> None:
        """More content, decoded, never empty."""

    def on_response_end(self) -> None:
        """The answer is complete; the connection is already back in its pool, or closed. The last event."""

    def on_response_error(self, error: SidecarError) -> None:
        """The answer failed or is truncated. The last event."""

    def on_response_flush(self) -> None:
        """No more events for now."""

    def on_upstream_pause(self) -> None:
        """Pause: the upstream reads no more of the request for now."""

    def on_upstream_resume(self) -> None:
        """Resume: the upstream reads more of the request again."""


@runtime_checkable
class RawSink(ResponseSink, Protocol):
    """Takes the raw bytes that follow a switch of protocols, as content of the answer."""

    def on_silence(self) -> None:
        """Handle a silence in both directions that reached its limit."""


def refuses_by_grpc(stream: Stream) -> bool:
    """True if a refusal must have the form of gRPC."""
    return stream.http2 and stream.head is not None and is_grpc(stream.head)
