"""A front app with its sidecar, the real token service, one agent behind it, and two issuers where users log in.

Both issuers have an ``alice``, two different people. One issues access tokens, the other ID tokens under a profile
whose name suggests neither.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import yaml

from sidecar.config.loader import Loaded, SettingsFiles
from sidecar.sts.keygen import add_key
from sidecar.sts_app import run_token_service
from sidecar.sts_reload import StsReload
from tests.fakes.tokens import TokenMint
from tests.integration.world import (
    FRONT,
    PLANNER,
    STS,
    Answer,
    Record,
    Sidecar,
    World,
    free_port,
    open_world,
    whole_lines,
)

STAFF: Final = TokenMint("https://staff.example", key=5)
CUSTOMERS: Final = TokenMint("https://customers.example", key=6, kid="c1")
CLIENTS: Final = {STAFF.issuer: "front-staff", CUSTOMERS.issuer: "front-shop"}
PREFIXES: Final = {STAFF.issuer: "staff:", CUSTOMERS.issuer: "shop:"}
SCOPES: Final = ["docs.write", "crm.read"]

Settings = dict[str, Any]


class EntryWorld:
    """``front`` is an entry, ``plain`` the same sidecar without an entry."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.ports = {name: free_port() for name in ("sts", "sts-probe", "planner-in")}
        self.sts_document: Settings = {}
        self.front: Sidecar
        self.planner: Sidecar

    @property
    def issuer(self) -> str:
        return f"https://127.0.0.1:{self.ports['sts']}"

    def log_in(self, mint: TokenMint = STAFF, **changes: object) -> str:
        """Return alice's login token at the front app, with these claims changed; None leaves one out."""
        now = int(time.time())
        claims: dict[str, object] = {"iss": mint.issuer, "sub": "alice", "iat": now, "exp": now + 600, "jti": "login-1"}
        if mint is STAFF:
            claims |= {"aud": "https://api.example", "client_id": CLIENTS[mint.issuer], "scope": "openid assistant"}
        else:
            client = CLIENTS[mint.issuer]
            claims |= {"aud": client, "azp": client, "client_id": client, "groups": ["gold"], "nonce": "n"}
        claims = {name: value for name, value in {**claims, **changes}.items() if value is not None}
        return mint.mint(claims, mint.header(typ="at+jwt" if mint is STAFF else "JWT"))

    async def trade(self, token: str, *fields: tuple[str, str], **changes: Any) -> Answer:
        """Trade a login token at the sidecar."""
        lawful: dict[str, Any] = {"target": "/.sidecar/subject", "method": "POST"}
        shown = [("authorization", f"Bearer {token}"), *fields]
        return await self.ask(self.front, shown, **{**lawful, **changes})

    async def ask(
        self, sidecar: Sidecar, fields: list[tuple[str, str]], *, target: str = "/planner/plan", **options: Any
    ) -> Answer:
        """Make a call of the front app's."""
        return await self.world.call(sidecar.outbound, None, target, headers=fields, **options)

    def sts_records(self, event: str = "token.exchanged") -> list[Record]:
        path = self.world.folder / "sts.records"
        lines = whole_lines(path) if path.exists() else []
        return [record for record in map(json.loads, lines) if record["event"] == event]

    def front_settings(self, **changes: Any) -> Settings:
        route = {
            "name": "planner",
            "match": {"prefix": "/planner"},
            "upstream": f"https://127.0.0.1:{self.ports['planner-in']}",
            "peer": PLANNER,
            "audience": PLANNER,
            "scopes": SCOPES,
        }
        users = [{**user, "client_id": CLIENTS[user["issuer"]]} for user in self._users()]
        entry = {"issuers": users, "may_call": ["planner"], "delegation_life_s": 900, "first_token_life_s": 600}
        return {**self._common(), "outbound": {"routes": [route]}, "entry": {**entry, **changes}}

    def planner_settings(self) -> Settings:
        inbound = {
            "agent": f"http://127.0.0.1:{self.world.agent.port}",
            "routes": [
                {
                    "name": "plan",
                    "match": {"path": "/plan", "methods": ["POST"]},
                    "scopes": ["docs.write"],
                    "peers": [FRONT],
                    "pass_token": True,
                }
            ],
        }
        return {**self._common(), "inbound": inbound}

    async def start(self) -> None:
        """Start everything: the token service first, since the sidecars need it to become ready."""
        await self._start_sts()
        settings = self.planner_settings()
        self.planner = await self.world.sidecar(PLANNER, settings, ports={"in": self.ports["planner-in"], "out": 0})
        self.front = await self.world.sidecar(FRONT, self.front_settings())

    async def _start_sts(self) -> None:
        folder = self.world.folder
        document = {
            "issuer": self.issuer,
            "listen": f"127.0.0.1:{self.ports['sts']}",
            "probe": {"listen": f"127.0.0.1:{self.ports['sts-probe']}"},
            "identity": {"workload_api": (await self.world.api(STS)).address},
            "records": {"sink": {"file": str(folder / "sts.records")}},
            "keys": {"directory": str(folder / "keys"), "mount_lag_s": 0, "max_age_s": 1, "refresh_s": 0},
            "login_issuers": self._users(),
            "entries": [
                {"workload": FRONT, "client_ids": CLIENTS, "delegation_life_s": 900, "first_token_life_s": 600}
            ],
            "targets": [{"workload": PLANNER, "scopes": SCOPES}],
            "rules": [
                {
                    "actor": FRONT,
                    "subjects": [{"issuer": STAFF.issuer, "subject": "*"}],
                    "audience": PLANNER,
                    "scopes": SCOPES,
                },
                {
                    "actor": FRONT,
                    "subjects": [{"issuer": CUSTOMERS.issuer, "subject": "alice"}],
                    "audience": PLANNER,
                    "scopes": ["docs.write"],
                },
            ],
        }
        add_key(folder / "keys", now=int(time.time()))
        self.write_sts(document)
        files = SettingsFiles("sts", folder / "sts.yaml")
        settings = files.load({})
        reload = StsReload(Loaded(settings, files, files.fingerprint()), os.environ)
        keys = reload.own_keys(int(time.time()))
        self.world.background(run_token_service(settings, keys, asyncio.Event(), reload=reload))
        await self.world.until_ready(self.ports["sts-probe"])

    def write_sts(self, document: Settings) -> None:
        """Write the token service's settings file atomically."""
        self.sts_document = document
        fresh = self.world.folder / "sts.new"
        fresh.write_text(yaml.safe_dump(json.loads(json.dumps(document))))
        fresh.rename(self.world.folder / "sts.yaml")

    def _users(self) -> list[Settings]:
        jwks = f"http://127.0.0.1:{self.world.jwks_port}/jwks"
        staff = {
            "issuer": STAFF.issuer,
            "jwks": jwks,
            "profile": "oidc-access-token",
            "scope_from": {"claim": "scope", "map": {"assistant": SCOPES}},
        }
        customers = {
            "issuer": CUSTOMERS.issuer,
            "jwks": jwks,
            "profile": {"preset": "sts", "typ": ["JWT"], "required_claims": ["azp"]},  # only ``kind`` states its kind
            "kind": "id_token",
            "scope_from": {"claim": "groups", "map": {"gold": ["docs.write"]}},
        }
        return [{**user, "subject_prefix": PREFIXES[str(user["issuer"])]} for user in (staff, customers)]

    def _common(self) -> Settings:
        trusted: Mapping[str, Any] = {
            "issuer": self.issuer,
            "jwks": f"{self.issuer}/jwks",
            "profile": "sts",
            "tls": {"peer": STS},
            "actor_trust_domains": ["acme.example"],
            "scopes": SCOPES,
        }
        return {"issuers": [trusted], "exchange": {"issuer": self.issuer, "peer": STS}}


@asynccontextmanager
async def open_entry_world(folder: Path) -> AsyncIterator[EntryWorld]:
    async with open_world(folder) as world:
        world.keys["keys"] += [STAFF.jwk, CUSTOMERS.jwk]
        entry_world = EntryWorld(world)
        await entry_world.start()
        yield entry_world
