"""The steps of docs/life-of-a-request.md happen in the order of the page: on real sockets, by the first call of each.

Each step is seen in at least one run, and each run agrees with the page. A step that a run does not take, such as the
loading in a child process, is another run's.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from delegation_core.revocation import Kind
from sidecar.config.handover import decode, encode
from sidecar.config.loader import Loaded, SettingsFiles, load_again
from sidecar.file_watch import FileWatcher
from sidecar.proxy.journeys.watch import Watch
from sidecar.reload import Reload
from sidecar.settings_watch import Load
from sidecar.sts.replicas import Replicas
from sidecar.sts.revocations import Register, RevocationSettings
from tests.docs.test_life_of_a_request import Step, steps
from tests.fakes.sts_server import running_sts
from tests.integration.hops import Hops
from tests.integration.sts.test_replicas import replica
from tests.integration.sts.test_revocation_endpoint import OPERATORS, listed, mesh_with_register
from tests.integration.test_authority import begin
from tests.integration.test_mcp_sessions import Caller, Sessions
from tests.integration.test_operations import mcp_settings
from tests.integration.test_revocations import with_list
from tests.integration.test_revoke import REVOKE, sent
from tests.integration.world import PLANNER, WRITER, World, calling, free_port, loaded_from, until

pytestmark = pytest.mark.integration

Call = tuple[str, str]  # the file and the qualified name of a function


class Trace:
    """The functions called while ``on``, each once, in the order of their first calls."""

    def __init__(self) -> None:
        self.on = False
        self.calls: dict[Call, None] = {}

    def __call__(self, frame: FrameType, event: str, _: object) -> None:
        if self.on and event == "call":
            self.calls.setdefault((frame.f_code.co_filename, frame.f_code.co_qualname))


def disagreements(calls: Iterable[Call], wanted: Sequence[Step]) -> list[str]:
    """Return the steps that were not taken, or before the step that stands above them."""
    order = {call: place for place, call in enumerate(calls)}
    wrong, last = [], -1
    for one in wanted:
        place = order.get((str(one.file), one.function))
        if place is None:
            wrong.append(f"{one.number}: {one.function} was not called")
        elif place < last:
            wrong.append(f"{one.number}: {one.function} was called before the step above it")
        else:
            last = place
    return wrong


def settle(watch: Watch) -> None:
    """Do what is due for requests in flight, so that nothing of before is traced."""
    for _ in watch.steps(1):
        pass


@pytest.fixture
def trace() -> Iterator[Trace]:
    found = Trace()
    threading.setprofile(found)
    sys.setprofile(found)
    yield found
    sys.setprofile(None)
    threading.setprofile(None)


async def test_a_request(trace: Trace, hops: Hops) -> None:
    await hops.start(engine="python")
    trace.on = True
    async with hops.serving() as held:
        assert (await hops.call(held.shown)).status == 200
    await hops.writer.wait_for_records(2)
    trace.on = False
    assert disagreements(trace.calls, steps("A request")) == []


async def test_an_mcp_call(trace: Trace, world: World) -> None:
    sidecar = await world.sidecar(WRITER, {**mcp_settings(world), "engine": "python"})
    caller = Caller(world, sidecar, calling(await world.source(PLANNER), WRITER))
    agent = Sessions(world)
    session = await caller.open()
    trace.on = True
    assert (await caller.ask(session)).status == 200
    assert agent.shown() == agent.opened[0]
    await sidecar.wait_for_records(2)
    trace.on = False
    assert disagreements(trace.calls, steps("An MCP call")) == []


async def load_here(files: SettingsFiles, environ: Mapping[str, str]) -> Loaded[Any]:
    """Load as the child process does, in this one."""
    before = files.fingerprint()
    return Loaded(decode(encode(lambda: files.load(environ))), files, before)


@pytest.mark.parametrize("load", [load_again, load_here])
async def test_a_reload(trace: Trace, hops: Hops, load: Load) -> None:
    await hops.start(engine="python")
    server, path = hops.writer.server, hops.writer.settings_path
    reload = Reload(loaded_from(path), dict(os.environ), server, load)
    watcher = FileWatcher(reload.all_watched(), server.parts.log, poll_s=0.05)
    async with hops.serving():
        settle(server.parts.watch)
        trace.on = True
        hops.world.background(watcher.run())
        path.write_text(f"{path.read_text()}deny: [{{subject: alice}}]\n")
        await until(lambda: any(one["reason"] == "policy_denied" for one in hops.writer.records()))
        trace.on = False
    in_child = [one for one in steps("A reload") if one.text.startswith("*in the child*")]
    others = in_child if load is load_again else [one for one in steps("A reload") if one.function == "load_again"]
    assert others
    assert disagreements(trace.calls, [one for one in steps("A reload") if one not in others]) == []


async def test_an_order_at_the_token_service(trace: Trace, tmp_path: Path) -> None:
    mesh, port = mesh_with_register(), free_port()
    settings = RevocationSettings(
        operators=OPERATORS, file=tmp_path / "orders.json", replicas=(f"https://127.0.0.1:{port}",)
    )
    register = mesh.service.register = Register(settings, mesh.log)
    register.load()
    async with running_sts(mesh) as sts, replica(sts.authority, port=port):
        others = Replicas(register, sts.source, replica="one")
        await others.ask_all()
        trace.on = True
        assert await sent(sts, tmp_path, *REVOKE, "--json") == 0
        assert (await listed(sts)).status == 200
        trace.on = False
    assert disagreements(trace.calls, steps("A revocation", "The order, at the operator and the token service")) == []


async def test_an_order_at_a_sidecar(trace: Trace) -> None:
    async with with_list() as (underway, said):
        await begin(underway, "inbound")
        settle(underway.sidecar.server.parts.watch)
        trace.on = True
        said.revoke(Kind.JTI, "of-planner", None)
        await underway.ended("inbound", "planner", "revoked")
        trace.on = False
    assert disagreements(trace.calls, steps("A revocation", "The list, at a sidecar")) == []


def test_a_step_in_another_place_and_one_that_is_not_taken_are_noticed() -> None:
    wanted = steps("A request")[:3]
    calls = [(str(one.file), one.function) for one in wanted]
    assert disagreements(calls, wanted) == []
    assert disagreements(calls[::-1], wanted) == [
        f"{one.number}: {one.function} was called before the step above it" for one in wanted[1:]
    ]
    assert disagreements(calls[:2], wanted) == [f"3: {wanted[2].function} was not called"]
