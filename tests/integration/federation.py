"""Two organisations in one event loop, each with a trust domain, a token service and users; both call one tool.

``front`` (acme) → ``buyer`` (partner) → ``crm`` (acme) for acme's users, by acme's token service at each hop; ``shop``
(partner) → ``crm``, and ``shop`` → ``buyer``, for the partner's users, by the partner's token service. At ``buyer`` a
chain of the partner's may cross: ``buyer`` calls ``stock``, another way to ``crm``, with a token of acme's.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

import yaml

from delegation_core.spiffe_id import SpiffeId
from sidecar.config import load_sts
from sidecar.sts.keys import KeyRing, SigningKey
from sidecar.sts_app import run_token_service
from sidecar_dev.login import LoginSettings, UserIssuer
from sidecar_dev.user_issuer import loopback_listener, serving
from tests.integration.mesh import passed
from tests.integration.world import (
    CRM,
    FRONT,
    STS,
    Agent,
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

BUYER: Final = SpiffeId("spiffe://partner.example/agent/buyer")
SHOP: Final = SpiffeId("spiffe://partner.example/agent/shop")
PARTNERS_STS: Final = SpiffeId("spiffe://partner.example/sts")
IDS: Final = {"front": FRONT, "buyer": BUYER, "shop": SHOP, "crm": CRM}
SERVICES: Final = {"acme": STS, "partner": PARTNERS_STS}
CLIENTS: Final = {"acme": "front-app", "partner": "shop-app"}
SCOPES: Final = ["buy.plan", "crm.read"]

Settings = dict[str, Any]
Lie = Callable[[dict[str, object]], object]


@dataclass(frozen=True, kw_only=True)
class Crossings:
    """The crossing from partner to acme as each side lists it: what the partner's scopes are worth; None for not."""

    sidecar: Mapping[str, list[str]] | None = field(default_factory=lambda: {"crm.read": ["crm.read"]})
    service: Mapping[str, list[str]] | None = field(default_factory=lambda: {"crm.read": ["crm.read"]})
    audience: SpiffeId = CRM  # that the service lists


class LyingKey(SigningKey):
    """Signs what ``lie`` makes of the claims."""

    lie: Lie

    def sign(self, claims: Mapping[str, object]) -> str:
        told = dict(claims)
        self.lie(told)
        return super().sign(told)


class Federation:
    """Both organisations; ``ask`` starts a call, after which ``buyer`` asks for ``onwards``."""

    def __init__(self, world: World, crossings: Crossings) -> None:
        self.world = world
        self.crossings = crossings
        self.onwards = "/crm/customers"
        self.lie: Lie = lambda _claims: None  # of acme's token service
        self.ports = {name: free_port() for name in (*SERVICES, *(f"{n}-{s}" for n in IDS for s in ("in", "out")))}
        self.users: dict[str, UserIssuer] = {}
        self.agents: dict[str, Agent] = {}
        self.sidecars: dict[str, Sidecar] = {}

    async def ask(self, name: str, organisation: str, target: str, *, method: str = "POST") -> Answer:
        """Log a user of the organisation in, and call through the front app of ``name``."""
        form = {"grant_type": "password", "username": "alice", "client_id": CLIENTS[organisation], "scope": "assistant"}
        token = self.users[organisation].log_in(urlencode(form).encode())["access_token"]
        shown = [("authorization", f"Bearer {token}")]
        return await self.world.call(self.sidecars[name].outbound, None, target, method=method, headers=shown)

    async def record(self, name: str, direction: str) -> Record:
        """Return the one record of that direction."""
        await until(lambda: any(r["direction"] == direction for r in self.sidecars[name].records()))
        (record,) = [r for r in self.sidecars[name].records() if r["direction"] == direction]
        return record

    async def all_lines(self) -> list[Record]:
        """Return the records of all sidecars and both token services, once each hop has both ends."""
        await self.record("crm", "inbound")
        await until(lambda: len(self.sidecars["buyer"].records()) == 2 and len(self.sidecars["shop"].records()) == 1)
        files = [sidecar.records_path for sidecar in self.sidecars.values()]
        files += [self.world.folder / f"{organisation}.records" for organisation in SERVICES]
        return [json.loads(line) for file in files for line in whole_lines(file)]

    def issuer(self, organisation: str) -> str:
        return f"https://127.0.0.1:{self.ports[organisation]}"

    async def add_agent(self, name: str) -> None:
        agent = self.agents[name] = Agent()
        if name == "buyer":
            agent.script = lambda head, _body: asyncio.ensure_future(self._buy(head))
        else:
            agent.script = lambda _head, _body: ok(b"served")
        agent.port = await self.world.listen(agent.serve)

    async def _buy(self, head: bytes) -> bytes:
        lines = head.decode("latin-1").split("\r\n")[1:]
        shown = [
            ("authorization", value) for key, _, value in (x.partition(": ") for x in lines) if key == "authorization"
        ]
        answer = await self.world.call(self.sidecars["buyer"].outbound, None, self.onwards, method="GET", headers=shown)
        return passed(answer)


@asynccontextmanager
async def open_federation(folder: Path, crossings: Crossings | None = None) -> AsyncIterator[Federation]:
    async with AsyncExitStack() as stack:
        world = await stack.enter_async_context(open_world(folder))
        federation = Federation(world, crossings or Crossings())
        for organisation, client in CLIENTS.items():
            logins = LoginSettings(users={"alice": None}, clients=frozenset({client}))
            listener = loopback_listener("127.0.0.1:0")
            federation.users[organisation] = await stack.enter_async_context(serving(logins, listener))
        for name in IDS:
            await federation.add_agent(name)
        for organisation in SERVICES:
            await _start_service(federation, organisation)
        for name, settings in _sidecars(federation).items():
            ports = {"in": federation.ports[f"{name}-in"], "out": federation.ports[f"{name}-out"]}
            federation.sidecars[name] = await federation.world.sidecar(IDS[name], settings, ports=ports)
        yield federation


async def _start_service(federation: Federation, organisation: str) -> None:
    folder = federation.world.folder
    records = folder / f"{organisation}.records"
    document = {
        **_service(federation, organisation),
        "identity": {"workload_api": (await federation.world.api(SERVICES[organisation])).address},
        "records": {"sink": {"file": str(records)}},
        "probe": {"listen": f"127.0.0.1:{free_port()}"},
    }
    path = folder / f"{organisation}.yaml"
    path.write_text(yaml.dump(json.loads(json.dumps(document)), Dumper=yaml.CSafeDumper))
    key = LyingKey.generate()
    object.__setattr__(key, "lie", lambda claims: federation.lie(claims) if organisation == "acme" else None)
    ring = KeyRing(signer=key)
    federation.world.background(run_token_service(load_sts(path, {}), ring, asyncio.Event()))
    await federation.world.until_ready(int(document["probe"]["listen"].rpartition(":")[2]))


def _service(federation: Federation, organisation: str) -> Settings:
    rules = {
        "acme": [(FRONT, BUYER, SCOPES), (BUYER, CRM, ["crm.read"]), (BUYER, BUYER, ["crm.read"])],
        "partner": [(SHOP, BUYER, SCOPES), (SHOP, CRM, ["crm.read"])],
    }[organisation]
    login = _login(federation, organisation)
    foreign = _foreign(federation) if organisation == "acme" and federation.crossings.service is not None else []
    anyone = [{"issuer": one["issuer"], "subject": "*"} for one in (login, *foreign)]
    entry = {"acme": FRONT, "partner": SHOP}[organisation]
    return {
        "issuer": federation.issuer(organisation),
        "listen": f"127.0.0.1:{federation.ports[organisation]}",
        "keys": "ephemeral",
        "login_issuers": [login],
        "foreign_issuers": foreign,
        "entries": [{"workload": entry, "client_ids": {login["issuer"]: CLIENTS[organisation]}}],
        "targets": [{"workload": BUYER, "scopes": SCOPES}, {"workload": CRM, "scopes": ["crm.read"]}],
        "rules": [
            {"actor": actor, "subjects": anyone, "audience": audience, "scopes": scopes}
            for actor, audience, scopes in rules
        ],
    }


def _foreign(federation: Federation) -> list[Settings]:
    partner = _trusted(federation, "partner")
    return [
        {
            **partner,
            "subject_prefix": "partner:",
            "scopes": federation.crossings.service,
            "actors": [{"actor": BUYER, "audiences": [federation.crossings.audience]}],
        }
    ]


def _login(federation: Federation, organisation: str) -> Settings:
    issuer = federation.users[organisation].issuer
    return {
        "issuer": issuer,
        "jwks": f"{issuer}/jwks",
        "profile": "oidc-access-token",
        "scope_from": {"claim": "scope", "map": {"assistant": SCOPES}},
        "subject_prefix": {"acme": "acme:", "partner": ""}[organisation],
    }


def _sidecars(federation: Federation) -> dict[str, Settings]:
    acme, partner = federation.issuer("acme"), federation.issuer("partner")
    both = [_trusted(federation, "acme"), _trusted(federation, "partner")]
    plan = _route("plan", "/plan", "POST", "buy.plan", [FRONT], [acme], may_call=["crm"])
    either = _route("either", "/either", "POST", "buy.plan", [FRONT, SHOP], [acme, partner], may_call=["crm", "stock"])
    stock = {**_to(federation, "crm", ["crm.read"]), "name": "stock", "match": {"prefix": "/stock"}}
    if federation.crossings.sidecar is not None:
        listed = {"from": partner, "subject_prefix": "partner:", "scopes": federation.crossings.sidecar}
        stock["crossings"] = [listed]
    return {
        "front": _entry(federation, "acme"),
        "shop": _entry(federation, "partner"),
        "buyer": {
            "issuers": both,
            "inbound": {"agent": _agent(federation, "buyer"), "routes": [plan, either]},
            "outbound": {"routes": [_to(federation, "crm", ["crm.read"]), stock]},
            "exchange": {"issuer": acme, "peer": STS},
        },
        "crm": {
            "issuers": both,
            "inbound": {
                "agent": _agent(federation, "crm"),
                "routes": [
                    _route("customers", "/customers", "GET", "crm.read", [BUYER, SHOP], [acme]),
                    _route("orders", "/orders", "GET", "crm.read", [SHOP], [partner]),
                ],
            },
        },
    }


def _trusted(federation: Federation, organisation: str) -> Settings:
    domains = {"acme": ["acme.example", "partner.example"], "partner": ["partner.example"]}
    issuer = federation.issuer(organisation)
    return {
        "issuer": issuer,
        "jwks": f"{issuer}/jwks",
        "tls": {"peer": SERVICES[organisation]},
        "profile": "sts",
        "actor_trust_domains": domains[organisation],
        "scopes": [*SCOPES, "buy.pay"],  # the last one is in no token
    }


def _entry(federation: Federation, organisation: str) -> Settings:
    user = {**_login(federation, organisation), "client_id": CLIENTS[organisation]}
    return {
        "issuers": [_trusted(federation, organisation)],
        "outbound": {"routes": [_to(federation, "buyer", SCOPES), _to(federation, "crm", ["crm.read"])]},
        "exchange": {"issuer": federation.issuer(organisation), "peer": SERVICES[organisation]},
        "entry": {"issuers": [user], "may_call": ["buyer", "crm"]},
    }


def _agent(federation: Federation, name: str) -> str:
    return f"http://127.0.0.1:{federation.agents[name].port}"


def _route(
    name: str, path: str, method: str, scope: str, peers: list[SpiffeId], issuers: list[str], **options: Any
) -> Settings:
    match = {"path": path, "methods": [method]}
    return {"name": name, "match": match, "scopes": [scope], "peers": peers, "issuers": issuers, **options}


def _to(federation: Federation, name: str, scopes: list[str]) -> Settings:
    return {
        "name": name,
        "match": {"prefix": f"/{name}"},
        "upstream": f"https://127.0.0.1:{federation.ports[f'{name}-in']}",
        "peer": IDS[name],
        "audience": IDS[name],
        "scopes": scopes,
    }
