"""The answers on an upstream connection, read out of its bytes: strict, bounded, pure."""

from __future__ import annotations

from typing import Final

from sidecar.errors import Denied, Reason
from sidecar.wire.framing import Body, ChunkedBody, HeadBuffer, LengthBody, UntilClose
from sidecar.wire.head import ResponseHead
from sidecar.wire.limits import ClientLimits
from sidecar.wire.parse import parse_response_head
from sidecar.wire.upgrade import Handshake

_BODYLESS: Final = frozenset({204, 304})
_MAX_STATUS_LINE: Final = 8192


class AnswerReader:
    """Reads one answer after another; ``expect`` begins each.

    ``began``: at least one byte came. ``head``: the final head, once there. ``complete``: the answer is whole, and
    ``surplus`` then tells whether bytes followed it, which nobody asked for.
    """

    __slots__ = (
        "_body",
        "_handshake",
        "_heads",
        "_interim",
        "_limits",
        "_method",
        "began",
        "complete",
        "head",
        "surplus",
    )

    def __init__(self, limits: ClientLimits) -> None:
        self._limits = limits
        self._heads = HeadBuffer(
            max_head_bytes=limits.max_head_bytes, max_first_line=_MAX_STATUS_LINE, skip_empty_line=False
        )
        self.expect("")

    def expect(self, method: str, handshake: Handshake | None = None) -> None:
        """The next bytes answer a request of this method, which may be granted a ``handshake``.

        If it is, 101 is the final head, and all that follows is content until the connection ends.
        """
        self._method = method
        self._handshake = handshake
        self._body: Body | None = None
        self._interim = 0
        self.head: ResponseHead | None = None
        self.began = False
        self.complete = False
        self.surplus = False

    @property
    def ends_with_connection(self) -> bool:
        """Whether only the end of the connection ends this answer."""
        return isinstance(self._body, UntilClose)

    def feed(self, data: bytes) -> tuple[ResponseHead | None, bytes]:
        """Take bytes of the stream: (the final head if these bytes completed it, content).

        Raises:
            Denied: the answer is malformed, too large, switches protocols, or has too many interim answers (RFC 9110
                section 15.2); the reason is one for requests, the detail tells.
        """
        self.began = True
        head = None
        while self._body is None:
            found = self._heads.feed(data)
            if found is None:
                return None, b""
            raw, data = found
            head = self._take_head(parse_response_head(raw, max_fields=self._limits.max_fields))
            if head is None and not data:
                return None, b""
        content = b""
        if not self._body.complete:
            content, data = self._body.feed(data)
        self.complete = self._body.complete
        self.surplus = bool(data)
        return head, content

    def _take_head(self, head: ResponseHead) -> ResponseHead | None:
        if head.status < 200:
            if head.status == 101:
                return self._switch(head)
            self._interim += 1
            if self._interim > self._limits.max_interim:
                raise Denied(Reason.BAD_REQUEST, "too many interim answers")
            return None
        self.head = head
        self._body = self._body_of(head)
        return head

    def _switch(self, head: ResponseHead) -> ResponseHead:
        if self._handshake is None:
            raise Denied(Reason.BAD_REQUEST, "a switch of protocols that nobody asked for")
        self._handshake.check(head)
        self.head = head
        self._body = UntilClose()
        return head

    def _body_of(self, head: ResponseHead) -> Body:
        """How the body ends (RFC 9112 section 6.3)."""
        if self._method == "HEAD" or head.status in _BODYLESS:
            return LengthBody(0)
        if head.chunked:
            return ChunkedBody()
        if head.content_length is not None:
            return LengthBody(head.content_length)
        return UntilClose()
