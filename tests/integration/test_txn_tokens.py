"""Transaction tokens over real sockets: asked for where a user logs in, verified and passed on by every later hop."""

from __future__ import annotations

import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from delegation_core.bearer import parse_bearer, parse_txn_token
from tests.fakes.lies import refusal
from tests.fakes.lying_sts import Server, serving
from tests.fakes.txn_tokens import TTS, Tts, honest_txn, txn_answer, txn_token
from tests.integration.entry_world import CUSTOMERS, STAFF, EntryWorld
from tests.integration.hops import Hops
from tests.integration.world import WRITER, bearer, mint, open_world

pytestmark = pytest.mark.integration


def service(jwks_port: int, **more: Any) -> dict[str, Any]:
    return {
        "trust_domain": "acme.example",
        "issuer": TTS.issuer,
        "jwks": f"http://127.0.0.1:{jwks_port}/jwks",
        **more,
    }


class Transactions(EntryWorld):
    """An entry whose calls carry transaction tokens, and a planner that verifies them and shows them to its agent."""

    tts: Server

    def front_settings(self, **changes: Any) -> dict[str, Any]:
        settings = super().front_settings(**changes)
        settings["txn_tokens"] = service(self.world.jwks_port, token_endpoint=self.tts.url)
        settings["outbound"]["routes"][0]["txn_token"] = True
        return settings

    def planner_settings(self) -> dict[str, Any]:
        settings = super().planner_settings()
        settings["txn_tokens"] = service(self.world.jwks_port)
        settings["inbound"]["txn_token"] = True
        return settings


@pytest.fixture
async def entry() -> AsyncIterator[Transactions]:
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="sc-"))
        world = await stack.enter_async_context(open_world(Path(folder)))
        world.keys["keys"] += [STAFF.jwk, CUSTOMERS.jwk, TTS.jwk]
        opened = Transactions(world)
        opened.tts = await stack.enter_async_context(serving(Tts(clock=lambda: int(time.time()))))
        opened.tts.keeps = True
        await opened.start()
        yield opened


async def test_a_login_begins_a_transaction_that_the_next_hop_verifies(entry: Transactions) -> None:
    login = entry.log_in()
    for _ in range(3):
        shown = [*bearer(login), ("txn-token", "of the agent's own")]
        assert (await entry.ask(entry.front, shown)).status == 200
    assert len(entry.tts.sts.forms) == 1  # one access token, one transaction token
    seen = [entry.world.agent.headers(number) for number in range(3)]
    assert len({one["txn-token"] for one in seen}) == 1
    token, access = parse_txn_token(seen[0]["txn-token"]), parse_bearer(seen[0]["delegation-token"])
    assert (token.claims["sub"], token.claims["txn"]) == (access.claims["sub"], access.claims["txn"])
    assert entry.tts.sts.forms[0]["subject_token"] == access.raw
    for sidecar in (entry.front, entry.planner):
        records = await sidecar.wait_for_records(3)
        assert {record["txn"] for record in records} == {access.claims["txn"]}
        assert token.raw not in str(records)


@pytest.mark.parametrize(
    ("behaviour", "status", "reason"),
    [
        pytest.param(txn_answer({"sub": "staff:bob"}), 502, "sts_subject_mismatch", id="another user"),
        pytest.param(refusal(503), 503, "sts_unavailable", id="down"),
    ],
)
async def test_a_service_that_lies_or_is_down_lets_nothing_leave(
    entry: Transactions, behaviour: Any, status: int, reason: str
) -> None:
    entry.tts.sts.behaviour = behaviour
    answer = await entry.ask(entry.front, bearer(entry.log_in()))
    assert (answer.status, answer.headers["delegation-reason"]) == (status, reason)
    assert entry.world.agent.requests == []
    entry.tts.sts.behaviour = honest_txn
    assert (await entry.ask(entry.front, bearer(entry.log_in()))).status == 200


def now_token(**changes: object) -> str:
    now = int(time.time())
    return txn_token(**{"sub": "user-4711", "iat": now, "exp": now + 100, **changes})


async def started(hops: Hops) -> None:
    hops.world.keys["keys"].append(TTS.jwk)
    settings = hops.settings()
    settings["txn_tokens"] = service(hops.world.jwks_port)
    settings["inbound"]["txn_token"] = True
    settings["outbound"]["routes"][0]["txn_token"] = True
    hops.writer = await hops.world.sidecar(WRITER, settings)


async def test_a_later_hop_passes_on_what_came_in_to_routes_that_carry_it(hops: Hops) -> None:
    await started(hops)
    raw = now_token()
    async with hops.serving({"sub": "user-4711", "txn": "txn-1"}, more=[("txn-token", raw)]) as held:
        assert "txn-token" not in held.fields
        assert (await hops.call([*held.shown, ("txn-token", "another")])).status == 200
        assert hops.crm.headers()["txn-token"] == raw
        assert hops.crm.requests[-1][0].lower().count(b"txn-token") == 1
        assert (await hops.call(held.shown, "/x", host="crm.mesh")).status == 200
        assert "txn-token" not in hops.crm.headers()
    async with hops.serving({"sub": "user-4711", "txn": "txn-1"}) as held:
        assert (await hops.call([*held.shown, ("txn-token", raw)])).status == 200
        assert "txn-token" not in hops.crm.headers()


@pytest.mark.parametrize("changes", [{"sub": "user-1"}, {"txn": "txn-2"}, {"aud": "partner.example"}, {"exp": 1}])
async def test_a_token_of_something_else_never_reaches_the_agent(hops: Hops, changes: dict[str, object]) -> None:
    await started(hops)
    async with hops.serving({"sub": "user-4711", "txn": "txn-1"}, more=[("txn-token", now_token())]):
        pass
    headers = [*bearer(mint({"sub": "user-4711", "txn": "txn-1"})), ("txn-token", now_token(**changes))]
    answer = await hops.world.call(hops.writer.inbound, hops.planner, headers=headers)
    assert (answer.status, answer.reason) == (403, "txn_token_refused")
