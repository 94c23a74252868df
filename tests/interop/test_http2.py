"""HTTP/2 against foreign tools: h2spec, and nghttp2's clients, on running sidecars.

h2spec runs on the agent's port without TLS, and on the peers' port through a pipe that holds an SVID.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from sidecar.identity.tls import client_context
from tests.integration.hops import Hops
from tests.integration.world import PLANNER, WRITER, mint, ok
from tests.interop.engine import require

pytestmark = [pytest.mark.interop, pytest.mark.timeout(180)]

H2SPEC = os.environ.get("H2SPEC") or shutil.which("h2spec")
HTTP2 = {"protocols": {"http2": True}}


async def ran(*command: str, seconds: float = 120) -> str:
    """Return what a program has printed."""
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    try:
        async with asyncio.timeout(seconds):
            printed, _ = await process.communicate()
    except TimeoutError:
        process.kill()
        raise
    return printed.decode()


async def failures_of_h2spec(port: int) -> list[str]:
    """Run every case of h2spec; return the descriptions of those that fail."""
    require(None if H2SPEC else "h2spec is not on PATH, and H2SPEC does not name it")
    assert H2SPEC is not None
    printed = await ran(H2SPEC, "-h", "127.0.0.1", "-p", str(port), "-P", "/draft", "-o", "3")
    total = re.search(r"(\d+) tests, (\d+) passed, (\d+) skipped, (\d+) failed", printed)
    assert total is not None, printed[-2000:]
    assert int(total[1]) > 100
    failed = printed.partition("Failures:")[2]
    found = re.findall(r"\xd7 \d+: (.*)", failed)
    assert len(found) == int(total[4])
    return found


@asynccontextmanager
async def pipe(port: int, context: ssl.SSLContext) -> AsyncIterator[int]:
    """Listen without TLS, and pass each connection on over TLS."""
    running: set[asyncio.Task[None]] = set()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname="sidecar")
        for task in (asyncio.ensure_future(copy(reader, back)), asyncio.ensure_future(copy(there, writer))):
            running.add(task)

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        except (ConnectionError, ssl.SSLError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


async def planner(hops: Hops) -> ssl.SSLContext:
    return client_context(await hops.world.source(PLANNER), expected=WRITER, alpn=("h2",))


async def test_every_case_of_h2spec_passes_on_the_peers_port(hops: Hops) -> None:
    await hops.start(**HTTP2)
    async with pipe(hops.writer.inbound, await planner(hops)) as port:
        found = await failures_of_h2spec(port)
        assert found == [], found


async def test_every_case_of_h2spec_passes_on_the_agents_port(hops: Hops) -> None:
    await hops.start(**HTTP2)
    found = await failures_of_h2spec(hops.writer.outbound)
    assert found == [], found


@pytest.mark.parametrize(("clients", "streams"), [(1, 1), (4, 50), (2, 100)])
async def test_h2load_loses_nothing(hops: Hops, clients: int, streams: int) -> None:
    require(None if shutil.which("h2load") else "h2load is not on PATH")
    await hops.start(**HTTP2)
    hops.agent.script = lambda _head, body: ok(b"x" * 1000 + body)
    async with pipe(hops.writer.inbound, await planner(hops)) as port:
        printed = await ran(
            "h2load", "-n", "1000", "-c", str(clients), "-m", str(streams), "-H", f"authorization: Bearer {mint()}",
            f"http://127.0.0.1:{port}/draft",
        )  # fmt: skip
    assert "1000 succeeded, 0 failed, 0 errored, 0 timeout" in printed, printed
    assert "status codes: 1000 2xx" in printed
    assert len(await hops.writer.wait_for_records(1000)) == 1000


async def test_nghttp_sends_a_long_body_and_reads_a_long_answer(hops: Hops, tmp_path: Path) -> None:
    require(None if shutil.which("nghttp") else "nghttp is not on PATH")
    await hops.start(**HTTP2)
    hops.agent.script = lambda _head, body: ok(body)
    sent, got = tmp_path / "sent", tmp_path / "draft"
    sent.write_bytes(os.urandom(2_000_000))
    async with pipe(hops.writer.inbound, await planner(hops)) as port:
        await ran(
            "sh", "-c",
            f'nghttp -d {sent} -H "authorization: Bearer {mint()}" http://127.0.0.1:{port}/draft > {got}',
        )  # fmt: skip
    assert got.read_bytes() == sent.read_bytes()
