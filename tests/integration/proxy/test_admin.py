from __future__ import annotations

import asyncio
import errno
import json
import os
import socket
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from sidecar.proxy.listening.admin import AdminSocket, admin_pages

pytestmark = pytest.mark.integration

STATUS: dict[str, Any] = {"ready": True}
CHAINS: dict[str, Any] = {"chains": []}


@pytest.fixture
def path() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="sc-") as folder:  # a socket's path is short
        yield Path(folder) / "admin.sock"


async def status() -> dict[str, Any]:
    return STATUS


async def chains() -> dict[str, Any]:
    return CHAINS


def admin(path: Path) -> AdminSocket:
    return AdminSocket(admin_pages(status, chains), path)


async def get(path: Path, target: str, method: str = "GET") -> tuple[int, bytes]:
    async with (
        aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(path))) as session,
        session.request(method, f"http://admin{target}") as answer,
    ):
        return answer.status, await answer.read()


async def test_status_and_chains_are_served_and_nothing_else_is(path: Path) -> None:
    served = admin(path)
    await served.open()
    assert json.loads((await get(path, "/status"))[1]) == STATUS
    assert json.loads((await get(path, "/chains"))[1]) == CHAINS
    assert (await get(path, "/metrics"))[0] == 404
    assert (await get(path, "/status", "POST"))[0] == 405
    await served.close()


async def test_a_packed_body_is_not_unpacked(path: Path) -> None:
    served = admin(path)
    await served.open()
    reader, writer = await asyncio.open_unix_connection(path)
    ask = b"GET /status HTTP/1.1\r\nHost: admin\r\n"
    writer.write(ask + b"Content-Encoding: gzip\r\nContent-Length: 4\r\n\r\njunk")  # unpacking it would fail
    writer.write(ask + b"Connection: close\r\n\r\n")
    answers = await asyncio.wait_for(reader.read(), 5)
    assert answers.count(b"HTTP/1.1 200 OK") == 2, answers
    writer.close()
    await served.close()


async def test_only_our_own_user_can_open_it_whatever_the_umask_is(path: Path) -> None:
    before = os.umask(0)
    try:
        served = admin(path)
        await served.open()
    finally:
        os.umask(before)
    assert stat.S_IMODE(os.lstat(path).st_mode) == 0o600
    await served.close()


async def test_a_socket_that_a_killed_sidecar_left_is_replaced(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    served = admin(path)
    await served.open()
    assert (await get(path, "/status"))[0] == 200
    await served.close()


async def test_a_living_socket_is_left_alone(path: Path) -> None:
    first = admin(path)
    await first.open()
    with pytest.raises(OSError, match="another process listens there") as refused:
        await admin(path).open()
    assert refused.value.errno == errno.EADDRINUSE
    assert (await get(path, "/status"))[0] == 200
    await first.close()


async def test_a_file_that_is_no_socket_is_left_alone(path: Path) -> None:
    os.mkfifo(path)
    with pytest.raises(OSError, match="something else is there"):
        await admin(path).open()
    assert stat.S_ISFIFO(os.lstat(path).st_mode)


async def test_a_plain_file_is_left_alone(path: Path) -> None:
    os.mknod(path)
    with pytest.raises(OSError, match="something else is there"):
        await admin(path).open()


async def test_a_directory_that_is_not_there_is_told_with_the_path(path: Path) -> None:
    with pytest.raises(OSError, match=r"the admin socket .*: No such file"):
        await admin(path.parent / "none" / "a.sock").open()


async def test_at_the_end_it_takes_its_own_socket_away_and_no_other(path: Path) -> None:
    served = admin(path)
    await served.open()
    await served.close()
    with pytest.raises(FileNotFoundError):
        os.lstat(path)
    old, new = admin(path), admin(path)
    await old.open()
    path.rename(path.with_suffix(".old"))  # noqa: ASYNC240 - a test waits for nobody
    await new.open()
    await old.close()
    assert (await get(path, "/status"))[0] == 200
    await new.close()
