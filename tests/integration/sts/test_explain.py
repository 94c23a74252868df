"""The records of a running token service are judged again by its own settings file."""

from __future__ import annotations

import json
import time

import pytest

from sidecar.cli import main
from sidecar.sts.keys import SigningKey
from tests.integration.sts.processes import fleet
from tests.integration.world import World, until

pytestmark = pytest.mark.integration


async def test_what_a_service_decided_is_judged_the_same_by_its_records_and_settings(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    async with fleet(world) as running:
        replica = await running.start({int(time.time()) - 10: SigningKey.generate()})
        token = running.clients.token_of(await running.clients.first(replica))
        assert (await running.clients.onward(replica, token)).status == 200
        for wrong in ({"scope": "crm.read"}, {"audience": "spiffe://acme.example/tool/crm"}, {"subject_token": "x"}):
            assert (await running.clients.onward(replica, token, **wrong)).status == 400
        await until(lambda: len(replica.records("token.exchange_refused")) == 3)
    command = ["sts", "explain", str(replica.records_path), "--settings", str(world.folder / "sts0.yaml"), "--json"]
    assert main(command) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["judged"], document["told"], document["different"]) == (5, 1, 0)
    assert document["not_judged"] == {}
