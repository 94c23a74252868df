from __future__ import annotations

import asyncio

from delegation_core.steps import Steps, at_once, drained, slices
from sidecar.steps import in_steps


def summing(seen: list[str]) -> Steps[int]:
    total = 0
    for some in slices(range(7), 3):
        total += sum(some)
        seen.append("step")
        yield
    return total


async def test_the_loop_goes_on_between_two_steps() -> None:
    seen: list[str] = []
    asyncio.get_running_loop().call_soon(seen.append, "loop")
    assert await in_steps(summing(seen)) == 21
    assert seen == ["step", "loop", "step", "step"]


def test_at_once_is_the_same_without_a_loop() -> None:
    assert at_once(summing([])) == 21


def test_a_list_is_drained_whole() -> None:
    items = list(range(7))
    assert sorted(one for some in drained(items, 3) for one in some) == list(range(7))
    assert not items
