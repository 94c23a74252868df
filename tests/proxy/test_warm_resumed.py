"""Requests in flight that the engine in Python takes over: they go on with everything that their journey had."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest

from delegation_core.inbound_routes import InboundRoutes
from delegation_core.resource_metadata import ProtectedResource
from sidecar.engine import Engine
from sidecar.wire.h1_client import ClientConnection
from sidecar.wire.origin_pool import OriginPool
from tests.core.world import SEARCH, STS
from tests.native import needs_native
from tests.proxy.engines import HANDLE, POLICY, EngineWorld, OutboundWorld, Outcome, warm_request
from tests.proxy.test_warm import Event, _is_distrusted, nothing
from tests.proxy.test_warm_outbound import CALL
from tests.proxy.warm import ANSWER

pytestmark = needs_native

ENGINES: Final[tuple[Engine, ...]] = ("python", "native")
RESOURCE: Final = ProtectedResource("https://writer.acme.example/search", (STS,))


def get(target: str, host: str) -> bytes:
    head = f"GET {target} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {HANDLE}\r\nX-Own: 1\r\n\r\n"
    return head.encode()


RESENT: Final[dict[str, tuple[type[EngineWorld], bytes, bytes]]] = {
    "of a peer": (EngineWorld, warm_request("GET", "/docs/a?b=c"), b"GET /docs/a?b=c HTTP/1.1\r\n"),
    "by the name of a host": (
        OutboundWorld,
        get("http://crm.mesh/tool?a=b", "crm.mesh"),
        b"GET /tool?a=b HTTP/1.1\r\n",
    ),
    "below a prefix": (OutboundWorld, get("/below/it/a?b=c", "127.0.0.1:7080"), b"GET /a?b=c HTTP/1.1\r\n"),
}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(("kind", "data", "line"), RESENT.values(), ids=RESENT.keys())
async def test_a_request_whose_kept_connection_was_stale_is_sent_again_as_it_was(
    tmp_path: Path, kind: type[EngineWorld], data: bytes, line: bytes, engine: Engine
) -> None:
    world = kind(engine, tmp_path)
    world.exchange(data)
    world.exchange(data)
    begun, before = world.taken, len(world.agent_transport.writes)

    async def open_another(_pool: OriginPool) -> ClientConnection:
        world.agent_connects()
        world.origin_pool.idle.clear()
        return world.agent

    world.origin_pool._open = open_another
    world.server.data_received(data)
    sent = world.agent_transport.writes[before:]
    assert world.taken == begun + (engine == "native")
    world.agent.eof_received()
    world.agent.connection_lost(None)
    await asyncio.gather(*world.origin_pool.attempts)
    assert sent[0].startswith(line)
    assert world.agent_transport.writes == sent
    world.agent.data_received(ANSWER)
    assert b"HTTP/1.1 200 OK" in world.transport.writes[-1]
    assert [record["decision"] for record in await world.records()] == ["allow"] * 3


async def ends(
    kind: type[EngineWorld], folder: Path, data: bytes, change: Event, **of_served: Any
) -> list[tuple[Outcome, dict[str, Any]]]:
    """Return the end of a request in flight by each engine, and its record."""
    found = []
    for engine in ENGINES:
        world = kind(engine, folder)
        if isinstance(world, OutboundWorld):
            world.served.guard = world.guard
            world.served.delegation = replace(world.served.delegation, **of_served)
        world.exchange(data)
        world.exchange(data)
        begun = world.taken
        outcome = world.exchange(data, ANSWER, change)
        assert world.taken == begun + (engine == "native")
        found.append((outcome, (await world.records())[-1]))
    return found


async def test_a_call_ends_with_the_trust_in_the_peer_whose_request_it_belongs_to(tmp_path: Path) -> None:
    python, native = await ends(OutboundWorld, tmp_path, CALL, _is_distrusted, came_by=SEARCH.mark)
    assert native[0] == python[0]
    assert {one[1]["reason"] for one in (python, native)} == {"svid_expired"}
    python, native = await ends(OutboundWorld, tmp_path, CALL, nothing, came_by=SEARCH.mark)
    assert native[0] == python[0]
    assert {one[1]["reason"] for one in (python, native)} == {"ok"}


@pytest.mark.parametrize("resource", [None, RESOURCE], ids=["plain", "described"])
async def test_a_request_that_is_refused_meanwhile_is_told_the_scopes_of_its_route(
    tmp_path: Path, resource: ProtectedResource | None
) -> None:
    route = replace(SEARCH, resource=resource)

    class World(EngineWorld):
        def __init__(self, engine: Engine, folder: Path) -> None:
            super().__init__(engine, folder)
            policy = replace(POLICY, inbound=InboundRoutes([route]))
            self.snapshots.current = replace(self.snapshots.current, policy=policy)

    def needs_more(world: EngineWorld) -> None:
        more = InboundRoutes([replace(route, scopes=frozenset({"docs.write"}))])
        policy = replace(world.snapshots.current.policy, number=2, inbound=more)
        world.snapshots.current = replace(world.snapshots.current, policy=policy)
        list(world.watch.steps(1))

    python, native = await ends(World, tmp_path, warm_request(), needs_more)
    assert native[0] == python[0]
    for outcome, record in (python, native):
        assert record["reason"] == "insufficient_scope"
        assert b' scope="docs.read"' in outcome.answered
        assert (b"resource_metadata=" in outcome.answered) is (resource is not None)
