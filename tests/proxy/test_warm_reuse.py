"""Ghosts and keys of permits that the native engine keeps from one warm request for the next."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from sys import getrefcount
from typing import Any

import pytest

from sidecar.proxy.native.ghosts import GhostRequest
from tests.core.world import INBOUND_CLAIMS, signed
from tests.fuzz.inbound_world import token
from tests.native import needs_native
from tests.proxy.engines import EngineWorld, warm_request
from tests.proxy.test_warm import WARM, both, nothing
from tests.proxy.warm import ANSWER

pytestmark = needs_native


def ghosts_of(world: EngineWorld) -> list[Any]:
    """Return what stands for the request in flight, without a look at an attribute of it."""
    found: list[Any] = [world.server.stream, *world.log.young, *world.watch.young, *world.handles.alive.values()]
    return found


async def test_ghosts_of_a_request_that_has_ended_stand_for_the_next(tmp_path: Path) -> None:
    world, seen = EngineWorld("native", tmp_path), []
    for _ in range(3):
        world.exchange(WARM, ANSWER, lambda world: seen.append([*map(id, ghosts_of(world))]))
    assert len(seen[1]) == 4
    assert seen[1] == seen[2]


@pytest.mark.parametrize("which", range(4))
async def test_a_ghost_that_is_held_stands_for_no_other_request(tmp_path: Path, which: int) -> None:
    world, held = EngineWorld("native", tmp_path), []
    for _ in range(3):
        world.exchange(WARM, ANSWER, lambda world: held.append(ghosts_of(world)[which]))
    assert world.taken == 2
    assert held[1] is not held[2]
    assert held[1].warm is not held[2].warm


async def test_a_ghost_that_became_real_stands_for_no_other_request(tmp_path: Path) -> None:
    world, kinds = EngineWorld("native", tmp_path), []

    def look(world: EngineWorld) -> None:
        (served,) = world.handles.alive.values()
        kinds.append(type(served))
        assert served.delegation is not None

    for _ in range(3):
        world.exchange(WARM, ANSWER, look)
    assert world.taken == 2
    assert kinds[1:] == [GhostRequest, GhostRequest]


async def test_a_token_that_ends_as_another_is_not_taken_for_it(tmp_path: Path) -> None:
    shown = bytearray(token())
    shown[len(shown) // 2] ^= 1
    steps = [(one, ANSWER, nothing) for one in (WARM, WARM, warm_request(shown=bytes(shown)), WARM)]
    _, records = await both(tmp_path, steps, least_taken=2)
    assert [record["decision"] for record in records] == ["allow", "allow", "deny", "allow"]


async def test_a_token_that_comes_with_another_certificate_is_decided_again(tmp_path: Path) -> None:
    world, taken = EngineWorld("native", tmp_path), []
    for fingerprint in "0001100":
        world.guard.peer = replace(world.guard.peer, fingerprint=fingerprint * 64)
        world.connect()
        world.exchange(WARM)
        taken.append(world.taken)
    assert taken == [0, 1, 2, 2, 3, 4, 5]


@pytest.mark.parametrize(("padding", "kept"), [(0, 1), (2048, 0)])
async def test_nothing_is_held_of_requests_that_have_ended_but_keys_of_short_tokens(
    tmp_path: Path, padding: int, kept: int
) -> None:
    world = EngineWorld("native", tmp_path)
    shown = signed(INBOUND_CLAIMS | {"padding": "x" * padding}).raw.encode()
    world.exchange(warm_request(shown=shown))
    handler: Any = world.handler
    ((call, entry),) = handler.permits.entries.items()
    before = getrefcount(entry.value), getrefcount(call.certificate)
    for _ in range(3):
        world.exchange(warm_request(shown=shown))
    assert world.taken == 3
    await world.log.close()
    assert (getrefcount(entry.value), getrefcount(call.certificate) - kept) == before
