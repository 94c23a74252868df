"""A whole mesh in one event loop: front → planner → writer → crm, the real token service and a user issuer."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Final
from urllib.parse import urlencode

import yaml

from sidecar.config import load_sts
from sidecar.sts.keys import KeyRing, SigningKey
from sidecar.sts_app import run_token_service
from sidecar_dev.login import LoginSettings, UserIssuer
from sidecar_dev.user_issuer import loopback_listener, serving
from tests.integration import mesh_files
from tests.integration.mesh_files import CLIENT_ID, LOGIN_SCOPE, Settings
from tests.integration.world import (
    CRM,
    FRONT,
    PLANNER,
    STS,
    WRITER,
    Agent,
    Answer,
    Record,
    Sidecar,
    World,
    free_port,
    ok,
    open_world,
    whole_lines,
)

IDS: Final = {"front": FRONT, "planner": PLANNER, "writer": WRITER, "crm": CRM}
NEXT: Final = {"front": ("planner", "/plan"), "planner": ("writer", "/draft"), "writer": ("crm", "/customers/42")}
MANY_USERS: Final = [f"user-{number}" for number in range(50)]
LOGINS: Final = LoginSettings(
    users=dict.fromkeys(["alice", "bob", *MANY_USERS]), clients=frozenset({CLIENT_ID, "other-app"})
)

Script = Callable[[dict[str, str]], Awaitable[bytes]]


class Mesh:
    """Four agents that forward their Authorization to the next one, each beside its sidecar.

    ``scripts`` replace an agent's behaviour, by name: each gets the request's fields and returns its answer.
    """

    def __init__(self, world: World, ports: dict[str, int], users: UserIssuer) -> None:
        self.world = world
        self.ports = ports
        self.users = users
        self.agents: dict[str, Agent] = {}
        self.sidecars: dict[str, Sidecar] = {}
        self.scripts: dict[str, Script] = {}

    def log_in(self, user: str = "alice", *, age_s: int = 0, issuer: str | None = None, **form: str) -> str:
        """Return a user's login token for the front app's client; ``age_s`` old, and of another ``issuer`` by the same
        key.
        """
        lawful = {"grant_type": "password", "username": user, "client_id": CLIENT_ID, "scope": LOGIN_SCOPE}
        users = UserIssuer(issuer or self.users.issuer, LOGINS, clock=lambda: time.time() - age_s)
        users._keys = self.users._keys
        return str(users.log_in(urlencode({**lawful, **form}).encode())["access_token"])

    async def call(self, name: str, target: str, fields: list[tuple[str, str]], *, method: str = "GET") -> Answer:
        """Make a call of an agent's through its own sidecar."""
        return await self.world.call(self.sidecars[name].outbound, None, target, method=method, headers=fields)

    async def ask(self, token: str, *fields: tuple[str, str]) -> Answer:
        """Call the planner through the front app with a user's token."""
        shown = [("authorization", f"Bearer {token}"), *fields]
        return await self.call("front", "/planner/plan", shown, method="POST")

    def records(self, name: str, event: str = "request") -> list[Record]:
        return self.sidecars[name].records(event)

    def sts_records(self, event: str = "token.exchanged") -> list[Record]:
        lines = whole_lines(self.world.folder / "sts.records")
        return [record for record in map(json.loads, lines) if record["event"] == event]

    async def add_agent(self, name: str) -> None:
        agent = self.agents[name] = Agent()
        agent.script = lambda head, _body: asyncio.ensure_future(self._work(name, head))
        agent.port = await self.world.listen(agent.serve)
        self.ports[name] = agent.port

    async def _work(self, name: str, head: bytes) -> bytes:
        lines = head.decode("latin-1").split("\r\n")[1:]
        fields = {key: value for key, _, value in (line.partition(": ") for line in lines if line)}
        script = self.scripts.get(name)
        if script is not None:
            return await script(fields)
        if name not in NEXT:
            return ok(fields["delegation-subject"].encode())
        following, path = NEXT[name]
        method = "GET" if following == "crm" else "POST"
        shown = [(key, fields[key]) for key in ("authorization", "traceparent")]
        answer = await self.call(name, f"/{following}{path}", shown, method=method)
        return passed(answer)


def passed(answer: Answer) -> bytes:
    """Return an agent's answer that passes on the answer it got."""
    head = f"HTTP/1.1 {answer.status} X\r\ncontent-length: {len(answer.body)}\r\n"
    reason = answer.reason or answer.headers.get("x-reason")
    if reason:
        head += f"x-reason: {reason}\r\n"
    if challenge := answer.headers.get("www-authenticate"):
        head += f"www-authenticate: {challenge}\r\n"
    return head.encode() + b"\r\n" + answer.body


@asynccontextmanager
async def open_mesh(
    folder: Path, adjust: Callable[[str, Settings, Mapping[str, int]], object] = lambda *_: None
) -> AsyncIterator[Mesh]:
    """Run the mesh. ``adjust`` changes the settings of each sidecar, and of ``sts``, in place."""
    async with AsyncExitStack() as stack:
        world = await stack.enter_async_context(open_world(folder))
        listener = loopback_listener("127.0.0.1:0")
        login_port = listener.getsockname()[1]
        users = await stack.enter_async_context(serving(LOGINS, listener))
        names = ("sts", "sts-probe", *(f"{name}-{side}" for name in IDS for side in ("in", "out")))
        mesh = Mesh(world, {"login": login_port, **{name: free_port() for name in names}}, users)
        for name in IDS:
            await mesh.add_agent(name)
        await _start_sts(mesh, adjust)
        for name, spiffe_id in IDS.items():
            settings: Settings = getattr(mesh_files, name)(mesh.ports)
            adjust(name, settings, mesh.ports)
            taken = {"in": mesh.ports[f"{name}-in"], "out": mesh.ports[f"{name}-out"]}
            mesh.sidecars[name] = await world.sidecar(spiffe_id, settings, ports=taken)
        yield mesh


async def _start_sts(mesh: Mesh, adjust: Callable[[str, Settings, Mapping[str, int]], object]) -> None:
    folder = mesh.world.folder
    settings = mesh_files.sts(mesh.ports)
    adjust("sts", settings, mesh.ports)
    document = json.loads(json.dumps(settings))
    document["identity"] = {"workload_api": (await mesh.world.api(STS)).address}
    document["records"] = {"sink": {"file": str(folder / "sts.records")}}
    path = folder / "sts.yaml"
    path.write_text(yaml.dump(document, Dumper=yaml.CSafeDumper))
    ring = KeyRing(signer=SigningKey.generate())
    mesh.world.background(run_token_service(load_sts(path, {}), ring, asyncio.Event()))
    await mesh.world.until_ready(mesh.ports["sts-probe"])
