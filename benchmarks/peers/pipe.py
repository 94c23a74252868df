"""TLS in, TCP out, on uvloop, without HTTP: the minimum cost of any proxy in Python. Run as a program."""

from __future__ import annotations

import argparse
import asyncio
import ssl
from typing import cast

import uvloop


class _End(asyncio.Protocol):
    """One end of a pipe. It forwards its bytes to the other end, which may still be connecting."""

    def __init__(self, port: int | None, other: _End | None = None) -> None:
        self._port = port  # the port to connect to, for the accepted end
        self._other = other
        self._transport: asyncio.Transport | None = None
        self._early: list[bytes] = []
        self._connecting: asyncio.Task[object] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport = cast(asyncio.Transport, transport)  # uvloop's class does not inherit from it
        self._transport = transport
        if self._port is not None:
            loop = asyncio.get_running_loop()
            self._other = other = _End(None, self)
            self._connecting = loop.create_task(loop.create_connection(lambda: other, "127.0.0.1", self._port))
        elif self._other is not None:
            for data in self._other._early:
                transport.write(data)
            self._other._early = []

    def data_received(self, data: bytes) -> None:
        if self._other is not None and self._other._transport is not None:
            self._other._transport.write(data)
        else:
            self._early.append(data)

    def pause_writing(self) -> None:
        if self._other is not None and self._other._transport is not None:
            self._other._transport.pause_reading()

    def resume_writing(self) -> None:
        if self._other is not None and self._other._transport is not None:
            self._other._transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's own signature
        if self._other is not None and self._other._transport is not None:
            self._other._transport.close()


async def _serve(arguments: argparse.Namespace) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=arguments.bundle)
    context.verify_mode = ssl.CERT_REQUIRED
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.num_tickets = 0
    context.load_cert_chain(arguments.certificate, arguments.key)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: _End(int(arguments.upstream)), "127.0.0.1", int(arguments.port), ssl=context, backlog=4096
    )
    await server.serve_forever()


def main() -> None:
    """Serve until stopped."""
    parser = argparse.ArgumentParser()
    for name in ("port", "certificate", "key", "bundle", "upstream"):
        parser.add_argument(f"--{name}", required=True)
    uvloop.run(_serve(parser.parse_args()))


if __name__ == "__main__":
    main()
