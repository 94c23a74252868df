"""A real SPIRE server and agent for one trust domain, from programs on PATH, in one folder and on loopback."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from tests.integration.world import free_port

NEEDED: Final = ("spire-server", "spire-agent")
_PATIENCE_S: Final = 30.0

_SERVER: Final = """
server {{
    bind_address = "127.0.0.1"
    bind_port = {port}
    socket_path = "{folder}/server.sock"
    trust_domain = "{domain}"
    data_dir = "{folder}/server"
    log_level = "WARN"
    ca_ttl = "24h"
    default_x509_svid_ttl = "1h"
    default_jwt_svid_ttl = "5m"
    jwt_issuer = "https://oidc.{domain}"
    experimental {{ cache_reload_interval = "200ms" }}
}}
plugins {{
    DataStore "sql" {{
        plugin_data {{ database_type = "sqlite3" connection_string = "{folder}/server/datastore.sqlite3" }}
    }}
    NodeAttestor "join_token" {{ plugin_data {{}} }}
    KeyManager "memory" {{ plugin_data {{}} }}
}}
"""
_AGENT: Final = """
agent {{
    data_dir = "{folder}/agent"
    log_level = "WARN"
    server_address = "127.0.0.1"
    server_port = "{port}"
    socket_path = "{folder}/agent.sock"
    trust_bundle_path = "{folder}/bootstrap.pem"
    trust_domain = "{domain}"
    experimental {{ sync_interval = "200ms" }}
}}
plugins {{
    NodeAttestor "join_token" {{ plugin_data {{}} }}
    KeyManager "memory" {{ plugin_data {{}} }}
    WorkloadAttestor "unix" {{ plugin_data {{}} }}
}}
"""


def missing() -> list[str]:
    """Return the missing programs."""
    return [name for name in NEEDED if shutil.which(name) is None]


class Spire:
    """Runs both programs; `address` is the Workload API. A context manager: what it starts, it stops."""

    def __init__(self, folder: Path, domain: str) -> None:
        self._folder = folder
        self._domain = domain
        self._port = free_port()
        self._running: list[subprocess.Popen[bytes]] = []

    @property
    def address(self) -> str:
        return f"unix://{self._folder}/agent.sock"

    async def __aenter__(self) -> Self:
        for name, text in (("server", _SERVER), ("agent", _AGENT)):
            (self._folder / name).mkdir(mode=0o700)
            config = text.format(folder=self._folder, domain=self._domain, port=self._port)
            (self._folder / f"{name}.conf").write_text(config)
        self._start("spire-server", "run", "-config", f"{self._folder}/server.conf")
        await self._healthy("spire-server", "healthcheck", "-socketPath", f"{self._folder}/server.sock")
        (self._folder / "bootstrap.pem").write_text(await self.server("bundle", "show"))
        node = await self.server("token", "generate", "-spiffeID", f"spiffe://{self._domain}/node")
        token = node.split("Token:")[1].split()[0]
        self._start("spire-agent", "run", "-config", f"{self._folder}/agent.conf", "-joinToken", token)
        await self._healthy("spire-agent", "healthcheck", "-socketPath", f"{self._folder}/agent.sock")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in reversed(self._running):
            process.send_signal(signal.SIGTERM)
        for process in self._running:
            await asyncio.to_thread(process.wait, 10)

    async def register(self, spiffe_id: str, *, ttl_s: int = 3600) -> str:
        """Register an entry for every process of our uid; return its id."""
        shown = await self.server(
            *("entry", "create", "-parentID", f"spiffe://{self._domain}/node", "-spiffeID", spiffe_id),
            *("-selector", f"unix:uid:{os.getuid()}", "-x509SVIDTTL", str(ttl_s), "-output", "json"),
        )
        entry: str = json.loads(shown)["results"][0]["entry"]["id"]
        return entry

    async def authority(self, *words: str) -> dict[str, Any]:
        """Run a `localauthority` command, such as `x509 prepare`."""
        found: dict[str, Any] = json.loads(await self.server("localauthority", *words, "-output", "json"))
        return found

    async def server(self, *words: str) -> str:
        """Send a command to the server; return its standard output."""
        command = ("spire-server", *words, "-socketPath", f"{self._folder}/server.sock")
        process = await asyncio.create_subprocess_exec(
            *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        output, errors = await process.communicate()
        assert process.returncode == 0, errors.decode()
        return output.decode()

    def _start(self, *command: str) -> None:
        with (self._folder / f"{command[0]}.log").open("wb") as log:
            self._running.append(subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True))

    async def _healthy(self, *command: str) -> None:
        deadline = time.monotonic() + _PATIENCE_S
        while True:
            process = await asyncio.create_subprocess_exec(
                *command, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
            )
            if await process.wait() == 0:
                return
            assert time.monotonic() < deadline, (self._folder / f"{command[0]}.log").read_text()[-2000:]
