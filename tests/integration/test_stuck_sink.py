"""No answered call without its record: sinks that stall, fill up, vanish or are replaced, under a running sidecar."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import re
import select
import signal
import ssl
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

import pytest

from sidecar.observe.access_log import MAX_BYTES
from tests.disk import disk
from tests.injector.serving import running_injector
from tests.integration.process import Running, process
from tests.integration.test_parts import sts_settings, written
from tests.integration.world import CRM, PLANNER, START_S, STS, WRITER, World, bearer, calling, mint

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

F_SETPIPE_SZ = 1031
RECORD_BYTES = 1000  # about
NAMED = re.compile(r"record not written run=(\w+) seq=(\d+) event=(\S+) request_id=(\S+) decision=(\S+) reason=(\S+)")


class Pipe:
    """A pipe of one page. Its reader reads until it has seen this many starts, and then nothing until the end."""

    def __init__(self, starts: int) -> None:
        self.reader, self.writer = os.pipe()
        fcntl.fcntl(self.writer, F_SETPIPE_SZ, 4096)
        self._starts = starts
        self._received = b""

    def read_starts(self) -> None:
        while self._received.count(b'"event":"started"') < self._starts:
            readable, _, _ = select.select([self.reader], [], [], START_S)
            assert readable, "the process did not start"  # we hold the other end as well, so there is no end of file
            self._received += os.read(self.reader, 65536)

    def fill(self) -> None:
        """Fill the pipe so that not even a short line fits."""
        fd = os.open(f"/proc/self/fd/{self.writer}", os.O_WRONLY | os.O_NONBLOCK)
        with suppress(BlockingIOError):
            while True:
                os.write(fd, b"\n")
        os.close(fd)

    def rest(self) -> list[bytes]:
        """Return every whole line that was taken, at the end.

        One may be empty: of a worker that ended before a write, the other cannot know if it has begun a line.
        """
        os.close(self.writer)
        while data := os.read(self.reader, 65536):
            self._received += data
        os.close(self.reader)
        return [line for line in self._received.splitlines(keepends=True) if line.endswith(b"\n") and line != b"\n"]


@pytest.fixture
async def planner(world: World) -> ssl.SSLContext:
    return calling(await world.source(PLANNER), WRITER)


async def until_refused(world: World, sidecar: Running, planner: ssl.SSLContext, *, refusals: int = 1) -> int:
    """Call until the answer is audit_unavailable this often in a row. Returns the number of 200 answers."""
    answered = refused = 0
    while refused < refusals:
        answer = await world.call(sidecar.port, planner, headers=bearer(mint()))
        if answer.status == 200:
            answered, refused = answered + 1, 0
        else:
            assert (answer.status, answer.reason) == (503, "audit_unavailable")
            refused += 1
    return answered


async def until_served(world: World, sidecar: Running, planner: ssl.SSLContext) -> None:
    async with asyncio.timeout(20):
        while (await world.call(sidecar.port, planner, headers=bearer(mint()))).status != 200:
            pass


def requests(lines: list[bytes]) -> set[tuple[str, int]]:
    """Return the name of each record of a served request."""
    records = [json.loads(line) for line in lines]
    return {(one["run"], one["seq"]) for one in records if (one["event"], one["reason"]) == ("request", "ok")}


def served(event: str, lines: list[bytes]) -> set[tuple[str, int]]:
    """Return the names of allowed events other than requests."""
    records = [json.loads(line) for line in lines]
    return {(one["run"], one["seq"]) for one in records if (one["event"], one["decision"]) == (event, "allow")}


def named(log: str) -> set[tuple[str, int]]:
    """Return the names in the operations log."""
    found = (one.groups() for one in NAMED.finditer(log))
    return {(run, int(seq)) for run, seq, event, _, _, reason in found if (event, reason) == ("request", "ok")}


@pytest.mark.parametrize("workers", [1, 2])
async def test_what_a_stopped_reader_did_not_take_is_named_by_its_request_id(
    world: World, planner: ssl.SSLContext, workers: int
) -> None:
    pipe = Pipe(workers)
    async with process(
        world, workers=workers, records={"sink": "stdout"}, stdout=pipe.writer, started=pipe.read_starts
    ) as sidecar:
        answered = await until_refused(world, sidecar, planner, refusals=20 * workers)
        sidecar.process.send_signal(signal.SIGTERM)
        _, log = await asyncio.wait_for(sidecar.process.communicate(), 60)
        assert sidecar.process.returncode == 1
    taken, left = requests(pipe.rest()), named(log.decode())
    assert len(taken | left) == answered  # all of them, though in two places
    assert 0 < len(left) <= workers * MAX_BYTES / RECORD_BYTES
    by_reason: dict[str, set[str]] = {"ok": set(), "audit_unavailable": set()}
    for _, _, event, request_id, _, reason in NAMED.findall(log.decode()):
        if event == "request":
            by_reason[reason].add(request_id)
    assert len(by_reason["ok"] - {"-"}) == len(left)
    assert len(by_reason["audit_unavailable"] - {"-"}) >= 20 * workers  # refusals have a reserve


@pytest.mark.parametrize("workers", [1, 2])
async def test_what_a_stopped_reader_did_not_take_is_spilled_also_where_nobody_reads_the_log(
    world: World, planner: ssl.SSLContext, workers: int
) -> None:
    pipe = Pipe(workers)
    folder = world.folder / "spill"
    folder.mkdir()
    async with process(
        world,
        workers=workers,
        records={"sink": "stdout", "spill": str(folder)},
        stdout=pipe.writer,
        stderr=pipe.writer,  # as with 2>&1: the log is stuck as well
        started=pipe.read_starts,
    ) as sidecar:
        answered = await until_refused(world, sidecar, planner, refusals=20 * workers)
        await asyncio.to_thread(pipe.fill)
        sidecar.process.send_signal(signal.SIGTERM)  # it logs that it stops, and nobody reads that line
        assert await asyncio.wait_for(sidecar.process.wait(), 60) == 1
    spilled = [line for file in folder.iterdir() for line in file.read_bytes().splitlines(keepends=True)]
    taken = requests([line for line in pipe.rest() if line.startswith(b"{") and line.endswith(b"}\n")])
    assert len(taken | requests(spilled)) == answered
    assert all(file.stat().st_mode & 0o777 == 0o600 for file in folder.iterdir())


async def test_a_sink_that_takes_all_ends_with_exit_code_0_and_no_word(world: World, planner: ssl.SSLContext) -> None:
    async with process(world) as sidecar:
        assert (await world.call(sidecar.port, planner, headers=bearer(mint()))).status == 200
        sidecar.process.send_signal(signal.SIGTERM)
        _, log = await asyncio.wait_for(sidecar.process.communicate(), 60)
        assert sidecar.process.returncode == 0
    assert b"not written" not in log
    assert b"spilled" not in log


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    with disk(tmp_path / "disk", "512k") as folder:  # after a full one, refusals are recorded, too
        yield folder


@pytest.fixture(params=[1, 2])
async def on_a_full_disk(
    world: World, planner: ssl.SSLContext, small_disk: Path, request: pytest.FixtureRequest
) -> AsyncIterator[Running]:
    workers = request.param
    records = {"sink": {"file": str(small_disk / "records")}}
    async with process(world, workers=workers, starts=workers, records=records) as sidecar:
        assert await until_refused(world, sidecar, planner, refusals=20 * workers) > 0
        yield sidecar


async def test_a_removed_file_on_a_full_disk_needs_no_help(
    world: World, planner: ssl.SSLContext, on_a_full_disk: Running
) -> None:
    sidecar = on_a_full_disk
    sidecar.file.unlink()
    await until_served(world, sidecar, planner)
    assert await sidecar.end(signal.SIGTERM) == 0
    assert sidecar.records()[-1]["event"] == "stopped"


async def test_a_pipe_in_the_place_of_a_file_on_a_full_disk_keeps_nothing_broken(
    world: World, planner: ssl.SSLContext, on_a_full_disk: Running
) -> None:
    sidecar = on_a_full_disk
    sidecar.file.unlink()
    os.mkfifo(sidecar.file)
    await until_refused(world, sidecar, planner, refusals=3)
    sidecar.file.unlink()
    await until_served(world, sidecar, planner)
    assert await sidecar.end(signal.SIGTERM) == 0
    assert sidecar.records()[-1]["event"] == "stopped"


async def test_a_token_service_issues_nothing_that_a_stopped_reader_does_not_take(world: World) -> None:
    own = {"workload": str(WRITER), "audience": str(CRM), "scopes": ["crm.read"]}
    folder = world.folder / "spill"
    folder.mkdir()
    records = {"sink": "stdout", "spill": str(folder)}
    document = sts_settings(world, (await world.api(STS)).address, self_rules=[own], records=records)
    pipe = Pipe(1)
    command = [sys.executable, "-m", "sidecar.cli", "sts", "--config", str(written(world, document))]
    process = await asyncio.create_subprocess_exec(*command, stdout=pipe.writer)
    try:
        await asyncio.to_thread(pipe.read_starts)
        await world.until_ready(int(document["probe"]["listen"].rpartition(":")[2]))
        host, _, port = document["listen"].rpartition(":")
        writer = calling(await world.source(WRITER), STS)
        form = b"grant_type=client_credentials&scope=crm.read&audience=" + quote(str(CRM), safe="").encode()
        fields = [("content-type", "application/x-www-form-urlencoded")]

        async def status() -> int:
            answer = await world.call(int(port), writer, "/token", headers=fields, body=form, host=f"{host}:{port}")
            return answer.status

        issued = 0
        while (told := await status()) == 200:
            issued += 1
        assert told == 503
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 60) == 1
    finally:
        await gone(process)
    (file,) = folder.iterdir()
    left = served("token.exchanged", file.read_bytes().splitlines())
    assert issued > 0
    assert left
    assert len(served("token.exchanged", pipe.rest()) | left) == issued


async def test_an_injector_lets_no_pod_be_that_a_stopped_reader_does_not_take(tmp_path: Path) -> None:
    folder = tmp_path / "spill"
    folder.mkdir()
    async with running_injector(tmp_path, f"--spill={folder}") as injector:  # its standard output is no longer read
        let_be = 0
        while (await injector.ask())[0] == 200:
            let_be += 1
        assert (await injector.ask())[0] == 503
        assert await injector.probed("/readyz") == (503, "records: the sink accepts none\n")
        injector.process.send_signal(signal.SIGTERM)
        assert injector.process.stdout is not None
        code = await asyncio.wait_for(injector.process.wait(), 60)
        taken = (await injector.process.stdout.read()).splitlines(keepends=True)
    assert code == 1
    (file,) = folder.iterdir()
    left = served("pod.injected", file.read_bytes().splitlines())
    whole = [line for line in taken if line.endswith(b"\n")]
    assert left
    assert len(served("pod.injected", whole) | left) == let_be


async def gone(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.kill()
    await process.wait()
