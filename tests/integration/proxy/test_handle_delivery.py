"""The workload handle reaches the agent's user by a socket or a file, and nobody else."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import stat
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from sidecar.observe.access_log import AccessLog, FileSink
from sidecar.observe.metrics import Metrics
from sidecar.observe.record_rate import RecordRate
from sidecar.proxy.journeys.handle_delivery import HandleDelivery, WorkloadHandleSettings
from sidecar.proxy.journeys.workload_handle import WorkloadHandle
from tests.integration.world import until

pytestmark = pytest.mark.integration

OURS = os.getuid()


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="sc-") as name:  # a socket's path is short
        yield Path(name)


class Delivered:
    def __init__(self, folder: Path, *, uids: frozenset[int], rotate_s: float) -> None:
        self.records_path = folder / "records"
        self.socket, self.file = folder / "handle.sock", folder / "handle"
        self.log = AccessLog(FileSink(self.records_path), run="run", metrics=Metrics())
        self.handle = WorkloadHandle(bytes(32), rotate_s)
        settings = WorkloadHandleSettings(socket=self.socket, file=self.file, agent_uids=uids, rotate_s=rotate_s)
        self.delivery = HandleDelivery(self.handle, settings, self.log, RecordRate(per_s=0.001, burst=2))

    async def ask(self) -> dict[str, Any]:
        reader, writer = await asyncio.open_unix_connection(str(self.socket))
        answer = await reader.read()
        writer.close()
        found: dict[str, Any] = json.loads(answer)
        return found

    async def records(self) -> list[dict[str, Any]]:
        await self.log.close()
        return [json.loads(line) for line in self.records_path.read_text().splitlines()]


@asynccontextmanager
async def delivering(
    folder: Path, *, uids: frozenset[int] = frozenset({OURS}), rotate_s: float = 300.0
) -> AsyncIterator[Delivered]:
    delivered = Delivered(folder, uids=uids, rotate_s=rotate_s)
    running = asyncio.ensure_future(delivered.delivery.run())
    try:
        await until(lambda: delivered.file.exists() or running.done())
        assert not running.done(), running.exception()
        yield delivered
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_the_agent_s_user_gets_the_handle_and_how_long_it_counts(folder: Path) -> None:
    async with delivering(folder) as delivered:
        answer = await delivered.ask()
        assert delivered.handle.accepts(answer["handle"])
        assert 0 < answer["expires_in"] <= 330
        assert set(answer) == {"handle", "expires_in"}
        assert await delivered.records() == []


async def test_another_user_gets_none_and_is_recorded_at_a_limited_rate(folder: Path) -> None:
    async with delivering(folder, uids=frozenset({OURS + 1})) as delivered:
        for _ in range(5):
            assert await delivered.ask() == {"error": "own_authority_refused"}
        first, second = await delivered.records()
        told = ("event", "decision", "reason", "direction", "detail")
        assert [first[key] for key in told] == [
            "connection.refused", "deny", "own_authority_refused", "outbound",
            f"uid {OURS} is not in workload_handle.agent_uids",
        ]  # fmt: skip
        assert first["source"] == f"uid {OURS} pid {os.getpid()}"
        assert second["reason"] == "own_authority_refused"


async def test_the_file_is_for_the_agent_s_group_and_is_replaced_whole(folder: Path) -> None:
    async with delivering(folder, rotate_s=0.2) as delivered:
        first = delivered.file.read_text()
        assert len(first) == 43
        assert stat.S_IMODE(delivered.file.stat().st_mode) == 0o640
        with delivered.file.open() as reading:
            await until(lambda: delivered.file.read_text() != first)
            assert reading.read() == first  # who has it open reads the old one to its end
        assert stat.S_IMODE(delivered.file.stat().st_mode) == 0o640


async def test_a_file_that_cannot_be_written_for_a_while_is_written_later(folder: Path) -> None:
    place = folder / "own"
    place.mkdir()
    async with delivering(place, rotate_s=0.2) as delivered:
        delivered.file.unlink()
        delivered.file.mkdir()  # in its way
        await until(lambda: not list(place.glob(".handle.*")))
        delivered.file.rmdir()
        await until(lambda: delivered.file.is_file())


async def test_both_are_gone_at_the_end_and_one_left_by_a_killed_sidecar_is_replaced(folder: Path) -> None:
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(folder / "handle.sock"))
    async with delivering(folder) as delivered:
        assert (await delivered.ask())["handle"]
        assert stat.S_IMODE(delivered.socket.stat().st_mode) == 0o666
    assert not delivered.socket.exists()
    assert not delivered.file.exists()


async def test_the_socket_of_another_process_is_left_alone(folder: Path) -> None:
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(folder / "handle.sock"))
        other.listen()
        delivered = Delivered(folder, uids=frozenset({OURS}), rotate_s=300.0)
        with pytest.raises(OSError, match=r"workload_handle.*another process"):
            await delivered.delivery.run()
        assert delivered.socket.exists()
