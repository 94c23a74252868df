"""A sidecar in a separate process: its traces after a kill, and its end on a signal."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from sidecar.engine import native_module
from tests.integration.load import Load
from tests.integration.process import Running, process
from tests.integration.world import (
    PATIENCE_S,
    PLANNER,
    START_S,
    WRITER,
    Kept,
    World,
    bearer,
    calling,
    mint,
    ok,
)

pytestmark = pytest.mark.integration


class Streaming:
    """An agent that sends the first chunk of an answer, and the rest on demand."""

    def __init__(self) -> None:
        self.rest: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\none.\r\n")
        await asyncio.wait([self.rest])
        if not self.rest.cancelled():
            writer.write(self.rest.result())
        writer.close()


@pytest.fixture
async def agent(world: World) -> AsyncIterator[Streaming]:
    agent = Streaming()
    world.agent.port = await world.listen(agent.serve)
    yield agent
    agent.rest.cancel()


@asynccontextmanager
async def calling_in(world: World, sidecar: Running) -> AsyncIterator[Kept]:
    """Return a caller that has the first chunk of an answer."""
    planner = calling(await world.source(PLANNER), WRITER)
    async with world.kept(sidecar.port, planner) as caller:
        caller.send(headers=bearer(mint()))
        async with asyncio.timeout(PATIENCE_S):
            await caller.reader.readuntil(b"one.")
        yield caller


async def test_a_killed_sidecar_leaves_word_of_every_stream_it_had_open(world: World, agent: Streaming) -> None:
    async with process(world) as sidecar:
        async with calling_in(world, sidecar):
            await sidecar.wait_for("request.opened")
            assert await sidecar.end(signal.SIGKILL) == -signal.SIGKILL
        opened = sidecar.records()[-1]
        assert opened["event"] == "request.opened"
        assert (opened["subject"], opened["actor"], opened["route"]) == ("alice", PLANNER, "draft")
        assert (opened["decision"], opened["upstream_status"]) == ("allow", 200)
        assert "request" not in [record["event"] for record in sidecar.records()]


async def test_the_next_start_after_a_kill_needs_no_clean_up_and_is_told_apart(world: World) -> None:
    planner = calling(await world.source(PLANNER), WRITER)
    async with process(world) as first:
        assert (await world.call(first.port, planner, headers=bearer(mint()))).status == 200
        await first.wait_for("request")
        await first.end(signal.SIGKILL)
        with first.file.open("a") as file:
            file.write('{"event":"req')  # as if the kill had come during a write
    async with process(world, starts=2) as second:
        assert (await world.call(second.port, planner, headers=bearer(mint()))).status == 200
        await second.wait_for("request", 2)
        await second.end(signal.SIGTERM)
    lines = second.file.read_text().splitlines()
    assert lines.count('{"event":"req') == 1
    records = [json.loads(line) for line in lines if line.endswith("}")]
    assert len({record["run"] for record in records}) == 2
    for run in {record["run"] for record in records}:
        assert [record["seq"] for record in records if record["run"] == run] == list(
            range(1, 1 + sum(record["run"] == run for record in records))
        )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_told_to_end_it_finishes_what_it_has_and_says_so(
    world: World, agent: Streaming, number: signal.Signals
) -> None:
    async with process(world) as sidecar, calling_in(world, sidecar) as caller:
        ending = asyncio.ensure_future(sidecar.end(number))
        agent.rest.set_result(b"4\r\ntwo.\r\n0\r\n\r\n")
        assert (await caller.wait_for_end()).endswith(b"two.\r\n0\r\n\r\n")
        assert await ending == 0
    (record,) = [record for record in sidecar.records() if record["event"] == "request"]
    assert (record["reason"], record["status"]) == ("ok", 200)
    assert sidecar.records()[-1]["event"] == "stopped"


async def test_once_told_to_end_no_second_signal_changes_anything(world: World, agent: Streaming) -> None:
    async with process(world) as sidecar, calling_in(world, sidecar) as caller:
        ending = asyncio.ensure_future(sidecar.end(signal.SIGTERM))
        await sidecar.wait_for_refusal()
        settings = world.folder / "process.yaml"
        settings.write_text(settings.read_text() + "deny: [{subject: alice}]\n")
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
            sidecar.process.send_signal(number)
            await asyncio.sleep(0.02)
        assert not ending.done()
        agent.rest.set_result(b"4\r\ntwo.\r\n0\r\n\r\n")
        assert (await caller.wait_for_end()).endswith(b"two.\r\n0\r\n\r\n")
        assert await ending == 0
    assert [record["event"] for record in sidecar.records() if record["event"].startswith("config.")] == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_told_to_end_before_anybody_can_act_on_it_it_still_ends_well(number: signal.Signals) -> None:
    program = (
        "import os; from sidecar.process import run_until_signal; from sidecar.signals import hold_signals\n"
        "async def main(stop): await stop.wait(); os.kill(os.getpid(), 1); return True\n"
        f"hold_signals(); os.kill(os.getpid(), {int(number)}); code = run_until_signal(main)\n"
        f"os.kill(os.getpid(), {int(number)}); raise SystemExit(code)\n"
    )
    child = await asyncio.create_subprocess_exec(sys.executable, "-c", program)
    assert await asyncio.wait_for(child.wait(), START_S) == 0


async def test_under_load_no_request_is_lost_when_it_is_told_to_end(world: World) -> None:
    world.agent.script = lambda _head, _body: ok(b"done")
    planner = calling(await world.source(PLANNER), WRITER)
    async with process(world) as sidecar:
        load = Load(world, sidecar.port, planner)
        await load.run(callers=8, count=300, then=lambda: sidecar.end(signal.SIGTERM))
    assert load.lost == []
    assert load.ended == 0
    assert load.answered >= 300
    records = [record for record in sidecar.records() if record["event"] == "request"]
    assert {record["reason"] for record in records} == {"ok"}
    assert len(records) == load.answered


async def test_over_its_drain_deadline_it_cuts_the_rest_and_says_so(world: World, agent: Streaming) -> None:
    async with process(world, drain_s=0.2) as sidecar, calling_in(world, sidecar) as caller:
        assert await sidecar.end(signal.SIGTERM) == 1
        assert not (await caller.wait_for_end()).endswith(b"0\r\n\r\n")
    (record,) = [record for record in sidecar.records() if record["event"] == "request"]
    assert (record["reason"], record["status"], record["decision"]) == ("draining", 200, "allow")
    assert sidecar.records()[-1]["event"] == "stopped"


async def test_records_go_on_into_a_new_file_when_the_old_one_is_moved_away(world: World) -> None:
    world.agent.script = lambda _head, _body: ok(b"done")
    planner = calling(await world.source(PLANNER), WRITER)
    async with process(world) as sidecar:
        for count in range(3):
            assert (await world.call(sidecar.port, planner, headers=bearer(mint()))).status == 200
            await sidecar.wait_for("request")
            sidecar.file.rename(world.folder / f"rotated.{count}")
        assert (await world.call(sidecar.port, planner, headers=bearer(mint()))).status == 200
        assert await sidecar.end(signal.SIGTERM) == 0
    files = [*(world.folder / f"rotated.{count}" for count in range(3)), sidecar.file]
    records = [json.loads(line) for file in files for line in file.read_text().splitlines()]
    assert [record["seq"] for record in records] == list(range(1, 1 + len(records)))
    assert [record["event"] for record in records].count("request") == 4


async def test_a_run_says_at_its_start_which_pod_it_is(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POD_NAME", "writer-5d9f")
    monkeypatch.setenv("POD_NAMESPACE", "agents")
    async with process(world) as sidecar:
        (started,) = [record for record in sidecar.records() if record["event"] == "started"]
        engine = "python" if native_module() is None else "native"
        assert started["detail"] == f"engine={engine} pod=writer-5d9f namespace=agents"
    monkeypatch.delenv("POD_NAME")
    monkeypatch.delenv("POD_NAMESPACE")
    async with process(world, starts=2) as sidecar:
        last = [record for record in sidecar.records() if record["event"] == "started"][-1]
        assert last["detail"] == f"engine={engine}"


@pytest.mark.parametrize("workers", [1, 2])
async def test_told_to_leave_it_serves_on_and_lets_nobody_stay(world: World, workers: int) -> None:
    world.agent.script = lambda _head, _body: ok(b"done")
    planner = calling(await world.source(PLANNER), WRITER)
    async with process(world, workers=workers) as sidecar:

        async def unready() -> bool:
            answer = await world.call(sidecar.probe, None, "/readyz", method="GET")
            return answer.status == 503 and b"leaving" in answer.body

        async with world.kept(sidecar.port, planner) as kept:
            stays = await kept.ask(headers=bearer(mint()))
            assert (stays.status, stays.headers.get("connection")) == (200, None)
            for _ in range(2):  # a second time changes nothing
                sidecar.process.send_signal(signal.SIGUSR1)
            async with asyncio.timeout(PATIENCE_S):
                while not await unready():  # noqa: ASYNC110 - there is no event
                    await asyncio.sleep(0.01)
            assert await kept.wait_for_end() == b""
        async with world.kept(sidecar.port, planner) as late:
            only = await late.ask(headers=bearer(mint()))
            assert (only.status, only.headers.get("connection")) == (200, "close")
        assert await sidecar.end(signal.SIGTERM) == 0
