"""A route with ``records: before_answer``: no call of it has any effect before its first record is written."""

from __future__ import annotations

import json
import signal
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.integration.hops import Hops
from tests.integration.process import process
from tests.integration.world import PLANNER, WRITER, World, bearer, calling, mint, ok, until
from tests.native import needs_native

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

BEFORE = {"records": "before_answer"}


def whole(path: Path) -> list[dict[str, Any]]:
    """Return the whole lines of a file whose writer was killed."""
    return [json.loads(line) for line in path.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]


@pytest.mark.parametrize("engine", ["python", pytest.param("native", marks=needs_native)])
@pytest.mark.parametrize(("route", "recorded"), [(BEFORE, True), ({}, False)], ids=["before_answer", "its twin"])
async def test_a_sidecar_killed_as_the_call_arrives_at_the_agent_has_left_its_record(
    world: World, route: dict[str, str], recorded: bool, engine: str
) -> None:
    settings = world.settings(engine=engine)
    settings["inbound"]["routes"][0] |= route
    planner = calling(await world.source(PLANNER), WRITER)
    async with process(world, settings) as running:
        async with world.kept(running.port, planner) as kept:
            for jti in ("cold", "warm", "warm"):
                kept.send("/draft", headers=bearer(mint({"jti": jti})), host="writer")
                assert (await kept.receive()).status == 200
        await until(lambda: len([one for one in running.records() if one["event"] == "request"]) == 3)

        def kill(_head: bytes, _body: bytes) -> bytes:
            running.process.kill()
            return ok(b"done")

        world.agent.script = kill
        with suppress(ConnectionError):
            assert (await world.call(running.port, planner, headers=bearer(mint({"jti": "warm"})))).status == 0
        await running.process.wait()
        last = whole(running.file)[-1]
        assert (last["event"] == "request.opened") is recorded
        if recorded:
            assert (last["decision"], last["reason"], last["jti_in"], last["path"]) == ("allow", "ok", "warm", "/draft")
            assert (last["peer"], last["subject"], last["status"]) == (str(PLANNER), "alice", None)


async def test_a_sidecar_killed_as_soon_as_its_answer_is_there_has_left_its_record(world: World) -> None:
    settings = world.settings()
    settings["inbound"]["routes"][0] |= BEFORE
    planner = calling(await world.source(PLANNER), WRITER)
    async with process(world, settings) as running:
        async with world.kept(running.port, planner) as kept:
            kept.send("/draft", headers=bearer(mint({"jti": "the-last"})), host="writer")
            await kept.reader.readexactly(12)
            running.process.send_signal(signal.SIGKILL)
            await running.process.wait()
        assert next(one["event"] for one in whole(running.file) if one["jti_in"] == "the-last") == "request.opened"


async def test_calls_of_the_agent_leave_when_their_record_is_written(hops: Hops) -> None:
    settings = hops.settings()
    for route in settings["outbound"]["routes"]:
        if route["name"] == "crm":
            route |= BEFORE
    hops.writer = await hops.world.sidecar(WRITER, settings)
    seen: list[set[str]] = []

    def answer(_head: bytes, _body: bytes) -> bytes:
        records = whole(hops.writer.records_path)
        calls = [one for one in records if one["direction"] == "outbound" and one["event"].startswith("request")]
        seen.append({one["event"] for one in calls if one["status"] is None})
        return ok(b"done")

    hops.crm.script = answer
    async with hops.serving() as held:
        for target in ("/crm/first", "/crm/second"):
            assert (await hops.call(held.shown, target)).status == 200
    assert seen == [{"request.opened"}] * 2


class Stuck:
    """A sink that takes nothing until it may."""

    def __init__(self, sink: Any) -> None:
        self.sink, self.stuck = sink, False
        self._write = sink.write
        sink.write = self.write

    def write(self, data: memoryview) -> int:
        return 0 if self.stuck else self._write(data)


async def test_a_call_whose_record_is_not_taken_never_reaches_the_agent_and_every_refusal_is_recorded_later(
    world: World,
) -> None:
    settings = world.settings()
    settings["inbound"]["routes"][0] |= BEFORE
    sidecar = await world.sidecar(WRITER, settings)
    planner = calling(await world.source(PLANNER), WRITER)
    sink = Stuck(sidecar.server.parts.log.writer._sink)
    assert (await world.call(sidecar.inbound, planner, headers=bearer(mint()))).status == 200
    reached = len(world.agent.requests)
    sink.stuck = True
    refused = [await world.call(sidecar.inbound, planner, headers=bearer(mint())) for _ in range(3)]
    assert {(one.status, one.reason) for one in refused} == {(503, "audit_unavailable")}
    assert len(world.agent.requests) == reached
    ids = [one.headers["delegation-request-id"] for one in refused]
    sink.stuck = False
    await until(lambda: {one["request_id"] for one in sidecar.records()} >= set(ids))
    found = {one["request_id"]: one for one in sidecar.records() if one["request_id"] in ids}
    assert {one["reason"] for one in found.values()} == {"audit_unavailable"}
    assert [found[one]["peer"] for one in ids] == [str(PLANNER)] * 3
    assert [found[one]["decision"] for one in ids] == ["allow", "deny", "deny"]  # the first was permitted, and waited
