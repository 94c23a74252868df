"""``python -m tests.integration.records_cost``: the cost of ``records: before_answer``, as ratios.

One sidecar process, two routes that differ in that alone, one caller on one kept connection. Rounds alternate between
the routes, so that another load of the machine is on both. Printed: the ratio of the median time of a call and of the
process's CPU for each call, the median of the rounds with the lowest and the highest.
"""

from __future__ import annotations

import argparse
import asyncio
import copy
import os
import statistics
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path

from tests.integration.process import process
from tests.integration.world import PLANNER, WRITER, bearer, calling, mint, open_world


async def measure(rounds: int, calls: int, engine: str) -> list[tuple[float, float]]:
    """Return for each round the ratio of times and that of CPU, with the setting to without it."""
    found: list[tuple[float, float]] = []
    with tempfile.TemporaryDirectory(prefix="sc-") as folder:
        async with open_world(Path(folder)) as world, AsyncExitStack() as stack:
            settings = world.settings(engine=engine)
            first = copy.deepcopy(settings["inbound"]["routes"][0])
            first |= {"name": "first", "match": {"path": "/first", "methods": ["GET"]}, "records": "before_answer"}
            settings["inbound"]["routes"].append(first)
            running = await stack.enter_async_context(process(world, settings))
            caller = calling(await world.source(PLANNER), WRITER)
            kept = await stack.enter_async_context(world.kept(running.port, caller))
            shown = bearer(mint())

            async def phase(path: str) -> tuple[float, float]:
                times = []
                before = _cpu(running.process.pid)
                for _ in range(calls):
                    began = time.perf_counter()
                    kept.send(path, headers=shown, host="writer")
                    assert (await kept.receive()).status == 200
                    times.append(time.perf_counter() - began)
                return statistics.median(times), _cpu(running.process.pid) - before

            for path in ("/draft", "/first"):
                await phase(path)
            for number in range(rounds):
                order = ("/draft", "/first") if number % 2 else ("/first", "/draft")
                one = {path: await phase(path) for path in order}
                found.append((one["/first"][0] / one["/draft"][0], one["/first"][1] / one["/draft"][1]))
    return found


def _cpu(pid: int) -> float:
    user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--calls", type=int, default=1500, help="of each round and route")
    parser.add_argument("--engine", choices=("python", "native"), default="python")
    arguments = parser.parse_args()
    found = asyncio.run(measure(arguments.rounds, arguments.calls, arguments.engine))
    for name, values in zip(("time of a call", "CPU of a call"), zip(*found, strict=True), strict=True):
        print(f"{name}: {statistics.median(values):.2f} times ({min(values):.2f} to {max(values):.2f})")  # noqa: T201


if __name__ == "__main__":
    main()
