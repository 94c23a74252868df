"""Routes that only observe, over real sockets: callers with and without a sidecar, and the agent's own calls."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from delegation_core.errors import ConfigError
from sidecar.observe.scrape import render
from tests.config.documents import written
from tests.integration.hops import Hops, open_hops
from tests.integration.test_websocket import reload
from tests.integration.world import CRM, PLANNER, WRITER, Answer, bearer, free_port, mint, ok, until

pytestmark = pytest.mark.integration

SOON = (datetime.now(UTC) + timedelta(days=7)).date().isoformat()
KEY = "sk-live-1"


@pytest.fixture
async def hops(tmp_path: Path) -> AsyncIterator[Hops]:
    async with open_hops(tmp_path) as opened:
        opened.agent.script = lambda _head, _body: ok(b"done")
        yield opened


async def start(
    hops: Hops,
    *,
    plain: bool | None = None,
    inbound: bool = True,
    outbound: bool = True,
    host: str = "127.0.0.1",
    **sections: Any,
) -> int:
    """Run the writer's sidecar; return the port for callers without a sidecar. ``plain``: the platform's word."""
    settings = hops.settings(route={"observe_until": SOON} if inbound else {}) | sections
    if outbound:
        settings["outbound"]["routes"][0]["observe_until"] = SOON
    port = free_port()
    platform = None
    if plain is not None:
        settings["inbound"]["plain"] = {"listen": f"{host}:{port}", "until": SOON}
        issuers = [{**one, "token_endpoint": settings["exchange"]["token_endpoint"]} for one in settings["issuers"]]
        folder = hops.world.folder / "platform"
        folder.mkdir()
        platform = written(folder, {"issuers": issuers, "observe_until": True, "plain": plain})
    hops.writer = await hops.world.sidecar(WRITER, settings, platform=platform)
    return port


async def ask(hops: Hops, *fields: tuple[str, str]) -> Answer:
    return await hops.world.call(hops.writer.inbound, hops.planner, headers=fields)


async def last_record(hops: Hops, count: int) -> dict[str, Any]:
    return (await hops.writer.wait_for_records(count))[count - 1]


async def test_a_peer_with_its_static_key_is_observed_until_the_route_enforces(hops: Hops) -> None:
    await start(hops)
    assert (await ask(hops, *bearer(KEY))).status == 200
    assert hops.agent.headers()["authorization"] == f"Bearer {KEY}"
    record = await last_record(hops, 1)
    assert [record[name] for name in ("decision", "reason", "peer", "subject")] == [
        "observed_deny", "malformed_token", str(PLANNER), None
    ]  # fmt: skip
    assert (await ask(hops, *bearer(mint()))).status == 200
    assert hops.agent.headers()["delegation-subject"] == "alice"
    assert (await ask(hops, *bearer(mint(key=1)))).reason == "bad_signature"
    metrics = render(hops.writer.server.metrics).decode()
    assert 'sidecar_observed_denials_total{reason="malformed_token"} 1.0' in metrics
    assert 'sidecar_observe_until_timestamp_seconds{direction="inbound",route="draft"}' in metrics
    await reload(hops.writer, lambda document: document["inbound"]["routes"][0].pop("observe_until"))
    assert (await ask(hops, *bearer(KEY))).reason == "malformed_token"
    assert len(hops.agent.requests) == 2


async def test_the_agent_s_own_call_goes_to_the_pinned_peer_alone(hops: Hops) -> None:
    await start(hops)
    assert (await hops.call(bearer(KEY))).status == 200
    assert hops.crm.headers()["authorization"] == f"Bearer {KEY}"
    record = await last_record(hops, 1)
    assert [record[name] for name in ("decision", "reason", "peer")] == [
        "observed_deny", "no_request_context", str(CRM)
    ]  # fmt: skip
    assert (await hops.call(bearer(KEY), "/mail/send")).reason == "no_request_context"
    assert (await hops.call(bearer(mint()))).reason == "not_an_entry"
    document = hops.settings()
    document["outbound"]["routes"][0] |= {"observe_until": SOON, "upstream": f"https://127.0.0.1:{hops.ports['mail']}"}
    hops.writer = await hops.world.sidecar(WRITER, document)
    assert (await hops.call(bearer(KEY))).reason == "upstream_identity"
    assert (len(hops.crm.requests), hops.mail.requests) == (1, [])


async def test_a_caller_without_a_sidecar_is_served_until_the_port_closes(hops: Hops) -> None:
    port = await start(hops, plain=True)
    answer = await hops.world.call(port, None, headers=bearer(KEY))
    assert (answer.status, answer.body) == (200, b"done")
    assert not [name for name in hops.agent.headers() if name in ("delegation-subject", "delegation-actor")]
    record = await last_record(hops, 1)
    assert [record[name] for name in ("decision", "reason", "peer", "source")] == [
        "observed_deny", "no_client_cert", None, "127.0.0.1"
    ]  # fmt: skip
    assert (await hops.world.call(port, None, headers=bearer(mint()))).reason == "actor_mismatch"
    assert (await hops.world.exchange(port, None, b"nonsense\r\n\r\n")).startswith(b"HTTP/1.1 400 ")
    await hops.writer.wait_for_records(3)
    server: Any = hops.writer.server
    server._wall = lambda: time.time() + 8 * 86_400
    await until(lambda: not accepts(hops, port))
    with pytest.raises(OSError, match="refused"):
        await hops.world.call(port, None, headers=bearer(KEY))
    assert (await ask(hops, *bearer(KEY))).status == 200  # the route still observes by the clock of requests


async def test_a_flood_of_refused_requests_without_tls_leaves_a_burst_of_records(hops: Hops) -> None:
    port = await start(hops, plain=True, records={"unproven_per_s": 0.001, "unproven_burst": 3})
    for _ in range(10):
        assert (await hops.world.exchange(port, None, b"nonsense\r\n\r\n")).startswith(b"HTTP/1.1 400 ")
        assert (await hops.world.call(port, None, headers=bearer(mint()))).reason == "actor_mismatch"
    listeners: Any = hops.writer.server.parts.listeners
    (plain,) = (one for one in listeners if one.address[1] == port)
    plain._limit = 0
    assert (await hops.world.call(port, None, headers=bearer(KEY))).reason == "overloaded"
    plain._limit = plain.max_connections
    for _ in range(5):
        assert (await hops.world.call(port, None, headers=bearer(KEY))).status == 200
    records = await hops.writer.wait_for_records(8)
    assert [record["decision"] for record in records] == ["deny"] * 3 + ["observed_deny"] * 5
    assert hops.writer.server.metrics.records_suppressed == 18
    counted = hops.writer.server.metrics.finished.counted().requests
    refused = {reason: count for (_, _, decision, reason), count in counted.items() if decision == "deny"}
    assert refused == {"bad_request": 10, "actor_mismatch": 10, "overloaded": 1}


def accepts(hops: Hops, port: int) -> bool:
    return any(one.address[1] == port and one._acceptor._socket for one in hops.writer.server.parts.listeners)


async def test_a_reload_that_removes_the_port_without_tls_closes_it_and_the_route_enforces(hops: Hops) -> None:
    port = await start(hops, plain=True)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)

    await reload(hops.writer, lambda document: document["inbound"].pop("plain"))
    assert await asyncio.wait_for(reader.read(), 10) == b""
    writer.close()
    with pytest.raises(OSError, match="refused"):
        await hops.world.call(port, None, headers=bearer(KEY))
    assert (await ask(hops, *bearer(KEY))).status == 200
    await reload(hops.writer, lambda document: document["inbound"]["routes"][0].pop("observe_until"))
    assert (await ask(hops, *bearer(KEY))).reason == "malformed_token"


@pytest.mark.parametrize("how", ["by-reload", "by-day"])
async def test_an_agent_that_listens_where_the_port_without_tls_was_bypasses_its_sidecar(hops: Hops, how: str) -> None:
    port = await start(hops, plain=True, host="0.0.0.0")
    server: Any = hops.writer.server
    setup = server.parts.snapshots.setup
    rule = replace(setup.listener_rule, agent_port=port, pod=False)

    def look() -> list[int]:
        server.parts.snapshots.setup = replace(server.parts.snapshots.setup, listener_rule=rule)
        server.bypass.look()
        return [found.port for found in server.bypass.found]

    assert look() == []
    if how == "by-reload":
        await reload(hops.writer, lambda document: document["inbound"].pop("plain"))
    else:
        server._wall = lambda: time.time() + 8 * 86_400
    await until(lambda: not accepts(hops, port))
    with socket.socket() as agent:
        agent.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        agent.bind(("", port))
        agent.listen()
        assert look() == [port]


async def test_a_port_without_tls_needs_the_platform_s_word_and_a_route_that_observes(hops: Hops) -> None:
    with pytest.raises(ConfigError, match=r"inbound\.plain: is forbidden by the platform"):
        await start(hops, plain=False)
    settings = hops.settings()
    settings["inbound"]["plain"] = {"listen": "127.0.0.1:1", "until": SOON}
    with pytest.raises(ConfigError) as refused:
        await hops.world.sidecar(WRITER, settings)
    assert [(problem.field, problem.wrong) for problem in refused.value.problems] == [
        ("inbound.plain", "needs a platform file that says plain: true"),
        ("inbound.plain", "serves routes that observe, and none does"),
    ]


async def test_a_kept_connection_without_tls_is_not_served_past_the_end(hops: Hops) -> None:
    port = await start(hops, plain=True)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    server: Any = hops.writer.server
    server._wall = lambda: time.time() + 8 * 86_400
    assert await asyncio.wait_for(reader.read(), 10) == b""
    writer.close()
