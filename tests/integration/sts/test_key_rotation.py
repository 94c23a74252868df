"""Three replicas with keys from one Secret, which reaches each of them at another time."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import pytest

from delegation_core.bearer import parse_bearer
from sidecar.sts.keys import SigningKey
from sidecar.sts.schedule import LATE_S
from tests.integration.sts.processes import Fleet, Replica, fleet
from tests.integration.world import PATIENCE_S, Answer, World, until

pytestmark = pytest.mark.integration

POLL_S: Final = 2.0  # a replica looks at its directory that often
LAGS_S: Final = (0.0, 1.0, 2.0)
KEYS: Final = {"mount_lag_s": 5, "max_age_s": 1, "refresh_s": 1}
ANNOUNCE_S: Final = sum(KEYS.values())
CACHED_S: Final = KEYS["max_age_s"] + KEYS["refresh_s"]
LIFE_S: Final = 3


def runbook(section: str) -> str:
    """Return a section of the runbook."""
    page = (Path(__file__).parents[3] / "docs" / "runbook.md").read_text()
    return page.partition(f"\n## {section}\n")[2].partition("\n## ")[0]


@dataclass
class Rotation:
    """Exchanges at every replica in turn, and what every replica publishes meanwhile."""

    running: Fleet
    issued: list[tuple[float, str]] = field(default_factory=list)  # time of issue, kid
    refused: list[str] = field(default_factory=list)
    published: list[tuple[float, float, frozenset[str]]] = field(default_factory=list)  # asked, answered, kids

    async def exchange(self) -> None:
        """Exchange a login at one replica and its token at the next one, until cancelled."""
        turn = 0
        while True:
            replicas = self.running.replicas
            here, there = replicas[turn % len(replicas)], replicas[(turn + 1) % len(replicas)]
            turn += 1
            first = await self.running.clients.first(here)
            token = self._note(first)
            if token is not None:
                self._note(await self.running.clients.onward(there, token))

    def _note(self, answer: Answer) -> str | None:
        if answer.status != 200:
            self.refused.append(f"{answer.status} {answer.reason}")
            return None
        token: str = json.loads(answer.body)["access_token"]
        self.issued.append((time.time(), parse_bearer(token).kid or ""))
        return token

    async def watch(self, replica: Replica) -> None:
        """Fetch what one replica publishes, until cancelled."""
        while True:
            asked = time.time()
            answer = await self.running.clients.get(replica, "/jwks")
            kids = frozenset(one["kid"] for one in json.loads(answer.body)["keys"])
            self.published.append((asked, time.time(), kids))
            await asyncio.sleep(0.05)

    def unknown(self) -> list[tuple[float, str]]:
        """Return tokens that some consumer could not verify: by a set in its cache, or one fetched while they live."""
        return [
            (at, kid)
            for at, kid in self.issued
            if any(
                kid not in kids
                for asked, answered, kids in self.published
                if asked > at - CACHED_S and answered < at + LIFE_S
            )
        ]

    def signed_by(self, key: SigningKey) -> list[float]:
        return [at for at, kid in self.issued if kid == key.kid]


async def rotated(running: Fleet, keys: Mapping[int, SigningKey], after: SigningKey) -> Rotation:
    """Give every replica these keys, each at its own time, under load; return once ``after`` signs everywhere."""
    rotation = Rotation(running)
    tasks = [asyncio.ensure_future(rotation.exchange())]
    tasks += [asyncio.ensure_future(rotation.watch(one)) for one in running.replicas]

    async def mount(replica: Replica, lag_s: float) -> None:
        await asyncio.sleep(lag_s)
        replica.mount.become(keys)

    await until(lambda: len(rotation.issued) > 10)
    await asyncio.gather(*map(mount, running.replicas, LAGS_S))
    try:
        async with asyncio.timeout(3 * ANNOUNCE_S + PATIENCE_S):
            while {kid for _, kid in rotation.issued[-12:]} != {after.kid}:  # noqa: ASYNC110 - there is no event
                await asyncio.sleep(0.05)
            await asyncio.sleep(LIFE_S)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return rotation


@pytest.mark.parametrize("late", [False, True], ids=["in time", "after its own time"])
async def test_a_rotation_under_load_refuses_no_token_in_whatever_order_replicas_see_the_key(
    world: World, late: bool
) -> None:
    old, new = SigningKey.generate(), SigningKey.generate()
    started = int(time.time())
    async with fleet(world, keys=KEYS, token_life_s=LIFE_S) as running:
        for _ in LAGS_S:
            await running.start({started - 1000: old})
        added = int(time.time()) + 1
        signs_from = added - 5 if late else added + ANNOUNCE_S
        rotation = await rotated(running, {started - 1000: old, signs_from: new}, after=new)
        assert all(one.records("config.reloaded") for one in running.replicas)
    assert rotation.refused == []
    assert rotation.unknown() == []
    assert rotation.signed_by(old)
    assert min(rotation.signed_by(new)) >= added + ANNOUNCE_S - 1


async def test_a_replica_whose_signing_key_is_gone_is_not_ready_and_signs_by_no_other(world: World) -> None:
    old, new = SigningKey.generate(), SigningKey.generate()
    now = int(time.time())
    async with fleet(world, keys=KEYS) as running:
        long_ago, before = now - 2 * LATE_S, now - LATE_S - 1000  # so that neither is held back
        there = await running.start({long_ago: old, before: new})
        lacks = await running.start({long_ago: old, before: new})
        lacks.mount.become({long_ago: old})
        await until(lambda: bool(lacks.records("config.reloaded")))
        ready = await world.call(lacks.probe, None, "/readyz", method="GET")
        assert (ready.status, ready.body) == (503, b"keys (the signing key is not in the directory of keys)\n")
        assert f"\n| `{ready.body.decode().strip()}` | " in runbook("SidecarNotReady")
        refused = await running.clients.first(lacks)
        assert (refused.status, refused.reason) == (503, "not_ready")
        assert (await running.clients.first(there)).status == 200
        published = json.loads((await running.clients.get(lacks, "/jwks")).body)["keys"]
        assert [one["kid"] for one in published] == [old.kid]  # tokens of it may still live
        lacks.mount.become({long_ago: old, before: new})  # the fix of the runbook
        await world.until_ready(lacks.probe)
        assert (await running.clients.first(lacks)).status == 200
