"""Tokens that are bound to our SVID: each goes out over a connection that shows that SVID, and over no other."""

from __future__ import annotations

import asyncio
import base64
import copy
import hashlib
import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import pytest

from delegation_core.bearer import parse_bearer
from delegation_core.verify import thumbprint_of
from sidecar.identity.tls import server_context
from tests.fakes.lies import claims
from tests.fakes.lying_sts import Form, LyingSts, Reply
from tests.integration.entry_world import open_entry_world
from tests.integration.hops import Held, Hops
from tests.integration.world import CRM, FRONT, PATIENCE_S, PLANNER, Agent, bearer, calling, until

pytestmark = pytest.mark.integration

RENEWALS: Final = 20


@dataclass
class NextHop(Agent):
    """The crm: pairs of the certificate of a connection and the binding of each token on it, as thumbprints."""

    seen: list[tuple[str, str | None]] = field(default_factory=list)
    connections: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        leaf = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        shown = base64.urlsafe_b64encode(hashlib.sha256(leaf).digest()).rstrip(b"=").decode()
        await super().serve(_Noted(reader, lambda head: self._note(shown, head)), writer)  # type: ignore[arg-type]

    def _note(self, shown: str, head: bytes) -> None:
        lines = head.decode("latin-1").split("\r\n")
        (line,) = (one for one in lines if one.lower().startswith("authorization: bearer "))
        token = line.split(" ")[2]
        confirmation = parse_bearer(token).claims.get("cnf")
        self.seen.append((shown, confirmation["x5t#S256"] if isinstance(confirmation, dict) else None))


class _Noted:
    """A reader that shows each head to ``note``."""

    def __init__(self, reader: asyncio.StreamReader, note: Any) -> None:
        self._reader, self._note = reader, note

    async def readuntil(self, separator: bytes) -> bytes:
        head = await self._reader.readuntil(separator)
        if separator == b"\r\n\r\n":
            self._note(head)
        return head

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reader, name)


@pytest.fixture
async def crm(hops: Hops) -> NextHop:
    hop = NextHop()
    hops.ports["crm"] = await hops.world.listen(hop.serve, ssl=server_context(await hops.world.source(CRM)))
    return hop


def own(hops: Hops) -> str:
    """Return the thumbprint of the writer's SVID of now."""
    identity = hops.writer.server.parts.source.current
    assert identity is not None
    return thumbprint_of(identity.svid.leaf_sha256)


def bind(hops: Hops) -> None:
    """Let the token service bind its tokens to the writer's SVID."""

    def bound(sts: LyingSts, form: Form) -> Reply:
        return claims(cnf={"x5t#S256": own(hops)})(sts, form)

    hops.sts.behaviour = bound


async def renew(hops: Hops) -> None:
    before = own(hops)
    (entry,) = hops.writer.api.registry.entries
    hops.writer.api.registry.replace_entries([replace(entry, ttl_s=entry.ttl_s - 1)])
    await until(lambda: own(hops) != before)


async def ask(hops: Hops, held: Held) -> tuple[int, str | None]:
    answer = await hops.call(held.shown)
    return answer.status, answer.reason


async def test_a_bound_token_and_its_connection_are_reused_until_the_svid_is_renewed(hops: Hops, crm: NextHop) -> None:
    await hops.start(route={"max_calls": 100})
    bind(hops)
    async with hops.serving() as held, hops.world.kept(hops.writer.outbound) as agent:
        for _ in range(3):
            assert (await agent.ask("/x", headers=held.shown, host="crm.mesh")).status == 200
        first = own(hops)
        assert (len(hops.sts.forms), crm.connections) == (1, 1)
        await renew(hops)
        for _ in range(3):
            assert (await agent.ask("/x", headers=held.shown, host="crm.mesh")).status == 200
    assert (len(hops.sts.forms), crm.connections) == (2, 2)
    assert crm.seen == [(first, first)] * 3 + [(own(hops), own(hops))] * 3


async def test_without_a_binding_a_renewal_asks_for_no_new_token(hops: Hops, crm: NextHop) -> None:
    await hops.start(route={"max_calls": 100})
    async with hops.serving() as held:
        assert await ask(hops, held) == (200, None)
        await renew(hops)
        assert await ask(hops, held) == (200, None)
    assert len(hops.sts.forms) == 1
    assert [bound for _, bound in crm.seen] == [None, None]


async def test_a_token_that_is_bound_to_another_svid_is_sent_to_nobody(hops: Hops, crm: NextHop) -> None:
    await hops.start()
    hops.sts.behaviour = claims(cnf={"x5t#S256": "A" * 43})
    async with hops.serving() as held:
        assert await ask(hops, held) == (502, "sts_bad_response")
        assert crm.seen == []
        bind(hops)
        assert await ask(hops, held) == (200, None)


async def test_under_load_and_many_renewals_no_call_fails_and_none_shows_a_token_of_another_svid(
    hops: Hops, crm: NextHop
) -> None:
    await hops.start(route={"max_calls": 1_000_000}, exchange={"timeout_s": 10.0})
    bind(hops)
    outcomes: list[tuple[int, str | None]] = []
    over = asyncio.Event()

    async def calls(held: Held) -> None:
        while not over.is_set():
            outcomes.append(await ask(hops, held))

    async with hops.serving() as held:
        callers = [asyncio.ensure_future(calls(held)) for _ in range(8)]
        for _ in range(RENEWALS):
            count = len(outcomes)
            await renew(hops)
            await until(lambda count=count: len(outcomes) > count + 8, PATIENCE_S)  # type: ignore[misc]
        over.set()
        await asyncio.gather(*callers)
    assert set(outcomes) == {(200, None)}
    assert len({shown for shown, _ in crm.seen}) > RENEWALS / 2
    assert all(shown == bound for shown, bound in crm.seen)


async def test_the_real_token_service_binds_and_a_stolen_token_is_worth_nothing_with_another_svid() -> None:
    with tempfile.TemporaryDirectory(prefix="sc-") as folder:
        async with open_entry_world(Path(folder)) as entry:
            document = copy.deepcopy(entry.sts_document)
            document["targets"][0]["bound"] = True
            entry.write_sts(document)
            await until(lambda: bool(entry.sts_records("config.reloaded")))
            source = entry.front.server.parts.source
            for _ in range(2):
                answer = await entry.ask(entry.front, bearer(entry.log_in()))
                assert (answer.status, answer.reason) == (200, None)
                token = entry.world.agent.headers()["delegation-token"]
                assert source.current is not None
                shown = source.current.svid.leaf_sha256
                assert parse_bearer(token).claims["cnf"] == {"x5t#S256": thumbprint_of(shown)}
                (registered,) = entry.front.api.registry.entries
                entry.front.api.registry.replace_entries([replace(registered, ttl_s=registered.ttl_s - 1)])
                await until(lambda shown=shown: source.current.svid.leaf_sha256 != shown)  # type: ignore[misc]
            thief = calling(await entry.world.source(FRONT), PLANNER)  # front's name, by an SVID of its own
            stolen = await entry.world.call(entry.planner.inbound, thief, "/plan", headers=bearer(token))
            assert (stolen.status, stolen.reason) == (401, "cnf_mismatch")
            assert len(entry.sts_records("token.exchanged")) == 2
