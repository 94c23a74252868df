"""What the kernel knows of a connection that no transport tells: what it holds, in both directions. Linux only."""

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
    """How many bytes the peer's kernel has acknowledged since the connection began; None if that cannot be told."""
    info = _tcp_info(transport, _BYTES_ACKED_AT + _BYTES_ACKED.size)
    if len(info) < _BYTES_ACKED_AT + _BYTES_ACKED.size:  # an older kernel knows less
        return None
    (acked,) = _BYTES_ACKED.unpack_from(info, _BYTES_ACKED_AT)
    return int(acked)


def queued(transport: asyncio.BaseTransport) -> int | None:
    """How many bytes our kernel holds that the peer's has not acknowledged; None if that cannot be told."""
    sock = _tcp_socket(transport)
    return None if sock is None else _ask(sock, termios.TIOCOUTQ)  # SIOCOUTQ


def unread(transport: asyncio.BaseTransport) -> int:
    """How many bytes have arrived that nobody has read yet; 0 if that cannot be told."""
    sock = _tcp_socket(transport)
    return 0 if sock is None else _ask(sock, termios.FIONREAD) or 0


def has_left(transport: asyncio.BaseTransport) -> bool:
    """Whether the peer has said that it sends no more, or has reset the connection, also while nobody reads.

    False if that cannot be told: a peer whose last bytes find no room here says so after them.
    """
    info = _tcp_info(transport, 1)
    return bool(info) and info[0] in _OVER


def receives(transport: asyncio.BaseTransport) -> int | None:
    """How many bytes our kernel may hold that were not read yet; None if that cannot be told."""
    sock = _tcp_socket(transport)
    if sock is None:
        return None
    try:
        return sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) // 2  # doubled, for what it needs itself
    except OSError:  # closed already
        return None


def hold_received(transport: asyncio.BaseTransport, size: int) -> None:
    """Let our kernel hold so many bytes that were not read yet, and no more: one read is never much larger."""
    sock = _tcp_socket(transport)
    if sock is not None:
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)


def _tcp_info(transport: asyncio.BaseTransport, size: int) -> bytes:
    """So many bytes of struct tcp_info at most; none if it cannot be had."""
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
