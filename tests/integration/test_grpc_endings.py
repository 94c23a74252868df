"""Calls of gRPC in progress while certificates rotate, and while the sidecars on their way drain."""

from __future__ import annotations

import asyncio
import queue
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from tests.integration.test_grpc import SERVICE, World
from tests.integration.test_grpc import world as world
from tests.integration.test_websocket import deny, reload
from tests.integration.world import PATIENCE_S, Sidecar, until


class FourCalls:
    """One call of each kind, in progress."""

    def __init__(self, world: World, shown: Sequence[tuple[str, str]]) -> None:
        options: dict[str, Any] = {"timeout": 30, "metadata": shown}
        channel = world.channel
        self._numbers = queue.Queue[bytes | None]()
        self._questions = queue.Queue[bytes | None]()
        self._drips = world.server.drips
        self._asked = 0
        self.held = channel.unary_unary(f"/{SERVICE}/Hold").future(b"held", **options)
        self._drip = channel.unary_stream(f"/{SERVICE}/Drip")(b"", **options)
        self._sum = channel.stream_unary(f"/{SERVICE}/Sum").future(iter(self._numbers.get, None), **options)
        self._talk = channel.stream_stream(f"/{SERVICE}/Talk")(iter(self._questions.get, None), **options)

    def go_on(self) -> None:
        """Move each stream on by one message."""
        number = b"%d" % self._asked
        self._numbers.put(b"1")
        for asks, answers, answer in ((self._drips, self._drip, b""), (self._questions, self._talk, b"re: ")):
            asks.put(number)
            assert next(answers) == answer + number
        self._asked += 1

    def end(self) -> None:
        """Read each answer to its end."""
        self.close()
        assert self.held.result() == b"held"
        assert self._sum.result() == b"%d" % self._asked
        assert [*self._talk, *self._drip] == []

    def close(self) -> None:
        for one in (self._numbers, self._questions, self._drips):
            one.put(None)


async def rotate(sidecar: Sidecar) -> None:
    """Give a sidecar another certificate, and wait until it has it."""
    identity, registry = sidecar.server.parts.source.current, sidecar.api.registry
    registry.replace_entries([replace(one, ttl_s=one.ttl_s - 1) for one in registry.entries])
    await until(lambda: sidecar.server.parts.source.current is not identity, PATIENCE_S)


async def test_the_four_kinds_of_calls_outlive_rotations_and_drains_of_both_sidecars(world: World) -> None:
    calls = FourCalls(world, world.shown())
    both = [world.mesh.sidecars[name] for name in ("front", "planner")]
    try:
        await world.run(calls.go_on)
        for sidecar in both * 2:
            await rotate(sidecar)
            await world.run(calls.go_on)
        for sidecar in both:
            sidecar.stop.set()
            await asyncio.sleep(0.3)
            await world.run(calls.go_on)
        world.server.released.set()
        await world.run(calls.end)
    finally:
        calls.close()
        world.server.released.set()
    for sidecar in both:
        records = await sidecar.wait_for_records(4)
        assert [(one["decision"], one["reason"], one["status"]) for one in records] == [("allow", "ok", 200)] * 4
        assert await sidecar.running  # it drained in time


async def test_the_four_kinds_of_calls_end_with_a_deny_entry_which_their_records_tell(world: World) -> None:
    calls = FourCalls(world, world.shown())
    planner = world.mesh.sidecars["planner"]
    try:
        await world.run(calls.go_on)
        await reload(planner, lambda document: deny("mallory", document))
        await world.run(calls.go_on)
        await reload(planner, lambda document: deny("alice", document))
        records = await planner.wait_for_records(4)
    finally:
        calls.close()
        world.server.released.set()
    assert [(one["decision"], one["reason"]) for one in records] == [("deny", "policy_denied")] * 4
    assert all(one["decide_ms"] is not None for one in records)


async def test_a_call_that_begins_while_the_sidecar_drains_is_told_so(world: World) -> None:
    """Its client may go to another sidecar; the call in progress beside it is not touched."""
    shown = world.shown()
    held = world.channel.unary_unary(f"/{SERVICE}/Hold").future(b"held", timeout=30, metadata=shown)
    await until(lambda: len(world.server.seen) == 1, PATIENCE_S)
    world.mesh.sidecars["planner"].stop.set()
    await asyncio.sleep(0.3)
    error = await world.fails(lambda: world.channel.unary_unary(f"/{SERVICE}/Unary")(b"", timeout=10, metadata=shown))
    assert error.code().name == "UNAVAILABLE"
    world.server.released.set()
    assert await world.run(held.result) == b"held"
    assert len(world.server.seen) == 1
