"""An agent and a tool server, each beside its sidecar: what a client of MCP or A2A meets in a mesh, at one URL.

The client knows no handle. A small agent in front adds it to each request, as the library for agents does, and passes
every other byte on as it is.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from tests.integration.hops import Hops
from tests.integration.world import CRM, START_S, WRITER, Sidecar, free_port
from tests.interop import agents

APPS: Final = Path(__file__).parent / "apps"


class ToolMesh:
    """``url`` is the tool server's, as the agent calls it through two sidecars; ``direct`` is without them."""

    def __init__(self, hops: Hops, tools: Sidecar, url: str, direct: str) -> None:
        self.hops, self.tools, self.url, self.direct = hops, tools, url, direct

    def operations(self, side: str) -> list[tuple[str | None, str, str]]:
        """Return operation, decision and reason of all requests that a side has recorded."""
        records = (self.hops.writer if side == "outbound" else self.tools).records()
        return [(one["op"], one["decision"], one["reason"]) for one in records if one["direction"] == side]


@asynccontextmanager
async def tool_mesh(
    hops: Hops, server_port: int, path: str, route: Mapping[str, Any], calls: Mapping[str, Any]
) -> AsyncIterator[ToolMesh]:
    """Put a server that listens behind a sidecar. ``route`` is its inbound route, ``calls`` adds to the agent's."""
    settings = hops.world.settings()
    settings["inbound"]["agent"] = f"http://127.0.0.1:{server_port}"
    settings["inbound"]["routes"] = [{"scopes": ["crm.read"], "peers": [str(WRITER)], **route}]
    tools = await hops.world.sidecar(CRM, settings)
    adder = HandleAdder()
    port = await hops.world.listen(adder.serve)
    writer = hops.settings(route={"may_call": ["tools"], "max_calls": 1_000_000})
    by_host = {"host": f"127.0.0.1:{port}"}  # as the client names the server
    writer["outbound"]["routes"] = [hops.route("tools", CRM, by_host, tools.inbound) | dict(calls)]
    hops.writer = await hops.world.sidecar(WRITER, writer)
    async with hops.serving() as held:
        adder.port, adder.handle = hops.writer.outbound, held.handle
        yield ToolMesh(hops, tools, f"http://127.0.0.1:{port}{path}", f"http://127.0.0.1:{server_port}{path}")


class HandleAdder:
    """Adds ``Delegation-Handle`` to each request of HTTP/1.1; bodies and answers pass as they are."""

    def __init__(self) -> None:
        self.port, self.handle = 0, ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream_reader, upstream = await asyncio.open_connection("127.0.0.1", self.port)
        back = asyncio.ensure_future(_copy(upstream_reader, writer))
        try:
            while (head := await reader.readuntil(b"\r\n\r\n")) is not None:
                first, _, rest = head.partition(b"\r\n")
                upstream.write(first + b"\r\ndelegation-handle: " + self.handle.encode() + b"\r\n" + rest)
                await _copy_body(head.lower(), reader, upstream)
                await upstream.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            back.cancel()
            for one in (upstream, writer):
                one.close()


async def _copy_body(head: bytes, reader: asyncio.StreamReader, upstream: asyncio.StreamWriter) -> None:
    if b"transfer-encoding: chunked" in head:
        while True:
            line = await reader.readline()
            size = int(line, 16)
            upstream.write(line + await reader.readexactly(size + 2))
            if not size:
                return
    _, found, after = head.partition(b"content-length:")
    if found:
        upstream.write(await reader.readexactly(int(after.partition(b"\r\n")[0])))


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()


@asynccontextmanager
async def program(script: str, *words: str) -> AsyncIterator[int]:
    """Run a server of ``apps`` in the environment of agents until the block ends; return its port once it answers."""
    port, log = free_port(), subprocess.DEVNULL
    command: list[str | Path] = [agents.PYTHON, APPS / script, str(port), *words]
    process = await asyncio.create_subprocess_exec(*command, stdout=log, stderr=log)
    try:
        async with asyncio.timeout(START_S):
            while True:
                with contextlib.suppress(ConnectionError):
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                    writer.close()
                    break
                assert process.returncode is None, f"{script} has ended"
                await asyncio.sleep(0.05)
        yield port
    finally:
        process.terminate()
        await process.wait()


async def run(script: str, *words: str, **environ: str) -> dict[str, Any]:
    """Run a program of ``apps`` to its end; return the JSON that it prints last."""
    process = await asyncio.create_subprocess_exec(
        agents.PYTHON,
        APPS / script,
        *words,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, **environ},
    )
    out, problems = await process.communicate()
    assert process.returncode == 0, problems.decode()[-4000:]
    told: dict[str, Any] = json.loads(out.splitlines()[-1])
    return told
