"""A service of an existing system: it checks a static key of its callers, and forwards one header."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

from tests.fakes.conversations import listening

Fields = list[tuple[str, str]]
Work = Callable[["Service", str, dict[str, str]], Awaitable[bytes]]


@dataclass
class Service:
    """One service as it was, except for the header that it forwards.

    It checks ``key`` of its callers in ``key_field``. ``port`` and ``path`` are where it calls its next: at first the
    next service itself.
    """

    name: str
    key_field: str
    key: str | None
    field_of_next: str = "authorization"
    key_of_next: str | None = None
    own_port: int = 0
    public_port: int = 0
    port: int = 0
    path: str = ""
    forwards: bool = True
    logs_in: bool = False
    work: Work | None = None
    open: AsyncExitStack = field(default_factory=AsyncExitStack)

    async def listen(self, port: int) -> None:
        """Move to another port."""
        await self.open.aclose()
        self.own_port = await self.open.enter_async_context(listening(self._serve, port))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            fields: dict[str, str] = {}
            while fields.get("connection") != "close":
                first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
                fields = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines if line)}
                await reader.readexactly(int(fields.get("content-length", 0)))
                assert self.work is not None
                writer.write(await self.work(self, first, fields))
                await writer.drain()
        writer.close()

    def shown(self, fields: dict[str, str]) -> Fields:
        """Return the fields of a call that it makes for a request with ``fields``."""
        shown = [] if self.key_of_next is None else [(self.field_of_next, self.key_of_next)]
        if self.forwards and "delegation-handle" in fields:
            shown.append(("delegation-handle", fields["delegation-handle"]))
        if self.logs_in:
            shown.append(("authorization", fields["authorization"]))
        return shown

    def is_lawful(self, fields: dict[str, str]) -> bool:
        return self.key in (None, fields.get(self.key_field))
