"""Kernel facts about a connection, such as its queues in both directions. Linux only."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import socket
import struct
import sys
import termios
from typing import Final

_BYTES_ACKED_AT: Final = 120  # of struct tcp_info in linux/tcp.h, since Linux 4.1; only ever added to at its end
_BYTES_ACKED: Final = struct.Struct("=Q")
_SIZE: Final = struct.Struct("=i")
_OVER: Final = frozenset({7, 8})  # TCP_CLOSE and TCP_CLOSE_WAIT, the first byte of struct tcp_info


def acknowledged(transport: asyncio.BaseTransport) -> int | None:
    """Return the bytes that the peer's kernel has acknowledged since the connection began; None if unknown."""
    info = _tcp_info(transport, _BYTES_ACKED_AT + _BYTES_ACKED.size)
    if len(info) < _BYTES_ACKED_AT + _BYTES_ACKED.size:  # an older kernel knows less
        return None
    (acked,) = _BYTES_ACKED.unpack_from(info, _BYTES_ACKED_AT)
    return int(acked)


def queued(transport: asyncio.BaseTransport) -> int | None:
    """Return the bytes in our kernel's send queue, unacknowledged by the peer; None if unknown."""
    sock = _tcp_socket(transport)
    return None if sock is None else _ask(sock, termios.TIOCOUTQ)  # SIOCOUTQ


def unread(transport: asyncio.BaseTransport) -> int:
    """Return the bytes that have arrived and are not read yet; 0 if unknown."""
    sock = _tcp_socket(transport)
    return 0 if sock is None else _ask(sock, termios.FIONREAD) or 0


def has_left(transport: asyncio.BaseTransport) -> bool:
    """True if the peer has sent FIN or RST, even while reading is paused.

    False if unknown: a FIN behind bytes that do not fit the receive buffer has not arrived.
    """
    info = _tcp_info(transport, 1)
    return bool(info) and info[0] in _OVER


def receive_buffer(transport: asyncio.BaseTransport) -> int | None:
    """Return the bytes that our kernel may hold unread; None if unknown."""
    sock = _tcp_socket(transport)
    if sock is None:
        return None
    try:
        return sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) // 2  # Linux doubles the value for its own overhead
    except OSError:  # closed already
        return None


def set_receive_buffer(transport: asyncio.BaseTransport, size: int) -> None:
    """Bound the bytes that our kernel holds unread: one read is never much larger."""
    sock = _tcp_socket(transport)
    if sock is not None:
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)


def _tcp_info(transport: asyncio.BaseTransport, size: int) -> bytes:
    """Return up to ``size`` bytes of struct tcp_info; none if unavailable."""
    sock = _tcp_socket(transport)
    if sock is None:
        return b""
    try:
        return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, size)
    except OSError:  # closed already; no TCP
        return b""


def _ask(sock: socket.socket, request: int) -> int | None:
    try:
        (size,) = _SIZE.unpack(fcntl.ioctl(sock.fileno(), request, bytes(_SIZE.size)))
    except (OSError, ValueError):  # closed already
        return None
    return int(size)


def _tcp_socket(transport: asyncio.BaseTransport) -> socket.socket | None:
    if sys.platform != "linux":
        return None
    found: socket.socket | None = transport.get_extra_info("socket")
    return found
