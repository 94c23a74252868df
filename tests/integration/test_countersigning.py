"""A sidecar's records, countersigned by a real token service over mTLS and verified by the command."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from delegation_audit.verify.command import examine
from delegation_audit.verify.verdicts import Verdict
from tests.integration import mesh_files
from tests.integration.mesh import Mesh
from tests.integration.world import CRM, PATIENCE_S, STS, Sidecar, calling, free_port, until, whole_lines

pytestmark = pytest.mark.integration


async def countersigned(mesh: Mesh) -> Sidecar:
    """Run a second sidecar of the CRM's, whose records the token service countersigns."""
    settings = mesh_files.crm(mesh.ports)
    settings["records"] = {"countersign": {"issuer": mesh_files.issuer(mesh.ports), "peer": STS, "every_s": 5.0}}
    return await mesh.world.sidecar(CRM, settings, ports={"in": free_port(), "out": free_port()})


async def jwks(mesh: Mesh) -> str:
    answer = await mesh.world.call(mesh.ports["sts"], calling(await mesh.world.source(CRM), STS), "/jwks", method="GET")
    path = mesh.world.folder / "jwks.json"
    path.write_bytes(answer.body)
    return str(path)


def verified(mesh: Mesh, keys: str, *files: Path) -> Verdict:
    return examine([str(file) for file in files], [keys], countersigned=True)[1]


async def test_records_of_a_sidecar_and_of_the_token_service_are_proven_to_their_last_checkpoint(mesh: Mesh) -> None:
    sidecar = await countersigned(mesh)
    keys = await jwks(mesh)
    sidecar.stop.set()
    await asyncio.wait_for(sidecar.running, PATIENCE_S)  # one more checkpoint is made at the end
    service = mesh.world.folder / "sts.records"
    await until(lambda: '"records.countersigned"' in service.read_text())
    events = [json.loads(line)["event"] for line in whole_lines(sidecar.records_path)]
    assert events[-2:] == ["records.countersigned", "stopped"]

    verdict = verified(mesh, keys, sidecar.records_path)
    assert verdict.findings == []
    (run,) = verdict.runs
    assert (run.workload, run.stopped) == (CRM, True)
    assert run.countersigned is not None
    assert run.countersigned[0] == run.last - 2

    lines = sidecar.records_path.read_bytes().splitlines(keepends=True)
    cut = mesh.world.folder / "cut"
    cut.write_bytes(b"".join(lines[:-2]))
    kinds = [one.kind for one in examine([str(cut), str(service)], [keys])[1].findings]
    assert "tail_removed" not in kinds  # the countersigned line is the last one that is left
    cut.write_bytes(b"".join(lines[:-3]))
    kinds = [one.kind for one in examine([str(cut), str(service)], [keys])[1].findings]
    assert "tail_removed" in kinds


async def test_a_token_service_that_cannot_be_reached_holds_nothing_up(mesh: Mesh) -> None:
    settings = mesh_files.crm(mesh.ports)
    nowhere = f"https://127.0.0.1:{free_port()}/countersign"
    settings["records"] = {
        "countersign": {"issuer": mesh_files.issuer(mesh.ports), "peer": STS, "endpoint": nowhere, "every_s": 5.0}
    }
    sidecar = await mesh.world.sidecar(CRM, settings, ports={"in": free_port(), "out": free_port()})
    sidecar.stop.set()
    await asyncio.wait_for(sidecar.running, PATIENCE_S)
    assert sidecar.server.metrics.countersign_failures == 1
    events = [json.loads(line)["event"] for line in whole_lines(sidecar.records_path)]
    assert "records.countersigned" not in events
    assert events[-1] == "stopped"
