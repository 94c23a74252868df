"""The requests on a server connection, read out of its bytes: strict, bounded, pure."""

from __future__ import annotations

from typing import Final

from sidecar.errors import Denied, Reason
from sidecar.wire.framing import Body, ChunkedBody, HeadBuffer, LengthBody
from sidecar.wire.h1_head import RequestGrammar
from sidecar.wire.limits import ServerLimits
from sidecar.wire.message import Request
from sidecar.wire.upgrade import check_upgrade

CONTINUE: Final = b"100-continue"  # the one expectation there is (RFC 9110 section 10.1.1)


class RequestReader(HeadBuffer):
    """Reads one head after another. ``refused_head``: the head of a refusal, if it was valid but is not served here."""

    __slots__ = ("_grammar", "_limits", "refused_head")

    def __init__(self, limits: ServerLimits, *, proxy_form: bool) -> None:
        super().__init__(
            max_head_bytes=limits.max_head_bytes, max_first_line=limits.max_target_bytes + 64, skip_empty_line=True
        )
        self._limits = limits
        self._grammar = RequestGrammar(
            max_target_bytes=limits.max_target_bytes, max_fields=limits.max_fields, proxy_form=proxy_form
        )
        self.refused_head: Request | None = None

    def read(self, data: bytes) -> tuple[Request, int, bytes] | None:
        """Take bytes of the stream: (one valid head, its size in bytes, what followed it); None until it is whole.

        Raises:
            Denied: the head is malformed or too large, or asks for what is not served here (an unknown expectation, an
                Upgrade but to WebSocket, CONNECT, TRACE, a body over the limit). What follows is then never to be read
                as a request.
        """
        grammar = self._grammar
        match = grammar.match(data, 0, self.ordinary) if self.fresh else None
        if match is not None:  # as most heads do, it came whole
            head, size = grammar.head(match), match.end()
            rest = data[size:]
        else:
            found = self.feed(data)
            if found is None:
                return None
            raw, rest = found
            head, size = grammar.read(raw), len(raw)
        if head.content_length or head.expect is not None or head.upgrade is not None:
            self._refuse_unspoken(head)
        return head, size, rest

    def body_of(self, head: Request) -> Body:
        """What is to be read after a head that has a body."""
        if head.content_length is None:
            return ChunkedBody(max_bytes=self._limits.max_body_bytes)
        return LengthBody(head.content_length or 0)

    def _refuse_unspoken(self, head: Request) -> None:
        """Refuse what is valid HTTP and not served here."""
        self.refused_head = head
        if head.expect is not None and head.minor == 1 and head.expect.lower() != CONTINUE:
            raise Denied(Reason.EXPECTATION_REFUSED, "another expectation than 100-continue")
        if head.upgrade is not None:
            check_upgrade(head)
        if head.content_length is not None and head.content_length > self._limits.max_body_bytes:
            raise Denied(Reason.TOO_LARGE, "the Content-Length is larger than allowed")
        self.refused_head = None
