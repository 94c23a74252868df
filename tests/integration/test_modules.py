"""A running sidecar holds no module that it does not use: each one is memory of every pod, for ever."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Final

import pytest

from tests.integration.process import Running, process
from tests.integration.world import PLANNER, WRITER, World, bearer, calling, mint

pytestmark = pytest.mark.integration

# Modules that may not be there, and why.
ABSENT: Final = {
    "pydantic": "settings are validated in a child process",
    "pydantic_core": "as pydantic",
    "yaml": "as pydantic",
    "annotated_types": "as pydantic",
    "aiohttp": "control endpoints and the probe use the engine of the data plane",
    "yarl": "as aiohttp",
    "attr": "as aiohttp",
    "jwt": "signatures are verified by the cryptography library itself",
    "prometheus_client": "metrics are text that we write ourselves",
    "email.message": "of HTTP libraries",
    "http.client": "as email.message",
    "http.server": "as email.message",
    "urllib.request": "as email.message",
    "tempfile": "where a handle is delivered",
    "importlib.metadata": "adapters of others are found where settings are loaded",
    "duckdb": "for the audit",
    "jinja2": "for the audit",
    "opentelemetry": "for traces alone",
    "rich": "for commands that talk to people",
}
# Libraries in C of the same, as their files are called in a process's maps.
MAPPED: Final = ("pydantic", "_yaml", "duckdb")

_TELLING: Final = """
import atexit, sys
out = sys.argv.pop(1)
atexit.register(lambda: open(out, "w").write("\\n".join(sys.modules)))
from sidecar.cli import main
sys.exit(main())
"""


async def _served(world: World, running: Running) -> None:
    answer = await world.call(running.port, calling(await world.source(PLANNER), WRITER), headers=bearer(mint()))
    assert answer.status == 200


async def test_a_sidecar_that_has_served_and_reloaded_holds_only_modules_that_it_uses(world: World) -> None:
    told = world.folder / "modules"
    async with process(world, program=("-c", _TELLING, str(told))) as running:
        await _served(world, running)
        running.process.send_signal(signal.SIGHUP)
        await running.wait_for("config.reloaded")
        await _served(world, running)
        assert not [name for name in MAPPED if name in _maps(running.process.pid)]
        assert await running.end(signal.SIGTERM) == 0
    modules = told.read_text().split()
    assert "sidecar.proxy.journeys.inbound" in modules
    assert "sidecar.config.sidecar_model" not in modules
    assert {name: ABSENT[name] for name in ABSENT if name in modules} == {}


async def test_neither_do_workers_and_their_parent(world: World) -> None:
    async with process(world, workers=2, starts=2) as running:
        await _served(world, running)
        parent = running.process.pid
        workers = _children(parent)
        assert len(workers) == 2
        for pid in (parent, *workers):
            assert not [name for name in MAPPED if name in _maps(pid)]


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _maps(pid: int) -> str:
    return Path(f"/proc/{pid}/maps").read_text()
