"""Messages between parent and worker, over a pair of connected sockets that no other process can open.

The parent sends a named question and gets an answer, or sends an order without an answer. The first message is the
``Start``. When one end closes, the kernel notifies the other end at once.
"""

from __future__ import annotations

import asyncio
import itertools
import pickle
import socket
import struct
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Final, NamedTuple

from sidecar.config.loader import Loaded
from sidecar.config.settings import SidecarSettings

_LENGTH: Final = struct.Struct("!I")
_EVENT: Final = 0  # number of a message that is neither question nor answer

UP: Final = "up"
READY: Final = "ready"


class Start(NamedTuple):
    """All input of a worker. ``inboxes``: a pair of descriptors (read, write) per worker; ``sink_lock``: a descriptor.

    ``own_secret`` is the secret of the workload handle, ``session_key`` the key of MCP's session ids.
    """

    number: int
    loaded: Loaded[SidecarSettings]
    inboxes: tuple[tuple[int, int], ...]
    sink_lock: int
    own_secret: bytes
    session_key: bytes


class SilentError(Exception):
    """The other process is gone, or did not answer in time."""


class ToWorker:
    """The parent's end. ``heard``: the events received from the worker so far, of ``UP`` and ``READY``."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self.heard: set[str] = set()
        self._writer = writer
        self._numbers = itertools.count(1)
        self._asked: dict[int, asyncio.Future[Any]] = {}

    async def listen(self, reader: asyncio.StreamReader) -> None:
        """Receive messages. Runs until cancelled, even if the worker has ended."""
        try:
            while True:
                number, message = await _receive(reader)
                if number == _EVENT:
                    self.heard.add(message)
                elif (asked := self._asked.get(number)) is not None and not asked.done():
                    asked.set_result(message)
        except (asyncio.IncompleteReadError, OSError):
            self._forget()
            await asyncio.get_running_loop().create_future()
        finally:
            self._forget()

    def _forget(self) -> None:
        self._writer.close()
        for asked in self._asked.values():
            asked.cancel()

    def start(self, start: Start) -> None:
        """Send the first message."""
        self._writer.write(_pack((_EVENT, start)))

    def tell(self, order: str, *arguments: object) -> None:
        """Send an order."""
        if not self._writer.is_closing():
            self._writer.write(_pack((_EVENT, (order, *arguments))))

    async def ask(self, name: str, timeout_s: float, *arguments: object) -> Any:
        """Ask the worker and return its answer.

        Raises:
            SilentError: the worker is gone, or did not answer in time.
        """
        if self._writer.is_closing():
            raise SilentError
        number = next(self._numbers)
        answer = self._asked[number] = asyncio.get_running_loop().create_future()
        try:
            self._writer.write(_pack((number, (name, *arguments))))
            await asyncio.wait([answer], timeout=timeout_s)
            if not answer.done() or answer.cancelled():
                raise SilentError
            return answer.result()
        finally:
            del self._asked[number]


class ToParent:
    """The worker's end."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        self._writer: asyncio.StreamWriter | None = None

    def receive_start(self) -> Start:
        """Receive the first message, blocking. Call it before the event loop starts.

        Raises:
            EOFError: the parent is gone.
        """
        self._end.setblocking(True)  # noqa: FBT003 - the standard library's signature
        (length,) = _LENGTH.unpack(_read_exactly(self._end, _LENGTH.size))
        _, start = pickle.loads(_read_exactly(self._end, length))  # noqa: S301 - see the module: our own parent's
        assert isinstance(start, Start)  # noqa: S101 - the parent sends nothing before it
        return start

    def say(self, event: str) -> None:
        """Send the parent an event."""
        if self._writer is not None and not self._writer.is_closing():
            self._writer.write(_pack((_EVENT, event)))

    async def serve(
        self, answers: Mapping[str, Callable[..., object]], orders: Mapping[str, Callable[..., None]]
    ) -> None:
        """Answer questions and obey orders until the parent is gone. A slow question does not delay others."""
        reader, self._writer = await asyncio.open_unix_connection(sock=self._end)
        self.say(UP)
        try:
            async with asyncio.TaskGroup() as answering:
                await self._serve(reader, answers, orders, answering)
        finally:
            self._writer.close()

    async def _serve(
        self,
        reader: asyncio.StreamReader,
        answers: Mapping[str, Callable[..., object]],
        orders: Mapping[str, Callable[..., None]],
        answering: asyncio.TaskGroup,
    ) -> None:
        tasks: set[asyncio.Task[None]] = set()
        try:
            while True:
                number, (name, *arguments) = await _receive(reader)
                if number == _EVENT:
                    orders[name](*arguments)
                    continue
                found = answers[name](*arguments)
                if isinstance(found, Coroutine):
                    tasks.add(task := answering.create_task(self._answer_later(number, found)))
                    task.add_done_callback(tasks.discard)
                else:
                    self._answer(number, found)
        except (asyncio.IncompleteReadError, OSError):
            for task in tasks:
                task.cancel()

    async def _answer_later(self, number: int, work: Coroutine[Any, Any, object]) -> None:
        self._answer(number, await work)

    def _answer(self, number: int, answer: object) -> None:
        assert self._writer is not None  # noqa: S101 - for the type only: we are serving
        if not self._writer.is_closing():
            self._writer.write(_pack((number, answer)))


async def _receive(reader: asyncio.StreamReader) -> tuple[int, Any]:
    (length,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
    message: tuple[int, Any] = pickle.loads(await reader.readexactly(length))  # noqa: S301 - see the module
    return message


def _pack(message: object) -> bytes:
    body = pickle.dumps(message)
    return _LENGTH.pack(len(body)) + body


def _read_exactly(end: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = end.recv(size - len(data))
        if not piece:
            raise EOFError
        data += piece
    return data
