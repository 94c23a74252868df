from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest

from sidecar.serving import probe
from tests.integration.observe.test_probe import Watched

pytestmark = pytest.mark.integration

ASK = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"
LIMIT = 8


@pytest.fixture
async def watched(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Watched]:
    monkeypatch.setattr(probe, "MAX_CONNECTIONS", LIMIT)
    watched = Watched()
    await watched.probe.open()
    yield watched
    await watched.probe.close()


CROWDS = [
    pytest.param(b"", id="nothing"),
    pytest.param(ASK[:-2] + b"X: ", id="half a head"),
    pytest.param(ASK, id="a request, and stays"),
    pytest.param(ASK * 400, id="many requests, and reads nothing"),
]


async def crowd(watched: Watched, count: int, said: bytes) -> list[asyncio.StreamWriter]:
    writers = []
    for _ in range(count):
        _, writer = await asyncio.open_connection(*watched.probe.address, limit=1)
        writer.write(said)
        writers.append(writer)
    return writers


@pytest.mark.parametrize("said", CROWDS)
async def test_however_many_connect_some_are_kept_and_an_honest_one_is_answered(said: bytes, watched: Watched) -> None:
    writers = await crowd(watched, 3 * LIMIT, said)
    assert await watched.get("/readyz") == (200, "ready\n")
    assert len(watched.probe._connections) <= LIMIT
    assert len(watched.probe._waiting) <= LIMIT
    for writer in writers:
        writer.close()


@pytest.mark.parametrize("said", CROWDS[:2])
async def test_who_has_asked_nothing_takes_no_place_from_who_has(said: bytes, watched: Watched) -> None:
    writers = await crowd(watched, LIMIT - 1, said)
    for _ in range(2 * LIMIT):
        assert await watched.get("/livez") == (200, "live\n")
    assert not any(writer.is_closing() for writer in writers)
    assert len(watched.probe._waiting) == LIMIT - 1
    for writer in writers:
        writer.close()


async def test_below_the_limit_nobody_is_cut_and_above_it_the_oldest_once_it_had_its_time(watched: Watched) -> None:
    streams = [await asyncio.open_connection(*watched.probe.address) for _ in range(LIMIT)]
    for reader, writer in streams:
        writer.write(ASK)
        assert await reader.readuntil(b"\r\n") == b"HTTP/1.1 200 OK\r\n"
    began_at = asyncio.get_running_loop().time()
    assert await watched.get("/readyz") == (200, "ready\n")
    assert asyncio.get_running_loop().time() - began_at > 0.1  # it was young
    assert await _is_cut(streams[0][0])
    streams[1][1].write(ASK)
    await streams[1][0].readuntil(b"live\n")
    assert await streams[1][0].readuntil(b"\r\n") == b"HTTP/1.1 200 OK\r\n"
    for _, writer in streams:
        writer.close()


async def _is_cut(reader: asyncio.StreamReader) -> bool:
    try:
        async with asyncio.timeout(5):
            while await reader.read(65536):
                pass
    except ConnectionResetError:
        return True
    except TimeoutError:
        return False
    return True


async def test_whoever_reads_no_answer_keeps_nobody_from_ending(watched: Watched) -> None:
    with socket.socket() as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(deaf, watched.probe.address)
        await loop.sock_sendall(deaf, b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n" * 400)
        await watched.get("/readyz")
        async with asyncio.timeout(5):
            await watched.probe.close()


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br"])
async def test_a_packed_body_is_not_unpacked(watched: Watched, coding: str) -> None:
    junk = b"not packed"  # unpacking it would fail; unpacking 58 KB that are packed would hold the loop for 0.4 s
    reader, writer = await asyncio.open_connection(*watched.probe.address)
    writer.write(ASK[:-2] + b"Content-Encoding: %b\r\nContent-Length: %d\r\n\r\n" % (coding.encode(), len(junk)) + junk)
    writer.write(ASK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
    answers = await asyncio.wait_for(reader.read(), 5)
    assert answers.count(b"HTTP/1.1 200 OK") == 2, answers
    writer.close()
