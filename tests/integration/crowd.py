"""Idle connections that only occupy places, in a separate process, so that its slowness does not slow the test.

``python -m tests.integration.crowd`` reads one line of JSON: the target address, the source address, a PEM file with
chain and key, and kinds of members. A line is written once each of them has connected. A cut one reconnects at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import ssl
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from sidecar.identity.source import Identity

_DRIP_EVERY_S: Final = 0.2
_AGAIN_S: Final = 0.05
_LITTLE: Final = 16 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A number of connections that send ``first`` and then an occasional ``drip``. ``reads``: they read answers."""

    count: int
    tls: bool = True
    first: str = ""
    drip: str = ""
    reads: bool = True


def written(identity: Identity, file: Path) -> Path:
    """Return chain and key of an identity, as a client of the standard library needs them."""
    key = ssl.DER_cert_to_PEM_cert(identity.svid.key_der).replace("CERTIFICATE", "PRIVATE KEY")
    file.write_text("".join(map(ssl.DER_cert_to_PEM_cert, identity.svid.chain)) + key)
    return file


@asynccontextmanager
async def crowd_at(port: int, pem: Path, kinds: Sequence[Kind], *, host: str = "127.0.0.1") -> AsyncIterator[None]:
    """Run connected members from ``host``, until the block ends."""
    order = {"port": port, "host": host, "pem": str(pem), "kinds": [asdict(kind) for kind in kinds]}
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", __name__, stdin=pipe, stdout=pipe)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(json.dumps(order).encode() + b"\n")
        assert await process.stdout.readline() == b"\n"
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


class Crowd:
    """The members, in the separate process."""

    def __init__(self, order: dict[str, Any]) -> None:
        self._to = "127.0.0.1", order["port"]
        self._host = order["host"]
        self._kinds = [Kind(**kind) for kind in order["kinds"]]
        self._tls = ssl.create_default_context()
        self._tls.check_hostname = False
        self._tls.verify_mode = ssl.CERT_NONE
        self._tls.load_cert_chain(order["pem"])
        self._connected = 0
        self.all_connected = asyncio.Event()

    async def stay(self) -> None:
        """Run for ever."""
        async with asyncio.TaskGroup() as group:
            for kind in self._kinds:
                for _ in range(kind.count):
                    group.create_task(self._member(kind))

    async def _member(self, kind: Kind) -> None:
        before = asyncio.Event()
        while True:
            with contextlib.suppress(OSError):
                await self._come(kind, connected=before)
            await asyncio.sleep(_AGAIN_S)

    def _count(self) -> None:
        self._connected += 1
        if self._connected == sum(one.count for one in self._kinds):
            self.all_connected.set()

    async def _come(self, kind: Kind, *, connected: asyncio.Event) -> None:
        with socket.socket() as sock:
            sock.setblocking(False)
            sock.bind((self._host, 0))
            if not kind.reads:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _LITTLE)  # nor does its kernel buffer much
            await asyncio.get_running_loop().sock_connect(sock, self._to)
            if not connected.is_set():
                connected.set()
                self._count()
            if kind.tls:
                reader, writer = await asyncio.open_connection(sock=sock, ssl=self._tls, server_hostname="sidecar")
            else:
                reader, writer = await asyncio.open_connection(sock=sock)
            try:
                await self._stay(kind, reader, writer)
            finally:
                writer.transport.abort()

    async def _stay(self, kind: Kind, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not kind.reads:
            writer.transport.pause_reading()  # type: ignore[attr-defined]
        writer.write(kind.first.encode())
        while not (reader.at_eof() or writer.is_closing()):
            writer.write(kind.drip.encode())
            await asyncio.sleep(_DRIP_EVERY_S)


async def _main() -> None:
    loop = asyncio.get_running_loop()
    crowd = Crowd(json.loads(await loop.run_in_executor(None, sys.stdin.readline)))
    staying = asyncio.ensure_future(crowd.stay())
    await crowd.all_connected.wait()
    sys.stdout.write("\n")
    sys.stdout.flush()
    await staying


if __name__ == "__main__":
    asyncio.run(_main())
