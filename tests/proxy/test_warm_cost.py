"""The cost of a warm request in interpreted code: bytecodes and calls, by room. The same on every machine.

``pytest -m budget -s tests/proxy/test_warm_cost.py`` prints the counts.
The limits are the last counts plus a small margin:
a change that makes the warm path more expensive has to raise them here.
"""

from __future__ import annotations

import asyncio
import gc
import sys
from collections import Counter
from pathlib import Path
from types import CodeType, FrameType
from typing import Final

import pytest

import delegation_core
import sidecar
from tests.proxy.warm import Warm, WarmOutbound
from tests.proxy.warm_h2 import AT_ONCE, WarmAgain, WarmGrpc, WarmGrpcAgain, WarmHttp2

TIMES: Final = 50  # below `AT_ONCE`: how often this thread encodes records is up to the scheduler
# Of each 3 ask if the caller is unproven; 7 and 9 ask for the protocol of the route.
MOST_BYTECODES: Final = {Warm: 2_473, WarmOutbound: 2_675}
# With the libraries h2 and hpack. Requests have a query and a trace of their own, except those that come again.
MOST_BYTECODES_OF_HTTP2: Final = {WarmHttp2: 6_400, WarmAgain: 4_090, WarmGrpc: 11_660, WarmGrpcAgain: 9_200}
_LIBRARIES: Final = frozenset({"h2", "hpack", "hyperframe"})
ROOT: Final = Path(sidecar.__file__).parent
CORE: Final = Path(delegation_core.__file__).parent


class Cost:
    """Counts the code that runs while it is active."""

    def __init__(self) -> None:
        self.bytecodes: Counter[CodeType] = Counter()
        self.calls: Counter[CodeType] = Counter()

    def __call__(self, frame: FrameType, event: str, _argument: object) -> Cost:
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        if event == "opcode":
            self.bytecodes[frame.f_code] += 1
        elif event == "call":
            self.calls[frame.f_code] += 1
        return self

    def by_room(self) -> dict[str, tuple[float, float]]:
        """Return room → (bytecodes, calls), per request. ``made`` is code that ``dataclass`` generates."""
        rooms: dict[str, tuple[float, float]] = {}
        for code, count in self.bytecodes.items():
            path = Path(code.co_filename)
            if path.is_relative_to(CORE):
                room = "core"
            elif path.is_relative_to(ROOT):
                room = path.relative_to(ROOT).parts[0]
            elif path.parent.name in _LIBRARIES:
                room = path.parent.name
            else:
                # Not "<frozen importlib": an import of the standard library's own happens in the first run of a clone.
                room = "made" if code.co_filename == "<string>" else "elsewhere"
            bytecodes, calls = rooms.get(room, (0.0, 0.0))
            rooms[room] = bytecodes + count / TIMES, calls + self.calls[code] / TIMES
        return rooms


@pytest.mark.budget
@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="another Python has other bytecodes")
@pytest.mark.parametrize("kind", MOST_BYTECODES)
async def test_a_warm_request_runs_no_more_bytecodes_than_it_did(
    tmp_path: Path, kind: type[Warm] | type[WarmOutbound]
) -> None:
    warm = kind(tmp_path / "records")
    for _ in range(TIMES):
        warm.request()
    assert len(warm.transport.writes) == len(warm.pool.transport.writes) == TIMES
    while not warm.log.settled:  # noqa: ASYNC110 - its thread encodes; this one does so only for 64 records at a time
        await asyncio.sleep(0.005)
    gc.collect()  # journeys that other tests left unfinished run their last lines when they are collected
    gc.disable()
    cost = Cost()
    sys.settrace(cost)
    try:
        for _ in range(TIMES):
            warm.request()
    finally:
        sys.settrace(None)
        gc.enable()
    rooms = cost.by_room()
    print(f"\n{kind.__name__}")  # noqa: T201 - the table, with -s
    for room, (bytecodes, calls) in sorted(rooms.items(), key=lambda item: -item[1][0]):
        print(f"{room:12} {bytecodes:8.0f} bytecodes {calls:6.1f} calls")  # noqa: T201 - as above
    await warm.log.close()
    assert warm.transport.written.count(b"HTTP/1.1 200 OK") == 2 * TIMES
    own = sum(bytecodes for room, (bytecodes, _) in rooms.items() if room != "elsewhere")
    assert 1_000 < own <= MOST_BYTECODES[kind]


@pytest.mark.budget
@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="another Python has other bytecodes")
@pytest.mark.parametrize("kind", MOST_BYTECODES_OF_HTTP2)
async def test_a_warm_request_by_http2_runs_no_more_bytecodes_than_it_did(
    tmp_path: Path, kind: type[WarmHttp2] | type[WarmGrpc]
) -> None:
    warm = kind(tmp_path / "records")
    for _ in range(12):  # until the steps of the Huffman code are known
        await warm.serve(warm.requests())
    while not warm.log.settled:  # noqa: ASYNC110 - as above
        await asyncio.sleep(0.005)
    batches = [warm.requests() for _ in range(TIMES // AT_ONCE)]
    answered = warm.answered
    gc.collect()
    gc.disable()
    cost = Cost()
    sys.settrace(cost)
    try:
        for batch in batches:
            await warm.serve(batch)
    finally:
        sys.settrace(None)
        gc.enable()
    rooms = cost.by_room()
    print(f"\n{kind.__name__}")  # noqa: T201 - the table, with -s
    for room, (bytecodes, calls) in sorted(rooms.items(), key=lambda item: -item[1][0]):
        print(f"{room:12} {bytecodes:8.0f} bytecodes {calls:6.1f} calls")  # noqa: T201 - as above
    await warm.log.close()
    assert warm.answered == answered + TIMES
    own = sum(bytecodes for room, (bytecodes, _) in rooms.items() if room != "elsewhere")
    print(f"{own:.0f} in all, without elsewhere")  # noqa: T201 - as above
    assert 1_000 < own <= MOST_BYTECODES_OF_HTTP2[kind]
