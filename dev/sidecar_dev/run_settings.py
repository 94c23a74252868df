"""The settings files of a mesh around one agent program: an entry where a test user calls, the agent, its tools."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from sidecar_dev.mesh_settings import (
    CLIENT_ID,
    FRONT,
    LOGIN_SCOPE,
    STS,
    TRUST_DOMAIN,
    Places,
    Settings,
    common,
    inbound,
    outbound,
    route,
)

AGENT: Final = f"spiffe://{TRUST_DOMAIN}/agent/agent"
RESERVED: Final = frozenset({"agent", "front", "login", "sts", "workload-api"})  # names of our own processes

_METHODS: Final = ("DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT")
_DRAIN_S: Final = 3.0


def tool_id(name: str) -> str:
    """The SPIFFE ID of a tool."""
    return f"spiffe://{TRUST_DOMAIN}/tool/{name}"


def ports(tools: Iterable[str]) -> list[str]:
    """The listeners that need a port, all but the agent's own."""
    kinds = ("in", "out", "probe")
    return ["sts", "sts-probe", "login", *(f"{name}-{kind}" for name in ("front", "agent", *tools) for kind in kinds)]


def files(places: Places, tools: Mapping[str, str]) -> dict[str, Settings]:
    """Every process's settings by its name. ``tools`` maps names to origins on loopback."""
    return {
        "front": _front(places, tools),
        "agent": _agent(places, tools),
        **{name: _tool(places, tools, name, origin) for name, origin in tools.items()},
        "sts": _sts(places, tools),
    }


def entries(pids: Mapping[str, int]) -> Settings:
    """The Workload API's entries: which process (by its name) is which workload."""
    fixed = {"front": FRONT, "agent": AGENT, "sts": STS}
    return {
        "entries": [
            {"spiffe_id": fixed.get(name, tool_id(name)), "selectors": {"pids": [pid]}} for name, pid in pids.items()
        ]
    }


def _scope(name: str) -> str:
    return f"{name}.call"


def _scopes(tools: Iterable[str]) -> list[str]:
    return [_scope(name) for name in ("agent", *tools)]


def _sidecar(places: Places, tools: Iterable[str], name: str) -> Settings:
    return {**common(places, name, _scopes(tools)), "drain_s": _DRAIN_S}


def _login(places: Places, tools: Iterable[str]) -> Settings:
    return {
        "issuer": places.login,
        "jwks": f"{places.login}/jwks",
        "profile": "oidc-access-token",
        "scope_from": {"claim": "scope", "map": {LOGIN_SCOPE: _scopes(tools)}},
    }


def _front(places: Places, tools: Mapping[str, str]) -> Settings:
    """The entry: whoever calls it with the test user's token calls the agent through the mesh."""
    return {
        **_sidecar(places, tools, "front"),
        "outbound": outbound(places, "front", route(places, "agent", AGENT, _scopes(tools))),
        "entry": {"issuers": [{**_login(places, tools), "client_id": CLIENT_ID}], "may_call": ["agent"]},
    }


def _agent(places: Places, tools: Mapping[str, str]) -> Settings:
    routes = [route(places, name, tool_id(name), [_scope(name)]) for name in tools]
    return {
        **_sidecar(places, tools, "agent"),
        "inbound": inbound(places, "agent", {**_everything("agent", FRONT), "may_call": list(tools)}),
        "outbound": outbound(places, "agent", *routes),
    }


def _tool(places: Places, tools: Mapping[str, str], name: str, origin: str) -> Settings:
    section = {"listen": places.at(f"{name}-in"), "agent": origin, "routes": [_everything(name, AGENT)]}
    return {**_sidecar(places, tools, name), "inbound": section}


def _everything(name: str, peer: str) -> Settings:
    match = {"path_prefix": "/", "methods": list(_METHODS)}
    return {"name": name, "match": match, "scopes": [_scope(name)], "peers": [peer]}


def _sts(places: Places, tools: Mapping[str, str]) -> Settings:
    anyone = [{"issuer": places.login, "subject": "*"}]
    rules = [{"actor": FRONT, "subjects": anyone, "audience": AGENT, "scopes": _scopes(tools)}]
    rules += [
        {"actor": AGENT, "subjects": anyone, "audience": tool_id(name), "scopes": [_scope(name)]} for name in tools
    ]
    return {
        "issuer": places.sts,
        "identity": {"workload_api": f"unix://{places.socket}"},
        "listen": places.at("sts"),
        "probe": {"listen": places.at("sts-probe")},
        "keys": "ephemeral",
        "login_issuers": [_login(places, tools)],
        "entries": [{"workload": FRONT, "client_ids": {places.login: CLIENT_ID}}],
        "targets": [
            {"workload": AGENT, "scopes": _scopes(tools)},
            *({"workload": tool_id(name), "scopes": [_scope(name)]} for name in tools),
        ],
        "rules": rules,
        "records": {"sink": {"file": str(places.directory / "sts.records")}},
    }
