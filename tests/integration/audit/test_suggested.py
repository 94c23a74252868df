"""From observing to enforcing, with a real sidecar: its records, the proposed routes, and the calls under these."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from sidecar.cli import main
from tests.integration.hops import Hops, open_hops
from tests.integration.test_websocket import reload
from tests.integration.world import PLANNER, WRITER, bearer, mint, ok

pytestmark = pytest.mark.integration

NOW = datetime.now(UTC)
KEY = "sk-live-1"


@pytest.fixture
async def hops(tmp_path: Path) -> AsyncIterator[Hops]:
    async with open_hops(tmp_path) as opened:
        opened.agent.script = lambda _head, _body: ok(b"done")
        yield opened


async def observed(hops: Hops, folder: Path, *, by_both: bool) -> str:
    """Observe calls by both sides of the writer's sidecar; return the file of their records, as if of two days.

    by_both: the planner calls through a sidecar of its own, whose records support the writer's.
    """
    soon = (NOW + timedelta(days=7)).date().isoformat()
    settings = hops.settings(route={"observe_until": soon, "peers": []})
    for side in ("outbound", "inbound"):
        settings[side]["routes"][0]["observe_until"] = soon
    hops.writer = await hops.world.sidecar(WRITER, settings)
    callers = hops.settings()
    to_writer = hops.route("writer", WRITER, {"prefix": "/writer"}, hops.writer.inbound)
    callers["outbound"]["routes"] = [to_writer | {"observe_until": soon}]
    callers["inbound"]["routes"][0]["may_call"] = ["writer"]
    planner = await hops.world.sidecar(PLANNER, callers) if by_both else None
    for _ in range(3):
        if planner is not None:
            answer = await hops.world.call(planner.outbound, None, "/writer/draft", headers=bearer(KEY))
        else:
            answer = await hops.world.call(hops.writer.inbound, hops.planner, headers=bearer(KEY))
        assert answer.status == 200
        assert (await hops.call(bearer(KEY))).status == 200
    records = await hops.writer.wait_for_records(6)
    supporting = await planner.wait_for_records(3) if planner is not None else []
    for record in [*records[:2], *supporting[:1]]:
        record["ts"] = (NOW - timedelta(days=1)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    path = folder / "observed.jsonl"
    path.write_text("\n".join(map(json.dumps, records + supporting)))
    return str(path)


async def test_callers_that_only_the_called_side_knows_are_held_back(
    hops: Hops, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["audit", "suggest", await observed(hops, tmp_path, by_both=False)]) == 1
    told = capsys.readouterr().out
    assert "held back: no evidence but the called side's" in told
    assert yaml.safe_load(told)["inbound"]["routes"] == []


async def test_observed_calls_pass_under_the_proposed_routes_once_they_are_delegated(
    hops: Hops, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    records = await observed(hops, tmp_path, by_both=True)
    assert main(["audit", "suggest", records, "--workload", str(WRITER)]) == 0
    proposed = yaml.safe_load(capsys.readouterr().out)

    def enforce(document: dict[str, Any]) -> None:
        document["inbound"]["routes"] = proposed["inbound"]["routes"]
        own = document["outbound"]["routes"][0]
        (route,) = proposed["outbound"]["routes"]
        document["outbound"]["routes"] = [{**route, "match": own["match"], "upstream": own["upstream"]}]
        for section in document["issuers"]:
            section["scopes"] += [one for one in (*route["scopes"], "crm.read") if one not in section["scopes"]]

    await reload(hops.writer, enforce)
    own = ["--settings", str(hops.writer.settings_path), "--workload", str(WRITER)]
    assert main(["audit", "replay", records, *own, "--delegated"]) == 0
    assert main(["audit", "replay", records, *own, "--json"]) == 1
    assert "deny malformed_token" in capsys.readouterr().out
    hops.agent.script = hops.agent._hold
    async with hops.serving() as held:
        assert held.fields["delegation-subject"] == "alice"
        assert (await hops.call(held.shown)).status == 200
        assert (await hops.call(bearer(KEY))).reason == "no_request_context"
    assert (await hops.world.call(hops.writer.inbound, hops.planner, headers=bearer(KEY))).reason == "malformed_token"
    other = mint({"act": {"sub": "spiffe://acme.example/agent/other"}})
    assert (await hops.world.call(hops.writer.inbound, hops.planner, headers=bearer(other))).reason == "actor_mismatch"
    other_path = await hops.world.call(hops.writer.inbound, hops.planner, "/other", headers=bearer(mint()))
    assert other_path.reason == "no_route"
