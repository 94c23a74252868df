"""A replica under load is told to end: every exchange that it was sent is answered."""

from __future__ import annotations

import asyncio
import signal
import ssl
import time
from collections import Counter
from dataclasses import dataclass, field

import pytest

from sidecar.sts.keys import SigningKey
from tests.fakes.sts_server import token_request
from tests.integration.sts.processes import Fleet, Replica, fleet
from tests.integration.world import FRONT, Answer, World, until

pytestmark = pytest.mark.integration

CALLERS = 6


@dataclass
class Load:
    """Exchanges at one replica until it accepts no connection. ``lost`` are those without a good answer."""

    running: Fleet
    replica: Replica
    answered: Counter[int] = field(default_factory=Counter)
    lost: list[str] = field(default_factory=list)

    async def on_new_connections(self) -> None:
        while True:
            try:
                answer = await self.running.clients.first(self.replica)
            except ConnectionRefusedError:
                return
            except (OSError, ssl.SSLError) as error:
                self.lost.append(repr(error))
                continue
            self._note(answer)

    async def on_kept_connections(self) -> None:
        while True:
            try:
                async with self.running.world.kept(self.replica.port, self.running.clients.tls[FRONT]) as kept:
                    last = False
                    while not last:
                        form = await self.running.clients.login_form()
                        kept.writer.write(token_request(form))
                        answer = await kept.receive()
                        self._note(answer)
                        last = answer.headers.get("connection") == "close"
            except ConnectionRefusedError:
                return
            except (OSError, ssl.SSLError, asyncio.IncompleteReadError) as error:
                self.lost.append(repr(error))

    def _note(self, answer: Answer) -> None:
        self.answered[answer.status] += 1
        if answer.status != 200:
            self.lost.append(f"{answer.status} {answer.reason}")


@pytest.mark.parametrize("kept", [False, True], ids=["new connections", "kept connections"])
async def test_told_to_end_under_load_a_replica_loses_no_exchange_and_the_other_goes_on(
    world: World, kept: bool
) -> None:
    async with fleet(world) as running:
        keys = {int(time.time()) - 10: SigningKey.generate()}
        ending, other = await running.start(keys), await running.start(keys)
        load = Load(running, ending)
        call = load.on_kept_connections if kept else load.on_new_connections
        callers = [asyncio.ensure_future(call()) for _ in range(CALLERS)]
        await until(lambda: load.answered[200] > 20)
        assert await ending.end(signal.SIGTERM) == 0
        await asyncio.gather(*callers)
        assert (await running.clients.first(other)).status == 200
        issued = len(ending.records("token.exchanged"))
    assert load.lost == []
    assert load.answered == {200: issued}  # one answer and one record each


async def test_idle_connections_keep_a_replica_no_longer_than_a_moment(world: World) -> None:
    async with fleet(world, drain_s=30.0) as running:
        replica = await running.start({int(time.time()) - 10: SigningKey.generate()})
        async with world.kept(replica.port, running.clients.tls[FRONT]) as kept:
            kept.writer.write(token_request(await running.clients.login_form()))
            assert (await kept.receive()).status == 200
            began = time.monotonic()
            assert await replica.end(signal.SIGTERM) == 0
            assert time.monotonic() - began < 5
            assert await kept.wait_for_end() == b""
