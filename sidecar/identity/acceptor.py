"""Connections that we accept ourselves, before an event loop sees them.

A loop's own server hides what we must know: the address of a peer whose handshake was refused, how many handshakes are
under way, and that descriptors are running out (uvloop then closes silently, asyncio lets connections hang).
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import ssl
import time
from collections import Counter
from collections.abc import Callable
from typing import Final

from sidecar.errors import Reason
from sidecar.identity.handshake import peer_address

_log: Final = logging.getLogger("sidecar.listener")

_ACCEPTS_PER_WAKE: Final = 64
_LOOK_AGAIN_S: Final = 0.02
PATIENCE_S: Final = 0.25  # with a handshake while others wait; an honest one takes milliseconds
PAUSE_S: Final = 0.1

Admit = Callable[[socket.socket, str], None]
OnGivenUp = Callable[[Reason, str, str], None]  # TIMEOUT or OVERLOADED, detail for the record, the peer's address


def host_of(address: str) -> str:
    """The host of HOST:PORT."""
    return address.rpartition(":")[0]


class Acceptor:
    """A listening socket. ``admit`` is given each connection, ready for a loop, and its peer's address, HOST:PORT.

    While ``is_full`` says so, who comes waits in the system's queue (``backlog``), which costs no descriptor.
    ``shared``: other processes of our user may listen at the same address, and the kernel deals connections out.
    """

    def __init__(
        self,
        host: str,
        port: int,
        admit: Admit,
        *,
        is_full: Callable[[], bool] = lambda: False,
        backlog: int = 1024,
        shared: bool = False,
    ) -> None:
        self._host = host
        self._port = port
        self._admit = admit
        self._is_full = is_full
        self._backlog = backlog
        self._shared = shared
        self._socket: socket.socket | None = None

    @property
    def address(self) -> tuple[str, int]:
        """Host and port it listens on; the port is the real one where 0 was asked for."""
        if self._socket is None:
            return self._host, self._port
        host, port = self._socket.getsockname()[:2]
        return host, port

    def open(self) -> None:
        """Bind and start to accept.

        Raises:
            OSError: the address is taken or not ours; the text names it.
        """
        family = socket.AF_INET6 if ":" in self._host else socket.AF_INET
        listening = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
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
        """Take who has connected already, then stop: closing resets whoever waits in the queue."""
        while self._accept_one():
            pass
        self.close()

    def _accept(self) -> None:
        for _ in range(_ACCEPTS_PER_WAKE):
            if self._is_full():
                self._rest(_LOOK_AGAIN_S)
                return
            if not self._accept_one():
                return

    def _accept_one(self) -> bool:
        """Whether there may be more."""
        if self._socket is None:
            return False
        try:
            accepted, address = self._socket.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return False
        except OSError as error:
            self._pause(error)
            return False
        accepted.setblocking(False)  # noqa: FBT003 - the standard library's signature
        accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._admit(accepted, f"{address[0]}:{address[1]}")
        return True

    def _pause(self, error: OSError) -> None:
        """Descriptors or memory are gone: wait a little, instead of spinning on a socket that stays readable."""
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


class Handshakes:
    """The handshakes under way, at most ``most`` (None: any number): one more makes the oldest give up.

    An honest one takes milliseconds, so the oldest is the most likely idler; ``full`` says that even that one is young,
    and that who comes should wait a little. Were the newest turned away instead, a handful of silent connections would
    lock everybody out. Without ``context`` there is nothing to wait for. ``on_given_up`` hears of each given up here.
    ``closing_s``: after so long a TLS connection that was closed is cut, whatever is still to be sent (None: 30 s).
    """

    def __init__(
        self,
        context: ssl.SSLContext | None,
        *,
        most: int | None,
        timeout_s: float,
        closing_s: float | None = None,
        on_given_up: OnGivenUp | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._context = context
        self._closing_s = None if context is None else closing_s
        self._most = most
        self._timeout_s = timeout_s
        self._on_given_up = on_given_up
        self._clock = clock
        self._running: dict[asyncio.Task[None], tuple[float, str]] = {}  # since when, of whom; the oldest first
        self._of: dict[str, asyncio.Task[None]] = {}  # by the peer's address
        self._hosts: Counter[str] = Counter()
        self._not_begun: set[socket.socket] = set()

    def __len__(self) -> int:
        return len(self._running)

    def of(self, host: str) -> int:
        """How many of one host are under way."""
        return self._hosts[host]

    def over(self, address: str) -> None:
        """The connection from there is made: it counts as one from now on, and no more as a handshake."""
        task = self._of.get(address)
        if task is not None:
            self._forget(task)

    @property
    def full(self) -> bool:
        """Whether there is no room, and nobody has had enough time yet to be given up for another."""
        if self._most is None or len(self._running) < self._most:
            return False
        since, _ = next(iter(self._running.values()))
        return self._clock() - since < PATIENCE_S

    def start(self, accepted: socket.socket, address: str, protocol: Callable[[], asyncio.BaseProtocol]) -> None:
        """Make a connection of an accepted socket; its handshake knows the peer's ``address``.

        Who is refused in it has its event by then, and the socket is closed.
        """
        if self._most is not None and len(self._running) >= self._most:
            oldest = next(iter(self._running))
            self._give_up(Reason.OVERLOADED, "the oldest handshake made room for another", self._forget(oldest))
            oldest.cancel()
        self._not_begun.add(accepted)
        task = asyncio.get_running_loop().create_task(self._hand_over(accepted, address, protocol))
        self._running[task] = self._clock(), address
        self._of[address] = task
        self._hosts[host_of(address)] += 1
        task.add_done_callback(lambda ended: self._ended(ended, accepted))

    async def finish(self, timeout_s: float) -> None:
        """Let those under way end, for so long; the rest is given up."""
        if self._running:
            await asyncio.wait(self._running, timeout=timeout_s)
        await self.close()

    async def close(self) -> None:
        """Give all of them up and wait until they have ended."""
        running = tuple(self._running)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    async def _hand_over(
        self, accepted: socket.socket, address: str, protocol: Callable[[], asyncio.BaseProtocol]
    ) -> None:
        self._not_begun.discard(accepted)
        peer_address.set(address)  # in this task's own context
        timeout_s = None if self._context is None else self._timeout_s
        began_at = self._clock()
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                protocol,
                accepted,
                ssl=self._context,
                ssl_handshake_timeout=timeout_s,
                ssl_shutdown_timeout=self._closing_s,
            )
        except (OSError, TimeoutError):  # ssl.SSLError is an OSError
            accepted.close()
            if timeout_s is not None and self._clock() - began_at > 0.9 * timeout_s:
                self._give_up(Reason.TIMEOUT, "the handshake took too long", address)
        except MemoryError:
            accepted.close()
            self._give_up(Reason.OVERLOADED, "there is no memory for a connection", address)

    def _give_up(self, reason: Reason, detail: str, address: str) -> None:
        if self._on_given_up is not None:
            self._on_given_up(reason, detail, address)

    def _forget(self, task: asyncio.Task[None]) -> str:
        """The address of whom it was with."""
        _, address = self._running.pop(task)
        if self._of.get(address) is task:
            del self._of[address]
        host = host_of(address)
        self._hosts[host] -= 1
        if not self._hosts[host]:
            del self._hosts[host]
        return address

    def _ended(self, task: asyncio.Task[None], accepted: socket.socket) -> None:
        if task in self._running:
            self._forget(task)
        if accepted in self._not_begun:  # given up before its first step: nobody else will close it
            self._not_begun.discard(accepted)
            accepted.close()
