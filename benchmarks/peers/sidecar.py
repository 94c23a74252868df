"""The sidecar itself, run as its users run it: with a settings file. No check, limit or record is off."""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Final

from benchmarks.peers.agents import relay
from benchmarks.peers.binaries import find, missing
from benchmarks.peers.peer import INBOUND, MESH, OUTBOUND, PAIR, ROUTES, Part, Peer, Role
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
from sidecar import __version__
from sidecar.delegation.spiffe_id import SpiffeId

_ACTOR_TOKEN_LIFE_S: Final = 12 * 3600  # the file is not renewed during a run
_METHODS: Final = ["GET", "POST"]


def sidecar() -> Peer:
    """Build the sidecar for every role.

    Its identity comes from PEM files; beyond the inbound side a token service runs beside it.
    """
    front = "sidecar-front"
    return Peer(
        name="sidecar",
        title="delegation sidecar",
        roles={
            INBOUND: Role(port="sidecar-inbound", counted=("sidecar",)),
            **{role: Role(port=f"sidecar-{role}-inbound", counted=(f"sidecar-{role}",)) for role in ROUTES},
            OUTBOUND: Role(port="sidecar-outbound", counted=(front,), prefix="/next", credential="handle"),
            PAIR: Role(port="sidecar-outbound", counted=(front, "sidecar-tool"), prefix="/pair", credential="handle"),
            MESH: Role(
                port="sidecar-outbound",
                counted=(front, "sidecar-first", "sidecar-second", "sidecar-tool"),
                prefix="/first",
                credential="login",
            ),
        },
        does_not=(),
        missing=lambda: None,
        version=lambda: f"{__version__} on Python {sys.version.split()[0]}",
        parts=_parts,
        judges=True,
    )


def earlier() -> Peer:
    """Return the sidecar of another checkout, to compare a change with its base.

    Its inbound side, and its outbound side in front of the tool and the token service of ``sidecar``, which takes part
    too. ``--binary sidecar-before=PATH`` names that checkout's Python.
    """
    name = "sidecar-before"
    return Peer(
        name=name,
        title="delegation sidecar, another checkout",
        roles={
            INBOUND: Role(port=f"{name}-inbound", counted=(name,)),
            OUTBOUND: Role(port=f"{name}-outbound", counted=(f"{name}-front",), prefix="/next", credential="handle"),
        },
        does_not=("the tool and token service of the other one",),
        missing=lambda: missing(name, "--binary sidecar-before=PATH of another checkout's python"),
        version=lambda: "another checkout",
        parts=_earlier_parts,
        judges=True,
    )


def _earlier_parts(world: World, roles: frozenset[str]) -> list[Part]:
    name = "sidecar-before"
    python = find(name) or sys.executable
    parts = [_run(world, name, inbound_settings(world, name), python=python)] if INBOUND in roles else []
    if OUTBOUND in roles:
        parts.append(_run(world, f"{name}-front", _front(world, name), python=python))
    return parts


def _parts(world: World, roles: frozenset[str]) -> list[Part]:
    parts = [_run(world, "sidecar", inbound_settings(world, "sidecar"))] if INBOUND in roles else []
    parts += [
        _run(world, f"sidecar-{role}", inbound_settings(world, f"sidecar-{role}", _routes(ROUTES[role])))
        for role in sorted(roles & ROUTES.keys())
    ]
    if not roles & {OUTBOUND, PAIR, MESH}:
        return parts
    parts += [_sts(world), _run(world, "sidecar-tool", _tool(world)), _run(world, "sidecar-front", _front(world))]
    if MESH in roles:
        parts.append(
            _run(world, "sidecar-second", _middle(world, "second", SECOND, FIRST, _route(world, "tool", TOOL)))
        )
        parts.append(
            _run(world, "sidecar-first", _middle(world, "first", FIRST, FRONT, _route(world, "second", SECOND)))
        )
        parts.append(relay(world, "sidecar-second-agent", to="sidecar-second-outbound", prefix="/tool"))
        parts.append(relay(world, "sidecar-first-agent", to="sidecar-first-outbound", prefix="/second"))
    return parts


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


def _routes(count: int) -> list[dict[str, Any]]:
    """Return this many routes, each for its own path."""
    match = {"methods": _METHODS}
    rest = {"scopes": [SCOPE], "peers": [CALLER]}
    return [{"name": f"r{n}", "match": {**match, "path_prefix": f"/r{n}"}, **rest} for n in range(count)]


def _front(world: World, name: str = "sidecar") -> dict[str, Any]:
    """Settings of the entry where users log in."""
    login = {**_login(world), "client_id": CLIENT_ID}
    routes = [
        {
            **_route(world, "tool", TOOL),
            "name": "next",
            "match": {"prefix": "/next"},
            "upstream": _origin(world, "tool"),
        },
        {**_route(world, "tool", TOOL), "name": "pair", "match": {"prefix": "/pair"}},
        _route(world, "first", FIRST),
    ]
    return {
        **_common(world, f"{name}-front".removeprefix("sidecar-"), FRONT),
        "outbound": {"listen": world.at(f"{name}-outbound"), "routes": routes},
        "entry": {"issuers": [login], "may_call": ["next", "pair", "first"]},
    }


def _middle(world: World, name: str, own: str, peer: str, onward: dict[str, Any]) -> dict[str, Any]:
    """Settings of an agent that is called and makes calls."""
    return {
        **_common(world, name, own),
        "inbound": _inbound(world, name, f"sidecar-{name}-agent", peer, [onward["name"]]),
        "outbound": {"listen": world.at(f"sidecar-{name}-outbound"), "routes": [onward]},
    }


def _tool(world: World) -> dict[str, Any]:
    """Settings of the end of every chain."""
    settings = _common(world, "tool", TOOL)
    del settings["exchange"]
    inbound = _inbound(world, "tool", "agent", FRONT, [])
    inbound["routes"][0]["peers"] = [FRONT, SECOND]
    return {**settings, "inbound": inbound}


def _inbound(world: World, name: str, agent: str, peer: str, may_call: list[str]) -> dict[str, Any]:
    route = {"name": "all", "match": {"path_prefix": "/", "methods": _METHODS}, "scopes": [SCOPE], "peers": [peer]}
    return {
        "listen": world.at(f"sidecar-{name}-inbound"),
        "agent": _origin(world, agent, scheme="http"),
        "routes": [{**route, "may_call": may_call}],
    }


def _route(world: World, name: str, peer: str) -> dict[str, Any]:
    upstream = _origin(world, f"sidecar-{name}-inbound")
    where = {"name": name, "match": {"prefix": f"/{name}"}, "upstream": upstream, "peer": peer}
    return {**where, "audience": peer, "scopes": [SCOPE]}


def _common(world: World, name: str, own: str) -> dict[str, Any]:
    sts = f"https://{world.at('sts')}"
    return {
        "identity": _identity(world, own, actor_token_for=sts),
        "issuers": [{**_issuer(sts, f"{sts}/jwks"), "tls": {"peer": STS}}],
        "exchange": {"issuer": sts, "peer": STS},
        "probe": {"listen": world.at(f"sidecar-{name}-probe")},
        "records": {"sink": "stdout"},
    }


def _sts(world: World) -> Part:
    """Settings of the token service. It runs beside the load, not with the proxies, and is not counted."""
    bundles = world.folder / "jwt-bundles.json"
    bundles.write_text(json.dumps({TRUST_DOMAIN: base64.b64encode(world.authority.jwt_bundle()).decode()}))
    anyone = [{"issuer": world.issuer, "subject": "*"}]
    identity = _identity(world, STS)
    identity["files"]["jwt_bundles"] = str(bundles)
    hops = ((FRONT, TOOL), (FRONT, FIRST), (FIRST, SECOND), (SECOND, TOOL))
    settings = {
        "issuer": f"https://{world.at('sts')}",
        "identity": identity,
        "listen": world.at("sts"),
        "probe": {"listen": world.at("sts-probe")},
        "keys": "ephemeral",
        "login_issuers": [_login(world)],
        "entries": [{"workload": FRONT, "client_ids": {world.issuer: CLIENT_ID}}],
        "targets": [{"workload": one, "scopes": [SCOPE]} for one in (FIRST, SECOND, TOOL)],
        "rules": [{"actor": one, "subjects": anyone, "audience": other, "scopes": [SCOPE]} for one, other in hops],
        "records": {"sink": "stdout"},
    }
    return _part(world, "sts", ["sts"], settings, ("sts",), proxy=False)


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
        token = pem.certificate.with_suffix(".jwt")
        token.touch(mode=0o600)
        token.write_text(world.authority.issue_jwt(SpiffeId(own), actor_token_for, ttl_s=_ACTOR_TOKEN_LIFE_S))
        files["jwt_svids"] = {actor_token_for: str(token)}
    return {"spiffe_id": own, "files": files}


def _origin(world: World, name: str, scheme: str = "https") -> str:
    return f"{scheme}://{world.at(name)}"


def _run(world: World, name: str, settings: dict[str, Any], *, python: str = sys.executable) -> Part:
    listens = [section["listen"] for key in ("inbound", "outbound") if (section := settings.get(key))]
    return _part(world, name, ["run"], settings, tuple(map(world.name_of, listens)), python=python)


def _part(
    world: World,
    name: str,
    command: list[str],
    settings: dict[str, Any],
    listens: tuple[str, ...],
    *,
    proxy: bool = True,
    python: str = sys.executable,
) -> Part:
    path = world.folder / f"{name}.yaml"
    path.write_text(json.dumps(settings, separators=(",", ":")))  # JSON is YAML
    program = [python, "-P", "-m", "sidecar.cli", *command, "--config", str(path)]
    ready = f"http://{settings['probe']['listen']}/readyz"
    return Part(name=name, command=program, listens=listens, ready=ready, proxy=proxy)
