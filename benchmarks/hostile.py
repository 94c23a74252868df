"""``python -m benchmarks.hostile``: an attacking peer with a valid identity, until it is stopped.

At once and from one address: connections that drip a head, that hold a handshake open, that pipeline requests and never
read an answer, and a stream of new connections with broken heads, no token, or a garbage token of 8 KB. Bounded:
``CROWD`` connections of each kind, and a new connection every ``PACE_S``.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import ssl
import sys
from collections.abc import Awaitable, Callable
from typing import Final

CROWD: Final = 40
PACE_S: Final = 0.02
_BAD: Final = (
    b"GET /search HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    b"GET /search HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer " + b"x" * 8000 + b"\r\n\r\n",
    b"POST /search HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"GET /nowhere HTTP/1.1\r\nHost: a\r\n\r\n" * 50,
)

Attack = Callable[[], Awaitable[None]]


class Hostile:
    """The attacks of one peer on ``host:port``."""

    def __init__(self, host: str, port: int, context: ssl.SSLContext, name: str) -> None:
        self._where = (host, port)
        self._context = context
        self._name = name

    async def run(self) -> None:
        """Run all attacks until cancelled. A refused or cut connection is opened again."""
        async with asyncio.TaskGroup() as group:
            for attack in (self._drip, self._silent, self._never_read):
                for _ in range(CROWD):
                    group.create_task(_again(attack))
            number = 0
            while True:
                group.create_task(_once(lambda number=number: self._bad(number)))  # type: ignore[misc]
                number += 1
                await asyncio.sleep(PACE_S)

    async def _open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection(*self._where, ssl=self._context, server_hostname=self._name)

    async def _drip(self) -> None:
        reader, writer = await self._open()
        with contextlib.closing(writer):
            writer.write(b"GET /search HTTP/1.1\r\nHost: a\r\nX: ")
            while not reader.at_eof():
                writer.write(b"y")
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(reader.read(4096), 0.5)

    async def _silent(self) -> None:
        reader, writer = await asyncio.open_connection(*self._where)
        with contextlib.closing(writer):
            await reader.read()

    async def _never_read(self) -> None:
        _, writer = await self._open()
        with contextlib.closing(writer):
            writer.transport.pause_reading()  # type: ignore[attr-defined]
            writer.write(_BAD[-1] * 100)
            await asyncio.sleep(3600)

    async def _bad(self, number: int) -> None:
        reader, writer = await self._open()
        with contextlib.closing(writer):
            writer.write(_BAD[number % len(_BAD)])
            await reader.read()


async def _again(attack: Attack) -> None:
    while True:
        await _once(attack)
        await asyncio.sleep(0.1)


async def _once(attack: Attack) -> None:
    with contextlib.suppress(OSError, ssl.SSLError, TimeoutError):
        await asyncio.wait_for(attack(), 30)


def main() -> None:
    """Attack until standard input ends."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.hostile", description=__doc__)
    for option in ("--connect", "--certificate", "--key", "--authority", "--name"):
        parser.add_argument(option, required=True)
    arguments = parser.parse_args()
    context = ssl.create_default_context(cafile=arguments.authority)
    context.load_cert_chain(arguments.certificate, arguments.key)
    host, _, port = arguments.connect.rpartition(":")
    hostile = Hostile(host, int(port), context, arguments.name)

    async def until_told() -> None:
        attacking = asyncio.ensure_future(hostile.run())
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.buffer.read)
        attacking.cancel()
        await asyncio.gather(attacking, return_exceptions=True)

    asyncio.run(until_told())


if __name__ == "__main__":
    main()
