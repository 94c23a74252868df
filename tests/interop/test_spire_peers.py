"""go-spiffe as the other end of a sidecar, and SPIRE's JWT-SVIDs before verifiers that are not ours."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import subprocess
import time
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

import jwt
import pytest

from sidecar.assembly.server import assemble
from sidecar.config import load_sidecar
from sidecar.identity.tls import server_context
from sidecar.identity.workload_api import WorkloadApiSource
from sidecar.identity.workload_settings import WorkloadApiSettings
from tests.fakes.lying_sts import Form, LyingSts, Reply, honest, serving
from tests.fakes.tokens import TokenMint, encode
from tests.integration.world import (
    CRM,
    ISSUER,
    PLANNER,
    WRITER,
    Agent,
    Answer,
    World,
    bearer,
    calling,
    free_port,
    mint,
    ok,
    until,
)
from tests.interop.engine import require
from tests.interop.spire import Spire, missing
from tests.interop.spire_mesh import federated

pytestmark = [pytest.mark.interop, pytest.mark.timeout(240)]

SOURCE: Final = Path(__file__).parent / "go_spiffe"
BUYER: Final = "spiffe://partner.example/agent/buyer"
BUILD_S: Final = 200
PEER_S: Final = 20


@pytest.fixture(scope="module")
def peer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the peer; Go's own cache makes that quick, except for the first time."""
    require(None if shutil.which("go") else "go is not on PATH")
    program = tmp_path_factory.mktemp("go") / "peer"
    command = ["go", "build", "-trimpath", "-o", str(program), "."]
    environ = {**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "-mod=readonly"}
    done = subprocess.run(
        command, cwd=SOURCE, env=environ, capture_output=True, text=True, timeout=BUILD_S, check=False
    )
    assert done.returncode == 0, done.stderr
    return program


@pytest.fixture
async def both() -> AsyncIterator[tuple[Spire, Spire]]:
    """Run two federated SPIREs, where this process is every workload: each takes its own of several SVIDs."""
    require(f"not on PATH: {', '.join(missing())}" if missing() else None)
    async with federated() as (acme, partner, _folder):
        for name in (PLANNER, WRITER, CRM):
            await acme.register(str(name), federated=True)
        await partner.register(BUYER, federated=True)
        yield acme, partner


async def ran(*command: str | Path, stdin: bytes = b"") -> tuple[int | None, str]:
    child = await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE, stderr=PIPE)
    output, errors = await asyncio.wait_for(child.communicate(stdin), PEER_S)
    return child.returncode, (output if child.returncode == 0 else errors).decode().strip()


@asynccontextmanager
async def sidecar(world: World, spire: Spire, settings: dict[str, Any]) -> AsyncIterator[dict[str, int]]:
    """Run the writer's sidecar on SPIRE; yields its ports."""
    ports = {"inbound": free_port(), "outbound": free_port()}
    document = {
        **json.loads(json.dumps(settings)),
        "identity": {"workload_api": spire.address, "spiffe_id": str(WRITER)},
        "records": {"sink": {"file": str(world.folder / "records")}},
        "probe": {"listen": f"127.0.0.1:{free_port()}"},
        "drain_s": 1.0,
    }
    for section in ports.keys() & document.keys():
        document[section]["listen"] = f"127.0.0.1:{ports[section]}"
    path = world.folder / "sidecar.yaml"
    path.write_text(json.dumps(document))
    server, stop = assemble(load_sidecar(path, {})), asyncio.Event()
    running = asyncio.get_running_loop().create_task(server.run(stop))
    try:
        await until(server.ready.is_set)
        yield ports
    finally:
        stop.set()
        await asyncio.gather(running, return_exceptions=True)


def route_to(port: int, peer: str) -> dict[str, Any]:
    return {
        "name": "next", "match": {"prefix": "/next"}, "upstream": f"https://127.0.0.1:{port}", "peer": peer,
        "audience": peer, "scopes": ["crm.read"],
    }  # fmt: skip


def settings_of(world: World, sts_url: str, outbound: dict[str, Any], **exchange: Any) -> dict[str, Any]:
    settings = world.settings(
        outbound={"routes": [outbound]}, exchange={"issuer": ISSUER, "token_endpoint": sts_url, **exchange}
    )
    settings["inbound"]["routes"][0] |= {"may_call": ["next"], "peers": [str(PLANNER), BUYER]}
    settings["issuers"][0]["actor_trust_domains"] = ["acme.example", "partner.example"]
    return settings


def calls_on(world: World, ports: dict[str, int], answers: list[Answer]) -> None:
    """Make the writer's agent call the next hop for each request."""

    async def work(head: bytes) -> bytes:
        lines = head.decode("latin-1").split("\r\n")
        (handle,) = [one.split(": ", 1)[1] for one in lines if one.lower().startswith("authorization: ")]
        answers.append(
            await world.call(ports["outbound"], None, "/next/x", method="GET", headers=[("authorization", handle)])
        )
        return ok(b"done")

    world.agent.script = lambda head, _body: asyncio.ensure_future(work(head))


async def source_of(world: World, spire: Spire, spiffe_id: Any) -> WorkloadApiSource:
    source = WorkloadApiSource(WorkloadApiSettings(address=spire.address, spiffe_id=spiffe_id, jwt_bundles=True))
    world.background(source.run())
    await until(lambda: source.current is not None)
    return source


async def test_a_go_spiffe_client_of_the_partner_calls_a_sidecar(
    world: World, both: tuple[Spire, Spire], peer: Path
) -> None:
    acme, partner = both
    settings = settings_of(world, "http://127.0.0.1:1/token", route_to(1, str(CRM)))
    world.agent.script = lambda _head, _body: ok(b"served")
    async with sidecar(world, acme, settings) as ports:
        url = f"https://127.0.0.1:{ports['inbound']}/draft"
        get = (peer, "get", partner.address, BUYER, url)
        token = mint({"client_id": BUYER, "act": {"sub": BUYER}})
        assert await ran(*get, str(WRITER), f"Authorization: Bearer {token}") == (0, "200  served")
        code, answer = await ran(*get, str(WRITER), f"Authorization: Bearer {mint()}")
        assert (code, answer.split(" {")[0]) == (0, "403 actor_mismatch")
        code, error = await ran(*get, str(CRM), f"Authorization: Bearer {token}")
        assert code == 1
        assert "unexpected ID" in error


async def test_a_sidecar_calls_a_go_spiffe_server_of_the_partner(
    world: World, both: tuple[Spire, Spire], peer: Path
) -> None:
    acme, partner = both
    port = free_port()
    child = await asyncio.create_subprocess_exec(
        peer, "serve", partner.address, BUYER, f"127.0.0.1:{port}", str(WRITER), stdin=DEVNULL, stdout=PIPE
    )
    try:
        assert child.stdout is not None
        assert await asyncio.wait_for(child.stdout.readline(), PEER_S) == b"ready\n"
        world.keys["keys"].append(TokenMint().jwk)
        for expected, reason in ((BUYER, None), ("spiffe://partner.example/agent/other", "upstream_identity")):
            answers: list[Answer] = []
            async with serving(LyingSts(clock=lambda: int(time.time()))) as sts:
                settings = settings_of(world, sts.url, route_to(port, expected))
                async with sidecar(world, acme, settings) as ports:
                    calls_on(world, ports, answers)
                    planner = calling(await source_of(world, acme, PLANNER), WRITER)
                    assert (await world.call(ports["inbound"], planner, headers=bearer(mint()))).status == 200
            (answer,) = answers
            assert answer.reason == reason
            assert (answer.body == str(WRITER).encode()) == (reason is None)
    finally:
        with contextlib.suppress(ProcessLookupError):
            child.kill()
        await child.wait()


async def test_go_spiffe_verifies_the_partners_jwt_svid_for_its_audience_alone(
    world: World, both: tuple[Spire, Spire], peer: Path
) -> None:
    acme, partner = both
    raw = (await (await source_of(world, acme, WRITER)).jwt_svid(ISSUER)).encode()
    assert await ran(peer, "verify", partner.address, ISSUER, stdin=raw) == (0, str(WRITER))
    code, error = await ran(peer, "verify", partner.address, f"{ISSUER}/", stdin=raw)
    assert code == 1
    assert "audience" in error


@pytest.mark.parametrize("client_auth", ["jwt-svid", "jwt-spiffe"])
async def test_a_jwt_svid_authenticates_the_sidecar_at_a_token_service_that_knows_spires_keys(
    world: World, both: tuple[Spire, Spire], client_auth: str
) -> None:
    acme, partner = both
    world.keys["keys"].append(TokenMint().jwk)
    crm = Agent()
    crm_port = await world.listen(crm.serve, ssl=server_context(await source_of(world, acme, CRM)))
    for whose, reason in ((acme, None), (partner, "sts_error")):
        keys = jwt.PyJWKSet.from_dict(json.loads(await whose.server("bundle", "show", "-format", "spiffe")))
        answers: list[Answer] = []
        sts = LyingSts(clock=lambda: int(time.time()))
        sts.behaviour = partial(by_assertion, keys)
        async with serving(sts) as service:
            settings = settings_of(world, service.url, route_to(crm_port, str(CRM)), client_auth=client_auth)
            async with sidecar(world, acme, settings) as ports:
                calls_on(world, ports, answers)
                planner = calling(await source_of(world, acme, PLANNER), WRITER)
                assert (await world.call(ports["inbound"], planner, headers=bearer(mint()))).status == 200
        assert [answer.reason for answer in answers] == [reason]
        assert len(crm.requests) == 1
        assert sts.forms[0]["client_assertion_type"].endswith(
            "jwt-bearer" if client_auth == "jwt-svid" else client_auth
        )


def by_assertion(keys: jwt.PyJWKSet, sts: LyingSts, form: Form) -> Reply:
    """Authenticate the client by its assertion with PyJWT, as RFC 7523 says."""
    raw = form["client_assertion"]
    kid = jwt.get_unverified_header(raw)["kid"]
    known = [key for key in keys.keys if key.key_id == kid]
    if not known:
        return Reply(status=401, body=encode({"error": "invalid_client"}))
    claims = jwt.decode(raw, known[0], algorithms=["ES256"], audience=ISSUER)
    assert claims["sub"] == str(WRITER)
    return honest(sts, form)
