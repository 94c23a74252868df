"""Choice of the version of HTTP on an accepted connection: by ALPN over TLS, by the first bytes without TLS.

Made only where HTTP/2 is turned on: until then the library is not loaded.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final, cast

from sidecar.wire.connections import Connections
from sidecar.wire.h1_server import ServerConnection, Warm
from sidecar.wire.h2_frames import PREFACE
from sidecar.wire.h2_server import H2ServerConnection
from sidecar.wire.limits import ServerLimits
from sidecar.wire.stream import RequestHandler

H2: Final = "h2"
_ENOUGH: Final = 4  # bytes: no request of HTTP/1.1 that is served begins with "PRI "


class VersionChoice(ServerConnection):
    """A connection of HTTP/1.1, unless its peer chooses HTTP/2 first."""

    def __init__(
        self,
        handler: RequestHandler,
        limits: ServerLimits,
        connections: Connections[Any],
        *,
        proxy_form: bool = False,
        warm: Warm | None = None,
    ) -> None:
        super().__init__(handler, limits, connections, proxy_form=proxy_form, warm=warm)
        self._begun: bytes | None = b""  # until the choice is made

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Choose by ALPN, where there is TLS."""
        tls = transport.get_extra_info("ssl_object")
        if tls is None:
            super().connection_made(transport)
        elif tls.selected_alpn_protocol() == H2:
            self._speak_http2(cast("asyncio.Transport", transport))
        else:
            self._begun = None
            super().connection_made(transport)

    def data_received(self, data: bytes) -> None:
        """Choose by the first bytes."""
        if self._begun is None:
            super().data_received(data)
            return
        begun = self._begun + data
        if PREFACE.startswith(begun[:_ENOUGH]):
            if len(begun) < _ENOUGH:
                self._begun = begun
                return
            self._connections.discard(self)
            self._speak_http2(self.transport).data_received(begun)
            return
        self._begun = None
        super().data_received(begun)

    def _speak_http2(self, transport: asyncio.Transport) -> H2ServerConnection:
        connection = H2ServerConnection(self.handler, self._limits, self._connections)
        transport.set_protocol(connection)
        connection.connection_made(transport)
        return connection
