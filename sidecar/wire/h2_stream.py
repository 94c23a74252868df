"""One request and its answer on an HTTP/2 server connection: ``Stream`` for this version.

Back-pressure is per stream: its body fills a window that opens again as the content is consumed, and its answer is
buffered while the peer's window is full. The end of a stream affects no other.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Sequence
from typing import Final, Protocol

from delegation_core.errors import DeadlinePassed, Denied, Reason, SidecarError
from sidecar.wire.h1_fields import edited, encode_fields
from sidecar.wire.h2_body import RequestBody
from sidecar.wire.h2_frames import Code
from sidecar.wire.h2_head import fields_of
from sidecar.wire.lifetimes import RULES, Kind
from sidecar.wire.message import Edits, Field, Request, Response
from sidecar.wire.scheduling import Turn
from sidecar.wire.stream import BodySink, Owner, Sender, report_end
from sidecar.wire.teardown import Pace


class Carrier(Protocol):
    """The part of a connection that a stream needs."""

    transport: asyncio.Transport
    writing_paused: bool

    def now(self) -> float:
        """Return monotonic seconds."""

    def send_head(self, stream: H2ServerStream, fields: Sequence[Field], *, ends: bool) -> None:
        """Write a head, or the trailers."""

    def window_of(self, stream: H2ServerStream) -> int:
        """Return the number of bytes of content that the stream may send now."""

    def send_content(self, stream: H2ServerStream) -> None:
        """Write the stream's content as far as its windows admit, and its end."""

    def reset(self, stream: H2ServerStream, code: int) -> None:
        """End the stream at once."""

    def taken(self, stream_id: int, size: int) -> None:
        """Return flow-control credit for consumed content."""

    def answered(self, stream: H2ServerStream) -> None:
        """Finish a stream: its answer has ended."""

    def finish(self) -> None:
        """Serve no further stream, and close after the last."""

    def let_others_first(self, take: Turn) -> None:
        """Yield: call ``take`` in a later turn of this peer."""


class H2ServerStream:
    """One request and its answer: see ``Stream``.

    ``malformed``: the request is malformed; its answer ends with a reset. ``refused``: it gets only a reset
    (REFUSED_STREAM), which tells the peer that it may retry. ``pending``: answer content blocked on windows;
    ``trailers`` follow it. ``pace`` is that of the body, or of the answer while the peer's window holds it back, and
    ``silence`` of both together, for a kind that stays open: at most ``idle_s``.
    """

    __slots__ = (
        "_connection",
        "_invited",
        "_kind",
        "_waits",
        "answer_left",
        "body",
        "bytes_in",
        "bytes_out",
        "deadline",
        "ended",
        "ending",
        "gone",
        "grpc",
        "head",
        "idle_s",
        "malformed",
        "owner",
        "pace",
        "pending",
        "read_some",
        "refused",
        "sender",
        "silence",
        "status",
        "stream_id",
        "trailers",
    )

    http2: Final = True
    _kind: Kind  # this from ``live_as`` on
    idle_s: float  # this and the next are set by ``live_as``, for kinds that stay open
    silence: Pace
    grpc: bool  # set when the stream is handed over
    read_some: bool  # set when content of the answer is written

    def __init__(self, connection: Carrier, stream_id: int, *, max_body_bytes: int) -> None:
        self.stream_id = stream_id
        self.head: Request | None = None
        self.bytes_in = 0
        self.bytes_out = 0
        self.status = 0
        self.ended = False
        self.gone = False
        self.malformed = False
        self.refused = False
        self.owner: Owner | None = None
        self.sender: Sender | None = None
        self.pending = bytearray()
        self.ending = False  # no further content of the answer will be added
        self.trailers: list[Field] = []
        self.answer_left: int | None = None  # content stated by the answer's head and not added yet
        self.pace = Pace()
        self.deadline: asyncio.TimerHandle | None = None  # of the caller's own
        self.body = RequestBody(connection, stream_id, max_bytes=max_body_bytes)
        self._connection = connection
        self._invited = False
        self._waits = False  # the source of the answer was paused by this stream

    @property
    def kind(self) -> Kind:
        """Kind of its bodies: MESSAGE until ``live_as`` sets another."""
        return getattr(self, "_kind", Kind.MESSAGE)

    def live_as(self, kind: Kind, idle_s: float, *, unbounded: bool = False) -> None:
        """Apply the limits of ``kind`` from now on. ``idle_s``: longest silence, for kinds that stay open."""
        if RULES[kind].stays_open and not RULES[self.kind].stays_open:
            self.silence = Pace()
            self.silence.begin(self._connection.now(), self.bytes_sent + self.bytes_in)
        self._kind = kind
        self.idle_s = idle_s
        if unbounded:
            self.body.unbind()

    @property
    def has_deadline(self) -> bool:
        """True if the caller set a ``grpc-timeout``."""
        return self.deadline is not None

    # --- transport facts

    @property
    def transport(self) -> asyncio.Transport:
        """The peer's transport, for facts about the peer. Not for writing."""
        return self._connection.transport

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
    def writing_paused(self) -> bool:
        """True if the peer reads no more data for now: of this stream, or of the connection."""
        return self._waits or self._connection.writing_paused

    @property
    def switched(self) -> bool:
        """Always False: no HTTP/2 stream becomes raw bytes here."""
        return False

    # --- the request's body

    @property
    def body_complete(self) -> bool:
        """True if the request is complete: without a body, or with a fully consumed one."""
        return self.body.complete

    @property
    def _resets(self) -> bool:
        """True if a reset must end the stream."""
        return self.malformed or self.refused

    @property
    def behind(self) -> bool:
        """True if part of the answer is, or will be, blocked on a window or the connection."""
        if self.gone or (self.ended and not self.pending):
            return False
        paused = self._connection.writing_paused and self.status != 0
        return bool(self.pending) or paused or self._connection.window_of(self) <= 0

    @property
    def bytes_sent(self) -> int:
        """Number of answer bytes written to the transport."""
        return self.bytes_out - len(self.pending)

    def read_body(self, sink: BodySink) -> None:
        """Deliver the body to ``sink``: the received part at once, the rest as it arrives. Until then its window fills.

        Sends 100 Continue to a peer that waits for it.
        """
        if self.ended or self.gone:
            return
        if self.head is not None and self.head.expect is not None and not self._invited:
            self._invited = True
            if not (self.body.begun or self.status):
                self._connection.send_head(self, [(b":status", b"100")], ends=False)
        self.body.read(sink)

    def take_whole_body(self) -> bytes | None:
        """Return the body if it was received completely and has no sink yet; else None."""
        return self.body.take_whole()

    def hold_body(self, body: bytes) -> None:
        """Store a body that was read and checked: its next reader gets exactly these bytes."""
        self.body.hold(body)

    def pause_body(self) -> None:
        """Pause the body: its window fills."""
        self.body.pause()

    def resume_body(self) -> None:
        """Resume the body."""
        self.body.resume()

    def let_others_first(self, take: Turn) -> None:
        """Yield: call ``take`` in a later turn of this peer."""
        self._connection.let_others_first(take)

    # --- the answer

    def answer(self, status: int, fields: Sequence[Field], body: bytes, *, close: bool = False) -> None:
        """Send a whole answer of our own.

        ``close``, unless the request caused the error, ends the connection after the streams in progress.
        """
        if self.ended or self.gone:
            return
        self.body.drop()
        content = b"" if self.refused or self._bodyless(status) else body
        self._begin(status, fields_of(encode_fields(fields)), len(body), ends=not (content or self._resets))
        self.send_data(content)
        self._end()
        if close and status in (200, 503):
            self._connection.finish()

    def send_whole(self, answer: Response, edits: Edits, data: bytes) -> None:
        """Forward a whole answer with ``edits``."""
        if not (self.ended or self.gone):
            self._begin(answer.status, fields_of(edited(answer, edits)), answer.content_length, ends=not data)
            self.pending += data
            self.bytes_out += len(data)
            self._end()

    def send_head(self, answer: Response, edits: Edits) -> None:
        """Forward an answer's head with ``edits``. The wire adds the field for its length."""
        if not (self.ended or self.gone):
            self._begin(answer.status, fields_of(edited(answer, edits)), answer.content_length)
            self.answer_left = 0 if self._bodyless(answer.status) else answer.content_length

    def switch_protocols(self, answer: Response, edits: Edits) -> None:  # noqa: ARG002
        """Never called: no request of HTTP/2 asks for it (RFC 9113 section 8.6)."""
        raise RuntimeError("no stream of HTTP/2 switches protocols")

    def open_tunnel(self) -> None:
        """Never called: CONNECT is refused."""
        raise RuntimeError("no stream of HTTP/2 is a tunnel")

    def send_no_more(self) -> None:
        """Never called: as ``open_tunnel``."""

    def send_data(self, data: bytes) -> None:
        """Add content to the answer."""
        if self.ended or self.gone or not data:
            return
        if self.answer_left is not None:
            data = data[: self.answer_left]
            self.answer_left -= len(data)
        self.pending += data
        self.bytes_out += len(data)

    def flush(self) -> None:
        """Write as much as the windows admit; pause the source if content remains."""
        if self.pending and not (self.ended or self.gone):
            self._connection.send_content(self)

    def send_end(self, trailers: Sequence[Field] = ()) -> None:
        """End the answer and flush. An answer shorter than its head says is aborted."""
        if self.ended or self.gone:
            return
        if not self.status or self.answer_left:
            self.abort()
            return
        self.trailers = list(trailers)
        self._end()

    def abort(self) -> None:
        """Cut the answer so that the peer recognises it as truncated."""
        if self.ended or self.gone:
            return
        self.ended = True
        self._forget()
        self._connection.reset(self, Code.INTERNAL_ERROR if self.status else Code.CANCEL)
        self._connection.answered(self)

    def cut_off(self) -> None:
        """End this stream at once; other streams of the connection go on."""
        self.abort()

    def stop(self, error: SidecarError) -> None:
        """End the answer for ``error``, as its owner decides."""
        if self.owner is not None:
            self.owner.stop(error)

    def _begin(self, status: int, fields: list[Field], length: int | None, *, ends: bool = False) -> None:
        if self.status:
            raise RuntimeError("a stream has one answer")
        self.status = status
        lines = [(b":status", b"%d" % status), *fields]
        if length is not None and status != 204:
            lines.append((b"content-length", b"%d" % length))
        self._connection.send_head(self, lines, ends=ends)
        self.ending = ends

    def _end(self) -> None:
        """End the answer now, or when the windows have admitted its rest. Discards the rest of the request."""
        self.ended = True
        self.end_deadline()
        self.body.drop()
        if self.ending:
            self._connection.answered(self)
        else:
            self.ending = True
            self._connection.send_content(self)

    def _bodyless(self, status: int) -> bool:
        return status in (204, 304) or (self.head is not None and self.head.method == "HEAD")

    def _forget(self) -> None:
        """Discard all state of both directions."""
        self.end_deadline()
        self.body.drop()
        self.pending.clear()

    # --- for the connection only

    def begin(self, head: Request) -> None:
        """Note the head of the request."""
        self.head = head
        self.body.expected = head.content_length

    def end_in(self, seconds: float) -> None:
        """Set the caller's deadline: end the request after ``seconds``."""
        self.deadline = asyncio.get_running_loop().call_later(seconds, self._time_out)

    def end_deadline(self) -> None:
        """Cancel the caller's deadline."""
        if self.deadline is not None:
            self.deadline.cancel()
            self.deadline = None

    def _time_out(self) -> None:
        self.deadline = None
        self.end_for(DeadlinePassed("the grpc-timeout of the caller", begun=self.status != 0))

    def end_for(self, error: SidecarError) -> None:
        """End the request for ``error``: through its sender, which may still report the reason, or else its owner."""
        if not (self.ended or self.gone):
            report_end(self, error)

    def receive(self, data: bytes, size: int, *, ends: bool) -> None:
        """Add content, or the end of the body; ``size``: its flow-controlled size."""
        try:
            self.body.receive(data, size)
            if ends:
                self.body.end()
        except Denied as error:
            self.fail_body(error)
        else:
            self.body.give()

    def fail_body(self, error: SidecarError) -> None:
        """End an unfinished body: its request is answered, and reset as malformed if it is."""
        if self.ended or self.gone:
            return
        self.malformed = error.reason is Reason.AMBIGUOUS_FRAMING
        sink = self.body.drop()
        if sink is not None:
            sink.on_body_error(error)
        elif self.owner is not None:
            self.owner.stop(error)

    def lose_peer(self, error: SidecarError | None = None) -> None:
        """End the stream: the peer is gone, has reset it, or is cut off for ``error``."""
        if self.gone or (self.ended and not self.pending):
            return
        ended = self.ended
        self.gone = True
        self._forget()
        if ended:
            return
        report_end(self, error)

    @property
    def ends_by_content(self) -> bool:
        """True if the last content also ends the stream."""
        return self.ending and not (self.trailers or self._resets)

    def moved(self) -> None:
        """Note in ``read_some`` that content of the answer was written."""
        self.read_some = True

    def hold_back(self) -> None:
        """Pause the source of the answer: a window is full."""
        if not self._waits:
            self._waits = True
            self.pace.begin(self._connection.now(), self.bytes_sent)
            if self.sender is not None:
                self.sender.on_caller_pause()

    def go_on(self) -> None:
        """Resume the source of the answer."""
        if self._waits:
            self._waits = False
            if self.sender is not None:
                self.sender.on_caller_resume()
