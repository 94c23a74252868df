"""Forged key IDs at the door: strangers name them without end, and neither the issuer nor its users may suffer."""

from __future__ import annotations

import asyncio
import itertools
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import pytest

from tests.fakes.tokens import TokenMint
from tests.integration.door_world import IDE, RESOURCE, DoorWorld, open_door_world
from tests.integration.entry_world import STAFF
from tests.integration.test_door import LIST

pytestmark = [pytest.mark.integration, pytest.mark.timeout(60)]

ROTATED: Final = TokenMint(STAFF.issuer, key=7, kid="rotated")
PATIENCE_S: Final = 9.0  # 5 s between two fetches, a fetch, and a busy machine
STRANGERS: Final = 4


class Counted(asyncio.Event):
    """An event that counts how often it was set."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def set(self) -> None:
        self.count += 1
        super().set()


def login(mint: TokenMint) -> str:
    now = int(time.time())
    claims = {"iss": mint.issuer, "sub": "alice", "aud": RESOURCE, "client_id": IDE, "jti": "login-2"}
    return mint.mint({**claims, "scope": "assistant", "iat": now, "exp": now + 600}, mint.header(typ="at+jwt"))


@asynccontextmanager
async def flooded(door: DoorWorld) -> AsyncIterator[list[tuple[int, str | None]]]:
    """Let strangers show tokens by keys that nobody has, each of another name; yield the answers as they come."""
    answers: list[tuple[int, str | None]] = []
    numbers = itertools.count()

    async def stranger() -> None:
        while True:
            forged = TokenMint(STAFF.issuer, key=9, kid=f"forged-{next(numbers)}")
            answer = await door.send(LIST, token=login(forged))
            answers.append((answer.status, answer.reason))

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(stranger()) for _ in range(STRANGERS)]
        while len(answers) < 2 * STRANGERS:  # noqa: ASYNC110 - there is no event
            await asyncio.sleep(0.01)
        yield answers
        for task in tasks:
            task.cancel()


async def test_a_new_key_is_used_within_seconds_while_strangers_name_keys_that_do_not_exist() -> None:
    with tempfile.TemporaryDirectory(prefix="sc-") as folder:
        async with open_door_world(Path(folder)) as door:
            known = door.token()
            assert (await door.send(LIST, token=known)).status == 200
            asked = door.world.keys_asked = Counted()
            begun = time.monotonic()
            async with flooded(door) as answers:
                refused = await door.send(LIST, token=login(ROTATED))
                assert (refused.status, refused.reason) == (401, "unknown_key")
                door.world.keys["keys"].append(ROTATED.jwk)
                async with asyncio.timeout(PATIENCE_S):
                    while (await door.send(LIST, token=login(ROTATED))).status != 200:  # noqa: ASYNC110 - there is no event
                        await asyncio.sleep(0.1)
                assert (await door.send(LIST, token=known)).status == 200
            assert set(answers) == {(401, "unknown_key")}
            # The issuer was asked at its interval, not once for each stranger; the token service asked once as well.
            assert asked.count <= 2 + (time.monotonic() - begun) / 5 + 1 < len(answers)
