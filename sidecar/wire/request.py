"""The requests on a server connection, read out of its bytes: strict, bounded, pure."""

from __future__ import annotations

from typing import Final, NamedTuple

from sidecar.errors import Denied, Reason
from sidecar.wire.framing import Body, ChunkedBody, HeadBuffer, LengthBody
from sidecar.wire.head import RequestHead
from sidecar.wire.limits import ServerLimits
from sidecar.wire.parse import parse_request_head
from sidecar.wire.upgrade import handshake_of

CONTINUE: Final = b"100-continue"  # the one expectation there is (RFC 9110 section 10.1.1)


class Incoming(NamedTuple):
    """One valid head of ``size`` bytes, the body to be read after it if any, and the bytes that followed the head."""

    head: RequestHead
    body: Body | None
    size: int
    rest: bytes


class RequestReader:
    """Reads one head after another. ``refused_head``: the head of a refusal, if it was valid but is not served here."""

    __slots__ = ("_heads", "_limits", "_proxy_form", "refused_head")

    def __init__(self, limits: ServerLimits, *, proxy_form: bool) -> None:
        self._limits = limits
        self._proxy_form = proxy_form
        self._heads = HeadBuffer(
            max_head_bytes=limits.max_head_bytes, max_first_line=limits.max_target_bytes + 64, skip_empty_line=True
        )
        self.refused_head: RequestHead | None = None

    def __bool__(self) -> bool:
        """Whether a head has begun and is not whole yet."""
        return bool(self._heads)

    @property
    def held(self) -> int:
        """How many bytes of an unfinished head are here."""
        return self._heads.held

    @property
    def first_line_read(self) -> bool:
        """Whether the first line of an unfinished head is there: from then on it counts as a request."""
        return self._heads.first_line_read

    def clear(self) -> None:
        """Forget an unfinished head."""
        self._heads.clear()

    def feed(self, data: bytes) -> Incoming | None:
        """Take bytes of the stream; None until a head is whole.

        Raises:
            Denied: the head is malformed or too large, or asks for what is not served here (an unknown expectation, an
                Upgrade but to WebSocket, CONNECT, TRACE, a body over the limit). What follows is then never to be read
                as a request.
        """
        found = self._heads.feed(data)
        if found is None:
            return None
        raw, rest = found
        limits = self._limits
        head = parse_request_head(
            raw,
            max_target_bytes=limits.max_target_bytes,
            max_fields=limits.max_fields,
            proxy_form=self._proxy_form,
        )
        self._refuse_unspoken(head)
        body: Body | None = None
        if head.chunked:
            body = ChunkedBody(max_bytes=limits.max_body_bytes)
        elif head.content_length:
            body = LengthBody(head.content_length)
        return Incoming(head, body, len(raw), rest)

    def _refuse_unspoken(self, head: RequestHead) -> None:
        """Refuse what is valid HTTP and not served here."""
        self.refused_head = head
        if head.expect is not None and head.minor == 1 and head.expect.lower() != CONTINUE:
            raise Denied(Reason.EXPECTATION_REFUSED, "another expectation than 100-continue")
        if head.upgrade is not None:
            handshake_of(head)
        if head.content_length is not None and head.content_length > self._limits.max_body_bytes:
            raise Denied(Reason.TOO_LARGE, "the Content-Length is larger than allowed")
        self.refused_head = None
