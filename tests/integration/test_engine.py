"""The record of the start and the metrics name the engine that serves, and count the requests of each."""

from __future__ import annotations

from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from sidecar import __version__
from sidecar.engine import Engine
from sidecar.observe.scrape import render
from tests.integration.hops import open_hops
from tests.integration.world import bearer, mint
from tests.native import needs_native

pytestmark = pytest.mark.integration


@pytest.mark.parametrize(
    ("engine", "served"),
    [
        ("python", {"python": 3, "native": 0}),
        pytest.param("native", {"python": 1, "native": 2}, marks=needs_native),  # the first with a token is not warm
    ],
)
async def test_the_engine_is_told_by_the_start_and_by_the_metrics(
    tmp_path: Path, engine: Engine, served: dict[str, int]
) -> None:
    async with open_hops(tmp_path) as hops:
        hops.agent.script = None
        await hops.start(engine=engine)
        headers = bearer(mint())
        async with hops.world.kept(hops.writer.inbound, hops.planner) as kept:
            for _ in range(3):
                kept.send("/draft", headers=headers, host="writer")
                assert (await kept.receive()).status == 200
        (started,) = await hops.writer.wait_for_records(1, event="started")
        assert started["detail"] == f"engine={engine}"
        scraped = list(text_string_to_metric_families(render(hops.writer.server.metrics).decode()))
    samples = [sample for family in scraped for sample in family.samples]
    assert [one.labels for one in samples if one.name == "sidecar_build_info"] == [
        {"version": __version__, "engine": engine}
    ]
    counted = {one.labels["engine"]: one.value for one in samples if one.name == "sidecar_engine_requests_total"}
    assert counted == served
