"""An agent that serves one subject at a time, over real connections."""

from __future__ import annotations

from pathlib import Path

import pytest

from sidecar.cli import main
from tests.config.documents import changed, example, written
from tests.integration.hops import Hops
from tests.integration.world import WRITER, Answer, bearer, mint, ok, until

pytestmark = pytest.mark.integration


async def start(hops: Hops, **route: object) -> None:
    settings = hops.settings(route=route)
    settings["inbound"]["subjects_at_once"] = 1
    hops.writer = await hops.world.sidecar(WRITER, settings)


async def ask_as(hops: Hops, subject: str) -> Answer:
    """Send a request that the agent answers at once."""
    hops.agent.script = lambda _head, _body: ok(b"done")
    try:
        headers = bearer(mint({"sub": subject}))
        return await hops.world.call(hops.writer.inbound, hops.planner, headers=headers)
    finally:
        hops.agent.script = hops.agent._hold


async def test_a_second_user_waits_until_the_first_is_served_and_the_first_does_not(hops: Hops) -> None:
    await start(hops)
    async with hops.serving({"sub": "alice"}):
        refused = await ask_as(hops, "bob")
        again = await ask_as(hops, "alice")
    assert (refused.status, refused.reason) == (503, "subject_busy")
    assert refused.headers["retry-after"] == "1"
    assert again.status == 200
    assert (await ask_as(hops, "bob")).status == 200

    def records() -> list[tuple[object, ...]]:
        found = [record for record in hops.writer.records() if record["event"] == "request"]
        return [(one["subject"], one["decision"], one["reason"], one["verified"]) for one in found]

    await until(lambda: len(records()) == 4)
    assert ("bob", "deny", "subject_busy", True) in records()


async def test_a_second_user_waits_while_the_first_ones_handle_lingers(hops: Hops) -> None:
    await start(hops, linger_s=1.0)
    async with hops.serving({"sub": "alice"}) as held:
        pass
    refused = await ask_as(hops, "bob")
    during = await hops.call(held.shown)
    assert (refused.reason, during.status) == ("subject_busy", 200)
    await until(lambda: len(hops.writer.server.parts.handles) == 0)
    assert (await ask_as(hops, "bob")).status == 200
    assert (await hops.call(held.shown)).reason == "no_request_context"


def test_several_workers_cannot_promise_it_and_do_not_start(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(tmp_path, changed(example("agent"), ("inbound.subjects_at_once", 1)))
    assert main(["run", "--workers", "2", "--config", str(path)]) == 2
    assert "inbound.subjects_at_once: holds in one process, and --workers is 2" in capsys.readouterr().err
