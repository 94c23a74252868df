"""Two users through one agent, many calls in flight, answers in any order: nobody ever acts for another user."""

from __future__ import annotations

import asyncio
import json
import random
import secrets

import pytest

from tests.fakes.tokens import from_base64url
from tests.integration.hops import Hops
from tests.integration.world import bearer, mint, ok

pytestmark = [pytest.mark.integration, pytest.mark.both_loops]

CALLS = 64


async def test_two_users_through_one_agent_are_never_mixed_up(hops: Hops) -> None:
    await hops.start(exchange={"timeout_s": 20.0})  # all exchanges run at once, also on a busy machine
    everybody_waits = asyncio.Event()
    waiting: list[asyncio.Future[None]] = []

    def crm(head: bytes, _body: bytes) -> asyncio.Future[bytes]:
        token = head.partition(b"Bearer ")[2].partition(b"\r\n")[0].decode()
        subject = json.loads(from_base64url(token.split(".")[1]))["sub"]

        async def answer() -> bytes:
            turn = asyncio.get_running_loop().create_future()
            waiting.append(turn)
            if len(waiting) == CALLS:
                everybody_waits.set()
            await turn
            return ok(subject.encode())

        return asyncio.ensure_future(answer())

    async def agent(head: bytes) -> bytes:
        lines = head.decode().split("\r\n")[1:]
        headers = dict(line.split(": ", 1) for line in lines if line)
        found = await hops.call([("authorization", headers["authorization"])])
        if found.status != 200:  # reported, not raised: that would look like an agent that hung up
            return ok(f"{found.status} {found.reason}".encode())
        return ok(found.body + b" for " + headers["delegation-subject"].encode())

    hops.crm.script = crm
    hops.agent.script = lambda head, _body: asyncio.ensure_future(agent(head))
    calls = {secrets.token_hex(16): f"user-{number % 2}" for number in range(CALLS)}

    async def ask(call: str, subject: str) -> None:
        token = mint({"sub": subject, "jti": call})
        headers = [*bearer(token), ("delegation-call", call)]
        answer = await hops.world.call(hops.writer.inbound, hops.planner, headers=headers)
        assert (answer.status, answer.body.decode()) == (200, f"{subject} for {subject}")

    asking = [asyncio.ensure_future(ask(call, subject)) for call, subject in calls.items()]
    async with asyncio.timeout(20):
        await everybody_waits.wait()
    random.shuffle(waiting)
    for turn in waiting:
        turn.set_result(None)
        await asyncio.sleep(0)
    await asyncio.gather(*asking)

    records = await hops.writer.wait_for_records(2 * CALLS)
    inbound = {r["call_in"]: r for r in records if r["direction"] == "inbound"}
    outbound = {r["call_in"]: r for r in records if r["direction"] == "outbound"}
    assert inbound.keys() == outbound.keys() == calls.keys()
    for call, subject in calls.items():
        assert inbound[call]["subject"] == outbound[call]["subject"] == subject
        assert inbound[call]["jti_in"] == outbound[call]["jti_in"] == outbound[call]["parent_jti"] == call
    seen = {hops.crm.headers(number)["delegation-call"] for number in range(CALLS)}
    assert {record["call_out"] for record in outbound.values()} == seen
    assert len(seen) == CALLS
