"""Choice of the HTTP version: by ALPN over TLS, by a caller's first bytes without TLS.

Without TLS, a first line that fits neither version closes the connection without an answer: it is an invalid preface of
HTTP/2 (RFC 9113 section 3.4), whose sender may not understand an answer in HTTP/1.1.

For upstreams without TLS the settings state the version.

Imported only where HTTP/2 is turned on, because it loads the library.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Final, cast

from delegation_core.errors import SidecarError
from sidecar.wire.connections import Connections
from sidecar.wire.h1_client import ClientConnection
from sidecar.wire.h1_head import NotHttp
from sidecar.wire.h1_server import ServerConnection
from sidecar.wire.h1_stream import H1Stream
from sidecar.wire.h2_client import H2ClientConnection
from sidecar.wire.h2_frames import PREFACE
from sidecar.wire.h2_server import H2ServerConnection
from sidecar.wire.limits import ClientLimits

if TYPE_CHECKING:
    from sidecar.wire.upstream import Line, Upstream

H2: Final = "h2"
_ENOUGH: Final = 4  # bytes: no request of HTTP/1.1 that is served begins with "PRI "


class VersionChoice(ServerConnection):
    """A server connection that becomes HTTP/1.1 or HTTP/2 by its peer's choice."""

    _begun = b""  # first bytes without TLS, until they decide
    _speaks_http1 = False  # a first line of HTTP/1.x has come, or ALPN chose

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Choose by ALPN over TLS."""
        tls = transport.get_extra_info("ssl_object")
        if tls is None:
            super().connection_made(transport)
        elif tls.selected_alpn_protocol() == H2:
            self._speak_http2(cast("asyncio.Transport", transport))
        else:
            self._speaks_http1 = True
            super().connection_made(transport)

    def data_received(self, data: bytes) -> None:
        """Choose by the first bytes."""
        if not self._speaks_http1:
            if self._reader.fresh:
                data = self._begun + data
                if PREFACE.startswith(data[:_ENOUGH]):
                    self._begin_http2(data)
                    return
            super().data_received(data)
            self._speaks_http1 = self._reader.fresh or self._reader.first_line_read
            return
        super().data_received(data)

    def _begin_http2(self, begun: bytes) -> None:
        if len(begun) < _ENOUGH:
            self._begun = begun
            return
        self.connections.discard(self)
        self._speak_http2(self.transport).data_received(begun)

    def _refuse(self, error: SidecarError, *, bytes_in: int | None = None) -> None:
        if self._speaks_http1 or not isinstance(error, NotHttp):
            super()._refuse(error, bytes_in=bytes_in)
            return
        stream = H1Stream(self, None, self._reader.held if bytes_in is None else bytes_in)
        stream.gone = True  # the peer cannot read an HTTP/1.1 answer: only the record is written
        self._reader.clear()
        self.handler.on_refused(stream, error)
        self._begin_lingering()

    def _speak_http2(self, transport: asyncio.Transport) -> H2ServerConnection:
        connection = H2ServerConnection(self.handler, self._limits, self.connections)
        transport.set_protocol(connection)
        connection.connection_made(transport)
        return connection


class UpstreamVersion(ClientConnection):
    """A connection whose upstream chooses the version by ALPN. ``prior``: the settings say HTTP/2.

    For HTTP/2 it creates an ``H2ClientConnection``, and the pool hands out its exchanges.
    """

    def __init__(
        self,
        limits: ClientLimits,
        connections: Connections[Line],
        *,
        prior: bool,
        on_idle: Callable[[Upstream], None],
        on_closed: Callable[[Line | Upstream], None],
        max_age_s: float,
    ) -> None:
        super().__init__(limits, connections, on_idle=on_idle, on_closed=on_closed, max_age_s=max_age_s)
        self._prior = prior
        self._of_http2 = partial(
            H2ClientConnection, limits, connections, on_idle=on_idle, on_closed=on_closed, max_age_s=max_age_s
        )
        self._chosen: H2ClientConnection | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Choose."""
        super().connection_made(transport)
        tls = transport.get_extra_info("ssl_object")
        if self._prior if tls is None else tls.selected_alpn_protocol() == H2:
            chosen = self._chosen = self._of_http2()
            self.transport.set_protocol(chosen)
            chosen.connection_made(transport)

    def first_upstream(self) -> tuple[Line, Upstream]:
        """Return the chosen connection, and the ``Upstream`` of its first request."""
        chosen = self._chosen
        return (self, self) if chosen is None else (chosen, chosen.spare())
