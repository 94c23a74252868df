"""Counts bytecodes: the cost of interpreted code, the same on every machine."""

from __future__ import annotations

import contextlib
import gc
import sys
from collections.abc import Callable
from types import FrameType

# Well below 20 ms on an idle machine: CPython 3.11 runs some 30 million bytecodes a second.
MOST_AT_ONCE = 300_000


def bytecodes(call: Callable[[], object], *ignored: type[Exception]) -> int:
    """Return the number of bytecodes that a call runs. Exceptions of the ``ignored`` kinds are a normal end."""
    count = 0

    def trace(frame: FrameType, event: str, _argument: object) -> object:
        nonlocal count
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        count += event == "opcode"
        return trace

    before, collects = sys.gettrace(), gc.isenabled()
    gc.disable()  # the collector calls finalizers of other objects
    sys.settrace(trace)  # type: ignore[arg-type]
    try:
        with contextlib.suppress(*ignored):
            call()
    finally:
        sys.settrace(before)
        if collects:
            gc.enable()
    return count


def growth(of_size: Callable[[int], Callable[[], object]], size: int) -> float:
    """Return how many times the bytecodes of ``size`` the call for twice the size runs: 2 is linear, 4 quadratic."""
    once, twice = of_size(size), of_size(2 * size)
    once()  # fills the caches before counting
    return bytecodes(twice) / bytecodes(once)
