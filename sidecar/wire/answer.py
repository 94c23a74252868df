"""The answers on an upstream connection, read out of its bytes: strict, bounded, pure."""

from __future__ import annotations

from typing import Final

from sidecar.errors import Denied, Reason
from sidecar.wire.framing import Body, ChunkedBody, HeadBuffer, LengthBody, UntilClose
from sidecar.wire.h1_head import ResponseGrammar
from sidecar.wire.limits import ClientLimits
from sidecar.wire.message import Response
from sidecar.wire.upgrade import Handshake

_BODYLESS: Final = frozenset({204, 304})
_NO_MORE: Final = LengthBody(0)  # of an answer that is whole: what follows is surplus
_MAX_STATUS_LINE: Final = 8192


class AnswerReader:
    """Reads one answer after another; ``expect`` begins each.

    ``head``: the final head, once there; ``bodyless``: no content belongs to it, whatever it says (RFC 9112 section
    6.3). ``complete``: the answer is whole, and ``surplus`` then tells whether bytes followed it, which nobody asked
    for. ``rest``: came too, and is more of it than is read at a time;
    ``feed`` goes on with it.
    """

    __slots__ = (
        "_body",
        "_grammar",
        "_handshake",
        "_heads",
        "_interim",
        "_max_interim",
        "_method",
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
            max_head_bytes=limits.max_head_bytes, max_first_line=_MAX_STATUS_LINE, skip_empty_line=False
        )
        self.surplus = False
        self.bodyless = False
        self.rest = b""
        self.expect("")

    def expect(self, method: str, handshake: Handshake | None = None) -> None:
        """The next bytes answer a request of this method, which may be granted a ``handshake``.

        If it is, 101 is the final head, and all that follows is content until the connection ends.
        """
        self._method = method
        self._handshake = handshake
        self._body: Body | None = None
        self._interim = 0
        self.head: Response | None = None
        self.complete = False

    @property
    def began(self) -> bool:
        """Whether at least one byte came."""
        return self.head is not None or self._interim > 0 or self._heads.held > 0

    @property
    def answers_head(self) -> bool:
        """Whether it answers a request of method HEAD."""
        return self._method == "HEAD"

    @property
    def ends_with_connection(self) -> bool:
        """Whether only the end of the connection ends this answer."""
        return isinstance(self._body, UntilClose)

    def feed(self, data: bytes) -> tuple[Response | None, bytes]:
        """Take bytes of the stream: (the final head if these bytes completed it, content).

        Raises:
            Denied: the answer is malformed, too large, switches protocols, or has too many interim answers (RFC 9110
                section 15.2); the reason is one for requests, the detail tells.
        """
        head, heads, grammar = None, self._heads, self._grammar
        while self._body is None:
            match = grammar.match(data, 0, heads.ordinary) if heads.fresh else None
            if match is not None:  # as most heads do, it came whole
                head, data = grammar.head(match), data[match.end() :]
            else:
                found = heads.feed(data)
                if found is None:
                    return None, b""
                raw, data = found
                head = grammar.read(raw)
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
            if length == len(data):  # the whole answer came at once, as most do
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
    """How the body ends (RFC 9112 section 6.3)."""
    if length is not None:
        return LengthBody(length)
    return ChunkedBody() if head.chunked else UntilClose()
