"""The settings files of a mesh around one agent program: an entry where a test user calls, the agent, its tools."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from sidecar.features.operations.settings import protocol_settings
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
    """Return the SPIFFE ID of a tool."""
    return f"spiffe://{TRUST_DOMAIN}/tool/{name}"


def ports(tools: Iterable[str]) -> list[str]:
    """Return the names of the listeners that need a port, except the agent's own."""
    kinds = ("in", "out", "probe")
    return ["sts", "sts-probe", "login", *(f"{name}-{kind}" for name in ("front", "agent", *tools) for kind in kinds)]


def files(places: Places, agent: Service, tools: Mapping[str, Service]) -> dict[str, Settings]:
    """Return the settings of every process by name."""
    return {
        "front": _front(places, agent, tools),
        "agent": _agent(places, agent, tools),
        **{name: _tool(places, agent, tools, name) for name in tools},
        "sts": _sts(places, agent, tools),
    }


def entries(pids: Mapping[str, int]) -> Settings:
    """Return the Workload API's entries for processes by name. ``shell`` gets the agent's identity, for curl."""
    fixed = {"front": FRONT, "sts": STS}
    workloads: dict[str, Settings] = {}
    for name, pid in pids.items():
        spiffe_id = fixed.get(name) or _workload("agent" if name == "shell" else name)
        one = {"spiffe_id": spiffe_id, "selectors": {"pids": []}, "dns_names": [f"{name}.internal"]}
        workloads.setdefault(spiffe_id, one)["selectors"]["pids"].append(pid)
    return {"entries": list(workloads.values())}


def _workload(name: str) -> str:
    return AGENT if name == "agent" else tool_id(name)


def _scope(name: str) -> str:
    return f"{name}.call"


def _need(name: str, services: Mapping[str, Service]) -> list[str]:
    """Return the scopes of a token for a service: its own, and those of the services that it may call, recursively."""
    found: dict[str, None] = {}
    waiting = [name]
    while waiting:
        one = waiting.pop()
        if one not in found:
            found[one] = None
            waiting += services[one].may_call
    return [_scope(one) for one in services if one in found]


def _scopes(tools: Iterable[str]) -> list[str]:
    return [_scope(name) for name in ("agent", *tools)]


def _sidecar(places: Places, services: Mapping[str, Service], name: str) -> Settings:
    """Return the common settings of a sidecar. If one sidecar uses HTTP/2 all do, because a call passes two of them."""
    settings = {**common(places, name, [_scope(one) for one in services]), "drain_s": _DRAIN_S}
    if all(one.protocol != "grpc" for one in services.values()):
        return settings
    speaks_grpc = name in services and services[name].protocol == "grpc"
    return {**settings, "protocols": {"http2": True, **({"agent": "h2c"} if speaks_grpc else {})}}


def _login(places: Places, tools: Iterable[str]) -> Settings:
    return {
        "issuer": places.login,
        "jwks": f"{places.login}/jwks",
        "profile": "oidc-access-token",
        "scope_from": {"claim": "scope", "map": {LOGIN_SCOPE: _scopes(tools)}},
    }


def _front(places: Places, agent: Service, tools: Mapping[str, Service]) -> Settings:
    """Return the settings of the entry: a call with the test user's token reaches the agent through the mesh."""
    return {
        **_sidecar(places, {"agent": agent, **tools}, "front"),
        "outbound": outbound(
            places, "front", _route_to(places, "agent", agent, AGENT, _need("agent", {"agent": agent, **tools}))
        ),
        "entry": {"issuers": [{**_login(places, tools), "client_id": CLIENT_ID}], "may_call": ["agent"]},
    }


def _agent(places: Places, agent: Service, tools: Mapping[str, Service]) -> Settings:
    services = {"agent": agent, **tools}
    return {
        **_sidecar(places, services, "agent"),
        "inbound": inbound(places, "agent", *_inbound_routes("agent", services, [FRONT])),
        **_calls(places, "agent", services),
    }


def _tool(places: Places, agent: Service, tools: Mapping[str, Service], name: str) -> Settings:
    services = {"agent": agent, **tools}
    peers = [_workload(caller) for caller, one in services.items() if name in one.may_call]
    believed = {"issuers": [places.sts, places.login]}
    routes = [{**one, **believed} for one in _inbound_routes(name, services, peers)]
    settings = _sidecar(places, services, name)
    # Like many tool servers, it trusts the login issuer's tokens too: they impersonate the user, and are refused.
    settings["issuers"].append(
        {
            "issuer": places.login,
            "jwks": f"{places.login}/jwks",
            "profile": "sts",  # the shape of RFC 9068, without an actor
            "actor_trust_domains": [TRUST_DOMAIN],
            "scopes": [_scope(name)],
        }
    )
    section = {"listen": places.at(f"{name}-in"), "agent": services[name].origin, "routes": routes}
    return {**settings, "inbound": section, **_calls(places, name, services)}


def _calls(places: Places, name: str, services: Mapping[str, Service]) -> Settings:
    """Return the section ``outbound`` of a service that calls others."""
    called = services[name].may_call
    if not called and name != "agent":
        return {}
    routes = [_route_to(places, one, services[one], _workload(one), _need(one, services)) for one in called]
    return {"outbound": outbound(places, name, *routes)}


def _inbound_routes(name: str, services: Mapping[str, Service], peers: Sequence[str]) -> list[Settings]:
    called = list(services[name].may_call)
    more = {"may_call": called} if called or name == "agent" else {}
    return [{**one, **more} for one in _routes(name, services[name], peers)]


def _routes(name: str, service: Service, peers: Sequence[str]) -> list[Settings]:
    """Return the inbound routes: one for everything and, for a protocol, a more specific one for its operations."""
    allowed = {"scopes": [_scope(name)], "peers": list(peers)}
    everything = {"name": name, "match": {"path_prefix": "/", "methods": list(_METHODS)}, **allowed}
    if service.protocol == "http" or is_any_grpc(service):
        return [everything]
    if service.protocol == "grpc":
        grpc = {"protocol": "grpc", "operations": [{"allow": list(service.operations)}]}
        return [{"name": operations_route(name, service), "match": {"path_prefix": "/"}, **grpc, **allowed}]
    exact = service.protocol == "mcp" or service.path == "/"
    operations = [{"allow": list(service.operations or protocol_settings(service.protocol).every_operation())}]
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


def is_any_grpc(service: Service) -> bool:
    """Return True if a service accepts every gRPC call: without a list of methods, its route matches paths."""
    return service.protocol == "grpc" and not service.operations


def operations_route(name: str, service: Service) -> str:
    """Return the name of the inbound route of a service's operations."""
    return f"{name}-{service.protocol}"


def _route_to(places: Places, name: str, service: Service, spiffe_id: str, scopes: Sequence[str]) -> Settings:
    """Return the outbound route to a service: by its host, or below ``/NAME``, with the service's protocol."""
    found = route(places, name, spiffe_id, scopes)
    if service.host is not None:
        found["match"] = {"host": service.host}
    if service.protocol != "http" and not is_any_grpc(service):
        found["protocol"] = service.protocol
        found["operations"] = [
            {"allow": list(service.operations or protocol_settings(service.protocol).every_operation())}
        ]
    return found


def _sts(places: Places, agent: Service, tools: Mapping[str, Service]) -> Settings:
    services = {"agent": agent, **tools}
    anyone = [{"issuer": places.login, "subject": "*"}]
    calls = [
        (FRONT, "agent"),
        *((_workload(caller), name) for caller, one in services.items() for name in one.may_call),
    ]
    rules = [
        {"actor": caller, "subjects": anyone, "audience": _workload(name), "scopes": _need(name, services)}
        for caller, name in calls
    ]
    return {
        "issuer": places.sts,
        "identity": {"workload_api": f"unix://{places.socket}"},
        "listen": places.at("sts"),
        "probe": {"listen": places.at("sts-probe")},
        "keys": "ephemeral",
        "login_issuers": [_login(places, tools)],
        "entries": [{"workload": FRONT, "client_ids": {places.login: CLIENT_ID}}],
        "targets": [{"workload": _workload(name), "scopes": _need(name, services)} for name in services],
        "rules": rules,
        "records": {"sink": {"file": str(places.directory / "sts.records")}},
    }
