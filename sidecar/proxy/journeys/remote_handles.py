"""Handles of other workers: the agent's call may reach a different worker than the one that serves its request.

Theory of operation. A handle begins with the mark of its worker. A worker that receives another worker's handle asks
that worker, which looks the handle up and counts the call. So ``max_calls`` is one limit for all workers, and a handle
ends with its request everywhere at once. Answers are not cached. They include the peer's certificates, so that a call
in flight ends with the trust in its peer at any worker. A worker that serves a request of a route with ``linger_s``
notifies the others, because handles of the same chain may linger there.

Each worker has an inbox, a pair of connected sockets that the parent made before it started any worker. The sockets
have no name, so no other process can open them; only workers hold the writing ends. A message is one packet. A call
without an answer in time is refused: the requests and handles of a dead worker are gone.
"""

from __future__ import annotations

import asyncio
import pickle
import secrets
import socket
from collections import deque
from collections.abc import Callable, Sequence
from enum import Enum
from functools import partial
from typing import Final, NamedTuple

from delegation_core.errors import Denied, Reason, SidecarError, Unavailable
from delegation_core.plan import Delegation
from sidecar.observe.attribution import facts_of_token
from sidecar.proxy.journeys.handles import MARKED_CHARS, MARKS, Counting, Handles
from sidecar.proxy.journeys.linger_cache import Chain
from sidecar.proxy.journeys.revalidation import Guard

TIMEOUT_S: Final = 2.0
MAX_WAITING_BYTES: Final = 4 * 1024 * 1024  # of packets queued for one full inbox

_BUFFER_BYTES: Final = 1 << 20  # of one inbox; the kernel may give less
_MAX_PACKET: Final = 1 << 18  # a token and its claims, and a peer's chain, which TLS bounds at 100 KB
_PACKETS_PER_WAKE: Final = 64
_ID_BYTES: Final = 16


class Inbox(NamedTuple):
    """A worker's inbox. ``read`` is used by this worker alone, ``write`` by the others."""

    read: socket.socket
    write: socket.socket


def new_inbox() -> Inbox:
    """Make an inbox without a name."""
    write, read = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in (read, write):
        end.setblocking(False)  # noqa: FBT003 - the standard library's signature
    write.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER_BYTES)
    return Inbox(read, write)


class RemoteRequest:
    """Request in progress at another worker, used like a ``ServedRequest``. ``counting`` None: no limit of calls."""

    __slots__ = ("_counting", "call_in", "delegation", "ended_at", "facts", "guard")

    def __init__(self, found: _Found, counting: Counting | None, guard: Guard | None) -> None:
        self.guard = guard
        self.delegation = found.delegation
        self.facts = facts_of_token(found.delegation.token)
        self.call_in = found.call_in
        self.ended_at = found.ended_at
        self._counting = counting

    def count_call(self) -> Counting | None:
        """Return a coroutine function that takes one call from the budget; None: there is no budget.

        The coroutine raises:
            Denied: CALLS_EXHAUSTED, or as ``RemoteHandles.resolve``.
            Unavailable: as ``RemoteHandles.resolve``.
        """
        return self._counting


class _Found(NamedTuple):
    delegation: Delegation
    call_in: str | None
    ended_at: float | None
    limited: bool
    peer: tuple[tuple[bytes, ...], int] | None  # its certificate chain, and ``Guard.until``


class _Purpose(Enum):
    FIND = "find"
    RESOLVE = "resolve"
    COUNT = "count"


class _Ask(NamedTuple):
    ask: bytes
    asker: int
    handle: str
    purpose: _Purpose


class _Request(NamedTuple):
    """Notifies a worker of a new request of a chain, to renew its lingering handles. Has no answer."""

    chain: Chain


class _Answer(NamedTuple):
    ask: bytes
    answer: _Found | SidecarError


class RemoteHandles:
    """Asks the other workers, and answers their questions. ``number`` is the index of our inbox in ``inboxes``.

    ``prove`` verifies the certificate chain of another worker's peer at a time; it raises as ``PeerGuard``.
    """

    def __init__(
        self,
        handles: Handles,
        inboxes: Sequence[Inbox],
        number: int,
        *,
        prove: Callable[[tuple[bytes, ...], int], Guard],
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        self._handles = handles
        handles.on_request_of = self._tell
        self._prove = prove
        self._inboxes = inboxes
        self._number = number
        self.timeout_s = timeout_s
        self._asked: dict[bytes, asyncio.Future[_Found | SidecarError]] = {}
        self._waiting: list[deque[bytes]] = [deque() for _ in inboxes]
        self._waiting_bytes = [0] * len(inboxes)

    def open(self) -> None:
        """Start to answer other workers."""
        asyncio.get_running_loop().add_reader(self._inboxes[self._number].read.fileno(), self._receive)

    def close(self) -> None:
        """Stop answering."""
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._inboxes[self._number].read.fileno())
        for inbox in self._inboxes:
            loop.remove_writer(inbox.write.fileno())

    def owner_of(self, handle: str) -> int | None:
        """Return the number of the worker that made a handle; None: this worker, or the handle is malformed."""
        if len(handle) != MARKED_CHARS:
            return None
        owner = MARKS.find(handle[0])
        return owner if owner != self._number and 0 <= owner < len(self._inboxes) else None

    async def resolve(self, owner: int, handle: str) -> RemoteRequest:
        """Return the request behind a handle of the worker ``owner``.

        Raises:
            Denied: as ``Handles.resolve``; NO_REQUEST_CONTEXT, this worker does not trust the request's peer.
            Unavailable: NOT_READY, that worker does not answer; or as ``Handles.resolve``.
        """
        found = await self._ask(owner, handle, _Purpose.RESOLVE)
        counting = partial(self._ask, owner, handle, _Purpose.COUNT) if found.limited else None
        return RemoteRequest(found, counting, None if found.peer is None else self._guard(*found.peer))

    async def find(self, owner: int, handle: str) -> None:
        """Return if the worker ``owner`` knows a handle, even if a re-evaluation refused its request.

        Raises:
            Denied: as ``Handles.find``.
            Unavailable: NOT_READY, that worker does not answer.
        """
        await self._ask(owner, handle, _Purpose.FIND)

    def _guard(self, chain: tuple[bytes, ...], until: int) -> Guard:
        """Verify the peer at this worker too, so that a call made here ends with the trust in the peer."""
        try:
            return self._prove(chain, until - 1)
        except Denied as error:
            raise Denied(Reason.NO_REQUEST_CONTEXT, f"the handle's peer is not trusted here: {error}") from error

    async def _ask(self, owner: int, handle: str, purpose: _Purpose) -> _Found:
        ask = secrets.token_bytes(
            _ID_BYTES
        )  # random: an answer to a dead worker must not match a question of its successor
        answer = self._asked[ask] = asyncio.get_running_loop().create_future()
        try:
            self._send(owner, _Ask(ask, self._number, handle, purpose))
            async with asyncio.timeout(self.timeout_s):
                found: _Found | SidecarError = await answer
        except TimeoutError:
            raise Unavailable(Reason.NOT_READY, "the worker that made this handle does not answer") from None
        finally:
            del self._asked[ask]
        if isinstance(found, SidecarError):
            raise found
        return found

    def _tell(self, chain: Chain) -> None:
        for number in range(len(self._inboxes)):
            if number != self._number:
                self._send(number, _Request(chain))

    # --- packets

    def _receive(self) -> None:
        read = self._inboxes[self._number].read
        for _ in range(_PACKETS_PER_WAKE):
            try:
                packet = read.recv(_MAX_PACKET)
            except (BlockingIOError, InterruptedError):
                return
            message = pickle.loads(packet)  # noqa: S301 - only workers hold the writing end
            if isinstance(message, _Ask):
                self._send(message.asker, _Answer(message.ask, self._look_up(message)))
            elif isinstance(message, _Request):
                self._handles.renew(message.chain)
            else:
                self._set_answer(message)

    def _look_up(self, message: _Ask) -> _Found | SidecarError:
        try:
            find = self._handles.find if message.purpose is _Purpose.FIND else self._handles.resolve
            served = find(message.handle)
            if message.purpose is _Purpose.COUNT:
                served.count_call()
        except SidecarError as error:
            return error
        guard = served.guard
        peer = None if guard is None else (guard.chain, guard.until)
        return _Found(served.delegation, served.call_in, served.ended_at, served.calls_left is not None, peer)

    def _set_answer(self, message: _Answer) -> None:
        asked = self._asked.get(message.ask)
        if asked is not None and not asked.done():
            asked.set_result(message.answer)

    def _send(self, number: int, message: _Ask | _Answer | _Request) -> None:
        """Write a packet, now or when the inbox has room. With a full queue, drop it: the asking worker times out."""
        packet = pickle.dumps(message)
        waiting = self._waiting[number]
        if waiting:
            if self._waiting_bytes[number] + len(packet) <= MAX_WAITING_BYTES:
                self._wait(number, packet)
            return
        if not self._write(number, packet):
            self._wait(number, packet)
            asyncio.get_running_loop().add_writer(self._inboxes[number].write.fileno(), self._write_waiting, number)

    def _wait(self, number: int, packet: bytes) -> None:
        self._waiting[number].append(packet)
        self._waiting_bytes[number] += len(packet)

    def _write_waiting(self, number: int) -> None:
        waiting = self._waiting[number]
        while waiting and self._write(number, waiting[0]):
            self._waiting_bytes[number] -= len(waiting.popleft())
        if not waiting:
            asyncio.get_running_loop().remove_writer(self._inboxes[number].write.fileno())

    def _write(self, number: int, packet: bytes) -> bool:
        try:
            self._inboxes[number].write.send(packet)
        except (BlockingIOError, InterruptedError):
            return False
        return True
