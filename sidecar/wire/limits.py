"""Limits, deadlines and buffers of both sides. Sizes in bytes, times in seconds; deadlines fire up to 0.25 s late."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Annotated, Final

from sidecar.wire.kernel import receive_buffer, set_receive_buffer


def _require_positive(limits: object, names: list[str]) -> None:
    for name in names:
        if getattr(limits, name) <= 0:
            raise ValueError(f"{name} must be more than zero")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerLimits:
    """Limits of one server connection.

    ``head_timeout_s`` runs from a head's first byte to its last, and from the connection to the first byte. Within each
    ``body_timeout_s`` an awaited body, and within each ``write_timeout_s`` a pending answer, must progress by
    ``min_rate`` bytes a second on average: both silence and single bytes are too slow. An answer has progressed as far
    as the peer's kernel has acknowledged it, which may happen only in large steps. Once the token
    has expired, a request ends ``max_upload_s`` after it began and an answer ``max_stream_s`` after its head;
    event streams by GET and WebSockets end with the token. The page on HTTP/2 has a table of the limits by kind of
    request ("Streams that stay open"), for HTTP/1.1 too. An answer that its peer hardly reads ends after
    ``unread_timeout_s``. ``linger_*`` bound the input that is discarded after an early answer; silence
    ends it only where the connection cannot be half-closed (TLS).
    """

    max_head_bytes: Annotated[int, "the longest head"] = 32768
    max_fields: Annotated[int, "the most header fields"] = 100
    max_target_bytes: Annotated[int, "the longest request target"] = 8192
    max_body_bytes: Annotated[int, "the longest request body"] = 256 * 1024 * 1024
    head_timeout_s: Annotated[float, "the longest time from a head's first byte to its last"] = 10.0
    body_timeout_s: Annotated[
        float, "each such interval must bring `min_rate` bytes a second on average, or the end of the request body"
    ] = 30.0
    keep_alive_timeout_s: Annotated[float, "how long a connection waits for its next request"] = 75.0
    write_timeout_s: Annotated[
        float, "in each such interval the other end must accept `min_rate` bytes a second on average, or everything"
    ] = 30.0
    unread_timeout_s: Annotated[
        float, "how long a response waits if the other end has read nothing of it, or next to nothing"
    ] = 5.0
    min_rate: Annotated[int, "the least bytes per second of an incoming body and of a pending response"] = 256
    max_upload_s: Annotated[
        float, "once its token has expired, a request body ends this long after its request began"
    ] = 300.0
    max_stream_s: Annotated[float, "once its token has expired, a response ends this long after its head"] = 900.0
    max_age_s: Annotated[float, "age at which a connection accepts no further request"] = 3600.0
    linger_timeout_s: Annotated[float, "how long input after an early response is read and discarded"] = 3.0
    linger_silence_s: Annotated[float, "the silence that ends the discarding"] = 0.3
    max_linger_bytes: Annotated[int, "the most bytes to discard"] = 4 * 1024 * 1024

    def __post_init__(self) -> None:
        _require_positive(self, [field.name for field in fields(self)])


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientLimits:
    """Limits of upstream connections.

    ``first_byte_timeout_s`` runs from the end of the request to the end of the answer's head. ``idle_timeout_s`` is the
    longest silence inside an answer, and the longest time in which the upstream reads nothing of a request;
    ``stream_idle_timeout_s`` is the longest silence of an event stream, or of both directions of a stream that stays
    open: a call of gRPC, a declared stream, a WebSocket, a tunnel. At most
    ``max_connecting`` connections per origin are being opened at a time. At most ``max_idle`` are kept idle; one is
    closed after ``idle_keep_s`` without use, and at a random age of 80 to 100 % of ``max_age_s``, so that they do not
    all close at once; with mTLS no later than after half the life of our own SVID.
    """

    connect_timeout_s: Annotated[
        float, "timeout of connecting: name lookup, all addresses and TLS handshake together"
    ] = 5.0
    max_connecting: Annotated[int, "the most connections per origin that are being opened at once"] = 32
    first_byte_timeout_s: Annotated[float, "timeout from the end of the request to the end of the response's head"] = (
        60.0
    )
    idle_timeout_s: Annotated[float, "the longest silence inside a response"] = 60.0
    stream_idle_timeout_s: Annotated[
        float,
        "the longest silence of an event stream, and of both directions of a call of gRPC, a WebSocket, a "
        "tunnel or a route with `stream`",
    ] = 300.0
    max_head_bytes: Annotated[int, "the longest head"] = 65536
    max_fields: Annotated[int, "the most header fields"] = 200
    max_interim: Annotated[int, "the most 1xx responses before the final one"] = 8
    max_idle: Annotated[int, "the most idle connections per origin"] = 128
    idle_keep_s: Annotated[float, "how long an idle connection is kept"] = 30.0
    max_age_s: Annotated[float, "age at which a connection accepts no further request"] = 3600.0

    def __post_init__(self) -> None:
        _require_positive(self, [field.name for field in fields(self)])

    @property
    def least_s(self) -> float:
        """The shortest silence that may end a request."""
        return min(self.first_byte_timeout_s, self.idle_timeout_s, self.stream_idle_timeout_s)


_LITTLE_SENT: Final = 16 * 1024
# Half of the initial window, and no less: a sender waits for a whole segment, of 64 KiB on loopback, or for half of the
# largest window it has seen (RFC 9293 section 3.8.6.2.1). With less a transfer moves only by its timer.
_LITTLE_RECEIVED: Final = 32 * 1024
# for connections whose window the kernel had tuned; once set, the kernel never tunes it again
_AGAIN: Final = 256 * 1024


class BufferLimits:
    """Per-connection buffer limits: the write high-water mark, and the receive window. Smaller while memory is short.

    Above the high-water mark the source of an answer waits. The receive window bounds one read, and with it one write.
    None is the default of the event loop (half a MiB with uvloop's TLS) or of the kernel.
    """

    def __init__(self, *, sent: int | None = None, received: int | None = None) -> None:
        self._sent = sent
        self._received = received
        self._little = False

    def apply(self, transport: asyncio.Transport) -> None:
        """Apply the limits to a new connection."""
        sent, received = (_LITTLE_SENT, _LITTLE_RECEIVED) if self._little else (self._sent, self._received)
        if sent is not None:
            transport.set_write_buffer_limits(high=sent)
        if received is not None:
            set_receive_buffer(transport, received)

    def change(self, transports: Iterable[asyncio.Transport], *, little: bool) -> None:
        """Switch to small or usual buffers, also for these connections, which are all there are.

        A window that the kernel has tuned by itself stays: its sender may have seen any size.
        """
        if little == self._little:
            return
        self._little = little
        for transport in transports:
            if not transport.is_closing():  # uvloop refuses the call on a closed one
                transport.set_write_buffer_limits(high=_LITTLE_SENT if little else self._sent)
                if self._received is not None:
                    set_receive_buffer(transport, _LITTLE_RECEIVED if little else self._received)
                elif receive_buffer(transport) == _LITTLE_RECEIVED:
                    set_receive_buffer(transport, _AGAIN)
