"""A sidecar on a real SPIRE: served, renewed by another authority, withdrawn, re-granted."""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from delegation_core.bearer import parse_jwt_svid
from delegation_core.jwt_svid import verify_jwt_svid
from delegation_core.spiffe_id import TrustDomain
from sidecar.assembly.server import assemble
from sidecar.config import load_sidecar
from sidecar.identity.source import IdentitySource, State
from sidecar.identity.workload_api import WorkloadApiSource
from sidecar.identity.workload_settings import WorkloadApiSettings
from tests.integration.world import ACME, PLANNER, WRITER, World, bearer, calling, free_port, mint, until
from tests.interop.spire import Spire, missing

pytestmark = [
    pytest.mark.interop,
    pytest.mark.timeout(120),
]


@pytest.fixture
async def spire() -> AsyncIterator[Spire]:
    if lacking := missing():
        assert "CI" not in os.environ, f"not on PATH: {', '.join(lacking)}"
        pytest.skip(f"not on PATH: {', '.join(lacking)}")
    with tempfile.TemporaryDirectory(prefix="spire-") as folder:
        async with Spire(Path(folder), ACME) as running:
            yield running


async def source_of(world: World, spire: Spire, spiffe_id: Any) -> WorkloadApiSource:
    settings = WorkloadApiSettings(address=spire.address, spiffe_id=spiffe_id, jwt_bundles=True)
    source = WorkloadApiSource(settings)
    world.background(source.run())
    await until(lambda: source.state is State.READY)
    return source


async def test_a_sidecar_lives_on_a_real_spire(world: World, spire: Spire) -> None:
    writer = await spire.register(WRITER)
    await spire.register(PLANNER)
    port = free_port()
    settings = world.settings(
        identity={"workload_api": spire.address, "spiffe_id": str(WRITER)},
        records={"sink": {"file": str(world.folder / "records")}},
        probe={"listen": f"127.0.0.1:{free_port()}"},
        drain_s=1.0,
    )
    settings["inbound"]["listen"] = f"127.0.0.1:{port}"
    path = world.folder / "sidecar.yaml"
    path.write_text(yaml.safe_dump(settings))
    server = assemble(load_sidecar(path, {}))
    stop = asyncio.Event()
    running = asyncio.get_running_loop().create_task(server.run(stop))
    try:
        await until(server.ready.is_set)
        planner = await source_of(world, spire, PLANNER)
        context = calling(planner, WRITER)
        assert (await world.call(port, context, headers=bearer(mint()))).status == 200
        assert (await world.call(port, context, headers=bearer(mint({"act": None})))).reason == "act_missing"

        await _rotate_authority(spire, server.parts.source)
        await until(lambda: planner.state is State.READY and server.missing() == [])
        assert (await world.call(port, context, headers=bearer(mint()))).status == 200

        await spire.server("entry", "delete", "-entryID", writer)
        await until(lambda: server.parts.source.current is None)
        assert server.missing() != []
        await spire.register(WRITER)
        await until(lambda: server.missing() == [])
        assert (await world.call(port, context, headers=bearer(mint()))).status == 200
    finally:
        stop.set()
        await asyncio.gather(running, return_exceptions=True)


async def _rotate_authority(spire: Spire, source: IdentitySource) -> None:
    """Rotate the authority: another one signs, the old one is tainted and revoked; the SVID follows without a restart.

    When an authority is tainted, SPIRE may deny the identity for a moment before it sends the re-signed SVID; the
    sidecar treats that as a withdrawal, and is not ready for that moment.
    """
    before = _chain(source)
    old = (await spire.authority("x509", "show"))["active"]["authority_id"]
    fresh = (await spire.authority("x509", "prepare"))["prepared_authority"]["authority_id"]
    await spire.authority("x509", "activate", "-authorityID", fresh)
    await spire.authority("x509", "taint", "-authorityID", old)
    await until(lambda: _chain(source) not in (None, before))
    await spire.authority("x509", "revoke", "-authorityID", old)
    await until(lambda: source.current is not None and len(source.current.bundles[ACME].authorities) == 1)


def _chain(source: IdentitySource) -> tuple[bytes, ...] | None:
    return None if source.current is None else source.current.svid.chain


async def test_a_jwt_svid_of_a_real_spire_verifies_with_the_bundle_it_hands_out(world: World, spire: Spire) -> None:
    await spire.register(WRITER)
    source = await source_of(world, spire, WRITER)
    await until(lambda: TrustDomain(ACME) in source.jwt_bundles)
    raw = await source.jwt_svid("https://sts.acme.example")
    bearer_token = parse_jwt_svid(raw)
    key = source.jwt_bundles[ACME].find(bearer_token.kid)
    assert key is not None

    svid = verify_jwt_svid(bearer_token, key=key, audience="https://sts.acme.example", now=int(time.time()))
    assert svid.spiffe_id == WRITER
