"""The settings files of the mesh under test: front (an entry) → planner → writer → crm, and their token service."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from tests.integration.world import CRM, FRONT, PLANNER, STS, WRITER

CLIENT_ID: Final = "front-app"
LOGIN_SCOPE: Final = "assistant"
CHAIN_SCOPES: Final = ["crm.read", "docs.write", "plan.make"]

Ports = Mapping[str, int]
Settings = dict[str, Any]


def front(ports: Ports) -> Settings:
    entry = {"issuers": [{**_login(ports), "client_id": CLIENT_ID}], "may_call": ["planner"]}
    routes = [_to(ports, "planner", PLANNER, CHAIN_SCOPES), _to(ports, "crm", CRM, ["crm.read"])]
    return {**_common(ports), "outbound": {"routes": routes}, "entry": entry}


def planner(ports: Ports) -> Settings:
    route = _route("plan", "/plan", "POST", "plan.make", FRONT, may_call=["writer"])
    return {
        **_common(ports),
        "inbound": _inbound(ports, "planner", route),
        "outbound": {"routes": [_to(ports, "writer", WRITER, ["crm.read", "docs.write"])]},
    }


def writer(ports: Ports) -> Settings:
    route = _route("draft", "/draft", "POST", "docs.write", PLANNER, may_call=["crm"], pass_token=True)
    return {
        **_common(ports),
        "inbound": _inbound(ports, "writer", route),
        "outbound": {"routes": [_to(ports, "crm", CRM, ["crm.read"])]},
    }


def crm(ports: Ports) -> Settings:
    customers = _route("customers", "/customers/42", "GET", "crm.read", WRITER, pass_token=True)
    export = _route("export", "/export", "POST", "crm.export", WRITER)
    return {**_common(ports), "inbound": _inbound(ports, "crm", customers, export)}


def sts(ports: Ports) -> Settings:
    anyone = [{"issuer": login_issuer(ports), "subject": "*"}]
    allowed = {
        (FRONT, PLANNER): CHAIN_SCOPES,
        (PLANNER, WRITER): ["crm.read", "docs.write"],
        (WRITER, CRM): ["crm.read"],
    }
    return {
        "issuer": issuer(ports),
        "listen": f"127.0.0.1:{ports['sts']}",
        "probe": {"listen": f"127.0.0.1:{ports['sts-probe']}"},
        "keys": "ephemeral",
        "login_issuers": [_login(ports)],
        "entries": [{"workload": FRONT, "client_ids": {login_issuer(ports): CLIENT_ID}}],
        "targets": [
            {"workload": PLANNER, "scopes": CHAIN_SCOPES},
            {"workload": WRITER, "scopes": ["crm.read", "docs.write"]},
            {"workload": CRM, "scopes": ["crm.read", "crm.export"]},
        ],
        "rules": [
            {"actor": actor, "subjects": anyone, "audience": audience, "scopes": scopes}
            for (actor, audience), scopes in allowed.items()
        ],
    }


def issuer(ports: Ports) -> str:
    return f"https://127.0.0.1:{ports['sts']}"


def login_issuer(ports: Ports) -> str:
    return f"http://127.0.0.1:{ports['login']}"


def _common(ports: Ports) -> Settings:
    trusted = {
        "issuer": issuer(ports),
        "jwks": f"{issuer(ports)}/jwks",
        "profile": "sts",
        "tls": {"peer": STS},
        "actor_trust_domains": ["acme.example"],
        "scopes": [*CHAIN_SCOPES, "crm.export"],
    }
    return {"issuers": [trusted], "exchange": {"issuer": issuer(ports), "peer": STS}}


def _login(ports: Ports) -> Settings:
    return {
        "issuer": login_issuer(ports),
        "jwks": f"{login_issuer(ports)}/jwks",
        "profile": "oidc-access-token",
        "scope_from": {"claim": "scope", "map": {LOGIN_SCOPE: CHAIN_SCOPES}},
    }


def _inbound(ports: Ports, name: str, *routes: Settings) -> Settings:
    return {"agent": f"http://127.0.0.1:{ports[name]}", "routes": list(routes)}


def _route(name: str, path: str, method: str, scope: str, peer: str, **options: Any) -> Settings:
    return {"name": name, "match": {"path": path, "methods": [method]}, "scopes": [scope], "peers": [peer], **options}


def _to(ports: Ports, name: str, spiffe_id: str, scopes: list[str]) -> Settings:
    upstream = f"https://127.0.0.1:{ports[f'{name}-in']}"
    match = {"prefix": f"/{name}"}
    return {
        "name": name, "match": match, "upstream": upstream, "peer": spiffe_id, "audience": spiffe_id, "scopes": scopes
    }  # fmt: skip
