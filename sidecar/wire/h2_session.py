"""The library h2 as configured for both sides of the sidecar.

The library keeps the states of streams, the windows and the compression of heads. Three decisions are ours: which heads
are malformed (``h2_head``), because the library would end the whole connection for one; the limits against floods
(``h2_frames``); and the end of a connection, because the library cannot continue streams after a GOAWAY as RFC 9113
section 6.8 requires.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, Final

from h2.config import H2Configuration
from h2.errors import ErrorCodes
from h2.exceptions import ProtocolError
from h2.settings import SettingCodes, Settings

from delegation_core.errors import Denied, Reason
from sidecar.wire.h2_compression import TABLE_BYTES, HeadDecoder, HeadEncoder, literals
from sidecar.wire.h2_direct import DirectConnection
from sidecar.wire.h2_frames import MAX_FRAME, H2Error, Kind, known_settings
from sidecar.wire.message import Field

logging.getLogger("hpack").setLevel(logging.WARNING)  # at DEBUG it writes every field, with tokens

STREAM_WINDOW: Final = 64 * 1024 - 1  # buffered content of one stream
CONNECTION_WINDOW: Final = 512 * 1024  # and of all streams of a caller's connection
_SECRETS: Final = frozenset(
    {
        b"api-key",
        b"authorization",
        b"cookie",
        b"delegation-handle",
        b"delegation-token",
        b"private-token",
        b"proxy-authorization",
        b"set-cookie",
        b"txn-token",
        b"x-api-key",
        b"x-auth-token",
        b"x-goog-api-key",
    }
)
"""Fields that stay out of the table of the compression: others could guess them by its use (RFC 7541 section 7)."""
_UNIQUE: Final = frozenset(
    {
        b":path",
        b"age",
        b"content-length",
        b"delegation-request-id",
        b"etag",
        b"if-modified-since",
        b"if-none-match",
        b"last-modified",
        b"location",
        b"traceparent",
        b"tracestate",
        b"x-request-id",
    }
)
"""Fields whose values seldom come again: in the table they would only push out the others."""
_LITERAL: Final = _SECRETS | _UNIQUE
_HEADS: Final = int(Kind.HEADERS), int(Kind.CONTINUATION)


class Session(DirectConnection):
    """One side of a connection, without its socket. ``max_streams``: limit of the peer's open streams.

    ``window`` bounds the buffered content of all streams.

    ``max_head_bytes`` bounds a head of the peer. A head up to twice as large is refused alone; a larger one ends the
    connection, because the state of its compression is lost.
    """

    MAX_CLOSED_STREAMS = 512  # the library's own number costs 8 MB a connection

    def __init__(
        self, *, client_side: bool, max_streams: int, max_head_bytes: int, window: int = CONNECTION_WINDOW
    ) -> None:
        super().__init__(
            H2Configuration(
                client_side=client_side,
                header_encoding=None,
                validate_inbound_headers=False,
                normalize_inbound_headers=False,
                validate_outbound_headers=False,
                normalize_outbound_headers=False,
            )
        )
        self.local_settings = Settings(
            client=client_side,
            initial_values={
                SettingCodes.ENABLE_PUSH: 0,
                SettingCodes.INITIAL_WINDOW_SIZE: STREAM_WINDOW,
                SettingCodes.MAX_FRAME_SIZE: MAX_FRAME,
                SettingCodes.MAX_HEADER_LIST_SIZE: max_head_bytes,
                SettingCodes.HEADER_TABLE_SIZE: TABLE_BYTES,
            },
        )
        self.decoder = HeadDecoder(max_header_list_size=2 * max_head_bytes)
        self.encoder = HeadEncoder(_LITERAL)
        self.max_inbound_frame_size = MAX_FRAME
        self._max_streams = max_streams
        self._window = window

    def begin(self) -> None:
        """Queue the preface and the settings.

        The limit of streams follows as a change of settings: with an initial limit, the library would end the
        connection for a stream that the peer opened before it received the limit.
        """
        literals.add_reader()
        self.initiate_connection()
        if not self.config.client_side:
            self.update_settings({SettingCodes.MAX_CONCURRENT_STREAMS: self._max_streams})
        self.increment_flow_control_window(self._window - self.inbound_flow_control_window)

    def read(self, frame: bytes) -> list[Any]:
        """Return the events of one frame.

        Raises:
            H2Error: an error that ends the connection.
        """
        try:
            usual = self.read_usual(frame)
            if usual is not None:
                return usual
            settings = frame[3] == Kind.SETTINGS
            if settings or (self._is_client and frame[3] in _HEADS):
                self.forget_closed()
            events = self.receive_data(known_settings(frame) if settings else frame)
        except ProtocolError as error:
            code = ErrorCodes(error.error_code).name.lower()
            fault = Denied(Reason.BAD_REQUEST, f"the peer breaks the rules of HTTP/2: {code}")
            raise H2Error(error.error_code, fault, told=True) from None
        if settings:
            self._forget_table_sizes()
            self._looks_at = 0  # look at the streams again: settings may change their limit
        return events

    def _forget_table_sizes(self) -> None:
        """Keep only the least and the last size of the encoder's table for the next head (RFC 7541 section 4.2).

        The library would announce every size that the peer has ever set. The peer would end the connection for a size
        above its present limit.
        """
        sizes = self.encoder.table_size_changes
        if len(sizes) > 1:
            least, last = min(sizes), sizes[-1]
            sizes[:] = [last] if least == last else [least, last]

    def forget(self) -> None:
        """Break the library's reference cycle after the connection, to free memory before garbage collection."""
        self._frame_dispatch_table.clear()
        literals.drop_reader()

    def forget_heads(self) -> None:
        """Clear the cache of heads, so that tokens do not outlive their use for long."""
        self.decoder.forget()

    @property
    def size_to_send(self) -> int:
        """The number of bytes to write."""
        return len(self._data_to_send)

    def head(self, stream_id: int, fields: Sequence[Field], *, ends: bool = False) -> None:
        """Write a head, or the trailers."""
        if self.encoder.header_table_size > TABLE_BYTES:  # by the peer's settings
            self.encoder.header_table_size = TABLE_BYTES
            self._forget_table_sizes()
        if self._is_client:
            self.send_request(stream_id, fields, ends=ends)
        else:
            self.send_answer(stream_id, fields, ends=ends)
