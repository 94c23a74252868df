"""A running injector, and certificates for it."""

from __future__ import annotations

import asyncio
import io
import json
import os
import ssl
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from delegation_core.spiffe_id import SpiffeId, TrustDomain
from sidecar_dev.pki import TrustDomainAuthority
from tests.injector.pods import RENDERED, review
from tests.integration.world import free_port

HOST = "injector.sidecar.svc"
PATIENCE_S = 15.0


def write_pair(
    directory: Path, authority: TrustDomainAuthority | None = None, *, ttl_s: int = 3600, issued_at: int | None = None
) -> TrustDomainAuthority:
    """Write a certificate for ``HOST`` and its key, as in a Secret's volume; return its issuer."""
    authority = authority or TrustDomainAuthority(TrustDomain("acme.example"))
    name = SpiffeId("spiffe://acme.example/injector")
    issued = authority.issue_x509(name, dns_names=[HOST], ttl_s=ttl_s, issued_at=issued_at)
    for file, content in (("tls.crt", issued.chain_pem), ("tls.key", issued.key_pem)):
        fresh = directory / f".{file}"
        fresh.write_bytes(content)
        os.replace(fresh, directory / file)  # noqa: PTH105
    return authority


@dataclass
class Running:
    folder: Path
    port: int
    probe: int
    process: asyncio.subprocess.Process
    authority: TrustDomainAuthority

    async def ask(
        self, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, dict[str, Any]]:
        context = ssl.create_default_context(cadata=self.authority.bundle_pem().decode())
        async with (
            aiohttp.ClientSession(trust_env=False) as session,
            session.post(
                f"https://127.0.0.1:{self.port}/inject",
                data=io.BytesIO(json.dumps(review()).encode() if body is None else body),
                headers={"Content-Type": "application/json", **(headers or {})},
                ssl=context,
                server_hostname=HOST,
            ) as answer,
        ):
            text = await answer.text()
            return answer.status, json.loads(text) if answer.status == 200 else {}

    async def probed(self, path: str) -> tuple[int, str]:
        async with (
            aiohttp.ClientSession(trust_env=False) as session,
            session.get(f"http://127.0.0.1:{self.probe}{path}") as answer,
        ):
            return answer.status, await answer.text()

    async def event(self, name: str) -> Mapping[str, Any]:
        assert self.process.stdout is not None
        async with asyncio.timeout(PATIENCE_S):
            while True:
                line = await self.process.stdout.readline()
                assert line, f"it ended without {name}"
                record: dict[str, Any] = json.loads(line)
                if record["event"] == name:
                    return record


@asynccontextmanager
async def running_injector(
    folder: Path, *options: str, max_connections: int = 48, descriptors: int | None = None
) -> AsyncIterator[Running]:
    """Run an injector as a separate process, with at most this many descriptors."""
    authority = write_pair(folder)
    (folder / "injection.json").write_bytes(RENDERED)
    port, probe = free_port(), free_port()
    limited = "" if descriptors is None else f"resource.setrlimit(resource.RLIMIT_NOFILE, ({descriptors},) * 2);"
    run = "runpy.run_module('sidecar.cli', run_name='__main__')"
    begin = f"import resource, runpy, sys; {limited} sys.argv[0] = 'sidecar'; {run}"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", begin, "injector"),
        *(f"--injection={folder / 'injection.json'}", f"--tls={folder}", f"--max-connections={max_connections}"),
        *(f"--listen=127.0.0.1:{port}", f"--probe=127.0.0.1:{probe}", *options),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    found = Running(folder, port, probe, process, authority)
    try:
        await found.event("started")
        yield found
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()
