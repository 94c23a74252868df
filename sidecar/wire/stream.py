"""Streams: one request and its answer, as policy and the other side of a proxy see them, whatever version carries them.

``Stream`` is the server's side. ``h1_stream`` implements it for HTTP/1.1; a stream of HTTP/2 can as well. The other
protocols are told of events: sinks take what comes, an owner and a sender are told when it must end.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Sequence
from typing import Protocol

from sidecar.errors import SidecarError
from sidecar.wire.message import Edits, Field, Request, Response


class BodySink(Protocol):
    """Takes a request body. ``on_body_flush`` follows each batch: what was collected may be written now."""

    def on_body(self, data: bytes) -> None:
        """More content, decoded, never empty."""

    def on_body_end(self) -> None:
        """The body is complete, or, after a switch of protocols, the peer sends no more. The last event."""

    def on_body_error(self, error: SidecarError) -> None:
        """The body is broken, too long or too late. The last event; the request can still be answered."""

    def on_body_flush(self) -> None:
        """No more events for now."""


class Owner(Protocol):
    """The party that serves a request, and is told when it must end."""

    def gone(self) -> None:
        """The peer vanished before the answer ended."""

    def stop(self, error: SidecarError) -> None:
        """The answer must end now, for this reason."""


class Sender(Protocol):
    """The party that passes an answer on, at the pace of the peer that takes it."""

    def on_caller_gone(self, error: SidecarError | None = None) -> None:
        """The last event before the answer ended: the peer vanished, or we cut it off for ``error``.

        The owner learns it from here.
        """

    def on_caller_pause(self) -> None:
        """The peer takes no more of the answer for now."""

    def on_caller_resume(self) -> None:
        """The peer takes more of the answer again."""


class Stream(Protocol):
    """One request (``head``, None if it was unusable) and the one answer to it. Nothing here waits.

    Its ``owner`` is told that the answer must end, or that the peer vanished before it did; the latter goes to the
    ``sender`` while there is one, which is also told when the peer takes no more data for now. ``status`` is 0 until an
    answer begins. After the stream has ``ended``, or its peer is ``gone``, every call is without effect. ``bytes_in``
    and ``bytes_out`` count bytes on the wire.
    """

    head: Request | None
    status: int
    ended: bool
    gone: bool
    bytes_in: int
    bytes_out: int
    owner: Owner | None
    sender: Sender | None

    # --- transport facts

    @property
    def transport(self) -> asyncio.Transport:
        """The peer's transport, for what is known about the peer. Not for writing."""

    @property
    def ssl_object(self) -> ssl.SSLObject | None:
        """The peer's TLS object; None on a plain connection."""

    @property
    def remote_address(self) -> object:
        """The peer's socket address, as the transport names it."""

    @property
    def writing_paused(self) -> bool:
        """Tell if the peer takes no more data for now."""

    @property
    def switched(self) -> bool:
        """Tell if both directions are raw bytes now."""

    # --- the request's body

    @property
    def body_complete(self) -> bool:
        """Tell if the request is whole: it has no body, or all of it was taken."""

    def read_body(self, sink: BodySink) -> None:
        """Give the body to ``sink``: at once what is there, the rest as it comes. Until then, reading is paused.

        A peer that waits for 100 Continue gets it now, when the request was authorised and somebody takes its body.
        """

    def take_whole_body(self) -> bytes | None:
        """The body, if it is here as a whole and nobody has begun to take it; else None."""

    def hold_body(self, body: bytes) -> None:
        """Hold a body that was read and judged: whoever takes the body next is given these bytes."""

    def pause_body(self) -> None:
        """Take no more of the body for now: the peer is slowed down."""

    def resume_body(self) -> None:
        """Take more of the body again."""

    def let_others_first(self, take: Callable[[], None]) -> None:
        """Go on with ``take`` in a turn of the peer's: there is more to do than is done at a time."""

    # --- the answer

    def answer(self, status: int, fields: Sequence[Field], body: bytes, *, close: bool = False) -> None:
        """Give a whole answer of our own. If the request's body is not all there, the connection closes after it."""

    def send_whole(self, answer: Response, edits: Edits, data: bytes) -> None:
        """Pass a whole answer on, with its fields edited: one write.

        After HEAD, and with 204 and 304, there must be no ``data``, whatever length the answer states.
        """

    def send_head(self, answer: Response, edits: Edits) -> None:
        """Begin to pass an answer on, with its fields edited. The fields for its length are the wire's own."""

    def switch_protocols(self, answer: Response, edits: Edits) -> None:
        """Pass a 101 on: content is raw bytes both ways from now on, until the end; ``read_body`` begins it."""

    def send_data(self, data: bytes) -> None:
        """Add content to the answer."""

    def flush(self) -> None:
        """Write what was sent since the last flush: one write."""

    def send_end(self, trailers: Sequence[Field] = ()) -> None:
        """End the answer and write it. An answer shorter than its head says ends as an aborted one.

        ``trailers`` follow it where the answer can carry them; else they are dropped.
        """

    # --- the end

    def abort(self) -> None:
        """Cut the answer, so that the peer sees a truncated one, never a complete one."""

    def stop(self, error: SidecarError) -> None:
        """End it for ``error``, as its owner sees fit."""

    def cut_off(self) -> None:
        """End the whole connection at once. What the kernel takes of the answer still leaves."""


class RequestHandler(Protocol):
    """Handler of a listener's requests."""

    def on_request(self, stream: Stream, /) -> None:
        """One whole valid head; ``stream.head`` is set."""

    def on_refused(self, stream: Stream, error: SidecarError, /) -> None:
        """No request: the head is unusable, unspoken here, or late. The connection closes after the answer."""


class ResponseSink(Protocol):
    """Takes one answer. ``on_response_flush`` follows each batch: what was collected may be written now."""

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
        """There will be no (more of an) answer. The last event."""

    def on_response_flush(self) -> None:
        """No more events for now."""

    def on_upstream_pause(self) -> None:
        """The upstream takes no more of the request for now."""

    def on_upstream_resume(self) -> None:
        """The upstream takes more of the request again."""


class RawSink(ResponseSink, Protocol):
    """Takes the raw bytes that follow a switch of protocols, as content of the answer."""

    def on_silence(self) -> None:
        """Nothing has passed in either direction for as long as is allowed."""
