"""Three hops over two federated SPIRE servers: front → planner → writer → crm, each sidecar a process and an SVID.

The writer is the partner's; the others, and the token service, are acme's. SPIRE knows each process by a group of its
own. All are root's, so that the tests' interpreter need not be readable for other users.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
import tempfile
import time
from asyncio.subprocess import DEVNULL, Process
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

import aiohttp
import yaml
from aiohttp import web

from sidecar_dev.login import LoginSettings, UserIssuer
from sidecar_dev.user_issuer import loopback_listener, serving
from tests.integration import mesh_files
from tests.integration.mesh_files import CLIENT_ID, LOGIN_SCOPE
from tests.integration.world import START_S, WRITER, Record, free_port, whole_lines
from tests.interop import spire
from tests.interop.spire import Spire

PARTNERS_WRITER: Final = "spiffe://partner.example/agent/writer"
IDS: Final = {
    "sts": "spiffe://acme.example/sts",
    "front": "spiffe://acme.example/agent/front",
    "planner": "spiffe://acme.example/agent/planner",
    "writer": PARTNERS_WRITER,
    "crm": "spiffe://acme.example/tool/crm",
}
SIDECARS: Final = ("front", "planner", "writer", "crm")
NEXT: Final = {"planner": ("POST", "writer/draft"), "writer": ("GET", "crm/customers/42")}
TTL_S: Final = 16  # SPIRE renews after TTL/2 - 5 s: about every three seconds
_FIRST_GROUP: Final = 20_100


def lacking() -> str | None:
    """Return the reason why the mesh cannot run here."""
    if os.getuid() != 0:
        return "root is needed: each process has a group of its own"
    return f"not on PATH: {', '.join(spire.missing())}" if spire.missing() else None


class SpireMesh:
    """The running mesh. ``at`` has the SPIRE of each workload's trust domain, by the workload's name."""

    def __init__(self, folder: Path, acme: Spire, partner: Spire, users: UserIssuer, login_port: int) -> None:
        self.folder = folder
        self.acme, self.partner = acme, partner
        self.at = {name: partner if name == "writer" else acme for name in IDS}
        self.groups = {name: _FIRST_GROUP + number for number, name in enumerate(IDS)}
        names = ("sts", "sts-probe", *(f"{name}-{side}" for name in SIDECARS for side in ("in", "out", "probe")))
        self.ports = {"login": login_port, **{name: free_port() for name in names}}
        self.processes: dict[str, Process] = {}
        self._users = users

    def log_in(self, user: str = "alice") -> str:
        form = {"grant_type": "password", "username": user, "client_id": CLIENT_ID, "scope": LOGIN_SCOPE}
        return str(self._users.log_in(urlencode(form).encode())["access_token"])

    async def ask(self, session: aiohttp.ClientSession, token: str) -> tuple[int, str]:
        """Ask over all three hops; return the status, and the reason of a refusal or the user that the CRM was told."""
        url = f"http://127.0.0.1:{self.ports['front-out']}/planner/plan"
        async with session.post(url, headers={"authorization": f"Bearer {token}"}) as answer:
            return answer.status, answer.headers.get("delegation-reason") or await answer.text()

    async def until_served(self, patience_s: float = 30.0) -> float:
        """Ask until alice is served; return the seconds it took."""
        return await self.until(lambda answer: answer == (200, "alice"), patience_s)

    async def until_refused(self, patience_s: float = 30.0) -> float:
        return await self.until(lambda answer: answer[0] != 200, patience_s)

    async def until(self, good: Callable[[tuple[int, str]], bool], patience_s: float) -> float:
        began, token = time.monotonic(), self.log_in()
        async with aiohttp.ClientSession() as session:
            while not good(last := await self.ask(session, token)):
                assert time.monotonic() < began + patience_s, last
                await asyncio.sleep(0.02)
        return time.monotonic() - began

    async def register(self, name: str, **options: Any) -> str:
        """Register a workload by the group of its process, federated with the other trust domain."""
        options = {"ttl_s": TTL_S, "federated": True, "entry_id": f"machine-1-{name}", **options}
        return await self.at[name].register(IDS[name], f"unix:gid:{self.groups[name]}", **options)

    async def withdraw(self, name: str) -> None:
        await self.at[name].server("entry", "delete", "-entryID", f"machine-1-{name}")

    def not_afters(self, name: str) -> list[int]:
        """Return the ends of the SVIDs that a sidecar has had, without repetitions."""
        found = re.findall(r"identity rotated.* not_after=(\d+)", (self.folder / f"{name}.log").read_text())
        return list(dict.fromkeys(map(int, found)))

    def rotations(self) -> dict[str, int]:
        return {name: len(self.not_afters(name)) - 1 for name in SIDECARS}

    def records(self, name: str, event: str = "request") -> list[Record]:
        lines = whole_lines(self.folder / f"{name}.records")
        return [record for record in map(json.loads, lines) if record["event"] == event]

    async def missing(self, name: str) -> str:
        """Return what a sidecar says that it waits for; empty if it is ready."""
        async with aiohttp.ClientSession() as session:
            with suppress(aiohttp.ClientConnectorError):
                async with session.get(f"http://127.0.0.1:{self.ports[f'{name}-probe']}/readyz") as answer:
                    return "" if answer.status == 200 else await answer.text()
        return "it does not listen yet"

    async def until_says(self, name: str, words: str, patience_s: float = START_S) -> str:
        """Wait until a sidecar waits for something with these words, or for nothing if they are empty."""
        async with asyncio.timeout(patience_s):
            while True:
                said = await self.missing(name)
                if words in said if words else not said:
                    return said
                await asyncio.sleep(0.05)

    async def start(self, name: str) -> None:
        """Start a workload as one process of its group."""
        settings = getattr(mesh_files, name)(self.ports)
        text = json.dumps(settings).replace(WRITER, PARTNERS_WRITER)
        document = json.loads(text.replace('["acme.example"]', '["acme.example", "partner.example"]'))
        document["identity"] = {"workload_api": self.at[name].address, "spiffe_id": IDS[name]}
        document["records"] = {"sink": {"file": str(self.folder / f"{name}.records")}}
        document["drain_s"] = 1.0
        if "exchange" in document:
            document["exchange"]["timeout_s"] = 10.0  # all processes share one machine
        if name != "sts":
            document["probe"] = {"listen": f"127.0.0.1:{self.ports[f'{name}-probe']}"}
        for section, side in (("inbound", "in"), ("outbound", "out")):
            if section in document:
                document[section]["listen"] = f"127.0.0.1:{self.ports[f'{name}-{side}']}"
        path = self.folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump(document))
        command = [sys.executable, "-m", "sidecar.cli", "sts" if name == "sts" else "run", "--config", str(path)]
        with (self.folder / f"{name}.log").open("wb") as log:
            self.processes[name] = await asyncio.create_subprocess_exec(
                *command, stdin=DEVNULL, stdout=log, stderr=log, group=self.groups[name], extra_groups=[]
            )

    async def stop(self) -> None:
        for process in self.processes.values():
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()


class Agents:
    """The planner, the writer and the CRM: each sends the header that it got to the next one."""

    def __init__(self, mesh: SpireMesh) -> None:
        self._mesh = mesh
        self._session: aiohttp.ClientSession

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            connector = aiohttp.TCPConnector(limit=0)
            self._session = await stack.enter_async_context(aiohttp.ClientSession(connector=connector))
            for name in ("planner", "writer", "crm"):
                runner = web.ServerRunner(web.Server(self._handler(name), access_log=None), shutdown_timeout=1.0)
                await runner.setup()
                stack.push_async_callback(runner.cleanup)
                await web.TCPSite(runner, "127.0.0.1", 0).start()
                self._mesh.ports[name] = runner.addresses[0][1]
            yield

    def _handler(self, name: str) -> Callable[[web.BaseRequest], Awaitable[web.Response]]:
        async def answer(request: web.BaseRequest) -> web.Response:
            if name not in NEXT:
                return web.Response(text=request.headers["delegation-subject"])
            method, target = NEXT[name]
            url = f"http://127.0.0.1:{self._mesh.ports[f'{name}-out']}/{target}"
            shown = {"authorization": request.headers["authorization"]}
            async with self._session.request(method, url, headers=shown) as answer:
                reason = answer.headers.get("delegation-reason", "")
                return web.Response(status=answer.status, text=f"{name}: {reason}" if reason else await answer.text())

        return answer


@asynccontextmanager
async def federated() -> AsyncIterator[tuple[Spire, Spire, Path]]:
    """Run a SPIRE for each trust domain, each with the other's bundle, in a new folder with a short name."""
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sp-", dir="/tmp")))
        ports = {"acme": free_port(), "partner": free_port()}
        running = {}
        for name, other in (("acme", "partner"), ("partner", "acme")):
            (folder / name).mkdir()
            running[name] = Spire(
                folder / name,
                f"{name}.example",
                partner=f"{other}.example",
                bundle_port=ports[name],
                partner_port=ports[other],
            )
        acme, partner = [await stack.enter_async_context(one) for one in running.values()]
        await acme.trust(partner)
        await partner.trust(acme)
        yield acme, partner, folder


@asynccontextmanager
async def open_spire_mesh() -> AsyncIterator[SpireMesh]:
    """Run everything, until alice is served over all three hops."""
    async with AsyncExitStack() as stack:
        acme, partner, folder = await stack.enter_async_context(federated())
        listener = loopback_listener("127.0.0.1:0")
        logins = LoginSettings(users={"alice": None}, clients=frozenset({CLIENT_ID}))
        users = await stack.enter_async_context(serving(logins, listener))
        mesh = SpireMesh(folder, acme, partner, users, listener.getsockname()[1])
        await stack.enter_async_context(Agents(mesh).running())
        stack.push_async_callback(mesh.stop)
        await asyncio.gather(*(mesh.register(name) for name in IDS))
        for name in IDS:
            await mesh.start(name)
        await asyncio.gather(*(mesh.until_says(name, "") for name in SIDECARS))
        await mesh.until_served()
        yield mesh
