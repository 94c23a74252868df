"""Three hops over two federated SPIRE servers: what SPIRE renews, withdraws, loses and stays silent about."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator

import aiohttp
import pytest
import pytest_asyncio
from cryptography import x509

from tests.integration.world import Record, until
from tests.interop.engine import require
from tests.interop.spire_mesh import IDS, SIDECARS, TTL_S, SpireMesh, lacking, open_spire_mesh
from tests.interop.spire_soak import Load, Report, change_authority, entry_to_served, wait_for_rotations

pytestmark = [pytest.mark.interop, pytest.mark.timeout(240), pytest.mark.asyncio(loop_scope="module")]

SERVED = (200, "alice")
LATE_S = 20.0  # many times what it takes on a busy machine


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running() -> AsyncIterator[SpireMesh]:
    require(lacking())
    async with open_spire_mesh() as mesh:
        yield mesh


@pytest_asyncio.fixture(loop_scope="module")
async def mesh(running: SpireMesh) -> SpireMesh:
    """Return the mesh of all tests, once it serves: each test leaves it whole again."""
    await running.until_served(60)
    return running


async def answer(mesh: SpireMesh) -> tuple[int, str]:
    async with aiohttp.ClientSession() as session:
        return await mesh.ask(session, mesh.log_in())


async def test_a_chain_passes_through_the_partners_trust_domain(mesh: SpireMesh) -> None:
    """The actor of each exchange is the subject of a JWT-SVID; the writer's is signed by the partner's SPIRE."""
    before = {one["txn"] for one in mesh.records("sts", "token.exchanged")}
    assert await answer(mesh) == SERVED

    def issued() -> list[Record]:
        found = mesh.records("sts", "token.exchanged")
        mine = [one["txn"] for one in found if one["actor"] == IDS["front"] and one["txn"] not in before]
        return [one for one in found if one["txn"] in mine[-1:]]

    await until(lambda: len(issued()) == 3)
    chain = [IDS[name] for name in ("front", "planner", "writer")]
    assert [one["actor"] for one in issued()] == chain
    assert issued()[-1]["chain"] == chain[::-1]
    assert {one["subject"] for one in issued()} == {"alice"}


def refused_by_crm(mesh: SpireMesh) -> set[str]:
    """Return the reasons for which the CRM's sidecar refused requests on open connections, and connections."""
    return {one["reason"] for event in ("request", "connection.refused") for one in mesh.records("crm", event)}


async def test_without_federation_the_partners_workload_is_refused(mesh: SpireMesh) -> None:
    await mesh.withdraw("crm")
    await mesh.register("crm", federated=False)
    try:
        await mesh.until(lambda found: found[0] == 503 and "unknown_trust_domain" in refused_by_crm(mesh), LATE_S)
        assert await answer(mesh) == (503, "writer: upstream_unreachable")
    finally:
        await mesh.withdraw("crm")
        await mesh.register("crm")


async def test_no_request_fails_while_every_svid_is_renewed(mesh: SpireMesh) -> None:
    report = Report(rate=40)
    await Load(mesh, report).under_load(lambda: wait_for_rotations(mesh, 8))
    assert not report.failed
    assert all(report.rotations.values())


async def test_no_request_fails_while_an_authority_changes_without_haste(mesh: SpireMesh) -> None:
    report = Report(rate=40)
    await Load(mesh, report).under_load(lambda: change_authority(mesh, mesh.partner, mesh.acme, by_hand=True))
    assert not report.failed
    assert report.rotations["writer"] >= 2


async def test_a_deleted_entry_ends_the_workload_at_once_and_a_new_one_begins_it(mesh: SpireMesh) -> None:
    (took,) = await entry_to_served(mesh, 1)
    assert took < LATE_S
    await mesh.withdraw("crm")
    await mesh.until_refused(LATE_S)
    assert "denied" in await mesh.until_says("crm", "denied")
    await mesh.register("crm")
    await mesh.until_served()


async def test_an_agent_that_is_away_is_not_missed_until_it_is_back(mesh: SpireMesh) -> None:
    await mesh.acme.kill_agent()
    try:
        await mesh.until_served()
        before = mesh.not_afters("front")
        assert await answer(mesh) == SERVED
    finally:
        await mesh.acme.start_agent()
    await until(lambda: mesh.not_afters("front") != before, LATE_S)
    await mesh.until_served()


async def test_an_svid_that_spire_no_longer_renews_ends_at_its_not_after(mesh: SpireMesh) -> None:
    """While the server is away, SPIRE's agent says nothing, and hands the expired SVID out to whoever asks."""
    own = [name for name in SIDECARS if mesh.at[name] is mesh.acme]
    await mesh.acme.kill_server()
    try:
        assert await answer(mesh) == SERVED
        for name in own:
            await mesh.until_says(name, "expired", LATE_S + TTL_S)
        ends = {name: mesh.not_afters(name)[-1] for name in own}
        assert time.time() >= max(ends.values())
        assert await fetched_by(mesh, "front") == ends["front"]
        assert (await answer(mesh))[0] == 503
        assert await mesh.missing("writer") == ""  # the partner's SPIRE goes on
    finally:
        await mesh.acme.start_server()


async def fetched_by(mesh: SpireMesh, name: str) -> int:
    """Ask SPIRE's agent as this workload's process would; return the end of the SVID that comes."""
    command = ("spire-agent", "api", "fetch", "x509", "-output", "json")
    child = await asyncio.create_subprocess_exec(
        *command, "-socketPath", f"{mesh.acme.folder}/agent.sock", stdout=PIPE, group=mesh.groups[name], extra_groups=[]
    )
    shown, _ = await asyncio.wait_for(child.communicate(), LATE_S)
    (svid,) = json.loads(shown)["svids"]
    assert svid["spiffe_id"] == IDS[name]
    leaf = x509.load_der_x509_certificate(base64.b64decode(svid["x509_svid"]))
    return int(leaf.not_valid_after_utc.timestamp())
