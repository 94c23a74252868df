from __future__ import annotations

import asyncio
import weakref
from itertools import pairwise

from sidecar.wire.connections import SWEPT_AT_ONCE, Connections


class Waiting:
    def __init__(self) -> None:
        self.swept: list[float] = []
        self.enough = asyncio.Event()

    def sweep(self, now: float) -> None:
        self.swept.append(now)
        if len(self.swept) == 2:
            self.enough.set()


async def test_members_are_swept_again_and_again_by_one_timer() -> None:
    connections: Connections[Waiting] = Connections(interval_s=0.001, clock=lambda: 7.0)
    one, other = Waiting(), Waiting()
    connections.add(one)
    connections.add(other)
    async with asyncio.timeout(5):
        await one.enough.wait()
        await other.enough.wait()
    assert set(one.swept) == {7.0}
    connections.discard(one)
    connections.discard(other)


async def test_a_turn_of_the_loop_sweeps_some_of_many_members_and_none_that_has_left() -> None:
    connections: Connections[Waiting] = Connections(interval_s=0.001)
    members = [Waiting() for _ in range(3 * SWEPT_AT_ONCE)]
    for member in members:
        connections.add(member)
    swept = [0]
    async with asyncio.timeout(5):
        while swept[-1] < SWEPT_AT_ONCE:
            await asyncio.sleep(0)
            swept.append(sum(len(member.swept) for member in members))
        left = [member for member in members if not member.swept]
        connections.discard(left[0])
        while not all(member.swept for member in left[1:]):
            await asyncio.sleep(0)
            swept.append(sum(len(member.swept) for member in members))
    assert max(now - before for before, now in pairwise(swept)) <= SWEPT_AT_ONCE
    assert left[0].swept == []
    for member in members:
        connections.discard(member)


async def test_a_sweep_that_has_begun_keeps_no_member_that_has_left() -> None:
    connections: Connections[Waiting] = Connections(interval_s=0.001)
    members = [Waiting() for _ in range(3 * SWEPT_AT_ONCE)]
    for member in members:
        connections.add(member)
    async with asyncio.timeout(5):
        while not any(member.swept for member in members):  # noqa: ASYNC110 - there is no event
            await asyncio.sleep(0)
    assert not all(member.swept for member in members)
    left = weakref.WeakSet(members)
    del member
    while members:
        connections.discard(members.pop())
    await asyncio.sleep(0)
    assert len(left) == 0


async def test_empty_is_told_when_the_last_one_is_gone() -> None:
    connections: Connections[Waiting] = Connections()
    await connections.wait_for_empty()
    one = Waiting()
    connections.add(one)
    waiting = asyncio.ensure_future(connections.wait_for_empty())
    await asyncio.sleep(0)
    assert (len(connections), list(connections), waiting.done()) == (1, [one], False)
    connections.discard(one)
    async with asyncio.timeout(5):
        await waiting


async def test_a_member_may_leave_while_it_is_swept() -> None:
    connections: Connections[Leaving] = Connections()
    members = [Leaving(connections), Leaving(connections)]
    for member in members:
        connections.add(member)
    connections.sweep()
    assert len(connections) == 0


class Leaving:
    def __init__(self, connections: Connections[Leaving]) -> None:
        self.connections = connections

    def sweep(self, _now: float) -> None:
        self.connections.discard(self)
