"""Settings of the sidecars and of the token service in the benchmark. No check, limit or record is off."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from benchmarks.peers.agents import Link
from benchmarks.peers.peer import GRPC
from benchmarks.world import (
    AGENT,
    CALLER,
    CLIENT_ID,
    FIRST,
    FRONT,
    LOGIN_SCOPE,
    SCOPE,
    SECOND,
    STS,
    TOOL,
    TRUST_DOMAIN,
    World,
)
from delegation_core.spiffe_id import SpiffeId

_ACTOR_TOKEN_LIFE_S: Final = 12 * 3600  # the file is not renewed during a run
_METHODS: Final = ["GET", "POST"]
GRPC_METHOD: Final = "shop.Orders/Get"
MCP_PATH: Final = "/mcp"
TOOL_NAME: Final = "search"
BEFORE: Final = {"sidecar": "sidecar-before", "sidecar-native": "sidecar-native-before"}
"""Peers that are this checkout's sidecar, and the same of another version."""
ENGINES: Final = {name: "native" if "native" in name else "python" for pair in BEFORE.items() for name in pair}


def engine_of(name: str) -> dict[str, Any]:
    """Return the setting of a peer's engine."""
    return {"engine": ENGINES[name]}


def inbound_settings(world: World, name: str, routes: Sequence[Mapping[str, Any]] = ()) -> dict[str, Any]:
    """Settings of the inbound side only, in front of the agent. ``routes`` replaces the single route for all paths."""
    everything = {
        "name": "all",
        "match": {"path_prefix": "/", "methods": _METHODS},
        "scopes": [SCOPE],
        "peers": [CALLER],
    }
    return {
        "identity": _identity(world, AGENT),
        "issuers": [_issuer(world.issuer, world.jwks_url)],
        "inbound": {
            "listen": world.at(f"{name}-inbound"),
            "agent": f"http://{world.at('agent')}",
            "routes": [*routes] or [everything],
        },
        "probe": {"listen": world.at(f"{name}-probe")},
        "records": {"sink": "stdout"},
    }


def agents_settings(world: World, name: str, *, http2: bool = False) -> dict[str, Any]:
    """Settings of the inbound side with a route each for MCP, A2A and everything else."""
    rest = {"scopes": [SCOPE], "peers": [CALLER]}
    everything = {"name": "all", "match": {"path_prefix": "/", "methods": _METHODS}, **rest}
    a2a: dict[str, Any] = {"name": "a2a", "match": {"path": "/a2a"}, "protocol": "a2a", **rest}
    a2a["operations"] = [{"allow": ["SendMessage"]}]
    settings = inbound_settings(world, name, [_mcp({"match": {"path": MCP_PATH}, **rest}), a2a, everything])
    return {**settings, "protocols": {"http2": True}} if http2 else settings


def _mcp(route: Mapping[str, Any]) -> dict[str, Any]:
    return {"name": "mcp", **route, "protocol": "mcp", "operations": [{"allow": [f"tools/call:{TOOL_NAME}"]}]}


def http2_settings(world: World, name: str, role: str) -> dict[str, Any]:
    """Settings of the inbound side whose callers speak HTTP/2."""
    settings = {**inbound_settings(world, name), "protocols": {"http2": True}}
    if role == GRPC:
        settings["protocols"]["agent"] = "h2c"
        settings["inbound"]["agent"] = f"http://{world.at('agent-h2c')}"
        (route,) = settings["inbound"]["routes"]
        route |= {"match": {"path_prefix": "/"}, "protocol": "grpc", "operations": [{"allow": [GRPC_METHOD]}]}
    return settings


def numbered_routes(count: int) -> list[dict[str, Any]]:
    """Return this many routes, each for its own path."""
    match = {"methods": _METHODS}
    rest = {"scopes": [SCOPE], "peers": [CALLER]}
    return [{"name": f"r{n}", "match": {**match, "path_prefix": f"/r{n}"}, **rest} for n in range(count)]


def front_settings(world: World, peer: str) -> dict[str, Any]:
    """Settings of the entry where users log in, in front of the tool without a sidecar."""
    settings = _common(world, f"{peer}-front", FRONT, peer)
    routes = [_onward(world, "tool", TOOL, name="next")]
    settings["outbound"] = {"listen": world.at(f"{peer}-outbound"), "routes": routes}
    return {**settings, "entry": _entry(world, ["next"])}


def chain_settings(world: World, peer: str, link: Link) -> dict[str, Any]:
    """Settings of one process of a peer's chain."""
    settings, may_call = _common(world, link.process, link.own, peer), ["next", "next-mcp"]
    if link.agent is None:
        settings["entry"] = _entry(world, may_call)
    else:
        rest = {"scopes": [SCOPE], "peers": [link.caller], "may_call": may_call if link.to else []}
        everything = {"name": "all", "match": {"path_prefix": "/", "methods": _METHODS}, **rest}
        routes = [_mcp({"match": {"path": MCP_PATH}, **rest}), everything]
        settings["inbound"] = {"listen": world.at(f"{link.process}-inbound"), "routes": routes}
        settings["inbound"]["agent"] = _origin(world, link.agent, scheme="http")
    if link.to is None or link.audience is None:
        del settings["exchange"]
    else:
        mcp, everything = (_onward(world, link.to, link.audience, name=name) for name in reversed(may_call))
        settings["outbound"] = {"listen": world.at(f"{link.process}-outbound"), "routes": [_mcp(mcp), everything]}
    return settings


def _entry(world: World, may_call: list[str]) -> dict[str, Any]:
    return {"issuers": [{**_login(world), "client_id": CLIENT_ID}], "may_call": may_call}


def _onward(world: World, to: str, audience: str, *, name: str) -> dict[str, Any]:
    """Return an outbound route of this name, with a prefix of it."""
    where = {"name": name, "match": {"prefix": f"/{name}"}, "upstream": _origin(world, to), "peer": audience}
    return {**where, "audience": audience, "scopes": [SCOPE]}


def _common(world: World, process: str, own: str, peer: str) -> dict[str, Any]:
    sts = f"https://{world.at(f'{peer}-sts')}"
    return {
        "identity": _identity(world, own, actor_token_for=sts),
        "issuers": [{**_issuer(sts, f"{sts}/jwks"), "tls": {"peer": STS}}],
        "exchange": {"issuer": sts, "peer": STS},
        "probe": {"listen": world.at(f"{process}-probe")},
        "records": {"sink": "stdout"},
        **engine_of(peer),
    }


def _login(world: World) -> dict[str, Any]:
    scopes = {"claim": "scope", "map": {LOGIN_SCOPE: [SCOPE]}}
    return {"issuer": world.issuer, "jwks": world.jwks_url, "profile": "oidc-access-token", "scope_from": scopes}


def _issuer(issuer: str, jwks: str) -> dict[str, Any]:
    trust = {"actor_trust_domains": [TRUST_DOMAIN], "scopes": [SCOPE]}
    return {"issuer": issuer, "jwks": jwks, "profile": "sts", **trust}


def _identity(world: World, own: str, actor_token_for: str | None = None) -> dict[str, Any]:
    pem = world.identities[own]
    files: dict[str, Any] = {"certificate": str(pem.certificate), "key": str(pem.key), "bundle": str(world.bundle)}
    if actor_token_for is not None:
        token = pem.certificate.with_suffix(f".{actor_token_for.rpartition(':')[2]}.jwt")
        token.touch(mode=0o600)
        token.write_text(world.authority.issue_jwt(SpiffeId(own), actor_token_for, ttl_s=_ACTOR_TOKEN_LIFE_S))
        files["jwt_svids"] = {actor_token_for: str(token)}
    return {"spiffe_id": own, "files": files}


def _origin(world: World, name: str, scheme: str = "https") -> str:
    return f"{scheme}://{world.at(name)}"


def sts_settings(world: World, name: str) -> dict[str, Any]:
    """Settings of a token service."""
    bundles = world.folder / "jwt-bundles.json"
    bundles.write_text(json.dumps({TRUST_DOMAIN: base64.b64encode(world.authority.jwt_bundle()).decode()}))
    anyone = [{"issuer": world.issuer, "subject": "*"}]
    identity = _identity(world, STS)
    identity["files"]["jwt_bundles"] = str(bundles)
    hops = ((FRONT, TOOL), (FRONT, FIRST), (FIRST, SECOND), (FIRST, TOOL), (SECOND, TOOL))
    return {
        "issuer": f"https://{world.at(name)}",
        "identity": identity,
        "listen": world.at(name),
        "probe": {"listen": world.at(f"{name}-probe")},
        "keys": "ephemeral",
        "login_issuers": [_login(world)],
        "entries": [{"workload": FRONT, "client_ids": {world.issuer: CLIENT_ID}}],
        "targets": [{"workload": one, "scopes": [SCOPE]} for one in (FIRST, SECOND, TOOL)],
        "rules": [{"actor": one, "subjects": anyone, "audience": other, "scopes": [SCOPE]} for one, other in hops],
        "records": {"sink": "stdout"},
    }
