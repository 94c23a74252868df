"""The settings files of a mesh around one agent program: an entry where a test user calls, the agent, its tools."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from sidecar.config.operation_checks import every_operation
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
from sidecar_dev.run_plan import Service

AGENT: Final = f"spiffe://{TRUST_DOMAIN}/agent/agent"
_METHODS: Final = ("DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT")
_DRAIN_S: Final = 3.0


def tool_id(name: str) -> str:
    """The SPIFFE ID of a tool."""
    return f"spiffe://{TRUST_DOMAIN}/tool/{name}"


def ports(tools: Iterable[str]) -> list[str]:
    """The listeners that need a port, all but the agent's own."""
    kinds = ("in", "out", "probe")
    return ["sts", "sts-probe", "login", *(f"{name}-{kind}" for name in ("front", "agent", *tools) for kind in kinds)]


def files(places: Places, agent: Service, tools: Mapping[str, Service]) -> dict[str, Settings]:
    """Every process's settings by its name."""
    return {
        "front": _front(places, agent, tools),
        "agent": _agent(places, agent, tools),
        **{name: _tool(places, tools, name, tool) for name, tool in tools.items()},
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


def _front(places: Places, agent: Service, tools: Mapping[str, Service]) -> Settings:
    """The entry: whoever calls it with the test user's token calls the agent through the mesh."""
    return {
        **_sidecar(places, tools, "front"),
        "outbound": outbound(places, "front", _to(places, "agent", agent, AGENT, _scopes(tools))),
        "entry": {"issuers": [{**_login(places, tools), "client_id": CLIENT_ID}], "may_call": ["agent"]},
    }


def _agent(places: Places, agent: Service, tools: Mapping[str, Service]) -> Settings:
    routes = [_to(places, name, tool, tool_id(name), [_scope(name)]) for name, tool in tools.items()]
    return {
        **_sidecar(places, tools, "agent"),
        "inbound": inbound(
            places, "agent", *({**one, "may_call": list(tools)} for one in _routes("agent", agent, FRONT))
        ),
        "outbound": outbound(places, "agent", *routes),
    }


def _tool(places: Places, tools: Mapping[str, Service], name: str, tool: Service) -> Settings:
    section = {"listen": places.at(f"{name}-in"), "agent": tool.origin, "routes": _routes(name, tool, AGENT)}
    return {**_sidecar(places, tools, name), "inbound": section}


def _routes(name: str, service: Service, peer: str) -> list[Settings]:
    """The inbound routes: everything, and in front of it the operations of a protocol where there is one."""
    allowed = {"scopes": [_scope(name)], "peers": [peer]}
    everything = {"name": name, "match": {"path_prefix": "/", "methods": list(_METHODS)}, **allowed}
    if service.protocol == "http":
        return [everything]
    exact = service.protocol == "mcp" or service.path == "/"
    operations = [{"allow": list(service.operations or every_operation(service.protocol))}]
    return [
        {
            "name": operations_route(name, service),
            "match": {"path" if exact else "path_prefix": service.path},
            "protocol": service.protocol,
            "operations": operations,
            **allowed,
        },
        everything,
    ]


def operations_route(name: str, service: Service) -> str:
    """Return the name of the inbound route of a service's operations."""
    return f"{name}-{service.protocol}"


def _to(places: Places, name: str, service: Service, spiffe_id: str, scopes: Sequence[str]) -> Settings:
    """The outbound route to a service: by its host, or below ``/NAME``; with the protocol of all that goes there."""
    found = route(places, name, spiffe_id, scopes)
    if service.host is not None:
        found["match"] = {"host": service.host}
    if service.protocol != "http":
        found["protocol"] = service.protocol
        found["operations"] = [{"allow": list(service.operations or every_operation(service.protocol))}]
    return found


def _sts(places: Places, tools: Mapping[str, Service]) -> Settings:
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
