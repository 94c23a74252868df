"""The first bytes of accepted connections, peeked in the kernel's buffer.

A connection that has not sent a whole TLS record costs a descriptor and a registration here, and no TLS state.
"""

from __future__ import annotations

import asyncio
import enum
import select
import socket
import struct
import sys
from collections.abc import Callable
from typing import Final

_HANDSHAKE: Final = 22  # ContentType of RFC 8446 section 5.1
_HEADER: Final = struct.Struct(">BHH")  # type, version, length
_MAX_RECORD: Final = 2**14  # bytes of a plaintext record, RFC 8446 section 5.1
_LOOKED_AT: Final = 4096  # bytes; a ClientHello with post-quantum keys has 1,700
_LAST_ACK_AT: Final = 56  # of struct tcp_info in linux/tcp.h: milliseconds since our kernel last heard from the peer
_ASKED_FOR: Final = 60  # bytes of it to read
_TOLD_AT_A_TIME: Final = 32
ENDED: Final = 0x2000 | 0x10 | 0x8  # EPOLLRDHUP, EPOLLHUP, EPOLLERR


class First(enum.Enum):
    """The state of a connection's first bytes."""

    NOTHING = enum.auto()
    PART = enum.auto()  # of a TLS record
    WHOLE = enum.auto()
    NO_TLS = enum.auto()
    GONE = enum.auto()  # the peer has closed or reset the connection


Look = Callable[[socket.socket], First]


def first_of_tls(accepted: socket.socket) -> First:
    """Return the state of the first TLS record on a non-blocking socket, without consuming it."""
    data = _peek(accepted)
    if isinstance(data, First):
        return data
    if data[0] != _HANDSHAKE:
        return First.NO_TLS
    if len(data) < _HEADER.size:
        return First.PART
    _, _, length = _HEADER.unpack_from(data)
    if length > _MAX_RECORD:
        return First.NO_TLS
    return First.WHOLE if len(data) >= min(_HEADER.size + length, _LOOKED_AT) else First.PART


def first_of_http(accepted: socket.socket) -> First:
    """Peek at a non-blocking socket: the first head. An invalid or long one counts as whole; the parser judges it."""
    data = _peek(accepted)
    if isinstance(data, First):
        return data
    begins = data[:1].isalpha() and len(data) < _LOOKED_AT and b"\n\r\n" not in data and b"\n\n" not in data
    return First.PART if begins else First.WHOLE


def _peek(accepted: socket.socket) -> bytes | First:
    try:
        return accepted.recv(_LOOKED_AT, socket.MSG_PEEK) or First.GONE
    except (BlockingIOError, InterruptedError):
        return First.NOTHING
    except OSError:
        return First.GONE


def silent_s(accepted: socket.socket) -> float:
    """Return the seconds since a silent peer connected; 0 if unknown."""
    if sys.platform != "linux":
        return 0.0
    try:
        info = accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _ASKED_FOR)
        (last_ack_ms,) = struct.unpack_from("=I", info, _LAST_ACK_AT)
    except (OSError, struct.error):  # closed already, or not TCP
        return 0.0
    return float(last_ack_ms / 1000)


class Watch:
    """Calls ``on_more`` with a socket's descriptor and epoll events: data arrived, or the peer has ``ENDED``.

    The event loop watches one epoll instance for all of them: a socket costs one registration, and one call for each
    piece that arrives. An event-loop iteration makes at most ``_TOLD_AT_A_TIME`` calls.
    """

    def __init__(self, on_more: Callable[[int, int], None]) -> None:
        self._on_more = on_more
        self._epoll: select.epoll | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def add(self, descriptor: int) -> None:
        """Watch a socket until ``discard``; bytes that have arrived already are reported, too.

        Raises:
            OSError: there is no descriptor left for the epoll instance, or no memory.
        """
        if self._epoll is None:
            self._epoll = select.epoll()
            self._loop = asyncio.get_running_loop()
            self._loop.add_reader(self._epoll.fileno(), self._tell)
        self._epoll.register(descriptor, select.EPOLLIN | ENDED | select.EPOLLET)

    def discard(self, descriptor: int) -> None:
        """Stop watching a socket. Call it before the socket is closed."""
        if self._epoll is not None:
            self._epoll.unregister(descriptor)

    def close(self) -> None:
        """Close the epoll instance."""
        epoll, self._epoll = self._epoll, None
        if epoll is not None and self._loop is not None:
            self._loop.remove_reader(epoll.fileno())
            epoll.close()

    def _tell(self) -> None:
        if self._epoll is not None:
            for descriptor, events in self._epoll.poll(0, _TOLD_AT_A_TIME):
                self._on_more(descriptor, events)
