"""Accepts connections before an event loop sees them.

An event loop's own server hides facts that we need: the address of a peer whose handshake was refused, the number of
handshakes in flight, and that descriptors are running out (uvloop then closes silently, asyncio lets connections hang).
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from collections.abc import Callable
from typing import Final

from sidecar.admission import ADMIT, Admit, Wait

_log: Final = logging.getLogger("sidecar.listener")

ACCEPTS_PER_WAKE: Final = 16  # some 50 us each: a flood delays requests by at most a millisecond
PAUSE_S: Final = 0.1

OnAccepted = Callable[[socket.socket, str], None]


class Acceptor:
    """A listening socket. ``on_accepted`` is called with each connection, ready for a loop, and the peer's HOST:PORT.

    While ``before_accept`` returns ``Wait``, connections stay in the kernel's accept queue (``backlog``), which costs
    no descriptor. ``shared``: other processes of our user may listen at the same address, and the kernel distributes
    connections among them.
    """

    def __init__(
        self,
        host: str,
        port: int,
        on_accepted: OnAccepted,
        *,
        before_accept: Callable[[], Admit | Wait] = lambda: ADMIT,
        backlog: int = 1024,
        shared: bool = False,
    ) -> None:
        self._host = host
        self._family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._port = port
        self._on_accepted = on_accepted
        self._before_accept = before_accept
        self._backlog = backlog
        self._shared = shared
        self._socket: socket.socket | None = None

    @property
    def address(self) -> tuple[str, int]:
        """The host and port it listens on; the real port if 0 was requested."""
        if self._socket is None:
            return self._host, self._port
        host, port = self._socket.getsockname()[:2]
        return host, port

    def open(self) -> None:
        """Bind and start to accept.

        Raises:
            OSError: the address is in use or not ours; the text names it.
        """
        listening = socket.socket(self._family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if self._shared:
                listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            listening.bind((self._host, self._port))
            listening.listen(self._backlog)
        except OSError as error:
            listening.close()
            raise OSError(error.errno, f"{error.strerror}: {self._host}:{self._port}") from error
        self._socket = listening
        asyncio.get_running_loop().add_reader(listening.fileno(), self._accept)

    def close(self) -> None:
        """Stop accepting. Connections stay."""
        listening, self._socket = self._socket, None
        if listening is not None:
            asyncio.get_running_loop().remove_reader(listening.fileno())
            listening.close()

    def finish(self) -> None:
        """Accept the connections in the queue, then stop: closing would reset them."""
        while self._accept_one():
            pass
        self.close()

    def _accept(self) -> None:
        for _ in range(ACCEPTS_PER_WAKE):
            decision = self._before_accept()
            if isinstance(decision, Wait):
                self._rest(decision.seconds)
                return
            if not self._accept_one():
                return

    def _accept_one(self) -> bool:
        """Accept one connection. Return True if more may be waiting."""
        if self._socket is None:
            return False
        try:
            # As ``accept`` does, which also looks up the family and type of each connection as an enumeration.
            descriptor, address = self._socket._accept()  # type: ignore[attr-defined]
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return False
        except OSError as error:
            self._pause(error)
            return False
        accepted = socket.socket(self._family, socket.SOCK_STREAM, 0, descriptor)
        accepted.setblocking(False)  # noqa: FBT003 - the standard library's signature
        accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._on_accepted(accepted, f"{address[0]}:{address[1]}")
        return True

    def _pause(self, error: OSError) -> None:
        """Pause without descriptors or memory, instead of spinning on a socket that stays readable."""
        if error.errno not in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
            _log.warning("accept failed", extra={"errno": error.errno})
        self._rest(PAUSE_S)

    def _rest(self, seconds: float) -> None:
        listening = self._socket
        if listening is None:
            return
        loop = asyncio.get_running_loop()
        loop.remove_reader(listening.fileno())
        loop.call_later(seconds, self._go_on, listening)

    def _go_on(self, listening: socket.socket) -> None:
        if self._socket is listening:
            asyncio.get_running_loop().add_reader(listening.fileno(), self._accept)
