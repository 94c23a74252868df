"""An agent that listens beyond loopback bypasses its sidecar: reported, and refused if the platform says so."""

from __future__ import annotations

import dataclasses
import socket

import pytest

from sidecar.observe.scrape import render
from sidecar.proxy.listening.status import SettingsState, status_of
from tests.integration.world import PLANNER, WRITER, World, bearer, calling, free_port, mint, until

pytestmark = [pytest.mark.integration]


@pytest.mark.parametrize("refuse", [True, False], ids=["refused", "only-told"])
async def test_an_open_port_of_the_agent_is_told_and_refused_where_the_platform_says_so(
    world: World, *, refuse: bool
) -> None:
    document = world.settings()
    port = free_port()
    document["inbound"]["network"] = "host"
    sidecar = await world.sidecar(WRITER, document)
    parts = sidecar.server.parts
    rule = parts.snapshots.setup.listener_rule
    assert rule is not None
    parts.snapshots.setup = dataclasses.replace(
        parts.snapshots.setup, listener_rule=dataclasses.replace(rule, agent_port=port, refuse=refuse)
    )
    planner = calling(await world.source(PLANNER), WRITER)

    async def call() -> tuple[int, str | None]:
        answer = await world.call(sidecar.inbound, planner, headers=bearer(mint()))
        return answer.status, answer.reason

    def told() -> list[str]:
        listeners: list[str] = status_of(sidecar.server, SettingsState(loaded_at=0), since=0, now=0)["bypass"][
            "listeners"
        ]
        return listeners

    assert await call() == (200, None)
    with socket.socket() as way_round:
        way_round.bind(("", port))
        way_round.listen()
        await until(lambda: bool(sidecar.server.bypass.found))
        assert await call() == ((503, "not_ready") if refuse else (200, None))
        assert told() == [f"0.0.0.0:{port}"]
        assert "sidecar_bypass_listeners 1.0\n" in render(sidecar.server.metrics).decode()
        assert bool(sidecar.server.missing()) is refuse
    await until(lambda: not sidecar.server.bypass.found)
    assert await call() == (200, None)
    assert told() == []
