"""The settings files of the development mesh: one function per process, as an operator would write them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

TRUST_DOMAIN: Final = "acme.example"
PARTNER_DOMAIN: Final = "partner.example"
FRONT: Final = f"spiffe://{TRUST_DOMAIN}/agent/front"
PLANNER: Final = f"spiffe://{TRUST_DOMAIN}/agent/planner"
WRITER: Final = f"spiffe://{TRUST_DOMAIN}/agent/writer"
CRM: Final = f"spiffe://{TRUST_DOMAIN}/tool/crm"
STS: Final = f"spiffe://{TRUST_DOMAIN}/sts"
INTRUDER: Final = f"spiffe://{TRUST_DOMAIN}/agent/intruder"
MANAGER: Final = f"spiffe://{TRUST_DOMAIN}/agent/manager"
ARCHIVE: Final = f"spiffe://{TRUST_DOMAIN}/tool/archive"
CARELESS_STS: Final = f"spiffe://{TRUST_DOMAIN}/careless-sts"

CLIENT_ID: Final = "front-app"
LOGIN_SCOPE: Final = "assistant"
CHAIN_SCOPES: Final = ("crm.read", "docs.write", "plan.make")
ALL_SCOPES: Final = (*CHAIN_SCOPES, "crm.export", "docs.report")

Settings = dict[str, Any]

SEND: Final[Settings] = {"protocol": "a2a", "operations": [{"allow": ["SendMessage"]}]}
REPORT: Final = (
    "docs.report",
    MANAGER,
    "crm-export",
)  # the peer that may ask for a report, and the calls that this permits an agent


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Addresses of one mesh: the Workload API's socket, and the ports on loopback by name."""

    directory: Path
    ports: dict[str, int]

    @property
    def socket(self) -> Path:
        """Path of the Workload API's socket."""
        return self.directory / "workload.sock"

    @property
    def sts(self) -> str:
        """Issuer identifier of the token service."""
        return f"https://127.0.0.1:{self.ports['sts']}"

    @property
    def careless_sts(self) -> str:
        """The issuer identifier of the token service that ignores actors."""
        return f"https://127.0.0.1:{self.ports['careless-sts']}"

    @property
    def login(self) -> str:
        """The user issuer's identifier."""
        return f"http://127.0.0.1:{self.ports['login']}"

    def at(self, name: str) -> str:
        """Return host and port of one listener."""
        return f"127.0.0.1:{self.ports[name]}"


def front(places: Places) -> Settings:
    """Return the settings of the entry, where alice logs in and chains start."""
    return {
        **common(places, "front"),
        "outbound": outbound(places, "front", {**route(places, "planner", PLANNER, CHAIN_SCOPES), **SEND}),
        "entry": {
            "issuers": [
                {
                    "issuer": places.login,
                    "jwks": f"{places.login}/jwks",
                    "profile": "oidc-access-token",
                    "client_id": CLIENT_ID,
                    "scope_from": {"claim": "scope", "map": {LOGIN_SCOPE: list(CHAIN_SCOPES)}},
                }
            ],
            "may_call": ["planner"],
        },
    }


def careless(places: Places) -> Settings:
    """Return the settings of a second front sidecar, which uses the token service that ignores ``actor_token``."""
    settings = front(places)
    settings["issuers"][0] |= {
        "issuer": places.careless_sts,
        "jwks": f"{places.careless_sts}/jwks",
        "tls": {"peer": CARELESS_STS},
    }
    settings["exchange"] = {"issuer": places.careless_sts, "peer": CARELESS_STS}
    settings["outbound"]["listen"] = places.at("careless-out")
    settings["probe"] = {"listen": places.at("careless-probe")}
    settings["records"] = {"sink": {"file": str(places.directory / "careless.records")}}
    return settings


def planner(places: Places) -> Settings:
    """Return the planner's settings. A plan needs notes and the writer; for a report it may export the CRM."""
    return {
        **common(places, "planner"),
        "inbound": inbound(places, "planner", a2a("plan", "plan.make", FRONT, "crm", "writer"), a2a("report", *REPORT)),
        "outbound": outbound(
            places,
            "planner",
            {**route(places, "crm", CRM, ("crm.read",)), **mcp("read_notes")},
            {**route(places, "writer", WRITER, ("crm.read", "docs.write")), **SEND},
            export(places),
        ),
    }


def writer(places: Places) -> Settings:
    """Return the writer's settings. For a draft it may read a customer; for a report it may export the CRM."""
    return {
        **common(places, "writer"),
        "inbound": inbound(places, "writer", a2a("draft", "docs.write", PLANNER, "crm"), a2a("report", *REPORT)),
        "outbound": outbound(
            places,
            "writer",
            {**route(places, "crm", CRM, ("crm.read",)), **mcp("read_customer")},
            export(places),
        ),
    }


def a2a(name: str, scope: str, peer: str, *may_call: str) -> Settings:
    """Return an inbound route of an agent. Each purpose has its own URL, because A2A requests do not name a skill."""
    match = {"path": "/a2a" if name != "report" else "/a2a/report"}
    return {"name": name, "match": match, **SEND, "scopes": [scope], "peers": [peer], "may_call": list(may_call)}


def export(places: Places) -> Settings:
    """Return the outbound route for exports of the CRM."""
    exporting = route(places, "crm", CRM, ("crm.export", "crm.read"))
    return {**exporting, "name": "crm-export", "match": {"prefix": "/crm-export"}, **mcp("export_customers")}


def mcp(*tools: str) -> Settings:
    """Return the members of an MCP route that permits these tools."""
    return {"protocol": "mcp", "operations": [{"allow": [f"tools/call:{tool}" for tool in tools]}]}


def crm(places: Places) -> Settings:
    """Return the CRM's settings. It trusts the login issuer's tokens too, as many tools do, but requires an actor.

    Its agent gets the token itself, so that the demo can steal it.
    """
    settings = common(places, "crm")
    settings["issuers"].append(
        {
            "issuer": places.login,
            "jwks": f"{places.login}/jwks",
            "profile": "sts",  # the shape of RFC 9068, which this issuer's access tokens have too, except for the actor
            "actor_trust_domains": [TRUST_DOMAIN],
            "scopes": ["crm.export", "crm.read"],
        }
    )
    return {
        **settings,
        "inbound": inbound(
            places,
            "crm",
            {
                "name": "tools",
                "match": {"path": "/mcp"},
                "protocol": "mcp",
                "scopes": ["crm.read"],
                "peers": [PLANNER, WRITER],
                "operations": [
                    {"allow": ["tools/call:read_notes"], "peers": [PLANNER]},
                    {"allow": ["tools/call:read_customer"], "peers": [WRITER]},
                    {"allow": ["tools/call:export_customers"], "scopes": ["crm.export"]},
                ],
                "issuers": [places.sts, places.login],
                "pass_token": True,
            },
        ),
    }


def sts(places: Places) -> Settings:
    """Return the token service's settings: who may act for whom, at which target, with which scopes."""
    anyone = [{"issuer": places.login, "subject": "*"}]
    return {
        "issuer": places.sts,
        "identity": {"workload_api": f"unix://{places.socket}"},
        "listen": places.at("sts"),
        "probe": {"listen": places.at("sts-probe")},
        "keys": "ephemeral",
        "login_issuers": [
            {
                "issuer": places.login,
                "jwks": f"{places.login}/jwks",
                "profile": "oidc-access-token",
                "scope_from": {"claim": "scope", "map": {LOGIN_SCOPE: list(CHAIN_SCOPES)}},
            }
        ],
        "entries": [{"workload": FRONT, "client_ids": {places.login: CLIENT_ID}}],
        "targets": [
            {"workload": PLANNER, "scopes": [*CHAIN_SCOPES, "docs.report"]},
            {"workload": WRITER, "scopes": ["crm.read", "docs.report", "docs.write"]},
            {"workload": CRM, "scopes": ["crm.read", "crm.export"]},
            {"workload": ARCHIVE, "scopes": ["crm.read"]},
        ],
        "rules": [
            {"actor": FRONT, "subjects": anyone, "audience": PLANNER, "scopes": list(CHAIN_SCOPES)},
            {"actor": PLANNER, "subjects": anyone, "audience": WRITER, "scopes": ["crm.read", "docs.write"]},
            {"actor": PLANNER, "subjects": anyone, "audience": CRM, "scopes": ["crm.read", "crm.export"]},
            {"actor": WRITER, "subjects": anyone, "audience": CRM, "scopes": ["crm.read", "crm.export"]},
            {"actor": CRM, "subjects": anyone, "audience": ARCHIVE, "scopes": ["crm.read"]},
        ],
    }


def entries(pids: dict[str, list[int]]) -> Settings:
    """Return the Workload API's entries, which map processes to workloads: a process cannot choose its name."""
    names = {CRM: ["crm.internal"], STS: ["sts.internal"], WRITER: ["writer.internal"]}
    names |= {FRONT: [], PLANNER: [], INTRUDER: [], CARELESS_STS: []}
    federated = {CRM, WRITER}
    return {
        "entries": [
            {
                "spiffe_id": spiffe_id,
                "selectors": {"pids": pids.get(spiffe_id, [])},
                **({"dns_names": dns_names} if dns_names else {}),
                **({"federates_with": [PARTNER_DOMAIN]} if spiffe_id in federated else {}),
            }
            for spiffe_id, dns_names in names.items()
        ]
    }


def write(path: Path, settings: Settings) -> None:
    """Write a settings file atomically, because its reader may read at any moment."""
    fresh = path.with_suffix(".new")
    fresh.write_text(yaml.dump(settings, Dumper=_Plain, sort_keys=False))
    fresh.replace(path)


class _Plain(yaml.SafeDumper):
    """Writes every value in full, because settings files must not contain anchors."""

    def ignore_aliases(self, _data: object) -> bool:
        return True


def common(places: Places, name: str, scopes: Sequence[str] = ALL_SCOPES) -> Settings:
    """Return the settings that all sidecars of a mesh share; ``scopes`` is the ceiling of the token service."""
    return {
        "identity": {"workload_api": f"unix://{places.socket}"},
        "issuers": [
            {
                "issuer": places.sts,
                "jwks": f"{places.sts}/jwks",
                "profile": "sts",
                "tls": {"peer": STS},
                "actor_trust_domains": [TRUST_DOMAIN],
                "scopes": list(scopes),
            }
        ],
        "exchange": {"issuer": places.sts, "peer": STS},
        "records": {"sink": {"file": str(places.directory / f"{name}.records")}},
        "probe": {"listen": places.at(f"{name}-probe")},
    }


def inbound(places: Places, name: str, *routes: Settings) -> Settings:
    """Return the inbound section of the sidecar of this agent."""
    return {"listen": places.at(f"{name}-in"), "agent": f"http://{places.at(name)}", "routes": list(routes)}


def outbound(places: Places, name: str, *routes: Settings) -> Settings:
    """Return the outbound section of the sidecar of this agent."""
    return {"listen": places.at(f"{name}-out"), "routes": list(routes)}


def route(places: Places, name: str, spiffe_id: str, scopes: Sequence[str]) -> Settings:
    """Return an outbound route to the sidecar of this name, below ``/NAME``."""
    return {
        "name": name,
        "match": {"prefix": f"/{name}"},
        "upstream": f"https://{places.at(f'{name}-in')}",
        "peer": spiffe_id,
        "audience": spiffe_id,
        "scopes": list(scopes),
    }
