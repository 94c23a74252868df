"""Connections to the next hop, over mTLS: as few as possible, each for one peer and one SVID, by name and address."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Final

import pytest

from delegation_core.spiffe_id import SpiffeId
from sidecar.identity.tls import server_context
from sidecar.observe.metrics import Metrics
from sidecar.wire.h1_client import ClientConnection
from sidecar.wire.resolver import Lookup
from tests.integration.hops import Held, Hops
from tests.integration.world import CRM, PATIENCE_S, WRITER, Agent, Kept, Sidecar, ok, until

pytestmark = pytest.mark.integration

AT_ONCE: Final = 64
SLOW_MACHINE: Final = {"connect_timeout_s": 60, "idle_keep_s": 300}  # a machine that stalls for seconds proves nothing
NAME: Final = "crm.internal"


@dataclass
class NextHop(Agent):
    """Records the certificate of each connection.

    ``answers_each``: after that it accepts one more request and hangs up.
    """

    shown: list[bytes] = field(default_factory=list)
    answers_each: int | None = None
    seen: Counter[str] = field(default_factory=Counter)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.shown.append(writer.get_extra_info("ssl_object").getpeercert(binary_form=True))
        if self.answers_each is None:
            await super().serve(reader, writer)
            return
        try:
            for _ in range(self.answers_each):
                await self._take(reader)
                writer.write(ok(b"done"))
            await self._take(reader)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _take(self, reader: asyncio.StreamReader) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        self.seen[head.split(b" ")[1].decode()] += 1


async def next_hop(hops: Hops, **options: Any) -> NextHop:
    """Run it in place of the crm."""
    hop = NextHop(**options)
    hops.ports["crm"] = await hops.world.listen(hop.serve, ssl=server_context(await hops.world.source(CRM)))
    return hop


@asynccontextmanager
async def callers(hops: Hops, count: int) -> AsyncIterator[list[Kept]]:
    """Open this many connections of the agent's."""
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(hops.world.kept(hops.writer.outbound)) for _ in range(count)]


async def all_call(callers: Sequence[Kept], held: Held, target: str = "/x", host: str = "crm.mesh") -> set[int]:
    answers = await asyncio.gather(*(one.ask(target, headers=held.shown, host=host) for one in callers))
    return {answer.status for answer in answers}


def metrics_of(hops: Hops) -> Metrics:
    return hops.writer.server.metrics


async def start_by_name(hops: Hops, lookup: Lookup) -> None:
    """Start with the crm behind a name."""
    outbound = hops.settings()["outbound"]
    for route in outbound["routes"][:2]:
        route["upstream"] = f"https://{NAME}:{hops.ports['crm']}"
    await hops.start(outbound={**outbound, "dns": {"timeout_s": 0.2}})
    hops.writer.server.parts.pools[-1]._dialer._resolver._lookup = lookup


async def test_sixty_four_calls_at_a_time_open_no_more_than_sixty_four_connections(hops: Hops) -> None:
    crm = await next_hop(hops)
    await hops.start(route={"max_calls": 100_000}, limits=SLOW_MACHINE)
    async with hops.serving() as held, callers(hops, AT_ONCE) as calling:
        for _ in range(20):
            assert await all_call(calling, held) == {200}
    assert len(crm.requests) == 20 * AT_ONCE
    assert len(crm.shown) <= AT_ONCE
    assert metrics_of(hops).upstream["outbound"] == {"opened": len(crm.shown), "failed": 0, "retried": 0}


async def test_calls_that_overlap_in_every_way_open_no_more_than_there_are_at_a_time(hops: Hops) -> None:
    crm = await next_hop(hops)
    await hops.start(route={"max_calls": 100_000}, limits=SLOW_MACHINE)

    async def call_on(kept: Kept, held: Held) -> None:
        for _ in range(20):
            assert (await kept.ask("/x", headers=held.shown, host="crm.mesh")).status == 200

    async with hops.serving() as held, callers(hops, AT_ONCE) as calling:
        await asyncio.gather(*(call_on(kept, held) for kept in calling))
    assert len(crm.shown) <= AT_ONCE


async def test_one_call_after_another_goes_out_on_one_connection_and_another_peers_on_its_own(hops: Hops) -> None:
    crm = await next_hop(hops)
    await hops.start(route={"may_call": ["crm", "crm-by-host", "mail"]})
    async with hops.serving() as held, callers(hops, 1) as calling:
        for _ in range(5):
            assert await all_call(calling, held) == {200}
        assert len(crm.shown) == 1
        assert await all_call(calling, held, "/mail/x", host=f"127.0.0.1:{hops.writer.outbound}") == {200}
        assert (len(crm.shown), len(hops.mail.requests)) == (1, 1)
        assert metrics_of(hops).upstream["outbound"]["opened"] == 2


async def test_with_a_renewed_svid_the_next_call_shows_it_and_the_old_connections_close(hops: Hops) -> None:
    crm = await next_hop(hops)
    await hops.start()
    pool = hops.writer.server.parts.pools[-1]
    async with hops.serving() as held, callers(hops, 1) as calling:
        await all_call(calling, held)
        (old,) = pool.connections
        (entry,) = hops.writer.api.registry.entries
        hops.writer.api.registry.replace_entries([replace(entry, ttl_s=entry.ttl_s - 1)])
        await until(lambda: old.transport.is_closing())
        assert await all_call(calling, held) == {200}
        assert len(crm.shown) == len(set(crm.shown)) == 2


class Gate:
    """An agent behind a sidecar at the next hop: it answers nobody until ``open``."""

    def __init__(self) -> None:
        self.agent = Agent(script=self._answer)
        self.waiting: list[asyncio.Future[bytes]] = []

    def _answer(self, _head: bytes, _body: bytes) -> asyncio.Future[bytes]:
        self.waiting.append(asyncio.get_running_loop().create_future())
        return self.waiting[-1]

    async def fill(self, count: int) -> None:
        await until(lambda: len(self.waiting) >= count, 2 * PATIENCE_S)

    def open(self) -> None:
        for one in self.waiting:
            one.set_result(ok(b"done"))


async def next_sidecar(hops: Hops, gate: Gate, connections: Mapping[str, int]) -> Sidecar:
    """Run the crm behind its own sidecar."""
    settings = hops.world.settings()
    (route,) = settings["inbound"]["routes"]
    route |= {"match": {"path": "/x", "methods": ["GET"]}, "scopes": ["crm.read"], "peers": [str(WRITER)]}
    settings["inbound"] |= {
        "agent": f"http://127.0.0.1:{await hops.world.listen(gate.agent.serve)}", "connections": dict(connections)
    }  # fmt: skip
    sidecar = await hops.world.sidecar(CRM, settings)
    hops.ports["crm"] = sidecar.inbound
    return sidecar


OF_1024_DESCRIPTORS: Final = {"max_connections": 240}  # so that the defaults do not depend on the machine


@pytest.mark.parametrize(
    ("connections", "statuses"),
    [(OF_1024_DESCRIPTORS, {200}), ({**OF_1024_DESCRIPTORS, "max_per_peer": 2 * AT_ONCE - 1}, {200, 503})],
    ids=["the defaults", "one connection fewer"],
)
async def test_a_rotation_under_sixty_four_calls_is_within_what_the_next_hop_takes_of_one_peer(
    hops: Hops, connections: Mapping[str, int], statuses: set[int]
) -> None:
    gate = Gate()
    crm = await next_sidecar(hops, gate, connections)
    await hops.start(route={"max_calls": 100_000}, limits=SLOW_MACHINE)
    fits = statuses == {200}
    async with hops.serving() as held, callers(hops, 2 * AT_ONCE) as calling:
        before = asyncio.ensure_future(all_call(calling[:AT_ONCE], held))
        await gate.fill(AT_ONCE)
        (entry,) = hops.writer.api.registry.entries
        hops.writer.api.registry.replace_entries([replace(entry, ttl_s=entry.ttl_s - 1)])
        source = hops.writer.server.parts.source
        number = source.current.number if source.current else 0
        await until(lambda: source.current is not None and source.current.number > number)
        after = asyncio.ensure_future(all_call(calling[AT_ONCE:], held))
        await gate.fill(2 * AT_ONCE - (not fits))
        if fits:
            assert len(crm.server.parts.listeners[0].connections) == 2 * AT_ONCE
        else:
            await hops.outbound_records(1)
        gate.open()
        assert await before | await after == statuses


async def test_a_connection_lives_for_half_of_our_svids_life_at_most(hops: Hops) -> None:
    await next_hop(hops)
    await hops.start()
    identity = hops.writer.server.parts.source.current
    assert identity is not None
    half = (identity.svid.not_after - identity.svid.not_before) / 2
    async with hops.serving() as held, callers(hops, 1) as calling:
        await all_call(calling, held)
        (connection,) = hops.writer.server.parts.pools[-1].connections
        assert isinstance(connection, ClientConnection)
        assert 0.75 * half < connection.ages_at - connection._opened_at <= half


async def test_fifty_calls_to_a_next_hop_that_drops_kept_connections_are_all_served_and_the_retries_counted(
    hops: Hops,
) -> None:
    crm = await next_hop(hops, answers_each=2)
    await hops.start(route={"max_calls": 100_000})
    async with hops.serving() as held, callers(hops, 5) as calling:
        for number in range(10):
            assert await all_call(calling, held, f"/{number}") == {200}
    assert 1 <= metrics_of(hops).upstream["outbound"]["retried"] <= 50
    assert max(crm.seen.values()) <= 10  # five calls, each sent twice at most


@pytest.mark.parametrize(("method", "body"), [("POST", b""), ("PUT", b"x"), ("PATCH", b"")])
async def test_what_might_be_done_twice_is_sent_once(hops: Hops, method: str, body: bytes) -> None:
    crm = await next_hop(hops, answers_each=1)
    await hops.start(route={"max_calls": 100_000})
    async with hops.serving() as held:
        answers = []
        for number in range(20):
            answer = await hops.call(held.shown, f"/{number}", method=method, body=body, host="crm.mesh")
            answers.append(answer)
    assert {(answer.status, answer.reason) for answer in answers} == {(200, None), (503, "upstream_unreachable")}
    assert set(crm.seen.values()) == {1}
    assert metrics_of(hops).upstream["outbound"]["retried"] == 0


async def test_a_dead_first_address_fails_no_call(hops: Hops) -> None:
    await start_by_name(hops, lambda _host: ["127.0.0.9", "127.0.0.1"])
    async with hops.serving() as held:
        answer = await hops.call(held.shown)
        assert answer.status == 200
    assert hops.crm.headers()["host"] == f"{NAME}:{hops.ports['crm']}"
    assert metrics_of(hops).name_lookups["ok"] == 1


async def test_an_impostor_at_the_first_address_is_told_and_not_passed_by(hops: Hops) -> None:
    impostor = Agent()
    tls = server_context(await hops.world.source(SpiffeId(f"{CRM}2")))
    port = await hops.world.listen(impostor.serve, ssl=tls)
    hops.ports["crm"] = port
    await start_by_name(hops, lambda _host: ["127.0.0.1", "127.0.0.9"])
    async with hops.serving() as held:
        answer = await hops.call(held.shown)
    assert (answer.status, answer.reason) == (502, "upstream_identity")
    assert impostor.requests == []


@pytest.mark.parametrize(
    ("hangs", "status", "reason"),
    [(False, 503, "upstream_unreachable"), (True, 504, "upstream_timeout")],
    ids=["no such name", "no answer"],
)
async def test_a_name_that_cannot_be_looked_up_is_told_and_hinders_no_other_route(
    hops: Hops, hangs: bool, status: int, reason: str
) -> None:
    answered = threading.Event()

    def lookup(_host: str) -> list[str]:
        if hangs:
            assert answered.wait(10)
        raise OSError("no such name")

    await start_by_name(hops, lookup)
    try:
        async with hops.serving() as held:
            for _ in range(3):
                refused = await hops.call(held.shown)
                assert (refused.status, refused.reason) == (status, reason)
        assert hops.crm.requests == []
        assert sum(thread.name == "resolver" for thread in threading.enumerate()) <= 1
    finally:
        answered.set()


@pytest.mark.parametrize(("cache_s", "lookups"), [(30, 1), (0.001, 2)])
async def test_the_token_services_name_is_looked_up_as_those_of_upstreams_are(
    cache_s: float, lookups: int, hops: Hops
) -> None:
    settings = hops.settings(exchange={"token_endpoint": hops.sts_server.url.replace("127.0.0.1", "localhost")})
    settings["outbound"]["dns"] = {"cache_s": cache_s}
    hops.writer = await hops.world.sidecar(WRITER, settings)
    for number in range(2):
        async with hops.serving({"jti": f"token-{number}"}) as held:
            assert (await hops.call([("Delegation-Handle", held.handle)])).status == 200
    assert metrics_of(hops).name_lookups["ok"] == lookups
