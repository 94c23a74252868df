"""Answer to a client that speaks HTTP/2 where it is not spoken.

An answer of HTTP/1.1 would tell such a client nothing: it reads frames. So it gets a connection of HTTP/2 that ends at
once, by GOAWAY with HTTP_1_1_REQUIRED (RFC 9113 sections 3.4 and 7). The data of that frame is the refusal, which
libraries of gRPC show to their users.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from sidecar.wire.h1_stream import H1Stream
from sidecar.wire.message import Field

_SETTINGS: Final = b"\0\0\0\4\0\0\0\0\0"  # the first frame of a server; it has no settings
_GOAWAY: Final = 7
_HTTP_1_1_REQUIRED: Final = 13


class PrefaceStream(H1Stream):
    """A connection that began with the preface of HTTP/2, as the one request that it counts as."""

    __slots__ = ()

    def answer(self, status: int, fields: Sequence[Field], body: bytes, *, close: bool = False) -> None:  # noqa: ARG002
        """Give the refusal as frames of HTTP/2. The connection closes."""
        if self.ended or self.gone:
            return
        self.status = status
        data = bytes(4) + _HTTP_1_1_REQUIRED.to_bytes(4) + body  # no stream was processed
        message = _SETTINGS + len(data).to_bytes(3) + bytes([_GOAWAY, 0]) + bytes(4) + data
        self.bytes_out += len(message)
        self._connection.write(message)
        self.ended = True
        self._connection.answered(self)
