"""The benchmark's flood: the requested number of connections, reopened when they are closed."""

from __future__ import annotations

import asyncio
import sys

import pytest

pytestmark = pytest.mark.integration


PATIENCE_S = 20.0


async def test_as_many_as_were_ordered_are_there_and_come_again_when_they_are_closed() -> None:
    heard: list[bytes] = []
    came = asyncio.Event()

    async def close_half(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.readexactly(2))
        if len(heard) > 6:
            came.set()
            await reader.read()
        writer.close()

    server = await asyncio.start_server(close_half, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    pipe = asyncio.subprocess.PIPE
    options = ["--connect", f"127.0.0.1:{port}", "--count", "4", "--says", b"hi".hex()]
    crowd = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.crowd", *options, stdin=pipe, stdout=pipe
    )
    assert crowd.stdout is not None
    async with asyncio.timeout(PATIENCE_S):
        assert await crowd.stdout.readline() == b"there\n"
        await came.wait()
        reopened, _ = await crowd.communicate(b"")
    assert int(reopened) == 6
    assert set(heard) == {b"hi"}
    server.close()
