"""Real replicas of the token service behind one sidecar: some are lost under load, all are away, and they come back."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Final

import pytest

from sidecar.exchange.circuit import MAX_PAUSE_S, OPEN_AFTER
from sidecar.identity.tls import server_context
from sidecar.observe.scrape import render
from sidecar.sts.keys import SigningKey
from tests.integration.sts.processes import SCOPES, STAFF, Fleet, Replica, fleet
from tests.integration.world import FRONT, ISSUER, PATIENCE_S, PLANNER, STS, Agent, Answer, Sidecar, World, until

pytestmark = pytest.mark.integration

CALLERS: Final = 6
LIFE_S: Final = 5


@dataclass
class Front:
    """The front app beside its sidecar, whose exchanges any of the replicas can serve."""

    world: World
    sidecar: Sidecar
    replicas: list[Replica]
    good: int = 0
    failed: list[str] = field(default_factory=list)
    _logins: count[int] = field(default_factory=count)

    async def log_in(self) -> str:
        """Log a new user in, and return the handle."""
        now, number = int(time.time()), next(self._logins)
        claims = {"iss": STAFF.issuer, "sub": f"user-{number}", "aud": "https://api.example", "jti": f"login-{number}"}
        claims |= {"client_id": "front-staff", "scope": "assistant"}
        token = STAFF.mint({**claims, "iat": now, "exp": now + 600}, STAFF.header(typ="at+jwt"))
        shown = [("authorization", f"Bearer {token}")]
        traded = await self.world.call(self.sidecar.outbound, None, "/.sidecar/subject", headers=shown)
        assert traded.status == 200, traded.reason
        handle: str = json.loads(traded.body)["handle"]
        return handle

    async def call(self, handle: str) -> Answer:
        shown = [("authorization", f"Bearer {handle}")]
        return await self.world.call(self.sidecar.outbound, None, "/planner/plan", headers=shown)

    async def timed(self, handle: str) -> tuple[Answer, float]:
        began = time.monotonic()
        return await self.call(handle), time.monotonic() - began

    async def call_on(self) -> None:
        """Call for one new user after another, each with an exchange, until cancelled."""
        while True:
            answer = await self.call(await self.log_in())
            if answer.status == 200:
                self.good += 1
            else:
                self.failed.append(f"{answer.status} {answer.reason}")

    @asynccontextmanager
    async def under_load(self) -> AsyncIterator[None]:
        callers = [asyncio.ensure_future(self.call_on()) for _ in range(CALLERS)]
        try:
            await self.more(2 * CALLERS)
            yield
        finally:
            for caller in callers:
                caller.cancel()
            ended = await asyncio.gather(*callers, return_exceptions=True)
        assert all(isinstance(one, asyncio.CancelledError) for one in ended), ended

    async def more(self, calls: int) -> None:
        """Wait for this many more calls to succeed."""
        seen = self.good
        await until(lambda: self.good >= seen + calls or bool(self.failed), 2 * PATIENCE_S)

    def endpoints(self) -> list[dict[str, Any]]:
        states = self.sidecar.server.parts.snapshots.setup.exchanges[ISSUER].endpoints
        return [state._asdict() for state in states]

    def metric(self, name: str, endpoint: int) -> float:
        text = render(self.sidecar.server.metrics).decode()
        prefix = f'{name}{{endpoint="{endpoint}",issuer="{ISSUER}"'
        return sum(float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(prefix))


def break_sink(replica: Replica) -> None:
    """Give its record sink no reader: it answers every exchange with 503."""
    replica.records_path.rename(replica.records_path.with_suffix(".before"))
    os.mkfifo(replica.records_path)


def stop(replica: Replica) -> None:
    """Let it accept connections, and never answer."""
    replica.process.send_signal(signal.SIGSTOP)


def go_on(replica: Replica) -> None:
    replica.process.send_signal(signal.SIGCONT)


@asynccontextmanager
async def front(world: World, number: int) -> AsyncIterator[Front]:
    entry = {"workload": FRONT, "client_ids": {STAFF.issuer: "front-staff"}, "first_token_life_s": LIFE_S}
    async with fleet(world, entries=[entry]) as running:
        sidecar = await _start(world, running, number)
        yield Front(world, sidecar, running.replicas)


async def _start(world: World, running: Fleet, number: int) -> Sidecar:
    key = SigningKey.generate()
    world.keys["keys"].append(dict(key.jwk))
    replicas = [await running.start({1: key}, wait=False) for _ in range(number)]
    await asyncio.gather(*[world.until_ready(one.probe) for one in replicas])
    next_hop = await world.listen(Agent().serve, ssl=server_context(await world.source(PLANNER)))
    jwks = f"http://127.0.0.1:{world.jwks_port}/jwks"
    trusted = {"issuer": ISSUER, "jwks": jwks, "profile": "sts", "actor_trust_domains": ["acme.example"]}
    login = {"issuer": STAFF.issuer, "jwks": jwks, "profile": "oidc-access-token", "client_id": "front-staff"}
    login["scope_from"] = {"claim": "scope", "map": {"assistant": SCOPES}}  # type: ignore[assignment]
    route = {"name": "planner", "match": {"prefix": "/planner"}, "upstream": f"https://127.0.0.1:{next_hop}"}
    return await world.sidecar(
        FRONT,
        {
            "issuers": [{**trusted, "scopes": SCOPES}],
            "outbound": {"routes": [{**route, "peer": PLANNER, "audience": PLANNER, "scopes": SCOPES}]},
            "entry": {"issuers": [login], "may_call": ["planner"], "first_token_life_s": LIFE_S},
            "exchange": {
                "issuer": ISSUER,
                "token_endpoints": [f"https://127.0.0.1:{one.port}/token" for one in replicas],
                "peer": STS,
            },
        },
    )


async def test_under_load_no_call_fails_while_one_replica_works(world: World) -> None:
    async with front(world, 4) as app:
        killed, hanging, refusing, _ = app.replicas
        async with app.under_load():
            killed.process.kill()
            await app.more(3 * CALLERS)
            stop(hanging)
            await app.more(3 * CALLERS)
            break_sink(refusing)
            await app.more(3 * CALLERS)
            await until(lambda: [one["failing_s"] is not None for one in app.endpoints()] == [True, True, True, False])
            assert app.metric("sidecar_token_endpoint_failures_total", 1) > 0
            assert app.metric("sidecar_token_endpoint_failures_total", 4) == 0
            go_on(hanging)
            await until(lambda: app.endpoints()[1]["failing_s"] is None, 2 * MAX_PAUSE_S + PATIENCE_S)
            await app.more(CALLERS)
        assert app.failed == []


async def test_while_all_are_away_cached_tokens_serve_to_their_end_and_then_the_service_is_unavailable(
    world: World,
) -> None:
    async with front(world, 2) as app:
        gone, hanging = app.replicas
        handle = await app.log_in()
        assert (await app.call(handle)).status == 200
        cached_at = time.monotonic()
        stop(hanging)
        gone.process.kill()
        refused = await app.call(await app.log_in())
        assert (refused.status, refused.reason) in {(503, "sts_unavailable"), (504, "sts_timeout")}
        assert (await app.call(handle)).status == 200
        await until(lambda: time.monotonic() - cached_at > LIFE_S - 1)
        async with asyncio.timeout(3 * PATIENCE_S):
            while not all(one["open"] for one in app.endpoints()):
                asking = [app.call(await app.log_in()) for _ in range(OPEN_AFTER)]
                assert {answer.status for answer in await asyncio.gather(*asking)} <= {503, 504}
        assert [app.metric("sidecar_token_endpoint_open", number) for number in (1, 2)] == [1.0, 1.0]
        handles = [await app.log_in() for _ in range(6)]
        answers = await asyncio.gather(*map(app.timed, handles))
        quick = [answer for answer, seconds in answers if seconds < 0.5]
        assert len(quick) >= 4, "with open circuits only a probe waits for the deadline"
        for refused in quick:
            assert (refused.status, refused.reason, refused.headers["retry-after"]) == (503, "sts_unavailable", "1")
        go_on(hanging)
        async with asyncio.timeout(2 * MAX_PAUSE_S + PATIENCE_S):
            while (await app.call(handle)).status != 200:
                pass
        assert (await app.call(await app.log_in())).status == 200
