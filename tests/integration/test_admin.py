"""Answers of a serving sidecar's admin socket, which never hold a secret."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import time
from dataclasses import replace
from typing import Any

import pytest
import yaml

from delegation_core.errors import ConfigError
from sidecar.one_process import run_sidecar
from sidecar.proxy.listening.status import SettingsState, chains_of, status_of
from sidecar.reload import Reload
from sidecar.status.client import ask
from tests.fakes.lying_sts import Reply, honest
from tests.integration.hops import Hops
from tests.integration.world import (
    FRONT,
    ISSUER,
    PLANNER,
    WRITER,
    Sidecar,
    World,
    loaded_from,
    mint,
    until,
)

pytestmark = pytest.mark.integration


def status(sidecar: Sidecar, settings: SettingsState | None = None) -> dict[str, Any]:
    document = status_of(sidecar.server, settings or SettingsState(loaded_at=5), since=7, now=int(time.time()))
    read: dict[str, Any] = json.loads(json.dumps(document))
    return read


async def test_status_tells_identity_keys_connections_tokens_and_records(hops: Hops) -> None:
    writer = await hops.start()
    async with hops.serving() as held:
        assert (await hops.call(held.shown)).status == 200
        told = status(writer)
    identity = told["identity"]
    assert (told["ready"], told["missing"], told["since"]) == (True, [], 7)
    assert (identity["state"], identity["spiffe_id"], identity["generation"]) == ("ready", WRITER, 1)
    assert identity["not_after"] > time.time()
    assert identity["trust_domains"] == ["acme.example", "partner.example"]
    assert identity["updates"]["generations"] == 1
    assert [(one["issuer"], one["needed"], one["last_error"]) for one in told["issuers"]] == [(ISSUER, True, None)]
    assert told["requests"] == {"being_served": 1, "handles": 1}
    assert told["streams"] == {"inbound": 0, "outbound": 0}
    assert told["refused"] == {}
    inbound, outbound = told["listeners"]
    assert (inbound["direction"], inbound["connections"], outbound["direction"]) == ("inbound", 1, "outbound")
    url = hops.sts_server.url
    works = {"url": url, "open": False, "failing_s": None, "reason": None, "detail": None}
    assert told["exchanges"] == [
        {"issuer": ISSUER, "tokens": 1, "under_way": 0, "last_refusal": None, "endpoints": [works]}
    ]
    assert (told["records"]["sink"], told["records"]["trouble"], told["records"]["lost"]) == ("file", None, 0)


async def test_status_tells_what_is_refused_and_how_the_token_service_fails(hops: Hops) -> None:
    writer = await hops.start()
    await hops.stop_sts()
    async with hops.serving() as held:
        assert (await hops.call(held.shown)).reason == "sts_unavailable"
        told = status(writer)
    assert told["exchanges"][0]["last_refusal"]["reason"] == "sts_unavailable"
    assert told["refused"]["sts_unavailable"] == 1


async def test_status_names_the_trust_domain_of_a_peer_whose_bundle_is_gone(world: World) -> None:
    settings = world.settings()
    settings["issuers"][0]["actor_trust_domains"].append("partner.example")
    settings["inbound"]["routes"][0]["peers"].append("spiffe://partner.example/agent/buyer")
    writer = await world.sidecar(WRITER, settings)
    identity = status(writer)["identity"]
    assert identity["missing_trust_domains"] == []
    assert identity["not_before"] <= time.time()
    (entry,) = writer.api.registry.entries
    writer.api.registry.replace_entries([replace(entry, federates_with=frozenset())])
    await until(lambda: status(writer)["identity"]["missing_trust_domains"] == ["partner.example"])
    writer.api.registry.replace_entries([entry])
    await until(lambda: status(writer)["identity"]["missing_trust_domains"] == [])


async def test_the_token_services_failure_is_forgotten_with_its_next_token(hops: Hops) -> None:
    writer = await hops.start()
    async with hops.serving() as held:
        hops.sts.behaviour = lambda _sts, _form: Reply(status=400)
        assert (await hops.call(held.shown)).status != 200
        assert status(writer)["exchanges"][0]["last_refusal"] is not None
        hops.sts.behaviour = honest
        assert (await hops.call(held.shown)).status == 200
        assert status(writer)["exchanges"][0]["last_refusal"] is None


async def test_chains_tell_who_acts_for_whom_now(hops: Hops) -> None:
    writer = await hops.start()
    async with hops.serving():
        told = chains_of(writer.server)
        (row,) = told["chains"]
        assert (row["peer"], row["subject"], row["actor"], row["route"]) == (PLANNER, "alice", PLANNER, "draft")
        assert row["chain"] == [PLANNER, FRONT]
        assert (row["direction"], row["verified"]) == ("inbound", True)
        assert abs(row["since"] - time.time()) < 30
        await until(lambda: bool(writer.records("request.opened")))  # it lasts, and is still listed
        assert [one["request_id"] for one in chains_of(writer.server)["chains"]] == [row["request_id"]]
    assert chains_of(writer.server) == {"being_served": 0, "chains": []}


async def test_no_token_no_handle_and_no_key_is_in_what_the_socket_tells(hops: Hops) -> None:
    writer = await hops.start()
    token = mint()
    forged = mint({"sub": mint()})  # a token as a name
    async with hops.serving(token=token) as held, hops.serving(token=forged):
        assert (await hops.call(held.shown)).status == 200
        text = json.dumps([status(writer), chains_of(writer.server)])
        issued = hops.crm.headers()["authorization"].removeprefix("Bearer ")
        handle = held.handle
    identity = writer.server.parts.source.current
    assert identity is not None
    secrets = [*token.split("."), *issued.split("."), *forged.split("."), handle]
    secrets += [base64.b64encode(identity.svid.key_der).decode(), identity.svid.key_der.hex()]
    assert len(secrets) == 12
    assert not [secret for secret in secrets if secret[-30:] in text]
    assert "alice" in text


async def test_a_sidecar_serves_its_socket_from_before_it_is_ready_until_it_ends(world: World) -> None:
    socket = world.folder / "admin.sock"
    world.keys_wait = asyncio.Event()  # it has no keys, so it is not ready
    settings = world.settings(admin={"socket": str(socket)})
    path, _, _, _ = await world.written(WRITER, settings, {})
    stop = asyncio.Event()
    running = world.background(run_sidecar(loaded_from(path), stop))
    await until(socket.exists)
    told = await asyncio.to_thread(ask, socket, "/status", member="settings")
    assert (told["ready"], told["settings"]["inbound_routes"]) == (False, ["draft"])
    world.keys_wait.set()
    while not told["ready"]:
        told = await asyncio.to_thread(ask, socket, "/status", member="settings")
    assert (await asyncio.to_thread(ask, socket, "/chains", member="chains"))["chains"] == []
    stop.set()
    await running
    assert not socket.exists()


async def test_a_refused_reload_is_told_with_its_problems_until_a_good_one(hops: Hops) -> None:
    writer = await hops.start()
    path = writer.settings_path
    good = yaml.safe_load(path.read_text())
    reload = Reload(loaded_from(path), dict(os.environ), writer.server)
    path.write_text(yaml.safe_dump({**good, "drian_s": 3}))
    with pytest.raises(ConfigError):
        await reload.reload()
    told = status(writer, reload.state)["settings"]
    assert (told["number"], told["refused_at"] > 0) == (1, True)
    assert [problem["field"] for problem in told["problems"]] == ["drian_s"]
    assert told["problems"][0]["fix"] == told["problems"][0]["cure"]
    path.write_text(yaml.safe_dump({**good, "admin": {"socket": "/run/other.sock"}}))
    with pytest.raises(ConfigError):
        await reload.reload()
    assert [problem.field for problem in reload.state.problems] == ["admin"]  # it is bound only once
    path.write_text(yaml.safe_dump({**good, "deny": [{"subject": "mallory"}, {"txn": "t"}]}))
    await reload.reload()
    told = status(writer, reload.state)["settings"]
    assert (told["number"], told["refused_at"], told["problems"], told["deny_rows"]) == (2, None, [], 2)
    assert told["inbound_routes"] == ["draft"]
    assert told["outbound_routes"] == ["crm", "crm-by-host", "mail"]
