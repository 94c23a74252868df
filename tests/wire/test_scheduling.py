from __future__ import annotations

import asyncio
from collections.abc import Callable

from sidecar.wire.scheduling import FairQueue


async def rounds(turns: FairQueue) -> None:
    while len(turns):  # noqa: ASYNC110 - the loop itself is what goes on
        await asyncio.sleep(0)


async def test_nobody_is_served_before_the_loop_has_gone_on() -> None:
    taken: list[str] = []
    turns = FairQueue()
    turns.wait("a", lambda: taken.append("a"))
    assert taken == []
    await asyncio.sleep(0)
    assert taken == ["a"]


async def test_each_group_has_one_turn_in_a_round_however_many_wait() -> None:
    taken: list[str] = []
    turns = FairQueue()
    for number in range(4):
        turns.wait("crowd", lambda number=number: taken.append(f"crowd {number}"))  # type: ignore[misc]
    turns.wait("other", lambda: taken.append("other"))
    await asyncio.sleep(0)
    assert taken == ["crowd 0", "other"]
    await asyncio.sleep(0)
    assert taken == ["crowd 0", "other", "crowd 1"]
    await rounds(turns)
    assert taken == ["crowd 0", "other", "crowd 1", "crowd 2", "crowd 3"]


async def test_who_waits_again_stands_behind_who_waits_already() -> None:
    taken: list[str] = []
    turns = FairQueue()

    def again(name: str, left: int) -> Callable[[], None]:
        def take() -> None:
            taken.append(name)
            if left:
                turns.wait("group", again(name, left - 1))

        return take

    turns.wait("group", again("a", 2))
    turns.wait("group", again("b", 2))
    await rounds(turns)
    assert taken == ["a", "b"] * 3


async def test_others_go_on_between_two_turns() -> None:
    taken: list[str] = []
    turns = FairQueue()

    def endless(left: int) -> None:
        taken.append("request")
        if left:
            turns.wait("busy", lambda: endless(left - 1))

    turns.wait("busy", lambda: endless(5))
    for _ in range(3):
        await asyncio.sleep(0)
        taken.append("others")
    await rounds(turns)
    assert taken[:6] == ["request", "others"] * 3


async def test_a_group_is_forgotten_when_nobody_of_it_waits() -> None:
    turns = FairQueue()
    turns.wait("once", lambda: None)
    await rounds(turns)
    assert len(turns) == 0
    assert turns._waiting == {}
