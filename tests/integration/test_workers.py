"""One sidecar in several processes is one to peers, agent and operator."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml

from sidecar.cli import main
from tests.integration.hops import Held, Hops
from tests.integration.load import Load
from tests.integration.process import Running, process
from tests.integration.test_lifecycle import HELPER, distrust
from tests.integration.world import PATIENCE_S, PLANNER, START_S, WRITER, World, bearer, calling, mint, ok
from tests.integration.world import until as until_true

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

WORKERS = 3


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not await condition():  # noqa: ASYNC110 - there is no event
            await asyncio.sleep(0.02)


async def probe(sidecar: Running, path: str) -> tuple[int, str]:
    async with (
        aiohttp.ClientSession(trust_env=False) as session,
        session.get(f"http://127.0.0.1:{sidecar.probe}{path}") as answer,
    ):
        return answer.status, await answer.text()


async def metric(sidecar: Running, name: str) -> float:
    _, text = await probe(sidecar, "/metrics")
    return sum(float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(name))


async def status(sidecar: Running) -> dict[str, Any]:
    async with (
        aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(sidecar.admin))) as session,
        session.get("http://admin/status") as answer,
    ):
        found: dict[str, Any] = await answer.json()
        return found


@asynccontextmanager
async def workers(world: World, settings: Any = None, **options: Any) -> AsyncIterator[Running]:
    async with process(world, settings, starts=WORKERS, workers=WORKERS, **options) as sidecar:
        yield sidecar


def runs(sidecar: Running, **members: str) -> set[str]:
    """Return the workers that wrote records with these members, which may come after the answers."""
    return {one["run"] for one in sidecar.records() if all(one.get(key) == value for key, value in members.items())}


@asynccontextmanager
async def serving(hops: Hops, port: int, number: int, token: str | None = None) -> AsyncIterator[Held]:
    """Send a request that the agent holds."""
    headers = [*bearer(token or mint()), ("x-number", str(number))]
    call = asyncio.ensure_future(hops.world.call(port, hops.planner, headers=headers))
    held = await asyncio.wait_for(asyncio.shield(hops.agent.expect(str(number))), PATIENCE_S)
    try:
        yield held
    finally:
        if not held.answer.done():
            held.answer.set_result(ok(b"done"))
        await call


async def test_the_load_is_shared_and_counted_and_recorded_as_one(world: World) -> None:
    world.agent.script = lambda _head, _body: ok(b"done")
    planner = calling(await world.source(PLANNER), WRITER)
    async with workers(world) as sidecar:
        load = Load(world, sidecar.port, planner)

        async def end() -> int:
            assert await probe(sidecar, "/readyz") == (200, "ready\n")
            assert await probe(sidecar, "/livez") == (200, "live\n")
            document = await status(sidecar)
            assert (document["ready"], len(document["workers"]), document["restarts"]) == (True, WORKERS, 0)
            assert await metric(sidecar, "sidecar_workers") == WORKERS
            assert await metric(sidecar, "sidecar_requests_total") >= 300
            return await sidecar.end(signal.SIGTERM)

        await load.run(callers=12, count=300, then=end)
    assert (load.lost, load.ended) == ([], 0)
    records = [record for record in sidecar.records() if record["event"] == "request"]
    assert len(records) == load.answered
    runs = {record["run"] for record in sidecar.records()}
    assert len(runs) == WORKERS
    for run in runs:
        numbers = [record["seq"] for record in sidecar.records() if record["run"] == run]
        assert numbers == list(range(1, 1 + len(numbers)))
    assert len({record["run"] for record in records}) > 1


async def test_a_handle_works_at_every_worker_is_counted_once_and_dies_with_its_request_everywhere(hops: Hops) -> None:
    async with workers(hops.world, hops.settings(route={"max_calls": 30})) as sidecar:

        async def call(handle: str) -> tuple[int, str | None]:
            answer = await hops.world.call(sidecar.outbound, None, "/crm/x", headers=bearer(handle))
            return answer.status, answer.reason

        async with serving(hops, sidecar.port, 1) as held, serving(hops, sidecar.port, 2) as other:
            found = [await call(held.handle) for _ in range(32)]
            assert found == [(200, None)] * 30 + [(403, "calls_exhausted")] * 2
            assert await call(other.handle) == (200, None)
            assert await call(("A" if held.handle[0] != "A" else "B") + held.handle[1:]) == (403, "no_request_context")
        dead = {await call(other.handle) for _ in range(12)}
        assert dead == {(403, "no_request_context")}
        await until_true(lambda: len(runs(sidecar, direction="outbound", reason="ok")) > 1)


async def test_the_workload_handle_is_known_to_every_worker_and_outlives_the_one_that_gave_it_out(hops: Hops) -> None:
    file = hops.world.folder / "handle"
    own = {"may_call": [], "file": str(file), "socket": str(hops.world.folder / "o.sock"), "agent_uids": [os.getuid()]}
    async with workers(hops.world, hops.settings(workload_handle=own)) as sidecar:
        await until_true(file.exists)
        handle = file.read_text()

        async def reasons() -> set[str | None]:
            target, shown = "/crm/x", bearer(handle)
            return {(await hops.world.call(sidecar.outbound, None, target, headers=shown)).reason for _ in range(24)}

        assert await reasons() == {"own_authority_refused"}  # known, and this route is not for it
        await until_true(lambda: len(runs(sidecar, op="own")) > 1)

        before = file.stat().st_ino
        os.kill((await status(sidecar))["workers"][0]["pid"], signal.SIGKILL)
        await sidecar.wait_for("started", WORKERS + 1)
        await until_true(lambda: file.stat().st_ino != before)
        assert await reasons() == {"own_authority_refused"}
        assert await sidecar.end(signal.SIGTERM) == 0
    assert not file.exists()


async def test_a_worker_that_dies_is_replaced_and_its_handles_are_dead(hops: Hops) -> None:
    async with workers(hops.world, hops.settings()) as sidecar:
        async with serving(hops, sidecar.port, 1) as held:
            owner = "ABC".index(held.handle[0])
            pid = (await status(sidecar))["workers"][owner]["pid"]
            before = await metric(sidecar, "sidecar_token_exchange_total")
            os.kill(pid, signal.SIGKILL)
            await sidecar.wait_for("started", WORKERS + 1)

            async def ready() -> bool:
                return (await probe(sidecar, "/readyz"))[0] == 200

            await until(ready)
            for _ in range(6):
                answer = await hops.world.call(sidecar.outbound, None, "/crm/x", headers=bearer(held.handle))
                assert (answer.status, answer.reason) == (403, "no_request_context")
        document = await status(sidecar)
        assert document["restarts"] == 1
        assert document["workers"][owner]["pid"] != pid
        assert await metric(sidecar, "sidecar_worker_restarts_total") == 1
        assert await metric(sidecar, "sidecar_token_exchange_total") >= before
        assert await sidecar.end(signal.SIGTERM) == 0


async def test_a_worker_that_stands_still_is_seen_and_its_handles_are_refused(hops: Hops) -> None:
    async with workers(hops.world, hops.settings(), drain_s=1.0) as sidecar, serving(hops, sidecar.port, 1) as held:
        owner = "ABC".index(held.handle[0])
        pid = (await status(sidecar))["workers"][owner]["pid"]
        os.kill(pid, signal.SIGSTOP)
        try:
            assert await probe(sidecar, "/livez") == (503, f"worker {owner} does not answer\n")
            assert await probe(sidecar, "/readyz") == (503, f"worker {owner}: does not answer\n")
        finally:
            os.kill(pid, signal.SIGCONT)


async def test_when_the_parent_is_killed_the_workers_end_and_the_next_start_finds_nothing_in_its_way(
    world: World,
) -> None:
    world.agent.script = lambda _head, _body: world.agent.never()
    planner = calling(await world.source(PLANNER), WRITER)
    async with workers(world) as sidecar, world.kept(sidecar.port, planner) as caller:
        caller.send(headers=bearer(mint()))
        await world.agent.arrived.wait()
        assert await sidecar.end(signal.SIGKILL) == -signal.SIGKILL
        assert b"draining" in await caller.wait_for_end()
        await sidecar.wait_for("stopped", WORKERS)
    assert [json.loads(line)["reason"] for line in sidecar.file.read_text().splitlines() if '"request"' in line] == [
        "draining"
    ]


async def test_an_address_that_somebody_else_has_ends_the_start(world: World) -> None:
    port = await world.listen(world.agent.serve)
    path, *_ = await world.written(WRITER, world.settings(), {"in": port})
    command = [sys.executable, "-m", "sidecar.cli", "run", "--config", str(path), "--workers", "2"]
    child = await asyncio.create_subprocess_exec(*command, stderr=PIPE)
    _, said = await asyncio.wait_for(child.communicate(), START_S)
    assert child.returncode == 1
    assert f"127.0.0.1:{port}" in said.decode()


async def test_settings_that_change_change_at_every_worker(world: World) -> None:
    world.agent.script = lambda _head, _body: ok(b"done")
    planner = calling(await world.source(PLANNER), WRITER)
    async with workers(world) as sidecar:
        settings = sidecar.path.read_text()
        sidecar.path.write_text(settings + "deny: [{subject: alice}]\n")
        sidecar.process.send_signal(signal.SIGHUP)
        await sidecar.wait_for("config.reloaded", WORKERS)
        answers = [await world.call(sidecar.port, planner, headers=bearer(mint())) for _ in range(12)]
        assert {answer.status for answer in answers} == {403}
        await until_true(lambda: len(runs(sidecar, event="request")) > 1)


async def call_until_all(world: World, sidecar: Running, count: int, subject: str, status: int) -> list[int]:
    """Call on new connections until each of ``count`` workers has answered with this status. Return all statuses."""
    planner, statuses = calling(await world.source(PLANNER), WRITER), []
    decision = "allow" if status == 200 else "deny"
    async with asyncio.timeout(START_S):
        while len(runs(sidecar, event="request", subject=subject, decision=decision)) < count:
            answer = await world.call(sidecar.port, planner, headers=bearer(mint({"sub": subject})))
            statuses.append(answer.status)
    return statuses


async def test_a_storm_of_reloads_is_loaded_once_for_all_and_ends_in_the_newest_state_everywhere(
    world: World, tmp_path: Path
) -> None:
    world.agent.script = lambda _head, _body: ok(b"done")
    operations = tmp_path / "operations"
    with operations.open("wb") as stderr:
        async with process(world, starts=4, workers=4, stderr=stderr.fileno()) as sidecar:
            settings = sidecar.path.read_text()
            for version in range(1, 21):
                beside = sidecar.path.with_suffix(".new")
                beside.write_text(f"{settings}deny: [{{subject: user-{version}}}]\n")
                beside.rename(sidecar.path)
                sidecar.process.send_signal(signal.SIGHUP)
            await call_until_all(world, sidecar, 4, "user-20", 403)
            assert set(await call_until_all(world, sidecar, 4, "user-19", 200)) == {200}
            assert await sidecar.end(signal.SIGTERM) == 0
    loads = [line for line in operations.read_text().splitlines() if " reloaded what=settings" in line]
    assert 1 <= len(loads) <= 20
    assert not [line for line in loads if "worker=" in line]  # their parent alone loads
    outcomes = [one for one in sidecar.records() if one["event"].startswith("config.")]
    assert len(outcomes) == 4 * len(loads)


async def test_settings_that_one_worker_cannot_use_are_served_by_none_until_it_can(world: World) -> None:
    world.agent.script = lambda _head, _body: ok(b"done")
    served = 0
    lame = True

    async def serve_keys(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve keys to all workers but the last one that asks."""
        nonlocal served
        served += 1
        if lame and served >= WORKERS:
            writer.close()
            return
        await world.serve_keys(reader, writer)

    port = await world.listen(serve_keys)
    async with workers(world) as sidecar:
        document = yaml.safe_load(sidecar.path.read_text())
        document["issuers"][0]["jwks"] = f"http://127.0.0.1:{port}/jwks"
        document["deny"] = [{"subject": "mallory"}]
        sidecar.path.write_text(yaml.safe_dump(document))
        await sidecar.wait_for("config.refused", WORKERS)
        refusals = [one["detail"] for one in sidecar.records() if one["event"] == "config.refused"]
        assert all("cannot be fetched" in detail for detail in refusals)
        assert set(await call_until_all(world, sidecar, WORKERS, "mallory", 200)) == {200}
        lame = False
        await sidecar.wait_for("config.reloaded", WORKERS)
        await call_until_all(world, sidecar, WORKERS, "mallory", 403)


async def test_calls_of_one_request_end_at_every_worker_with_the_trust_in_its_peer(hops: Hops) -> None:
    settings = hops.settings()
    settings["issuers"][0]["actor_trust_domains"].append("partner.example")
    settings["inbound"]["routes"][0]["peers"].append(HELPER)
    hops.crm.script = lambda _head, _body: hops.crm.never()
    hops.planner = calling(await hops.world.source(HELPER), WRITER)
    async with workers(hops.world, settings) as sidecar, AsyncExitStack() as stack:
        registry = hops.world.registries[-1]
        token = mint({"act": {"sub": HELPER}})
        held = await stack.enter_async_context(serving(hops, sidecar.port, 1, token))
        for number in range(1, 13):
            caller = await stack.enter_async_context(hops.world.kept(sidecar.outbound))
            caller.send("/crm/x", headers=held.shown, host=f"127.0.0.1:{sidecar.outbound}")
            await until_true(lambda n=number: len(hops.crm.requests) == n)  # type: ignore[misc]
        distrust(registry)
        await sidecar.wait_for("request", 13)
    ended = [record for record in sidecar.records() if record["event"] == "request"]
    assert {record["reason"] for record in ended} == {"unknown_trust_domain"}
    assert len({record["run"] for record in ended}) > 1


async def test_a_worker_that_died_comes_back_with_the_settings_as_they_are_or_not_at_all(world: World) -> None:
    async with workers(world, drain_s=1.0) as sidecar:
        sidecar.path.write_text("what: is this\n")
        os.kill((await status(sidecar))["workers"][0]["pid"], signal.SIGKILL)
        assert await asyncio.wait_for(sidecar.process.wait(), START_S) == 1
    assert len([record for record in sidecar.records() if record["event"] == "stopped"]) == WORKERS - 1


@pytest.mark.parametrize("count", ["0", "65", "-1", "two"])
def test_a_number_of_workers_that_cannot_be_is_a_usage_error(count: str) -> None:
    with pytest.raises(SystemExit) as refused:
        main(["run", "--workers", count])
    assert refused.value.code == 2
