"""Every example of ``config/`` runs as written: only addresses, sockets, URLs and folders are overridden."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from delegation_core.spiffe_id import SpiffeId
from sidecar.config import load_sts
from sidecar.sts.keys import KeyRing, SigningKey
from sidecar.sts_app import run_token_service
from tests.config.documents import EXAMPLES, example
from tests.identity import supplies
from tests.integration.world import FRONT, PATIENCE_S, START_S, STS, WRITER, World, free_port, until

pytestmark = pytest.mark.integration

PARTNERS_STS: Final = SpiffeId("spiffe://partner.example/sts")
Environment = dict[str, str]


def variables(**values: object) -> Environment:
    """Return ``SIDECAR__…`` variables; JSON is YAML."""
    return {f"SIDECAR__{name.upper()}": json.dumps(value) for name, value in values.items()}


class Running:
    """A process of the ``sidecar`` command, and its probe."""

    def __init__(self, world: World, process: asyncio.subprocess.Process, probe: int) -> None:
        self._world = world
        self.process = process
        self._probe = probe

    async def says(self) -> set[str]:
        """Return the lines of ``/readyz`` without their causes; empty before it listens."""
        try:
            answer = await self._world.call(self._probe, None, "/readyz", method="GET")
        except ConnectionError:
            return set()
        return {line.partition(" (")[0] for line in answer.body.decode().splitlines()}

    async def wait_until_it_says(self, *lines: str) -> None:
        said: set[str] = set()
        try:
            async with asyncio.timeout(START_S):
                while said != set(lines):
                    assert self.process.returncode is None, "it ended"
                    await asyncio.sleep(0.02)
                    said = await self.says()
        except TimeoutError:
            pytest.fail(f"it says {said}")


@asynccontextmanager
async def running(
    world: World, command: str, file: Path, environ: Environment, *options: str
) -> AsyncIterator[Running]:
    probe = free_port()
    environ = {
        **{name: value for name, value in os.environ.items() if name in {"PATH", "HOME", "LANG"}},
        **environ,
        **variables(probe__listen=f"127.0.0.1:{probe}"),
        **(variables(admin__socket=str(world.folder / f"{probe}.sock")) if command == "run" else {}),
    }
    words = [sys.executable, "-m", "sidecar.cli", command, "--config", str(file), *options]
    process = await asyncio.create_subprocess_exec(*words, env=environ, stdin=DEVNULL, stdout=DEVNULL, stderr=PIPE)
    try:
        yield Running(world, process, probe)
        process.send_signal(signal.SIGTERM)
        _, told = await asyncio.wait_for(process.communicate(), PATIENCE_S)
        assert process.returncode == 0, told.decode()
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


async def token_service(world: World, spiffe_id: SpiffeId, issuer: str) -> int:
    """Run the example's token service in this process; yield its port."""
    port, probe = free_port(), free_port()
    environ = variables(
        issuer=issuer,
        listen=f"127.0.0.1:{port}",
        probe__listen=f"127.0.0.1:{probe}",
        identity__workload_api=(await world.api(spiffe_id)).address,
        records={"sink": {"file": str(world.folder / f"{port}.records")}},
        login_issuers=elsewhere(example("sts")["login_issuers"], {}),
        foreign_issuers=[],  # the partner's service runs by the same example
        rules=example("sts")["rules"][:2],
        revocation={"file": str(world.folder / f"{port}.orders")},  # its replicas are elsewhere
    )
    settings = load_sts(EXAMPLES / "sts.yaml", environ)
    world.background(run_token_service(settings, KeyRing(signer=SigningKey.generate()), asyncio.Event()))
    await world.until_ready(probe, without="keys of ")
    return port


def elsewhere(issuers: list[dict[str, Any]], ports: Mapping[str, int]) -> list[dict[str, Any]]:
    """Return the same issuers with their keys on this machine; without a port nothing listens there."""
    return [
        {**one, "jwks": f"https://127.0.0.1:{ports.get(one['issuer']) or free_port()}{path(one['jwks'])}"}
        for one in issuers
    ]


def path(url: str) -> str:
    return "/" + url.split("/", 3)[3]


async def overrides(world: World, name: str, spiffe_id: SpiffeId) -> Environment:
    """Return the addresses of this machine for an example of a sidecar. Everything else stays as written."""
    document = example(name)
    ports = {}
    for one in document["issuers"]:
        its_own = STS if one["issuer"] == "https://sts.acme.example" else PARTNERS_STS
        ports[one["issuer"]] = await token_service(world, its_own, one["issuer"])
    environ = variables(issuers=elsewhere(document["issuers"], ports), **await here(world, document, spiffe_id))
    if "exchange" in document:
        acme = ports["https://sts.acme.example"]
        environ |= variables(exchange__token_endpoint=f"https://127.0.0.1:{acme}/token")
    if "entry" in document:
        environ |= variables(entry__issuers=elsewhere(document["entry"]["issuers"], {}))
    return environ


async def here(world: World, document: Mapping[str, Any], spiffe_id: SpiffeId) -> dict[str, Any]:
    """Return overrides for listeners and the identity."""
    values: dict[str, Any] = {
        f"{side}__listen": f"127.0.0.1:{free_port()}" for side in ("inbound", "outbound") if side in document
    }
    if "files" in document["identity"]:
        folder = identity_files(world, spiffe_id)
        values |= {
            "identity__files__directory": str(folder),
            "identity__files__federated": {"partner.example": str(folder / "partner.pem")},
            "identity__files__jwt_svids": {"https://sts.acme.example": str(folder / "jwt_svid.token")},
        }
    else:
        values["identity__workload_api"] = (await world.api(spiffe_id)).address
    for name in {"socket", "file"} & document.get("workload_handle", {}).keys():
        values[f"workload_handle__{name}"] = str(world.folder / f"handle.{name}")
    return values


def identity_files(world: World, spiffe_id: SpiffeId) -> Path:
    """Write files as spiffe-helper does with the settings that the example names."""
    folder = world.folder / "spiffe"
    folder.mkdir()
    svid = world.acme.issue_x509(spiffe_id)
    token = world.acme.issue_jwt(spiffe_id, "https://sts.acme.example").encode()
    for name, content, mode in (
        ("svid.pem", svid.chain_pem, supplies.OPEN_MODE),
        ("svid_key.pem", svid.key_pem, supplies.PRIVATE_MODE),
        ("svid_bundle.pem", world.acme.bundle_pem(), supplies.OPEN_MODE),
        ("partner.pem", world.partner.bundle_pem(), supplies.OPEN_MODE),
        ("jwt_svid.token", token, supplies.PRIVATE_MODE),
    ):
        supplies.replace(folder / name, content, mode)
    return folder


SIDECARS: Final = {
    "a2a": WRITER,
    "agent": WRITER,
    "domains": SpiffeId("spiffe://acme.example/tool/crm"),
    "entry": FRONT,
    "files": WRITER,
    "mcp-server": SpiffeId("spiffe://acme.example/tool/crm"),
    "tool": SpiffeId("spiffe://acme.example/tool/crm"),
}


# What the platform must allow to examples that need more than its own example says.
CEILINGS: Final[dict[str, dict[str, object]]] = {
    "agent": {},
    "outside": {},
    "observe": {"observe_until": True, "plain": True},
    "own-authority": {"allow_self": True},
    "mcp": {"allow_self": True},
}


# Token services, with the number of their rules that are about workloads of this trust domain alone.
SERVICES: Final = {"sts": 2, "sts-many": None}


def test_every_example_is_run_here() -> None:
    assert {path.stem for path in EXAMPLES.glob("*.yaml")} == {*SIDECARS, *CEILINGS, *SERVICES, "platform"}


@pytest.mark.parametrize("name", SIDECARS)
async def test_an_example_runs_until_it_is_ready(world: World, name: str) -> None:
    environ = await overrides(world, name, SIDECARS[name])
    async with running(world, "run", EXAMPLES / f"{name}.yaml", environ) as sidecar:
        await sidecar.wait_until_it_says("ready")


@pytest.mark.parametrize("name", SERVICES)
async def test_a_token_services_example_runs_until_only_its_login_issuers_keys_are_missing(
    world: World, name: str
) -> None:
    keys = world.folder / "keys"
    command = [sys.executable, "-m", "sidecar.cli", "sts", "keygen", str(keys)]
    await asyncio.to_thread(subprocess.run, command, check=True, capture_output=True)
    environ = variables(
        listen=f"127.0.0.1:{free_port()}",
        keys__directory=str(keys),
        identity__workload_api=(await world.api(STS)).address,
        login_issuers=elsewhere(example(name)["login_issuers"], {}),
        foreign_issuers=[],
        rules=example(name)["rules"][: SERVICES[name]],
        revocation={"file": str(world.folder / "orders")},
    )
    async with running(world, "sts", EXAMPLES / f"{name}.yaml", environ) as service:
        await service.wait_until_it_says("keys of https://login.acme.example")


@pytest.mark.parametrize("name", CEILINGS)
async def test_the_platforms_example_is_a_ceiling_that_an_example_runs_below(world: World, name: str) -> None:
    # Its URLs are the ceiling, so they stay: only the keys behind them are unavailable here.
    environ = variables(**await here(world, example(name), WRITER))
    platform = world.folder / "platform.yaml"
    platform.write_text(yaml.safe_dump({**example("platform"), **CEILINGS[name]}))
    async with running(world, "run", EXAMPLES / f"{name}.yaml", environ, "--platform", str(platform)) as sidecar:
        await sidecar.wait_until_it_says("keys of https://sts.acme.example")


async def test_above_the_ceiling_a_sidecar_does_not_start_and_says_why(world: World) -> None:
    environ = {**os.environ, **await overrides(world, "agent", WRITER)}
    words = [sys.executable, "-m", "sidecar.cli", "run", "--config", str(EXAMPLES / "agent.yaml")]
    words += ["--platform", str(EXAMPLES / "platform.yaml")]
    process = await asyncio.create_subprocess_exec(*words, env=environ, stdin=DEVNULL, stdout=DEVNULL, stderr=PIPE)
    _, told = await asyncio.wait_for(process.communicate(), START_S)
    assert process.returncode == 2
    assert "issuers[0].jwks (SIDECAR__ISSUERS): differs from the platform's URL of the keys" in told.decode()
    assert "exchange.token_endpoint (SIDECAR__EXCHANGE__TOKEN_ENDPOINT): is not the platform's" in told.decode()


async def test_a_ceiling_that_is_lowered_or_lost_is_told_and_the_settings_in_force_stay(world: World) -> None:
    environ = variables(**await here(world, example("agent"), WRITER), records={"sink": {"file": str(records(world))}})
    platform = world.folder / "platform.yaml"
    platform.write_text((EXAMPLES / "platform.yaml").read_text())
    async with running(world, "run", EXAMPLES / "agent.yaml", environ, "--platform", str(platform)) as sidecar:
        await sidecar.wait_until_it_says("keys of https://sts.acme.example")
        lower = yaml.safe_load(platform.read_text())
        lower["issuers"][0]["scopes"] = ["docs.read"]
        replace(platform, yaml.safe_dump(lower))
        await told(world, "config.refused", "crm.read is above the platform's ceiling")
        platform.unlink()
        await told(world, "config.refused", "cannot be read")
        replace(platform, (EXAMPLES / "platform.yaml").read_text())
        await told(world, "config.reloaded", "settings")
        assert await sidecar.says() == {"keys of https://sts.acme.example"}


def records(world: World) -> Path:
    return world.folder / "ceiling.records"


def replace(file: Path, text: str) -> None:
    """Replace a file atomically."""
    fresh = file.with_suffix(".new")
    fresh.write_text(text)
    fresh.replace(file)


async def told(world: World, event: str, words: str) -> None:
    def there() -> bool:
        lines = map(json.loads, records(world).read_text().splitlines())
        return any(line["event"] == event and words in line["detail"] for line in lines if line["detail"])

    await until(there)
