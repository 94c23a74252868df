"""Settings that change under a running sidecar: replaced whole and at once, or not at all."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from delegation_core.errors import ConfigError
from delegation_core.spiffe_id import SpiffeId
from sidecar.assembly.server import assemble
from sidecar.config.loader import Loaded, SettingsFiles, load_again
from sidecar.identity.files import FileSettings
from sidecar.proxy.listening.memory_pressure import Memory
from sidecar.proxy.listening.server import Server
from sidecar.reload import AppliedSettings, Reload
from sidecar.settings_watch import Load
from tests.identity.pem_cells import CELLS, OURS
from tests.integration.hops import Hops
from tests.integration.world import PLANNER, WRITER, Sidecar, World, bearer, calling, loaded_from, mint, until

pytestmark = pytest.mark.integration

HELPER = SpiffeId("spiffe://partner.example/agent/helper")


async def load_here(files: SettingsFiles, environ: Mapping[str, str]) -> Loaded[Any]:
    """Load as the separate interpreter of `load_again` does, without starting one."""
    before = files.fingerprint()
    return Loaded(files.load(environ), files, before)


class Reloadable:
    """A sidecar, its settings file, and its file watch."""

    def __init__(self, world: World, sidecar: Sidecar, settings: dict[str, Any], load: Load = load_here) -> None:
        self.world = world
        self.sidecar = sidecar
        self.path = sidecar.settings_path
        self.document: dict[str, Any] = yaml.safe_load(self.path.read_text())
        self._reload = Reload(loaded_from(self.path), dict(os.environ), sidecar.server, load)

    async def reload(self, **changes: Any) -> None:
        self.document |= changes
        self.path.write_text(yaml.safe_dump(self.document))
        await self._reload.reload()


async def reloadable(world: World, load: Load = load_here) -> tuple[Reloadable, Any]:
    settings = world.settings()
    sidecar = await world.sidecar(WRITER, settings)
    planner = calling(await world.source(PLANNER), WRITER)
    return Reloadable(world, sidecar, settings, load), planner


async def test_a_denied_subject_is_refused_at_once_though_its_token_was_remembered(world: World) -> None:
    running, planner = await reloadable(world, load_again)
    token = mint({"sub": "mallory"})
    assert (await world.call(running.sidecar.inbound, planner, headers=bearer(token))).status == 200
    await running.reload(deny=[{"subject": "mallory", "note": "incident 7"}])
    refused = await world.call(running.sidecar.inbound, planner, headers=bearer(token))
    assert (refused.status, refused.reason) == (403, "policy_denied")
    others = await world.call(running.sidecar.inbound, planner, headers=bearer(mint({"sub": "alice"})))
    assert others.status == 200


@pytest.mark.parametrize("row", [{"actor": str(PLANNER)}, {"jti": "j-bad"}, {"txn": "t-bad"}])
async def test_every_kind_of_denial_works_after_a_reload(world: World, row: dict[str, str]) -> None:
    running, planner = await reloadable(world)
    token = mint({"jti": "j-bad", "txn": "t-bad"})
    assert (await world.call(running.sidecar.inbound, planner, headers=bearer(token))).status == 200
    await running.reload(deny=[row])
    assert (await world.call(running.sidecar.inbound, planner, headers=bearer(token))).reason == "policy_denied"
    await running.reload(deny=[])
    assert (await world.call(running.sidecar.inbound, planner, headers=bearer(token))).status == 200


async def test_a_removed_route_is_gone_and_a_new_one_is_there(world: World) -> None:
    running, planner = await reloadable(world)
    inbound = running.document["inbound"]
    inbound["routes"][0] |= {"name": "elsewhere", "match": {"path": "/other", "methods": ["POST"]}}
    await running.reload(inbound=inbound)
    token = mint()
    assert (await world.call(running.sidecar.inbound, planner, headers=bearer(token))).reason == "no_route"
    assert (await world.call(running.sidecar.inbound, planner, "/other", headers=bearer(token))).status == 200


async def test_settings_whose_feature_cannot_be_imported_are_refused_and_serving_goes_on(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    running, planner = await reloadable(world)
    inbound = running.document["inbound"]
    inbound["routes"][0]["observe_until"] = (datetime.now(UTC) + timedelta(days=2)).date().isoformat()
    with monkeypatch.context() as damaged:
        damaged.delitem(sys.modules, "sidecar.features.observing.observing", raising=False)
        damaged.setitem(sys.modules, "sidecar.features.observing.observing", None)
        with pytest.raises(
            ConfigError, match=r"sidecar\.features\.observing\.observing.*install the same release again"
        ):
            await running.reload(inbound=inbound)
        assert (await world.call(running.sidecar.inbound, planner, headers=bearer(mint()))).status == 200
    await running.reload(inbound=inbound)
    assert "sidecar.features.observing.observing" in sys.modules


async def test_an_issuer_that_is_no_longer_trusted_is_refused_with_its_remembered_tokens(world: World) -> None:
    running, planner = await reloadable(world)
    token = mint()
    assert (await world.call(running.sidecar.inbound, planner, headers=bearer(token))).status == 200
    issuers = running.document["issuers"]
    issuers[0]["issuer"] = "https://other.example"
    await running.reload(issuers=issuers)
    assert (await world.call(running.sidecar.inbound, planner, headers=bearer(token))).reason == "wrong_issuer"


async def test_what_a_route_opens_no_more_is_closed_to_live_and_lingering_handles(
    hops: Hops,
) -> None:
    await hops.start(route={"linger_s": 60})
    running = Reloadable(hops.world, hops.writer, {})
    async with hops.serving() as ended:
        assert (await hops.call(ended.shown)).status == 200
    async with hops.serving() as held:
        assert (await hops.call(held.shown)).status == 200
        inbound = running.document["inbound"]
        inbound["routes"][0] |= {"name": "renamed", "may_call": ["crm-by-host"]}
        await running.reload(inbound=inbound)
        for handle in (held.shown, ended.shown):
            refused = await hops.call(handle)
            assert (refused.status, refused.reason) == (403, "call_not_allowed")
            assert (await hops.call(handle, "/x", host="crm.mesh")).status == 200


BROKEN = [
    pytest.param({"nonsense": 1}, "nonsense", id="an unknown key"),
    pytest.param({"probe": {"listen": "127.0.0.1:1"}}, "probe", id="what needs a restart"),
    pytest.param({"max_memory_mib": 64}, "max_memory_mib", id="other memory"),
    pytest.param({"probe": {"listen": "127.0.0.1:1", "agent": ["/up"]}}, "probe", id="probes of the agent"),
    pytest.param({"deny": [{"subject": 7}]}, "deny", id="a wrong type"),
]


@pytest.mark.parametrize(("changes", "field"), BROKEN)
async def test_settings_that_cannot_be_used_change_nothing_and_say_why(
    world: World, changes: dict[str, Any], field: str
) -> None:
    running, planner = await reloadable(world)
    before = running.sidecar.server.parts.snapshots.now()
    with pytest.raises(ConfigError) as refused:
        await running.reload(**changes)
    assert refused.value.problems[0].field.startswith(field)
    assert running.sidecar.server.parts.snapshots.now() is before
    assert (await world.call(running.sidecar.inbound, planner, headers=bearer(mint()))).status == 200


@pytest.mark.parametrize("room", [False, True])
async def test_a_reload_that_would_have_the_kernel_end_us_is_refused_with_its_fix(world: World, room: bool) -> None:
    limit = 1 << 40
    memory = Memory(limit, lambda: 0 if room else limit, enforced=True)
    sidecar = await world.sidecar(
        WRITER,
        world.settings(),
        assembled_by=lambda settings: Server(replace(assemble(settings).parts, memory=memory)),
    )
    running = Reloadable(world, sidecar, {})
    if room:
        await running.reload(deny=[{"subject": "mallory"}])
        assert sidecar.server.parts.snapshots.now().policy.deny.subjects
        return
    with pytest.raises(ConfigError, match="MiB, which the memory limit does not leave now") as refused:
        await running.reload(deny=[{"subject": "mallory"}])
    assert "raise the memory limit" in refused.value.problems[0].fix
    assert not sidecar.server.parts.snapshots.now().policy.deny.subjects


async def test_an_unchanged_issuer_keeps_its_keys_so_that_a_reload_works_while_it_is_down(world: World) -> None:
    running, planner = await reloadable(world)
    world.keys = {"keys": []}
    before = running.sidecar.server.parts.snapshots.now().keys
    await running.reload(deny=[{"subject": "mallory"}])
    assert running.sidecar.server.parts.snapshots.now().keys is before
    assert (await world.call(running.sidecar.inbound, planner, headers=bearer(mint()))).status == 200


@pytest.mark.parametrize("which", OURS)
@pytest.mark.parametrize("case", CELLS)
async def test_a_reload_waits_for_no_identity_file_that_cannot_be_used(
    world: World, tmp_path: Path, which: str, case: str
) -> None:
    own, other = world.acme.issue_x509(WRITER), world.partner.issue_x509(HELPER)
    given = {"certificate": own.chain_pem, "key": own.key_pem, "bundle": world.acme.bundle_pem()}
    others = {"certificate": other.chain_pem, "key": other.key_pem, "bundle": world.partner.bundle_pem()}
    for name, content in given.items():
        (tmp_path / name).touch(mode=0o600)
        (tmp_path / name).write_bytes(content)
    certificate, key, bundle = (tmp_path / name for name in OURS)
    files = FileSettings(certificate=certificate, key=key, bundle=bundle, look_every_s=0.04, settle_s=0.02)
    sidecar = await world.sidecar(
        WRITER, world.settings(), assembled_by=lambda settings: assemble(replace(settings, identity=files))
    )
    planner, source = calling(await world.source(PLANNER), WRITER), sidecar.server.parts.source
    spoiled = CELLS[case].of(given[which], others[which])
    path = tmp_path / which
    path.unlink() if spoiled is None else path.write_bytes(spoiled)
    await until(lambda: source.last_error is not None)

    before = loaded_from(sidecar.settings_path)
    sidecar.settings_path.write_text(sidecar.settings_path.read_text() + "deny: [{subject: mallory}]\n")
    reload = Reload(before, dict(os.environ), sidecar.server, load_here)
    await reload.reload()
    assert (reload.state.number, reload.state.deny_rows) == (2, 1)
    path.write_bytes(given[which])
    path.chmod(0o600)
    await until(lambda: source.last_error is None)
    for subject, reason in (("mallory", "policy_denied"), ("alice", None)):
        answer = await world.call(sidecar.inbound, planner, headers=bearer(mint({"sub": subject})))
        assert (subject, answer.reason) == (subject, reason)


@pytest.mark.parametrize("refused", [False, True])
async def test_settings_that_are_refused_while_they_are_prepared_can_not_come_into_force(
    world: World, *, refused: bool
) -> None:
    """Another worker may refuse while this one still waits for a new issuer's keys."""
    sidecar = await world.sidecar(WRITER, world.settings())
    running = Reloadable(world, sidecar, {})
    old = loaded_from(sidecar.settings_path).settings
    applied, before = AppliedSettings(old, sidecar.server), sidecar.server.parts.snapshots.now()
    issuers = running.document["issuers"]
    issuers[0]["jwks"] = issuers[0]["jwks"] + "?fresh"
    world.keys_wait, world.keys_asked = asyncio.Event(), asyncio.Event()
    sidecar.settings_path.write_text(yaml.safe_dump(running.document | {"issuers": issuers}))
    preparing = asyncio.ensure_future(applied.prepare(loaded_from(sidecar.settings_path).settings))
    await world.keys_asked.wait()
    if refused:
        applied.refuse(())
    world.keys_wait.set()
    if refused:
        with pytest.raises(ConfigError, match="were refused meanwhile"):
            await preparing
        with pytest.raises(AssertionError):
            applied.commit()
    else:
        await preparing
        assert sidecar.server.parts.snapshots.now() is before
        applied.commit()
    assert (sidecar.server.parts.snapshots.now() is before) == refused
    assert applied.state.number == (1 if refused else 2)
