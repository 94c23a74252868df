"""One request and its answer on an HTTP/1.1 server connection: ``Stream`` for this version.

Sent data is collected and leaves with one write at ``flush``, ``send_end`` or ``answer``. The body goes from the bytes
of the connection through ``Intake`` to its sink.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Sequence
from typing import Final, Protocol

from delegation_core.errors import SidecarError
from sidecar.wire.framing import MessageWriter, UntilClose
from sidecar.wire.h1_body import Intake
from sidecar.wire.h1_fields import edited, encode_fields, encode_response
from sidecar.wire.lifetimes import Kind
from sidecar.wire.message import Edits, Field, Request, Response
from sidecar.wire.scheduling import Turn, WriteBatch
from sidecar.wire.stream import BodySink, Owner, Sender, report_end
from sidecar.wire.teardown import end_writing

_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"


class Carrier(Protocol):
    """The part of a connection that a stream needs."""

    transport: asyncio.Transport
    writes: WriteBatch
    out: MessageWriter
    writing_paused: bool

    @property
    def has_rest(self) -> bool:
        """True if received bytes are waiting to be used."""

    def take_rest(self) -> bytes:
        """Remove and return the buffered bytes."""

    def take_all(self, length: int | None) -> bytes | None:
        """Remove and return the buffered bytes if they have this length; else None."""

    def put_back(self, rest: bytes) -> None:
        """Put back bytes that belong to the next request."""

    def advance(self) -> None:
        """Process the received bytes as far as possible."""

    def let_others_first(self, take: Turn) -> None:
        """Yield: call ``take`` in a later turn of this peer."""

    def write(self, data: bytes) -> None:
        """Write by the end of this event-loop iteration."""

    def may_keep(self) -> bool:
        """True if another request may follow the one in progress."""

    def answered(self, stream: H1Stream) -> None:
        """Finish the current stream: its answer has ended."""

    def cut(self, *, reset: bool) -> None:
        """Close so that the answer is recognisably truncated."""

    def cut_off(self) -> None:
        """End the connection at once."""


class H1Stream:
    """One request and its answer: see ``Stream``. ``closes``: the connection closes after it.

    ``transport``: for facts about the peer, never for writing. ``idle_s``: the longest silence of a kind
    that stays open.
    """

    __slots__ = (
        "_connection",
        "_kind",
        "bytes_in",
        "bytes_out",
        "closes",
        "ended",
        "gone",
        "head",
        "held_body",
        "idle_s",
        "intake",
        "owner",
        "sender",
        "status",
        "transport",
        "warm",
    )

    http2: Final = False
    _kind: Kind  # set by ``live_as``
    idle_s: float
    grpc: Final = False  # gRPC needs HTTP/2
    has_deadline: Final = False

    def __init__(self, connection: Carrier, head: Request | None, bytes_in: int) -> None:
        self.head = head
        self.bytes_in = bytes_in
        self.bytes_out = 0
        self.status = 0
        self.ended = False
        self.gone = False
        self.intake: Intake | None = None
        self.held_body: bytes | None = None
        self.owner: Owner | None = None
        self.sender: Sender | None = None
        self._connection = connection
        self.transport = connection.transport
        self.closes = head is None or not head.keep_alive

    @property
    def kind(self) -> Kind:
        """Kind of its bodies: MESSAGE until ``live_as`` sets another."""
        return getattr(self, "_kind", Kind.MESSAGE)

    def live_as(self, kind: Kind, idle_s: float, *, unbounded: bool = False) -> None:
        """Apply the limits of ``kind`` from now on. ``idle_s``: longest silence, for kinds that stay open."""
        self._kind = kind
        self.idle_s = idle_s
        if self.intake is not None and unbounded:
            self.intake.unbind()

    @property
    def ssl_object(self) -> ssl.SSLObject | None:
        """The peer's TLS object; None on a plain connection."""
        found: ssl.SSLObject | None = self._connection.transport.get_extra_info("ssl_object")
        return found

    @property
    def remote_address(self) -> object:
        """The peer's socket address, as the transport names it."""
        return self._connection.transport.get_extra_info("peername")

    @property
    def switched(self) -> bool:
        """True if both directions are raw bytes now: after a 101, or a 200 to CONNECT."""
        return self.status == 101 or (self.status == 200 and self.head is not None and self.head.method == "CONNECT")

    @property
    def body_complete(self) -> bool:
        """True if the request is complete: it has no body, or all of it was consumed."""
        return self.intake is None

    @property
    def behind(self) -> bool:
        """True if some of the answer waits for its peer."""
        return self._connection.writing_paused and not (self.ended or self.gone)

    @property
    def writing_paused(self) -> bool:
        """True if the peer reads no more data for now."""
        return self._connection.writing_paused

    # --- the request's body

    def read_body(self, sink: BodySink) -> None:
        """Deliver the body to ``sink``: the received part at once, the rest as it arrives. Reading waits for a sink.

        Sends 100 Continue to a peer that waits for it.
        """
        if self.ended or self.gone:
            return
        if self.intake is None:
            body, self.held_body = self.held_body, None
            if body:
                sink.on_body(body)
            sink.on_body_end()
            if body is not None:
                sink.on_body_flush()
            return
        self.intake.sink = sink
        if self.head is not None and self.head.expect is not None and not self.intake.invited:
            self.intake.invited = True
            self._invite_body(self.head)
        self._connection.advance()

    def take_whole_body(self) -> bytes | None:
        """Return the whole body if it is buffered with nothing after it and has no sink yet; else None."""
        body, self.held_body = self.held_body, None
        if body is not None:
            return body
        intake, head = self.intake, self.head
        if intake is None or intake.sink is not None or head is None or self.ended or self.gone:
            return None
        data = self._connection.take_all(head.content_length)
        if data is not None:
            self.intake = None
            self.bytes_in += len(data)
        return data

    def hold_body(self, body: bytes) -> None:
        """Store a body that was read and checked: its next reader gets exactly these bytes."""
        self.held_body = body

    def pause_body(self) -> None:
        """Pause the body; TCP slows the peer down."""
        if self.intake is not None:
            self.intake.paused = True
        self._connection.advance()

    def resume_body(self) -> None:
        """Resume the body."""
        if self.intake is not None:
            self.intake.paused = False
        self._connection.advance()

    def let_others_first(self, take: Turn) -> None:
        """Yield: call ``take`` in a later turn of this peer, because the work exceeds one iteration's share."""
        self._connection.let_others_first(take)

    # --- the answer

    def send_head(self, answer: Response, edits: Edits) -> None:
        """Forward an answer's head with ``edits``. The wire adds the fields for its length.

        Without a length it is chunked, or ended by the connection for an HTTP/1.0 peer. After HEAD, and with 204 and
        304, no body is sent whatever the answer says.
        """
        if self.ended or self.gone:
            return
        status, length = answer.status, answer.content_length
        bodyless = self._bodyless(status)
        chunked = length is None and not bodyless and self.head is not None and self.head.minor == 1
        head = self._begin(status, edited(answer, edits), length, chunked=chunked)
        self._connection.out.begin(head, length=0 if bodyless else length, chunked=chunked, bodyless=bodyless)

    def switch_protocols(self, answer: Response, edits: Edits) -> None:
        """Forward a 101. From now on content is raw bytes both ways; ``read_body`` starts the peer's direction."""
        if self.ended or self.gone:
            return
        if self.status:
            raise RuntimeError("a stream has one answer")
        self.status = 101
        self.intake = Intake(UntilClose())
        from sidecar.wire.websocket import SWITCH_LINES

        self._connection.out.begin(
            encode_response(101, edited(answer, edits) + SWITCH_LINES), length=None, chunked=False
        )

    def open_tunnel(self) -> None:
        """Grant a CONNECT. From now on content is raw bytes both ways; ``read_body`` starts the peer's direction."""
        if self.ended or self.gone:
            return
        if self.status:
            raise RuntimeError("a stream has one answer")
        self.status = 200
        self.intake = Intake(UntilClose())
        self._connection.out.begin(encode_response(200, b""), length=None, chunked=False)
        self.flush()

    def send_no_more(self) -> None:
        """Half-close: end our direction of raw bytes."""
        if not (self.ended or self.gone):
            self.flush()
            self._connection.writes.write_all()
            end_writing(self._connection.transport)

    def send_data(self, data: bytes) -> None:
        """Add content to the answer."""
        if not (self.ended or self.gone):
            self._connection.out.add(data)

    def send_end(self, trailers: Sequence[Field] = ()) -> None:
        """End the answer and flush. An answer shorter than its head says is aborted.

        ``trailers`` follow a chunked answer; otherwise they are dropped.
        """
        if self.ended or self.gone:
            return
        if not self.status or not self._connection.out.end(encode_fields(trailers)):
            self.abort()
            return
        self.flush()
        self.ended = True
        self._connection.answered(self)

    def flush(self) -> None:
        """Write the data sent since the last flush, in one write."""
        out = self._connection.out
        if out.pieces and not (self.ended or self.gone):
            data = out.take()
            self.bytes_out += len(data)
            self._connection.write(data)

    def send_whole(self, answer: Response, edits: Edits, data: bytes) -> None:
        """Forward a whole answer with ``edits``, in one write.

        ``data`` must be empty after HEAD, and with 204 and 304.
        """
        if not (self.ended or self.gone):
            self._give(answer.status, edited(answer, edits), answer.content_length, data)

    def _give(self, status: int, lines: bytes, length: int | None, data: bytes) -> None:
        """Write a whole answer, then continue."""
        message = self._begin(status, lines, length, data=data)
        self.bytes_out += len(message)
        connection = self._connection
        connection.writes.defer(connection.transport, message)
        self.ended = True
        connection.answered(self)

    def answer(self, status: int, fields: Sequence[Field], body: bytes, *, close: bool = False) -> None:
        """Send a whole answer of our own. If part of the request's body is missing, the connection then closes."""
        if self.ended or self.gone:
            return
        self.closes = self.closes or close
        self._forget_sink()
        self._give(status, encode_fields(fields), len(body), b"" if self._bodyless(status) else body)

    def abort(self) -> None:
        """Cut the answer so that the peer recognises it as truncated."""
        if self.ended or self.gone:
            return
        self.flush()
        self.ended = True
        self._forget_sink()
        self._connection.cut(reset=self._connection.out.until_close)

    def cut_off(self) -> None:
        """End the whole connection at once. Data already in the kernel is still sent."""
        self._connection.cut_off()

    def stop(self, error: SidecarError) -> None:
        """End the answer for ``error``, as its owner decides."""
        if self.owner is not None:
            self.owner.stop(error)

    # --- for the connection only

    def fail_body(self, error: SidecarError) -> None:
        """End an unfinished body; later bytes are not parsed as a request."""
        sink = self._forget_sink()
        self.closes = True
        if sink is not None:
            sink.on_body_error(error)

    def batch_end(self) -> None:
        """Flush after all buffered input was delivered."""
        if self.intake is not None and self.intake.sink is not None:
            self.intake.sink.on_body_flush()
        self.flush()

    def end_of_input(self) -> bool:
        """Handle the peer's FIN. Return True if writing continues: only raw bytes may be half-closed."""
        sink = self._forget_sink()
        if not self.switched or sink is None:
            return False
        self.intake = None
        sink.on_body_end()
        sink.on_body_flush()
        return not self.ended

    def lose_peer(self, error: SidecarError | None = None) -> None:
        """End the stream: the peer is gone, or is cut off for ``error``."""
        if self.ended or self.gone:
            return
        self.gone = True
        self._forget_sink()
        self._connection.out.clear()
        report_end(self, error)

    @property
    def waits_for_body(self) -> bool:
        """True if a sink waits for body bytes that the peer has not sent."""
        return self.intake is not None and self.intake.wanted and not self.switched

    @property
    def body_paused(self) -> bool:
        """True if the body is paused because its sink is behind."""
        return self.intake is not None and self.intake.paused

    def _begin(
        self, status: int, lines: bytes, length: int | None, *, chunked: bool = False, data: bytes = b""
    ) -> bytes:
        """Begin the answer; return its head, and ``data`` after it."""
        if self.status:
            raise RuntimeError("a stream has one answer")
        if self.intake is not None and self.intake.sink is None:
            self._discard_buffered_body(self.intake)
        self.status = status
        framing = b""
        if chunked:
            framing = b"transfer-encoding: chunked\r\n"
        elif length is not None and status != 204:  # RFC 9110 section 8.6: no Content-Length with 204
            framing = b"content-length: %d\r\n" % length
        if self.closes or self.intake is not None or not self._connection.may_keep():
            self.closes = True
            framing += b"connection: close\r\n"
        return encode_response(status, lines, framing, data)

    def _bodyless(self, status: int) -> bool:
        """True if an answer of this status has no content, whatever its head says."""
        return status in (204, 304) or (self.head is not None and self.head.method == "HEAD")

    def _forget_sink(self) -> BodySink | None:
        """Detach the body's sink, and return it."""
        if self.intake is None:
            return None
        sink, self.intake.sink = self.intake.sink, None
        return sink

    def _invite_body(self, head: Request) -> None:
        """Send 100 Continue, unless body bytes have arrived or the peer speaks HTTP/1.0 (RFC 9110 section 10.1.1)."""
        if head.minor == 1 and not self._connection.has_rest:
            self.bytes_out += len(_CONTINUE)
            self._connection.write(_CONTINUE)

    def _discard_buffered_body(self, intake: Intake) -> None:
        """Discard an unread body. If it is fully buffered, the connection can be reused."""
        rest = intake.discard(self, self._connection.take_rest())
        if rest is not None:
            self._connection.put_back(rest)
