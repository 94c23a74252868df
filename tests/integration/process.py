"""A sidecar as one separate process, or as several."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import yaml

from delegation_core.spiffe_id import SpiffeId
from tests.integration.world import PATIENCE_S, START_S, WRITER, Record, World, free_port, until


class Running:
    """One sidecar process; several may follow each other on one record file."""

    def __init__(self, process: Process, document: Mapping[str, Any], path: Path) -> None:
        self.process = process
        self.path = path
        self.port = _port(document, "inbound") if "inbound" in document else 0
        self.outbound = _port(document, "outbound") if "outbound" in document else 0
        self.probe = _port(document, "probe")
        self.admin = Path(document["admin"]["socket"])
        sink = document["records"].get("sink", "stdout")
        self.file = Path("/dev/null" if sink == "stdout" else sink["file"])

    def records(self) -> list[Record]:
        """Every line of the file is one whole record."""
        return [json.loads(line) for line in self.file.read_text().splitlines()]

    async def wait_for(self, event: str, count: int = 1) -> None:
        await until(lambda: self.file.exists() and self.file.read_text().count(f'"event":"{event}"') >= count, START_S)

    async def wait_for_refusal(self) -> None:
        """Wait until no connection is accepted any more."""

        async def refused() -> bool:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", self.port)
            except ConnectionRefusedError:
                return True
            writer.transport.abort()
            return False

        async with asyncio.timeout(PATIENCE_S):
            while not await refused():  # noqa: ASYNC110 - there is no event
                await asyncio.sleep(0.01)

    async def end(self, number: signal.Signals) -> int:
        self.process.send_signal(number)
        return await asyncio.wait_for(self.process.wait(), PATIENCE_S)


@asynccontextmanager
async def process(
    world: World,
    settings: Mapping[str, Any] | None = None,
    *,
    drain_s: float = 5.0,
    starts: int = 1,
    workers: int = 1,
    records: Mapping[str, Any] | None = None,
    stdout: int | None = None,
    stderr: int = PIPE,
    started: Callable[[], None] | None = None,
    workload: SpiffeId = WRITER,
    program: Sequence[str] = ("-m", "sidecar.cli"),
) -> AsyncIterator[Running]:
    """Run a sidecar, by default the writer's with the world's settings; yields after ``starts`` records of a start.

    ``started`` returns at that point, if ``records`` go to no file. ``program`` stands for the command itself.
    """
    api = await world.api(workload)
    path = world.folder / "process.yaml"
    document = {
        **json.loads(json.dumps(settings or world.settings())),
        "drain_s": drain_s,
        "identity": {"workload_api": api.address},
        "probe": {"listen": f"127.0.0.1:{free_port()}"},
        "admin": {"socket": str(world.folder / "admin.sock")},
        "records": records or {"sink": {"file": str(world.folder / "process.records")}},
    }
    for side in ("inbound", "outbound"):
        if side in document:
            document[side]["listen"] = f"127.0.0.1:{free_port()}"
    path.write_text(yaml.dump(document, Dumper=yaml.CSafeDumper))
    command = [sys.executable, *program, "run", "--config", str(path), "--workers", str(workers)]
    child = await asyncio.create_subprocess_exec(*command, stdout=stdout, stderr=stderr)
    running = Running(child, document, path)
    try:
        if started is None:
            await running.wait_for("started", starts)
        else:
            await asyncio.to_thread(started)
        yield running
    finally:
        await _gone(child)


async def _gone(child: Process) -> None:
    """Wait until its workers are gone too: they outlive a killed parent for a moment, and write to the test folder."""
    if child.returncode is None:
        child.kill()
    _, logged = await child.communicate()  # stderr is theirs as well, and ends with the last of them
    assert b"a bug in the native engine" not in (logged or b"")


def _port(document: Mapping[str, Any], section: str) -> int:
    return int(document[section]["listen"].rpartition(":")[2])
