"""Readers of requests on server connections and of answers on upstream connections: strict, bounded, pure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from delegation_core.errors import Denied, Reason
from sidecar.wire.framing import Body, ChunkedBody, LengthBody, UntilClose
from sidecar.wire.h1_head import RequestGrammar, ResponseGrammar, fault_of_line
from sidecar.wire.h1_shape import answer_shapes, request_shapes
from sidecar.wire.limits import ClientLimits, ServerLimits
from sidecar.wire.message import Request, Response

if TYPE_CHECKING:
    from sidecar.wire.websocket import Handshake

CONTINUE: Final = b"100-continue"  # the only supported expectation (RFC 9110 section 10.1.1)
_CR: Final = 0x0D
# All octets allowed in a head (RFC 9112 section 2.2: no bare CR or LF, no control bytes).
_SOUND: Final = re.compile(rb"(?:[\t\x20-\x7e\x80-\xff]+|\r\n)*+")
_FIRST_LINE: Final = re.compile(rb"(?:[!-~]+ [!-~]+ HTTP/1\.[01]|HTTP/1\.[01] [1-5][0-9][0-9](?: .*)?)")


class HeadBuffer:
    """Collects fragments of one head. Input that cannot become a head is refused at once, not at the deadline.

    ``of_requests``: the heads are request heads, so one empty line before each is allowed (RFC 9112 section 2.2),
    and the HTTP/2 preface has its own reason. Holds at most ``max_head_bytes`` and one read, and
    examines every byte a bounded number of times, however the input is split. ``held``: bytes of an unfinished head;
    ``fresh``: nothing has arrived, not even an empty line. A head of ``ordinary`` bytes is within all limits.
    """

    __slots__ = (
        "_begun",
        "_first_line_end",
        "_max_first_line",
        "_max_head_bytes",
        "_of_requests",
        "_skips",
        "_sound",
        "fresh",
        "held",
        "ordinary",
    )

    def __init__(self, *, max_head_bytes: int, max_first_line: int, of_requests: bool) -> None:
        self._max_head_bytes = max_head_bytes
        self._max_first_line = max_first_line
        self.ordinary = min(max_head_bytes, max_first_line)
        self._of_requests = of_requests
        self._skips = of_requests  # an empty line may precede this head
        self.fresh = True
        self.held = 0
        self._begun = bytearray()
        self._sound = 0
        self._first_line_end = -1

    @property
    def first_line_read(self) -> bool:
        """True if an unfinished head has its first line: from then on it counts as a request."""
        return self._first_line_end >= 0

    def feed(self, data: bytes) -> tuple[bytes, bytes] | None:
        """Return (the whole head, the bytes after it); None until the head is complete.

        Raises:
            Denied: HEAD_TOO_LARGE, URI_TOO_LONG, BAD_REQUEST, HTTP_VERSION.
        """
        if self.fresh:  # most heads arrive whole and alone
            end = data.find(b"\r\n\r\n", 0, self.ordinary) + 4
            if end > 3 and data[0] != _CR:
                return (data, b"") if end == len(data) else (data[:end], data[end:])
        return self._go_on(data)

    def clear(self) -> None:
        """Discard an unfinished head."""
        self.fresh = True
        self.held = 0
        self._begun = bytearray()
        self._skips = self._of_requests
        self._sound = 0
        self._first_line_end = -1

    def _go_on(self, data: bytes) -> tuple[bytes, bytes] | None:
        self.fresh = False
        begun = self._begun
        searched = max(0, len(begun) - 3)
        begun += data
        if self._skips and len(begun) > 1:
            self._skips = False
            if begun.startswith(b"\r\n"):
                del begun[:2]
        self.held = len(begun)
        end = begun.find(b"\r\n\r\n", searched, self._max_head_bytes)
        if end < 0:
            self._check_unfinished()
            return None
        whole = bytes(begun)
        self.clear()
        self._check_first_line(whole)
        return whole[: end + 4], whole[end + 4 :]

    def _check_first_line(self, whole: bytes) -> None:
        if whole.find(b"\r\n") > self._max_first_line:
            raise Denied(Reason.URI_TOO_LONG, "the first line is too long")

    def _check_unfinished(self) -> None:
        begun = self._begun
        sound = _SOUND.match(begun, self._sound)
        self._sound = sound.end() if sound else 0
        if bytes(begun[self._sound : self._sound + 2]) not in (b"", b"\r"):
            raise Denied(Reason.BAD_REQUEST, "a line break or control byte that no head may hold")
        if self._first_line_end < 0:
            self._first_line_end = begun.find(b"\r\n")
            length = self._first_line_end if self._first_line_end >= 0 else len(begun) - begun.endswith(b"\r")
            if length > self._max_first_line:
                raise Denied(Reason.URI_TOO_LONG, "the first line is too long")
            if self._first_line_end >= 0 and not _FIRST_LINE.fullmatch(begun, 0, self._first_line_end):
                if self._of_requests:
                    raise fault_of_line(bytes(begun[: self._first_line_end]))
                raise Denied(Reason.BAD_REQUEST, "the first line is not that of HTTP/1.0 or HTTP/1.1")
        if len(begun) >= self._max_head_bytes:
            raise Denied(Reason.HEAD_TOO_LARGE, "the head is too large")


class RequestReader(HeadBuffer):
    """Reads one head after another. ``refused_head``: a valid head of an unsupported request, after its refusal."""

    __slots__ = ("_grammar", "_limits", "_shapes", "refused_head")

    def __init__(self, limits: ServerLimits, *, proxy_form: bool) -> None:
        super().__init__(
            max_head_bytes=limits.max_head_bytes, max_first_line=limits.max_target_bytes + 64, of_requests=True
        )
        self._limits = limits
        self._grammar = RequestGrammar(
            max_target_bytes=limits.max_target_bytes, max_fields=limits.max_fields, proxy_form=proxy_form
        )
        self._shapes = request_shapes((limits.max_head_bytes, limits.max_target_bytes, limits.max_fields, proxy_form))
        self.refused_head: Request | None = None

    def read(self, data: bytes) -> tuple[Request, int, bytes] | None:
        """Consume bytes of the stream; return (one valid head, its size, the rest), or None until it is complete.

        Raises:
            Denied: the head is malformed or too large, or asks for an unsupported feature (an unknown expectation, an
                Upgrade other than WebSocket, CONNECT, TRACE, a body over the limit). The rest must then never be parsed
                as a request.
        """
        shape = self._shapes.get(len(data))
        if shape is not None and self.fresh and (head := shape.request(data)) is not None:
            size = shape.size
            rest = data[size:]
        else:
            found = self._read_new(data)
            if found is None:
                return None
            head, size, rest = found
        if head.content_length or head.expect is not None or head.upgrade is not None:
            self._refuse_unspoken(head)
        return head, size, rest

    def _read_new(self, data: bytes) -> tuple[Request, int, bytes] | None:
        """Read a head of no known shape. Arguments and result as for ``read``."""
        grammar = self._grammar
        match = grammar.match(data, 0, self.ordinary) if self.fresh else None
        if match is not None:  # most heads arrive whole
            head, size = grammar.head(match), match.end()
            if head.target.startswith(b"/"):  # no CONNECT
                self._shapes.missed(len(data), match[0], head)
            return head, size, data[size:]
        found = self.feed(data)
        if found is None:
            return None
        raw, rest = found
        return grammar.read(raw), len(raw), rest

    def body_of(self, head: Request) -> Body:
        """Return the reader of the body that follows a head."""
        if head.content_length is None:
            return ChunkedBody(max_bytes=self._limits.max_body_bytes)
        return LengthBody(head.content_length or 0)

    def _refuse_unspoken(self, head: Request) -> None:
        """Refuse valid HTTP that the sidecar does not support."""
        self.refused_head = head
        if head.expect is not None and head.minor == 1 and head.expect.lower() != CONTINUE:
            raise Denied(Reason.EXPECTATION_REFUSED, "another expectation than 100-continue")
        if head.upgrade is not None:
            from sidecar.wire.websocket import check_upgrade

            check_upgrade(head)
        if head.content_length is not None and head.content_length > self._limits.max_body_bytes:
            raise Denied(Reason.TOO_LARGE, "the Content-Length is larger than allowed")
        self.refused_head = None


_BODYLESS: Final = frozenset({204, 304})
_NO_MORE: Final = LengthBody(0)  # of a whole answer: further bytes are surplus
_MAX_STATUS_LINE: Final = 8192


class AnswerReader:
    """Reads one answer after another; ``expect`` begins each.

    ``head``: the final head, once read; ``bodyless``: the answer has no content, whatever its head says (RFC 9112
    section 6.3). ``complete``: the answer has ended; ``surplus``: unrequested bytes followed it. ``rest``: received
    bytes of the answer beyond one iteration's share; ``feed`` continues with them.
    """

    __slots__ = (
        "_body",
        "_grammar",
        "_handshake",
        "_heads",
        "_interim",
        "_max_interim",
        "_method",
        "_shapes",
        "bodyless",
        "complete",
        "head",
        "rest",
        "surplus",
    )

    def __init__(self, limits: ClientLimits) -> None:
        self._grammar = ResponseGrammar(max_fields=limits.max_fields)
        self._max_interim = limits.max_interim
        self._heads = HeadBuffer(
            max_head_bytes=limits.max_head_bytes, max_first_line=_MAX_STATUS_LINE, of_requests=False
        )
        self._shapes = answer_shapes((limits.max_head_bytes, limits.max_fields))
        self.surplus = False
        self.bodyless = False
        self.rest = b""
        self.expect("")

    def expect(self, method: str, handshake: Handshake | None = None) -> None:
        """Begin the answer to a request of this method. ``handshake``: the request asked to switch protocols.

        After a 101 all further bytes are content until the connection ends.
        """
        self._method = method
        self._handshake = handshake
        self._body: Body | None = None
        self._interim = 0
        self.head: Response | None = None
        self.complete = False

    @property
    def began(self) -> bool:
        """True if at least one byte of the answer arrived."""
        return self.head is not None or self._interim > 0 or self._heads.held > 0

    @property
    def answers_head(self) -> bool:
        """True if the request's method was HEAD."""
        return self._method == "HEAD"

    @property
    def ends_with_connection(self) -> bool:
        """True if only the end of the connection ends this answer."""
        return isinstance(self._body, UntilClose)

    def feed(self, data: bytes) -> tuple[Response | None, bytes]:
        """Consume bytes of the stream; return (the final head if these bytes completed it, content).

        Raises:
            Denied: the answer is malformed, too large, switches protocols, or has too many interim answers (RFC 9110
            section 15.2). The reason is that of a request; the detail names the problem.
        """
        head: Response | None = None
        heads = self._heads
        while self._body is None:
            shape = self._shapes.get(len(data))
            if shape is not None and heads.fresh and (head := shape.response(data)) is not None:
                data = data[shape.size :]
            else:
                head, data = self._read_new(data)
                if head is None:
                    return None, b""
            if head.status < 200:
                if head.status == 101:
                    self._switch(head)
                else:
                    self._skip_interim()
                    head = None
                    if not data:
                        return None, b""
                continue
            self.head = head
            self.bodyless = bodyless = self._method == "HEAD" or head.status in _BODYLESS
            length = 0 if bodyless else head.content_length
            if length == len(data):  # most answers arrive whole
                self._body = _NO_MORE
                self.complete = True
                self.surplus = False
                return head, data
            self._body = _body_of(head, length)
        content, data = self._body.feed(self.rest + data if self.rest else data)
        self.complete = self._body.complete
        self.surplus = self.complete and bool(data)
        self.rest = b"" if self.complete else data
        return head, content

    def _read_new(self, data: bytes) -> tuple[Response | None, bytes]:
        """Read a head of no known shape; return (the head, the bytes after it), or (None, b"") until it is complete."""
        grammar, heads = self._grammar, self._heads
        match = grammar.match(data, 0, heads.ordinary) if heads.fresh else None
        if match is not None:  # most heads arrive whole
            head = grammar.head(match)
            self._shapes.missed(len(data), match[0], head)
            return head, data[match.end() :]
        found = heads.feed(data)
        if found is None:
            return None, b""
        raw, rest = found
        return grammar.read(raw), rest

    def _skip_interim(self) -> None:
        self._interim += 1
        if self._interim > self._max_interim:
            raise Denied(Reason.BAD_REQUEST, "too many interim answers")

    def _switch(self, head: Response) -> None:
        if self._handshake is None:
            raise Denied(Reason.BAD_REQUEST, "a switch of protocols that nobody asked for")
        self._handshake.check(head)
        self.head = head
        self._body = UntilClose()


def _body_of(head: Response, length: int | None) -> Body:
    """Return the reader of an answer's body (RFC 9112 section 6.3)."""
    if length is not None:
        return LengthBody(length)
    return ChunkedBody() if head.chunked else UntilClose()
