"""One request and its answer on an HTTP/2 connection to an upstream, with the interface of an HTTP/1.1 connection.

The pool hands out an ``H2Exchange`` if the upstream speaks HTTP/2, and takes it back when the answer is complete. To
the pump it is a connection with one request at a time; all exchanges of one upstream connection share its socket.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, NoReturn

from delegation_core.errors import Denied, Reason, SidecarError, Unavailable
from sidecar.wire.h2_answer import Answer
from sidecar.wire.h2_frames import Code
from sidecar.wire.h2_head import fields_of
from sidecar.wire.lifetimes import patience_with
from sidecar.wire.limits import ClientLimits
from sidecar.wire.message import SUGGESTS_BODY, Field, Response
from sidecar.wire.stream import RawSink, ResponseSink
from sidecar.wire.upstream_errors import UnseenRequest, UpstreamCancelled, closed_unanswered
from sidecar.wire.websocket import Handshake

if TYPE_CHECKING:
    from sidecar.wire.upstream import Carrier

_log: Final = logging.getLogger("sidecar.wire")

_MAX_COPY: Final = 64 * 1024
_GRPC: Final = b"application/grpc"


class H2Exchange:
    """One request at a time. ``trailers`` follow the answer that has just ended.

    ``pending``: request content blocked on windows; ``ending``: no further content will be added.
    """

    __slots__ = (
        "_answer",
        "_connection",
        "_copy",
        "_dropped",
        "_held_back",
        "_limits",
        "_moved_at",
        "_sent_all",
        "_sink",
        "_waits",
        "ending",
        "kept",
        "pending",
        "stream_id",
    )

    def __init__(self, connection: Carrier[H2Exchange], limits: ClientLimits) -> None:
        self.kept = False
        self.stream_id = 0
        self.pending = bytearray()
        self.ending = False
        self._connection = connection
        self._limits = limits
        self._sink: ResponseSink | None = None
        self._answer = Answer("", max_interim=0)
        self._copy: bytearray | None = None  # of the request's content, if it is little, until the answer begins
        self._sent_all = False
        self._held_back = False
        self._waits = False
        self._dropped = False
        self._moved_at = 0.0

    @property
    def transport(self) -> asyncio.Transport:
        """The upstream's transport, for facts about it."""
        return self._connection.transport

    @property
    def trailers(self) -> list[Field]:
        """Return the trailers of the answer that has just ended."""
        return self._answer.trailers

    @property
    def usable(self) -> bool:
        """True if another request may be sent now."""
        return not self._dropped and self._sink is None and self._connection.accepts

    # --- the request

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
        """Send a whole request. ``lines``: its fields, encoded as for HTTP/1.1."""
        if handshake is not None:
            error = Denied(Reason.UPGRADE_REFUSED, "the upstream is called by HTTP/2, which has no upgrade")
            asyncio.get_running_loop().call_soon(sink.on_response_error, error)
            self.close()
            return
        fields = fields_of(lines)
        if body or method in SUGGESTS_BODY:
            fields.append((b"content-length", b"%d" % len(body)))
        self._begin(method, target, fields, sink, ends=not body)
        if body:
            self.send_body(body)
            self._end()

    def start(self, method: str, target: bytes, lines: bytes, *, length: int | None, sink: ResponseSink) -> None:
        """Begin a request with a body of ``length`` bytes; None if unknown."""
        fields = fields_of(lines)
        if length is not None:
            fields.append((b"content-length", b"%d" % length))
        self._begin(method, target, fields, sink, ends=False)

    def _begin(self, method: str, target: bytes, fields: list[Field], sink: ResponseSink, *, ends: bool) -> None:
        if not self.usable:
            raise RuntimeError("the connection is in use or closed")
        values = dict(fields)  # the edits to a request leave one Host
        authority = values.pop(b"host", b"")
        head = [
            (b":method", method.encode("ascii")),
            (b":scheme", self._connection.scheme),
            (b":authority", authority),
            (b":path", target),
            *(values.items() if len(values) == len(fields) - 1 else [one for one in fields if one[0] != b"host"]),
        ]
        if values.get(b"content-type", b"").startswith(_GRPC):
            head.append((b"te", b"trailers"))
        if not self._connection.takes(head):  # the upstream might end the connection, with the requests of others
            error = Denied(Reason.HEAD_TOO_LARGE, "the head is larger than the settings of the upstream say")
            asyncio.get_running_loop().call_soon(sink.on_response_error, error)
            self.close()
            return
        self._sink = sink
        self._answer = Answer(method, max_interim=self._limits.max_interim)
        self._copy = bytearray()
        self.ending = False
        self._sent_all = ends
        self._held_back = self._waits = False
        self._moved_at = self._connection.now()
        self.stream_id = self._connection.begin(self, head, ends=ends)

    def send_body(self, data: bytes) -> None:
        """Add content to the request."""
        if self._sink is None:
            return
        self.pending += data
        if self._copy is not None:
            self._copy += data
            if len(self._copy) > _MAX_COPY:
                self._copy = None

    def end_body(self) -> None:
        """End the request."""
        if self._sink is not None and not self._sent_all:
            self._end()

    def _end(self) -> None:
        self._sent_all = self.ending = True
        self._connection.send_content(self)

    def flush(self) -> None:
        """Write the collected content as far as the windows admit."""
        if self._sink is not None and self.pending:
            self._moved_at = self._connection.now()
            self._connection.send_content(self)

    def switch_protocols(self, sink: RawSink) -> NoReturn:  # noqa: ARG002
        """Never called: an answer of HTTP/2 is never 101."""
        raise RuntimeError("HTTP/2 switches no protocols")

    def abort(self) -> None:
        """Give up the request; no further event is reported. The upstream sees a reset of this stream alone."""
        sink, self._sink = self._sink, None
        if sink is not None:
            self._forget()
            self._connection.over(self, Code.CANCEL)
        self.close()

    def close(self) -> None:
        """Make this exchange unusable for further requests."""
        if not self._dropped:
            self._dropped = True
            self._connection.drop(self)

    def pause_reading(self) -> None:
        """Pause reading the answer: its window fills."""
        self._held_back = True

    def resume_reading(self) -> None:
        """Resume reading the answer."""
        if self._held_back:
            self._held_back = False
            self._moved_at = self._connection.now()
            self._tell()

    # --- for the connection: the answer

    def on_interim(self) -> None:
        """Skip an interim answer. Denied if there are too many."""
        self._answer.skip_interim()

    def on_head(self, head: Response) -> None:
        """Set the final head."""
        self._moved_at = self._connection.now()
        self._copy = None
        self._answer.begin(head)

    def on_content(self, data: bytes, size: int) -> None:
        """Add content; ``size``: its flow-controlled size. Denied if it is too much."""
        self._moved_at = self._connection.now()
        self._answer.add(data, size)

    def on_end(self, trailers: Sequence[Field] = ()) -> None:
        """End the answer and report it to the sink, unless paused; fails if it is shorter than its head says."""
        if self._sink is None:
            return
        self._answer.trailers = list(trailers)
        try:
            self._answer.end()
        except Denied as error:
            self.fail(error, None)
            return
        self._moved_at = self._connection.now()
        self._connection.over(self, None if self._sent_all and not self.pending else Code.NO_ERROR)
        self.pending.clear()
        self._tell()

    def on_reset(self, code: int) -> None:
        """Handle a reset of the stream, after passing on the received part of the answer."""
        kind = UpstreamCancelled if code == Code.CANCEL else Denied
        if self._answer.head is not None:  # whatever the code: a request whose answer has begun is never sent again
            self.tell()
            self.fail(kind(Reason.UPSTREAM_ABORTED, "the upstream reset the stream inside its answer"), None)
        elif code == Code.REFUSED_STREAM:
            self.fail(self._unseen("the upstream refused the stream unseen"), None)
        else:
            self.fail(kind(Reason.UPSTREAM_BAD_RESPONSE, "the upstream reset the stream before an answer"), None)

    def on_connection_lost(self, *, unseen: bool) -> None:
        """Handle the end of the connection. ``unseen``: the upstream has not processed the request."""
        if self._sink is not None:
            if self._answer.head is not None:
                error: SidecarError = Denied(Reason.UPSTREAM_ABORTED, "the connection ended inside the answer")
            elif unseen:
                error = self._unseen("the upstream left before it began with the request")
            else:
                error = closed_unanswered(kept=self.kept)
            self.fail(error, None)

    def _unseen(self, detail: str) -> UnseenRequest:
        whole = self._copy is not None and self._sent_all
        return UnseenRequest(detail, bytes(self._copy or b"") if whole else None)

    def tell(self) -> None:
        """Report the events of one read to the sink."""
        if self._sink is not None:
            self._tell()

    def _tell(self) -> None:
        sink = self._sink
        if sink is None or self._answer.head is None or self._held_back:
            return
        answer = self._answer
        try:
            self._pass_on(sink, self._take())
        except Exception:  # noqa: BLE001 - a bug ends its own request, not those of others on the connection
            _log.exception("the sink of an answer failed")
            error = Unavailable(Reason.INTERNAL, "the sink of an answer failed")
            if self._answer is not answer:  # another request was begun meanwhile
                sink.on_response_error(error)
                return
            self._sink = sink
            self.fail(error, None if self._answer.over else Code.CANCEL)

    def _pass_on(self, sink: ResponseSink, data: bytes) -> None:
        answer = self._answer
        if answer.is_whole:
            self._finish()
            answer.tell_whole(sink, data)
            return
        over = answer.over
        answer.tell(sink, data)
        if over and self._sink is sink:
            self._finish()
            sink.on_response_end()
        else:
            sink.on_response_flush()

    def _finish(self) -> None:
        self._sink = None
        self._connection.keep(self)

    def fail(self, error: SidecarError, code: int | None) -> None:
        """End the exchange for an error; with a code, its stream is reset."""
        sink, self._sink = self._sink, None
        self._forget()
        if sink is not None:
            self._connection.over(self, code)
        self.close()
        if sink is not None:
            sink.on_response_error(error)

    def _forget(self) -> None:
        self.pending.clear()
        self._copy = None
        self._take()

    def _take(self) -> bytes:
        """Return the received content, and open the windows again."""
        size = self._answer.size
        data = self._answer.take()
        self._connection.taken(self.stream_id, size)
        return data

    # --- for the connection: windows and time

    def hold_back(self) -> None:
        """Pause the source of the request: a window is full."""
        if not self._waits:
            self._waits = True
            self._moved_at = self._connection.now()
            if self._sink is not None:
                self._sink.on_upstream_pause()

    def go_on(self) -> None:
        """Resume the source of the request."""
        if self._waits:
            self._waits = False
            self._moved_at = self._connection.now()
            if self._sink is not None:
                self._sink.on_upstream_resume()

    @property
    def ends_by_content(self) -> bool:
        """True if the last content also ends the request."""
        return self.ending

    def moved(self) -> None:
        """Note that content of the request was written."""
        self._moved_at = self._connection.now()

    def pause_source(self) -> None:
        """Pause the source of the request: the connection's write buffer is full."""
        if self._sink is not None:
            self._sink.on_upstream_pause()

    def resume_source(self) -> None:
        """Resume the source of the request, unless its window is full."""
        if self._sink is not None and not self._waits:
            self._sink.on_upstream_resume()

    def sweep(self, now: float) -> None:
        """Act on the deadlines that have passed."""
        silent, head, limits = now - self._moved_at, self._answer.head, self._limits
        if self._sink is None or silent <= limits.least_s:
            return
        patience = patience_with(self._sink, head, limits)
        if self.pending:
            if silent > patience.taking_s:
                self._time_out("the upstream takes no more of the request")
        elif head is None:
            if (self._sent_all or patience.while_sending) and silent > patience.head_s:
                self._time_out("no answer from the upstream")
        elif not self._held_back and silent > patience.answer_s:
            self._time_out("the upstream's answer stopped coming")

    def _time_out(self, detail: str) -> None:
        self.fail(Unavailable(Reason.UPSTREAM_TIMEOUT, detail), Code.CANCEL)
