from __future__ import annotations

import asyncio
import tempfile
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

import pytest
import uvloop

from delegation_core.records.record import Record
from sidecar.observe.access_log import AccessLog, Entry
from tests.integration.hops import Hops, open_hops
from tests.integration.mesh import Mesh, open_mesh
from tests.integration.world import World, open_world

# Files of several processes, of one worker each: begun last, one would run alone at the end.
_LONGEST: Final = frozenset(
    f"test_{name}"
    for name in (
        "stuck_sink", "workers", "reload", "memory", "process", "crowd", "sts_reload", "authority", "examine", "mesh",
        "config_examples", "loader", "long_transfers", "runbook", "hostile", "agent_mesh", "demo", "corpus", "soak",
        "six_orders", "key_rotation", "replicas", "unproven_records",
    )
)  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.stem not in _LONGEST)  # the rest stays as it was shuffled


@pytest.fixture(autouse=True)
def _finished_records_do_not_change() -> Iterator[None]:
    """Their lines are encoded a moment later, in another thread."""
    finished: deque[tuple[Record, Record]] = deque(maxlen=1000)
    finish = AccessLog.finish

    def watched(log: AccessLog, entry: Entry, record: Record) -> None:
        finish(log, entry, record)
        finished.append((record, record.copy()))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(AccessLog, "finish", watched)
        yield
    assert [(record, before) for record, before in finished if record != before] == []


@pytest.fixture
async def world() -> AsyncIterator[World]:
    # a socket's path must be short, and pytest's folders are not
    with tempfile.TemporaryDirectory(prefix="sc-") as folder:
        async with open_world(Path(folder)) as opened:
            yield opened


@pytest.fixture
async def hops() -> AsyncIterator[Hops]:
    with tempfile.TemporaryDirectory(prefix="sc-") as folder:
        async with open_hops(Path(folder)) as opened:
            yield opened


@pytest.fixture
async def mesh() -> AsyncIterator[Mesh]:
    with tempfile.TemporaryDirectory(prefix="sc-") as folder:
        async with open_mesh(Path(folder)) as opened:
            yield opened


def pytest_asyncio_loop_factories(item: pytest.Item) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Run on uvloop as in production; tests that depend on the loop's behaviour must hold on stock asyncio too.

    Tests of one room, in their own folder, run on stock asyncio; those of the wire's sockets on both.
    """
    factories: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"uvloop": uvloop.new_event_loop}
    room = item.path.parent.name
    if room == "wire" or item.get_closest_marker("both_loops") is not None:
        factories["asyncio"] = asyncio.new_event_loop
    elif room != "integration":
        factories = {"asyncio": asyncio.new_event_loop}
    return factories
