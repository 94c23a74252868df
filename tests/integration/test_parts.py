"""Every part of every process: when one ends by itself, the process names it, and ends."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from asyncio.subprocess import PIPE
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import yaml

from sidecar.background import PartEndedError, Parts
from sidecar.config import load_sts
from sidecar.identity.jwks import IssuerKeys
from sidecar.identity.workload_settings import WorkloadApiSettings
from sidecar.injector.command import Injector
from sidecar.sts.keys import KeyRing, SigningKey
from sidecar.sts_app import run_token_service
from sidecar.workers.parent import Workers
from sidecar_dev.login_tls import certified
from tests.injector.pods import RENDERED
from tests.injector.serving import write_pair
from tests.integration import mesh_files
from tests.integration.world import (
    CRM,
    PATIENCE_S,
    START_S,
    STS,
    WRITER,
    World,
    calling,
    free_port,
    loaded_from,
    until,
    whole_lines,
)

pytestmark = pytest.mark.integration


def end(work: str) -> None:
    """Let the part that runs this work end as if by itself."""
    (part,) = [task for task in asyncio.all_tasks() if getattr(task.get_coro(), "__qualname__", "") == work]
    part.cancel()


@pytest.mark.parametrize(
    ("work", "part"),
    [
        ("WorkloadApiSource.run", "identity"),
        ("IssuerKeys.run", "issuer keys"),
        ("Server._sweep", "sweep"),
        ("CredentialWatch.run", "credentials"),
        ("Shortage.run", "memory"),
    ],
)
async def test_a_sidecar_ends_with_each_of_its_parts(world: World, work: str, part: str) -> None:
    sidecar = await world.sidecar(WRITER, world.settings(max_memory_mib=512))
    end(work)
    with pytest.raises(PartEndedError, match=part):
        await asyncio.wait_for(sidecar.running, PATIENCE_S)
    assert sidecar.records("stopped")[-1]["detail"] == f"{part} has ended by itself"


def sts_settings(world: World, address: str, **changes: Any) -> dict[str, Any]:
    """Return a token service without login issuers, which is the default."""
    ports = {"sts": free_port(), "sts-probe": free_port(), "login": free_port()}
    document: dict[str, Any] = json.loads(json.dumps(mesh_files.sts(ports)))
    document["identity"] = {"workload_api": address}
    document["records"] = {"sink": {"file": str(world.folder / "sts.records")}}
    del document["login_issuers"], document["entries"]
    document["rules"] = []
    return {**document, **changes}


def written(world: World, document: dict[str, Any]) -> Path:
    path = world.folder / "sts.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


@pytest.mark.parametrize(
    ("work", "part"),
    [
        ("WorkloadApiSource.run", "identity"),
        ("IssuerKeys.run", "login issuer keys"),
        ("FileWatcher.run", "policy"),
        ("Countersigning.run", "checkpoints"),
    ],
)
async def test_a_token_service_ends_with_each_of_its_parts(world: World, work: str, part: str) -> None:
    document = sts_settings(world, (await world.api(STS)).address)
    settings = load_sts(written(world, document), {})
    ring = KeyRing(signer=SigningKey.generate())
    running = asyncio.ensure_future(run_token_service(settings, ring, asyncio.Event()))
    await until((world.folder / "sts.records").exists)
    end(work)
    with pytest.raises(PartEndedError, match=part):
        await asyncio.wait_for(running, PATIENCE_S)
    last = json.loads(whole_lines(world.folder / "sts.records")[-1])
    assert (last["event"], last["detail"]) == ("stopped", f"{part} has ended by itself")


async def test_keys_of_no_issuer_are_followed_until_cancelled(world: World) -> None:
    running = asyncio.ensure_future(IssuerKeys([], await world.source(STS)).run())
    done, _ = await asyncio.wait([running], timeout=0.05)
    assert not done
    running.cancel()


async def test_a_token_service_without_login_issuers_serves_until_told_to_stop(world: World) -> None:
    own = {"workload": str(WRITER), "audience": str(CRM), "scopes": ["crm.read"]}
    document = sts_settings(world, (await world.api(STS)).address, self_rules=[own])
    command = [sys.executable, "-m", "sidecar.cli", "sts", "--config", str(written(world, document))]
    process = await asyncio.create_subprocess_exec(*command, stderr=PIPE)
    try:
        host, _, port = document["listen"].rpartition(":")
        writer = calling(await world.source(WRITER), STS)
        probe = int(document["probe"]["listen"].rpartition(":")[2])
        await world.until_ready(probe)
        form = b"grant_type=client_credentials&scope=crm.read&audience=" + quote(str(CRM), safe="").encode()
        fields = [("content-type", "application/x-www-form-urlencoded")]
        answer = await world.call(int(port), writer, "/token", headers=fields, body=form, host=f"{host}:{port}")
        assert answer.status == 200
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), PATIENCE_S) == 0
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


@pytest.mark.parametrize("stopped", [False, True])
async def test_an_injector_ends_with_the_part_that_follows_its_files(tmp_path: Path, *, stopped: bool) -> None:
    write_pair(tmp_path)
    (tmp_path / "injection.json").write_bytes(RENDERED)
    injector, up, stop = Injector(tmp_path / "injection.json", tmp_path), asyncio.Event(), asyncio.Event()
    running = asyncio.ensure_future(injector.run(stop, listen=("127.0.0.1", 0), probe=("127.0.0.1", 0), up=up))
    await asyncio.wait_for(up.wait(), PATIENCE_S)
    if stopped:
        stop.set()
        assert await asyncio.wait_for(running, PATIENCE_S)
        return
    end("FileWatcher.run")
    with pytest.raises(PartEndedError, match="files"):
        await asyncio.wait_for(running, PATIENCE_S)


async def test_a_parent_ends_when_it_cannot_hear_a_worker(world: World) -> None:
    path, *_ = await world.written(WRITER, world.settings(), {})
    workers = Workers(loaded_from(path), 1)
    running = asyncio.ensure_future(workers.run(asyncio.Event()))
    await until(lambda: workers.living[0] is not None and workers.living[0].was_ready, START_S)
    end("ToWorker.listen")
    with pytest.raises(PartEndedError, match="line to worker 0"):
        await asyncio.wait_for(running, START_S)
    for inbox in workers._inboxes:  # a parent holds them until its end
        inbox.read.close()
        inbox.write.close()


async def test_a_user_issuer_ends_with_its_identity(world: World) -> None:
    background = Parts()
    settings = WorkloadApiSettings(address=(await world.api(STS)).address)
    async with certified(settings, background):
        end("WorkloadApiSource.run")
        with pytest.raises(PartEndedError, match="identity"):
            await background.run_until(asyncio.Event())
