"""The cost of one more request on a warm connection with a known token: two reads, two writes, no task, no future."""

from __future__ import annotations

import asyncio
import socket
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Final

import pytest

from sidecar import app
from tests.integration.hops import Headers, Hops, open_hops
from tests.integration.world import Kept, bearer, mint

pytestmark = [pytest.mark.integration, pytest.mark.budget]

REQUESTS: Final = 100
READS: Final = {"recv", "recv_into"}
WRITES: Final = {"send", "sendmsg", "sendall"}
OURS: Final = str(Path(app.__file__).parent)
OCCASIONAL: Final = REQUESTS // 2  # what watches something waits again now and then; a request must not


class Costs:
    """Counts the calls of the sidecar's own sockets and code, by the interpreter's profiling hook.

    ``own`` is the sidecar's port, ``upstream`` that of its other connections.
    """

    def __init__(self, *, own: int, upstream: int) -> None:
        self.reads: Counter[str] = Counter()
        self.writes: Counter[str] = Counter()
        self.futures = 0
        self._own = own
        self._upstream = upstream

    def __call__(self, frame: FrameType, event: str, argument: Any) -> None:
        if event == "c_call":
            name = argument.__name__
            side = self._side(argument.__self__) if name in READS | WRITES else None
            if side is not None:
                (self.reads if name in READS else self.writes)[side] += 1
        elif event == "call" and frame.f_code.co_name == "create_future" and _is_ours(frame) and not _is_timer(frame):
            self.futures += 1

    def _side(self, of: Any) -> str | None:
        """Name the sidecar's connection; None for the other ends of both."""
        if not isinstance(of, socket.socket):
            return None
        if of.getsockname()[1] == self._own:
            return "caller"
        return "upstream" if of.getpeername()[1] == self._upstream else None


def _is_ours(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename.startswith(OURS):
            return True
        frame = frame.f_back
    return False


def _is_timer(frame: FrameType) -> bool:
    """Recognise the sleep of a periodic part: how many there are depends on the machine's speed alone."""
    return frame.f_back is not None and frame.f_back.f_code is asyncio.sleep.__code__


@contextmanager
def counted(costs: Costs) -> Iterator[None]:
    sys.setprofile(costs)
    try:
        yield
    finally:
        sys.setprofile(None)


async def ask(kept: Kept, target: str, headers: Headers, host: str, times: int) -> None:
    for _ in range(times):
        kept.send(target, headers=headers, host=host)
        assert (await kept.receive()).status == 200


async def measure(kept: Kept, target: str, headers: Headers, *, host: str, own: int, upstream: int) -> None:
    """Send a few requests to warm up, then count."""
    tasks: list[object] = []

    def counting(loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> asyncio.Task[Any]:
        if _is_ours(sys._getframe(1)):
            tasks.append(coroutine)
        return asyncio.Task(coroutine, loop=loop, **options)

    await ask(kept, target, headers, host, 3)
    asyncio.get_running_loop().set_task_factory(counting)
    before = len(asyncio.all_tasks())
    costs = Costs(own=own, upstream=upstream)
    with counted(costs):
        await ask(kept, target, headers, host, REQUESTS)
    assert len(asyncio.all_tasks()) == before
    assert tasks == []
    assert costs.futures <= OCCASIONAL
    assert costs.reads == costs.writes == {"caller": REQUESTS, "upstream": REQUESTS}


async def inbound(hops: Hops) -> None:
    hops.agent.script = None
    port = hops.writer.inbound
    async with hops.world.kept(port, hops.planner) as kept:
        await measure(kept, "/draft", bearer(mint()), host="writer", own=port, upstream=hops.agent.port)
    hits = hops.writer.server.metrics.verdict_cache()
    assert (hits["hit"], hits["miss"]) == (REQUESTS + 2, 1)


async def outbound(hops: Hops) -> None:
    port = hops.writer.outbound
    async with hops.serving() as held, hops.world.kept(port) as kept:
        await measure(kept, "/x", held.shown, host="crm.mesh", own=port, upstream=hops.ports["crm"])
    assert len(hops.sts.forms) == 1


@pytest.mark.parametrize("path", [inbound, outbound])
def test_a_warm_request_costs_two_reads_two_writes_no_task_and_no_future(
    path: Callable[[Hops], Coroutine[Any, Any, None]],
) -> None:
    """On stock asyncio, whose socket calls are visible to Python; the sidecar does the same on uvloop."""

    async def main() -> None:
        with tempfile.TemporaryDirectory(prefix="sc-") as folder:
            async with open_hops(Path(folder)) as hops:
                await hops.start(route={"max_calls": 1000})
                await path(hops)

    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        runner.run(main())
