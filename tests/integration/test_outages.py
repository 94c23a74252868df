"""One dependency is gone: calls that continue, calls that are refused and their reason, and recovery without help."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.integration.hops import Hops
from tests.integration.world import WRITER, bearer, free_port, mint, until

pytestmark = [pytest.mark.integration]

CALL = "/crm/customers"


async def inbound(hops: Hops, token: str | None = None) -> tuple[int, str | None]:
    """A call of the planner's that the agent answers at once."""
    hops.agent.script, hold = None, hops.agent.script
    try:
        answer = await hops.world.call(hops.writer.inbound, hops.planner, headers=bearer(token or mint()))
    finally:
        hops.agent.script = hold
    return answer.status, answer.reason


async def lose_the_workload_api(hops: Hops) -> None:
    await hops.writer.api.stop()
    await until(lambda: hops.writer.server.parts.source.last_error is not None)


async def test_without_the_workload_api_calls_go_on_while_what_it_gave_lasts(hops: Hops) -> None:
    await hops.start()
    async with hops.serving() as held:
        assert (await hops.call(held.shown, CALL)).status == 200
    await lose_the_workload_api(hops)
    assert await inbound(hops) == (200, None)
    async with hops.serving() as held:  # another subject token, so another exchange
        assert (await hops.call(held.shown, CALL)).status == 200
    assert hops.writer.server.missing() == []


async def test_without_the_workload_api_a_first_exchange_cannot_be_made(hops: Hops) -> None:
    await hops.start()
    await lose_the_workload_api(hops)
    async with hops.serving() as held:
        refused = await hops.call(held.shown, CALL)
        assert (refused.status, refused.reason) == (503, "not_ready")
        await hops.writer.api.start()
        await until(lambda: hops.writer.server.parts.source.last_error is None)
        assert (await hops.call(held.shown, CALL)).status == 200
    assert await inbound(hops) == (200, None)


async def test_without_the_token_service_cached_tokens_serve_and_new_ones_are_refused(hops: Hops) -> None:
    await hops.start()
    token = mint()
    async with hops.serving(token=token) as held:
        assert (await hops.call(held.shown, CALL)).status == 200
        await hops.stop_sts()
        assert (await hops.call(held.shown, CALL)).status == 200
    async with hops.serving(token=token) as held:
        assert (await hops.call(held.shown, CALL)).status == 200
    async with hops.serving() as held:
        refused = await hops.call(held.shown, CALL)
        assert (refused.status, refused.reason) == (503, "sts_unavailable")
    assert await inbound(hops) == (200, None)
    assert hops.writer.server.missing() == []


async def test_without_the_key_server_known_keys_serve_and_unknown_ones_are_refused(hops: Hops) -> None:
    await hops.start()
    hops.world.broken_keys = b""
    assert await inbound(hops) == (200, None)
    assert await inbound(hops, mint(header={"kid": "never-published"})) == (503, "keys_unavailable")
    hops.world.broken_keys = None
    assert await inbound(hops) == (200, None)


async def test_without_the_record_sink_nothing_is_served(hops: Hops, tmp_path: Path) -> None:
    sink = tmp_path / "records"
    await hops.start(records={"sink": {"file": str(sink)}})
    assert await inbound(hops) == (200, None)
    served = len(hops.agent.requests)
    sink.rename(tmp_path / "old")
    os.mkfifo(sink)  # it has no reader
    await until(lambda: not hops.writer.server.parts.log.healthy)
    assert await inbound(hops) == (503, "audit_unavailable")
    assert len(hops.agent.requests) == served
    sink.unlink()
    await until(lambda: hops.writer.server.parts.log.healthy)
    assert await inbound(hops) == (200, None)


async def test_without_the_agent_callers_are_told(hops: Hops) -> None:
    settings = hops.settings()
    settings["inbound"]["agent"] = f"http://127.0.0.1:{free_port()}"
    hops.writer = await hops.world.sidecar(WRITER, settings)
    assert await inbound(hops) == (503, "upstream_unreachable")


async def test_without_a_next_hop_other_routes_go_on(hops: Hops) -> None:
    hops.ports["mail"] = free_port()
    await hops.start(route={"may_call": ["crm", "mail"], "scopes": ["docs.write"]})
    async with hops.serving() as held:
        refused = await hops.call(held.shown, "/mail/send")
        assert (refused.status, refused.reason) == (503, "upstream_unreachable")
        assert (await hops.call(held.shown, CALL)).status == 200
