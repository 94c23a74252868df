"""Start and stop of one foreign program: it has a session of its own, so that what it starts ends with it."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final

import aiohttp

START_S: Final = 60.0
_STOP_S: Final = 15.0
_TAIL: Final = 2000


@asynccontextmanager
async def client_session() -> AsyncIterator[aiohttp.ClientSession]:
    """Open a client for a test's own requests; it keeps no cookie."""
    async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as session:
        yield session


@asynccontextmanager
async def running(
    words: Sequence[str | Path],
    *,
    log: Path,
    ready: str,
    session: aiohttp.ClientSession,
    environment: Mapping[str, str] | None = None,
    start_s: float = START_S,
) -> AsyncIterator[None]:
    """Run a program until the end of the block; begin when the URL ``ready`` answers 200.

    Raises:
        AssertionError: it ended by itself, with the end of its log.
        TimeoutError: it is not ready after ``start_s``.
    """
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            *map(str, words),
            env={**os.environ, **(environment or {})},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        async with asyncio.timeout(start_s):
            while not await _answers(session, ready):
                assert process.returncode is None, f"{words[0]} ended: {_end_of(log)}"
                await asyncio.sleep(0.05)
        yield
    finally:
        await _stop(process)


def _end_of(log: Path) -> str:
    return log.read_text(errors="replace")[-_TAIL:]


async def _answers(session: aiohttp.ClientSession, url: str) -> bool:
    with suppress(aiohttp.ClientError):
        async with session.get(url) as answer:
            return answer.status == 200
    return False


async def _stop(process: asyncio.subprocess.Process) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    try:
        async with asyncio.timeout(_STOP_S):
            await process.wait()
    except TimeoutError:
        os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
