"""The TLS handshakes under way with those who connect to us: how many, with whom, and who is given up for another."""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from sidecar.errors import Reason
from sidecar.identity.handshake import peer_address

PATIENCE_S: Final = 0.25  # with who says nothing while others wait; an honest handshake takes milliseconds
SPOKEN_PATIENCE_S: Final = 1.0  # with who has said something: milliseconds may be long on a busy machine
_LAST_ACK_AT: Final = 56  # of struct tcp_info in linux/tcp.h: milliseconds since the peer's last word to our kernel
_RECEIVED_AT: Final = 128  # bytes, since Linux 4.1

OnGivenUp = Callable[[Reason, str, str], None]  # TIMEOUT or OVERLOADED, detail for the record, the peer's address


def host_of(address: str) -> str:
    """The host of HOST:PORT."""
    return address.rpartition(":")[0]


@dataclass(slots=True)
class _Handshake:
    """One under way. ``since``: when its peer connected, where that is known."""

    address: str
    accepted: socket.socket
    began_at: float
    since: float
    spoken: bool

    @property
    def may_go_at(self) -> float:
        """When patience with it is over."""
        if not self.spoken:
            self.spoken = _silent_s(self.accepted) is None
        return self.since + (SPOKEN_PATIENCE_S if self.spoken else PATIENCE_S)


class Handshakes:
    """The handshakes under way, at most ``most`` (None: any number): above it one has to give up.

    That is the one with which patience is over first; ``full`` says that it is with none yet, and that who comes should
    wait a little. Were the newest turned away instead, a handful of silent connections would lock everybody out. One
    that had said nothing yet when it was accepted is as old as its connection: a crowd of them was silent in the
    system's queue already. Without ``context`` there is nothing to wait for. ``on_given_up`` hears of each given up
    here. ``closing_s``: after so long a TLS connection that was closed is cut, whatever is still to be sent (None:
    30 s).
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
        self._most = self._most_ever = most
        self._timeout_s = timeout_s
        self._on_given_up = on_given_up
        self._clock = clock
        self._running: dict[asyncio.Task[None], _Handshake] = {}
        self._of: dict[str, asyncio.Task[None]] = {}  # by the peer's address
        self._hosts: Counter[str] = Counter()
        self._silent_since = 0.0  # the last of those who were silent when they were accepted
        self._not_begun: set[socket.socket] = set()

    def __len__(self) -> int:
        return len(self._running)

    def of(self, host: str) -> int:
        """How many of one host are under way."""
        return self._hosts[host]

    def over(self, address: str) -> float:
        """The connection from there is made: it counts as one from now on, and no more as a handshake.

        How long it took, in seconds.
        """
        task = self._of.get(address)
        return 0.0 if task is None else self._clock() - self._forget(task).began_at

    def hold_to(self, most: int | None) -> None:
        """No more than so many from now on, and never more than ever; None: as many as ever."""
        ever = self._most_ever
        self._most = ever if most is None or ever is None else min(most, ever)

    @property
    def full(self) -> bool:
        """Whether there is no room, and nobody has had enough time yet to be given up for another."""
        return self._most is not None and len(self._running) >= self._most and not self.can_make_room()

    @property
    def under_way(self) -> bool:
        """Whether there are any that can be waited for."""
        return self._context is not None and bool(self._running)

    def can_make_room(self) -> bool:
        """Whether somebody has had time enough, and may be given up for another."""
        return self._had_enough(lambda _: True) is not None

    def make_room_at(self, host: str) -> bool:
        """Give up one from there that has had time enough. Whether there was one."""
        return self._make_room(lambda address: host_of(address) == host)

    def make_room(self) -> bool:
        """The same, wherever it comes from."""
        return self._make_room(lambda _: True)

    def start(self, accepted: socket.socket, address: str, protocol: Callable[[], asyncio.BaseProtocol]) -> None:
        """Make a connection of an accepted socket; its handshake knows the peer's ``address``.

        Who is refused in it has its event by then, and the socket is closed.
        """
        if self._most is not None and len(self._running) >= self._most:
            self._give_way(self._first_to_go(lambda _: True))
        self._not_begun.add(accepted)
        task = asyncio.get_running_loop().create_task(self._hand_over(accepted, address, protocol))
        self._running[task] = self._begun(accepted, address)
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

    def _begun(self, accepted: socket.socket, address: str) -> _Handshake:
        now = self._clock()
        silent_s = None if self._context is None else _silent_s(accepted)
        if silent_s is None:
            return _Handshake(address, accepted, now, now, spoken=True)
        self._silent_since = max(self._silent_since, now - silent_s)  # the queue keeps their order
        return _Handshake(address, accepted, now, self._silent_since, spoken=False)

    def _first_to_go(self, among: Callable[[str], bool]) -> asyncio.Task[None] | None:
        found = (task for task, one in self._running.items() if among(one.address))
        return min(found, key=lambda task: self._running[task].may_go_at, default=None)

    def _had_enough(self, among: Callable[[str], bool]) -> asyncio.Task[None] | None:
        found = None if self._context is None else self._first_to_go(among)
        return None if found is None or self._clock() < self._running[found].may_go_at else found

    def _make_room(self, among: Callable[[str], bool]) -> bool:
        found = self._had_enough(among)
        self._give_way(found)
        return found is not None

    def _give_way(self, task: asyncio.Task[None] | None) -> None:
        if task is not None:
            self._give_up(Reason.OVERLOADED, "the oldest handshake made room for another", self._forget(task).address)
            task.cancel()

    def _give_up(self, reason: Reason, detail: str, address: str) -> None:
        if self._on_given_up is not None:
            self._on_given_up(reason, detail, address)

    def _forget(self, task: asyncio.Task[None]) -> _Handshake:
        ended = self._running.pop(task)
        if self._of.get(ended.address) is task:
            del self._of[ended.address]
        host = host_of(ended.address)
        self._hosts[host] -= 1
        if not self._hosts[host]:
            del self._hosts[host]
        return ended

    def _ended(self, task: asyncio.Task[None], accepted: socket.socket) -> None:
        if task in self._running:
            self._forget(task)
        if accepted in self._not_begun:  # given up before its first step: nobody else will close it
            self._not_begun.discard(accepted)
            accepted.close()


def _silent_s(accepted: socket.socket) -> float | None:
    """For how long a peer that has sent nothing has been connected; None: any other, or where that cannot be told."""
    if sys.platform != "linux":
        return None
    try:
        info = accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _RECEIVED_AT + 8)
        (received,) = struct.unpack_from("=Q", info, _RECEIVED_AT)
        (last_ack_ms,) = struct.unpack_from("=I", info, _LAST_ACK_AT)
    except (OSError, struct.error):  # closed already, no TCP; an older kernel
        return None
    return None if received else last_ack_ms / 1000
