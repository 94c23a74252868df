"""Long computations on the event loop: see ``delegation_core.steps``."""

from __future__ import annotations

import asyncio
from typing import TypeVar

from delegation_core.steps import Steps

T = TypeVar("T")


async def in_steps(steps: Steps[T]) -> T:
    """Run a computation; the event loop does its other work between two steps."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: T = end.value
            return result
        await asyncio.sleep(0)
