from __future__ import annotations

import asyncio

from delegation_core.errors import Reason, Unavailable
from sidecar.exchange.cache import Issued
from sidecar.identity.endpoint import Trouble
from tests.exchange.world import World, plan, policy, reason_of, running, subject_of
from tests.fakes.lies import claims
from tests.fakes.tokens import CRM, ISSUER, PLANNER, WRITER


async def ask(world: World) -> Issued:
    return await world.exchange.exchange(plan(), policy())


async def test_every_exchange_is_recorded_once_and_every_call_that_joins_it_is_not() -> None:
    async with running(World()) as world:
        world.clock.now += 0.5
        await asyncio.gather(*(ask(world) for _ in range(5)))
        (record,) = await world.records()
        told = {name: value for name, value in record.items() if value is not None}
        for name in ("ts", "run", "seq", "fp", "exchange_ms"):
            told.pop(name)
        assert told == {
            "event": "token.exchanged",
            "decision": "allow",
            "reason": "ok",
            "direction": "outbound",
            "subject": "user-4711",
            "subject_iss": ISSUER,
            "actor": str(WRITER),
            "chain": [str(WRITER), str(PLANNER)],
            "chain_depth": 2,
            "client_id": str(WRITER),
            "audience": str(CRM),
            "scope": ["crm.read"],
            "scope_needed": ["crm.read"],
            "route": "crm",
            "jti_in": "token-1",
            "jti_out": "issued-1",
            "parent_jti": "token-1",
            "txn": "txn-1",
            "verified": True,
            "adapter": "rfc8693",
        }
        assert world.metrics.exchanges == {(ISSUER, "ok"): 1}


async def test_the_record_of_a_refused_exchange_names_the_adapter_too() -> None:
    async with running(World()) as world:
        world.sts.errors = [Unavailable(Reason.STS_TIMEOUT, Trouble.TIMEOUT)]
        await reason_of(world)
        (record,) = await world.records()
        assert (record["event"], record["adapter"]) == ("token.exchange_refused", "rfc8693")


async def test_no_record_holds_a_token() -> None:
    async with running(World()) as world:
        issued = await ask(world)
        world.sts.errors = [Unavailable(Reason.STS_TIMEOUT, Trouble.TIMEOUT)]
        await reason_of(world, plan(jti="token-2"))
        await world.records()
        written = world.sink.written.decode()
        for secret in (
            issued.permit.token.raw,
            subject_of(issued.permit.plan).raw,
            *(form["actor_token"] for form in world.sts.forms),
        ):
            assert secret.rpartition(".")[2] not in written


async def test_a_refusal_tells_the_plan_and_nothing_the_token_service_said() -> None:
    async with running(World()) as world:
        world.sts.behaviour = claims(sub="said-by-the-sts", jti="said-by-the-sts", scope="said.by.the.sts")
        await reason_of(world)
        (record,) = await world.records()
        assert b"said" not in world.sink.written
        assert record["decision"] == "deny"
        assert record["reason"] == "sts_subject_mismatch"
        assert record["subject"] == "user-4711"
        assert record["actor"] == str(WRITER)
        assert record["audience"] == str(CRM)
        assert record["scope_needed"] == ["crm.read"]
        assert record["jti_in"] == "token-1"
        assert record["jti_out"] is None
