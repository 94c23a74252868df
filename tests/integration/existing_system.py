"""An existing system on its way behind sidecars: front → planner → writer, with static keys and without tokens.

Each service checks the key of its callers, and forwards one header: planner and writer the handle that they were given,
front its user's login, once its sidecar is an entry. What changes besides is where each one listens and calls.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

import yaml

from sidecar.config.loader import Loaded, SettingsFiles
from sidecar.reload import Reload
from sidecar.sts.keys import KeyRing, SigningKey
from sidecar.sts_app import run_token_service
from sidecar.sts_reload import StsReload
from sidecar_dev.login import LoginSettings, UserIssuer
from sidecar_dev.user_issuer import loopback_listener, serving
from tests.integration.existing_service import Service
from tests.integration.test_reload import load_here
from tests.integration.world import (
    FRONT,
    PLANNER,
    STS,
    WRITER,
    Answer,
    Record,
    Sidecar,
    World,
    free_port,
    ok,
    open_world,
    until,
    whole_lines,
)

IDS: Final = {"front": FRONT, "planner": PLANNER, "writer": WRITER}
NEXT: Final = {"front": "planner", "planner": "writer"}
SOON: Final = (datetime.now(UTC) + timedelta(days=7)).date().isoformat()
CLIENT_ID: Final = "front-app"
EVERY_METHOD: Final = ["DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"]

Settings = dict[str, Any]


class ExistingSystem:
    """The services, and the sidecars that they have so far. ``sts`` has no rules at first."""

    def __init__(self, world: World, users: UserIssuer, login_port: int) -> None:
        self.world = world
        self.users = users
        self.ports = {"login": login_port, **{name: free_port() for name in ("sts", "sts-probe")}}
        self.services = {
            "front": Service("front", "x-api-key", "key-of-users", "x-api-key", "key-of-front"),
            "planner": Service("planner", "x-api-key", "key-of-front", "authorization", "Bearer key-of-planner"),
            "writer": Service("writer", "authorization", "Bearer key-of-planner"),
        }
        self.sidecars: dict[str, Sidecar] = {}
        self._reloads: dict[str, Reload] = {}
        self._scopes: list[str] = []
        self._held: tuple[asyncio.Event, asyncio.Event] | None = None
        self.platform = world.folder / "platform.yaml"

    # --- the services

    async def start(self) -> None:
        for service in self.services.values():
            service.work, service.public_port = self._work, free_port()
            await service.listen(service.public_port)
            self.world._stack.push_async_callback(service.open.aclose)
        for name, following in NEXT.items():
            self.services[name].port = self.services[following].public_port
        await self._start_sts()
        self._write_platform()

    async def _work(self, service: Service, first: str, fields: dict[str, str]) -> bytes:
        if not service.is_lawful(fields):
            return ok(b"no key").replace(b"200 OK", b"401 Unauthorized")
        method, target, _ = first.split(" ")
        if service.name == "writer":
            await self._hold()
            return ok(f"{method} {target} written".encode())
        if service.name == "front":
            calls = [("POST", "/plan")]
        else:
            calls = [("POST", "/drafts"), ("GET", "/documents/7"), ("GET", "/documents/8")]
        said = []
        for one, path in calls:
            answer = await self.world.call(
                service.port, None, f"{service.path}{path}", method=one, headers=service.shown(fields)
            )
            said.append(f"{answer.status} {answer.reason or answer.body.decode()}")
        return ok(f"{service.name}: {', '.join(said)}".encode())

    async def _hold(self) -> None:
        held, self._held = self._held, None
        if held is not None:
            arrived, over = held
            arrived.set()
            await over.wait()

    @asynccontextmanager
    async def asking(self) -> AsyncIterator[asyncio.Future[Answer]]:
        """Ask, and let the writer keep one of the calls waiting until the block ends."""
        arrived, over = self._held = asyncio.Event(), asyncio.Event()
        asked = asyncio.ensure_future(self.ask())
        await arrived.wait()
        yield asked
        over.set()
        await asked

    async def ask(self) -> Answer:
        """Call the front app as alice does, with her login."""
        form = {"grant_type": "password", "username": "alice", "client_id": CLIENT_ID, "scope": "assistant"}
        login = self.users.log_in(urlencode(form).encode())["access_token"]
        fields = [("x-api-key", "key-of-users"), ("authorization", f"Bearer {login}")]
        return await self.world.call(self.services["front"].public_port, None, "/ask", headers=fields)

    # --- sidecars

    async def put_behind_a_sidecar(self, name: str) -> None:
        """Put a service behind a sidecar that observes, whatever its callers and its next have.

        Callers without a sidecar go on calling where they did: the sidecar listens there by plain HTTP.
        """
        service, settings = self.services[name], self._observing(name)
        if "inbound" in settings:
            await service.listen(0)
            settings["inbound"]["agent"] = f"http://127.0.0.1:{service.own_port}"
        sidecar = await self.world.sidecar(IDS[name], settings, platform=self.platform)
        self.sidecars[name] = sidecar
        files = SettingsFiles("sidecar", sidecar.settings_path, self.platform)
        self._reloads[name] = Reload(Loaded(files.load({}), files, files.fingerprint()), {}, sidecar.server, load_here)
        for caller, following in NEXT.items():
            if {caller, following} <= self.sidecars.keys():
                await self._call_by_sidecar(caller, following)

    async def _call_by_sidecar(self, caller: str, following: str) -> None:
        def add_route(document: Settings) -> None:
            if not document["outbound"]["routes"]:
                document["outbound"]["routes"].append(self._route_to(following))

        await self.reload(caller, add_route)
        service = self.services[caller]
        service.port, service.path = self.sidecars[caller].outbound, f"/{following}"

    def adopt(self, proposal: Settings, document: Settings) -> None:
        """Put proposed routes in the place of those that observe everything. They observe, too."""
        document["issuers"] = [self._issuer()]
        if "inbound" in proposal:
            document["inbound"]["routes"] = proposal["inbound"]["routes"]
            for route in document["inbound"]["routes"]:
                route["observe_until"] = SOON
        if "outbound" in proposal:
            own = {route["name"]: route for route in document["outbound"]["routes"]}
            document["outbound"]["routes"] = [
                {**route, **{key: own[route["name"]][key] for key in ("match", "upstream", "observe_until")}}
                for route in proposal["outbound"]["routes"]
            ]

    async def reload(self, name: str, change: Callable[[Settings], None]) -> None:
        """Change the settings of a running sidecar."""
        path = self.sidecars[name].settings_path
        document = yaml.safe_load(path.read_text())
        change(document)
        path.write_text(json.dumps(document))
        await self._reloads[name].reload()

    def _observing(self, name: str) -> Settings:
        settings: Settings = {"issuers": [self._issuer()], "exchange": {"issuer": self.issuer, "peer": STS}}
        if name in NEXT:
            settings["outbound"] = {"routes": []}
        if name != "front":
            everything = {"path_prefix": "/", "methods": EVERY_METHOD}
            settings["inbound"] = {
                "plain": {"listen": f"127.0.0.1:{self.services[name].public_port}", "until": SOON},
                "routes": [
                    {"name": "everything", "match": everything, "scopes": [], "peers": [], "observe_until": SOON}
                ],
            }
        if name == "writer":
            settings["inbound"]["agent_key"] = self._agent_key(name)
        return settings

    def _agent_key(self, name: str) -> Settings:
        service = self.services[name]
        scheme, _, key = (service.key or "").partition(" ")
        file = self.world.folder / f"{name}.key"
        file.touch(mode=0o600)
        file.write_text(key)
        return {"file": str(file), "field": service.key_field, "scheme": scheme}

    def _route_to(self, name: str) -> Settings:
        return {
            "name": name,
            "match": {"prefix": f"/{name}"},
            "upstream": f"https://127.0.0.1:{self.sidecars[name].inbound}",
            "peer": IDS[name],
            "audience": IDS[name],
            "scopes": [],
            "observe_until": SOON,
        }

    # --- the platform and its token service

    @property
    def issuer(self) -> str:
        return f"https://127.0.0.1:{self.ports['sts']}"

    def _issuer(self) -> Settings:
        return {
            "issuer": self.issuer,
            "jwks": f"{self.issuer}/jwks",
            "profile": "sts",
            "tls": {"peer": STS},
            "actor_trust_domains": ["acme.example"],
            "scopes": self._scopes,
        }

    def login(self) -> Settings:
        """Return the issuer where users log in."""
        issuer = f"http://127.0.0.1:{self.ports['login']}"
        return {
            "issuer": issuer,
            "jwks": f"{issuer}/jwks",
            "profile": "oidc-access-token",
            "scope_from": {"claim": "scope", "map": {"assistant": self._scopes}},
        }

    def _write_platform(self) -> None:
        document = {
            "issuers": [self._issuer()], "login_issuers": [self.login()], "observe_until": True, "plain": True
        }  # fmt: skip
        self.platform.write_text(json.dumps(document))

    def _write_sts(self, rules: dict[tuple[str, str], list[str]]) -> None:
        login = self.login()
        targets: dict[str, set[str]] = {}
        for (_, audience), scopes in rules.items():
            targets.setdefault(audience, set()).update(scopes)
        document = {
            "issuer": self.issuer,
            "listen": f"127.0.0.1:{self.ports['sts']}",
            "probe": {"listen": f"127.0.0.1:{self.ports['sts-probe']}"},
            "identity": {"workload_api": self._sts_api},
            "records": {"sink": {"file": str(self.world.folder / "sts.records")}},
            "keys": "ephemeral",
            "login_issuers": [login],
            "entries": [{"workload": FRONT, "client_ids": {login["issuer"]: CLIENT_ID}}],
            "targets": [{"workload": name, "scopes": sorted(scopes)} for name, scopes in targets.items()],
            "rules": [
                {
                    "actor": actor,
                    "subjects": [{"issuer": login["issuer"], "subject": "*"}],
                    "audience": audience,
                    "scopes": scopes,
                }
                for (actor, audience), scopes in rules.items()
            ],
        }
        fresh = self.world.folder / "sts.new"
        fresh.write_text(json.dumps(document))
        fresh.rename(self.world.folder / "sts.yaml")

    async def _start_sts(self) -> None:
        self._sts_api = (await self.world.api(STS)).address
        self._write_sts({})
        files = SettingsFiles("sts", self.world.folder / "sts.yaml")
        settings = files.load({})
        ring = KeyRing(signer=SigningKey.generate())
        reload = StsReload(Loaded(settings, files, files.fingerprint()), os.environ)
        self.world.background(run_token_service(settings, ring, asyncio.Event(), reload=reload))
        await self.world.until_ready(self.ports["sts-probe"])

    async def grant(self, rules: dict[tuple[str, str], list[str]]) -> None:
        """Let the token service issue tokens by these rules: actor and audience → scopes."""
        self._scopes = sorted(set().union(*rules.values()))
        self._write_platform()
        self._write_sts(rules)
        before = len(self.sts_records("config.reloaded"))
        os.kill(os.getpid(), signal.SIGHUP)
        await until(lambda: len(self.sts_records("config.reloaded")) > before)

    async def start_chains(self) -> None:
        """Let front's sidecar take its users' logins, and then front send them."""
        entry = {"issuers": [{**self.login(), "client_id": CLIENT_ID}], "may_call": ["planner"]}
        await self.reload("front", lambda document: document.update(entry=entry))
        self.services["front"].logs_in = True

    def retire_keys(self) -> None:
        """Send no key between services any more. Planner checks none, and writer still that of its own sidecar."""
        for caller in NEXT:
            self.services[caller].key_of_next = None
        self.services["planner"].key = None

    # --- records

    def records(self) -> list[Record]:
        """Return the records of all sidecars about requests."""
        return [record for sidecar in self.sidecars.values() for record in sidecar.records()]

    def sts_records(self, event: str) -> list[Record]:
        lines = whole_lines(self.world.folder / "sts.records")
        return [record for record in map(json.loads, lines) if record["event"] == event]


def enforce(document: Settings) -> None:
    """Let every route enforce, and close the port without TLS."""
    document.get("inbound", {}).pop("plain", None)
    for side in ("inbound", "outbound"):
        for route in document.get(side, {"routes": []})["routes"]:
            del route["observe_until"]


@asynccontextmanager
async def open_existing_system(folder: Path) -> AsyncIterator[ExistingSystem]:
    logins = LoginSettings(users={"alice": None}, clients=frozenset({CLIENT_ID}))
    async with AsyncExitStack() as stack:
        world = await stack.enter_async_context(open_world(folder))
        listener = loopback_listener("127.0.0.1:0")
        login_port = listener.getsockname()[1]
        users = await stack.enter_async_context(serving(logins, listener))
        system = ExistingSystem(world, users, login_port)
        await system.start()
        yield system
