"""Envoy: the token verified with its JWT cache, and RBAC on ``act``; the same without the cache; and plain."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

import yaml

from benchmarks.peers.agents import chain_roles, links, relays
from benchmarks.peers.binaries import find, missing
from benchmarks.peers.peer import (
    AGENTS,
    AGENTS_HTTP2,
    CHAINS,
    GRPC,
    HTTP2,
    HTTP2_OPEN,
    Part,
    Peer,
    first_line,
    single,
)
from benchmarks.world import AGENT, CALLER, World

_FIX: Final = "pip install -r requirements/bench.txt, or --binary envoy=PATH"
_EXTENSIONS: Final = "type.googleapis.com/envoy.extensions"
_MANAGER: Final = f"{_EXTENSIONS}.filters.network.http_connection_manager.v3.HttpConnectionManager"
_PROTOCOL: Final = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
_ENDLESS: Final = {"max_connections": 100_000, "max_pending_requests": 100_000, "max_requests": 100_000}


def plain() -> Peer:
    """mTLS and a log."""
    return _peer(
        "envoy",
        "Envoy",
        ("URI SAN", "any look at the token", "subject and actor in its log", "exchange of tokens"),
        filters=False,
        cache=False,
    )


def with_jwt(*, cache: bool) -> Peer:
    """The token's signature and claims, RBAC on the URI SAN and on act.

    With the cache it also plays the agents' roles. Its chain passes the caller's token on as it is.
    """
    own = () if cache else ("cache of verified tokens",)
    peer = _peer(
        "envoy-jwt" if cache else "envoy-jwt-nocache",
        "Envoy + JWT cache + RBAC" if cache else "Envoy + JWT + RBAC, no cache",
        (*own, "act = peer: both are compared with one fixed name", "subject and actor in its log"),
        filters=True,
        cache=cache,
    )
    if not cache:
        return peer

    def parts(world: World, roles: frozenset[str]) -> list[Part]:
        found = peer.parts(world, roles)
        for role in sorted(roles & CHAINS.keys()):
            for link in links(peer.name, role):
                filters = _filters(world, cache=True) if link.agent else []
                found.append(_launch(world, link.process, filters, agent=link.agent, to=link.to))
            found += relays(world, peer.name, role)
        return found

    return replace(peer, roles={**peer.roles, **chain_roles(peer.name)}, parts=parts)


def _peer(name: str, title: str, does_not: tuple[str, ...], *, filters: bool, cache: bool) -> Peer:
    def of(world: World) -> list[dict[str, Any]]:
        return _filters(world, cache=cache) if filters else []

    return single(
        name,
        title,
        does_not=does_not,
        missing=lambda: missing("envoy", _FIX),
        version=lambda: first_line([find("envoy") or "envoy", "--version"]).rpartition("version: ")[2],
        launch=lambda world: _launch(world, name, of(world)),
        over_http2=dict.fromkeys(
            (HTTP2, HTTP2_OPEN, GRPC, *((AGENTS_HTTP2,) if cache else ())),
            lambda world, process: _launch(
                world, process, of(world), http2=True, agent="agent-h2c" if process.endswith(f"-{GRPC}") else "agent"
            ),
        ),
        also=(AGENTS,) if cache else (),
        judges=filters,
    )


def pod(world: World, name: str) -> Part:
    """One Envoy of many: mTLS and a log."""
    return _launch(world, name, [])


def jwt_pod(world: World, name: str) -> Part:
    """One Envoy of many that verifies tokens."""
    return _launch(world, name, _filters(world, cache=True))


def _launch(
    world: World,
    name: str,
    filters: list[dict[str, Any]],
    *,
    http2: bool = False,
    agent: str | None = "agent",
    to: str | None = None,
) -> Part:
    """Return a process with an inbound side before ``agent``, an outbound side to ``to``, or both."""
    path = world.folder / f"{name}.yaml"
    listeners, clusters, listens = [], [], []
    if agent is not None:
        tls = _tls(world, http2=http2)
        listeners.append(_listener(world, f"{name}-inbound", "agent", filters, tls))
        clusters.append(_cluster(world, "agent", agent))
        listens.append(f"{name}-inbound")
    if to is not None:
        listeners.append(_listener(world, f"{name}-outbound", "next", [], None))
        clusters.append(_cluster(world, "next", to, tls=_client_tls(world)))
        listens.append(f"{name}-outbound")
    path.write_text(yaml.safe_dump({"static_resources": {"listeners": listeners, "clusters": clusters}}))
    # The wheel's Envoy ends with its parent: this program, which stops it anyway.
    options = ["--concurrency", "1", "--disable-hot-restart", "--log-level", "error"]
    command = [find("envoy") or "envoy", "-c", str(path), *options]
    return Part(name=name, command=command, listens=tuple(listens))


def _filters(world: World, *, cache: bool) -> list[dict[str, Any]]:
    provider: dict[str, Any] = {
        "issuer": world.issuer,
        "audiences": [AGENT],
        "forward": True,
        "local_jwks": {"inline_string": world.jwks.read_text()},
        "payload_in_metadata": "jwt",  # without it RBAC sees no claim
    }
    if cache:
        provider["jwt_cache_config"] = {"jwt_cache_size": 1000}
    path = [{"key": "jwt"}, {"key": "act"}, {"key": "sub"}]
    acts = {"filter": "envoy.filters.http.jwt_authn", "path": path, "value": {"string_match": {"exact": CALLER}}}
    caller = {"authenticated": {"principal_name": {"exact": CALLER}}}
    policy = {"permissions": [{"any": True}], "principals": [{"and_ids": {"ids": [caller, {"metadata": acts}]}}]}
    return [
        {
            "name": "envoy.filters.http.jwt_authn",
            "typed_config": {
                "@type": f"{_EXTENSIONS}.filters.http.jwt_authn.v3.JwtAuthentication",
                "providers": {"issuer": provider},
                "rules": [{"match": {"prefix": "/"}, "requires": {"provider_name": "issuer"}}],
            },
        },
        {
            "name": "envoy.filters.http.rbac",
            "typed_config": {
                "@type": f"{_EXTENSIONS}.filters.http.rbac.v3.RBAC",
                "rules": {"action": "ALLOW", "policies": {"act": policy}},
            },
        },
    ]


def _listener(
    world: World, name: str, cluster: str, filters: list[dict[str, Any]], tls: dict[str, Any] | None
) -> dict[str, Any]:
    router = {
        "name": "envoy.filters.http.router",
        "typed_config": {"@type": f"{_EXTENSIONS}.filters.http.router.v3.Router"},
    }
    manager = {
        "@type": _MANAGER,
        "stat_prefix": name,
        "access_log": [_access_log()],
        "http_filters": [*filters, router],
        "stream_idle_timeout": "0s",
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "all",
                    "domains": ["*"],
                    "routes": [{"match": {"prefix": "/"}, "route": {"cluster": cluster, "timeout": "0s"}}],
                }
            ]
        },
    }
    chain: dict[str, Any] = {
        "filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]
    }
    if tls is not None:
        chain["transport_socket"] = {"name": "envoy.transport_sockets.tls", "typed_config": tls}
    return {"name": name, "address": _address(world.port(name)), "filter_chains": [chain]}


def _cluster(world: World, name: str, to: str, *, tls: dict[str, Any] | None = None) -> dict[str, Any]:
    endpoint = {"endpoint": {"address": _address(world.port(to))}}
    cluster: dict[str, Any] = {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "5s",
        "circuit_breakers": {"thresholds": [_ENDLESS]},
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}]},
    }
    if tls is not None:
        cluster["transport_socket"] = {"name": "envoy.transport_sockets.tls", "typed_config": tls}
    if to == "agent-h2c":
        options = {"http2_protocol_options": dict[str, Any]()}
        protocol = {"@type": f"type.googleapis.com/{_PROTOCOL}", "explicit_http_config": options}
        cluster["typed_extension_protocol_options"] = {_PROTOCOL: protocol}
    return cluster


def _access_log() -> dict[str, Any]:
    fields = {
        "ts": "%START_TIME%",
        "peer": "%DOWNSTREAM_PEER_URI_SAN%",
        "method": "%REQ(:METHOD)%",
        "path": "%REQ(:PATH)%",
        "status": "%RESPONSE_CODE%",
        "bytes_out": "%BYTES_SENT%",
        "total_ms": "%DURATION%",
    }
    return {
        "name": "envoy.access_loggers.stdout",
        "typed_config": {
            "@type": f"{_EXTENSIONS}.access_loggers.stream.v3.StdoutAccessLog",
            "log_format": {"json_format": fields},
        },
    }


def _tls(world: World, *, http2: bool) -> dict[str, Any]:
    return {
        "@type": f"{_EXTENSIONS}.transport_sockets.tls.v3.DownstreamTlsContext",
        "require_client_certificate": True,
        "disable_stateless_session_resumption": True,
        "common_tls_context": {
            **_common_tls(world, AGENT),
            **({"alpn_protocols": ["h2", "http/1.1"]} if http2 else {}),
        },
    }


def _client_tls(world: World) -> dict[str, Any]:
    """Return the client's side of a chain: RBAC compares each caller with one fixed name."""
    context = f"{_EXTENSIONS}.transport_sockets.tls.v3.UpstreamTlsContext"
    return {"@type": context, "common_tls_context": _common_tls(world, CALLER)}


def _common_tls(world: World, own: str) -> dict[str, Any]:
    identity = world.identities[own]
    certificate = {
        "certificate_chain": {"filename": str(identity.certificate)},
        "private_key": {"filename": str(identity.key)},
    }
    return {
        "tls_params": {"tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3"},
        "tls_certificates": [certificate],
        "validation_context": {"trusted_ca": {"filename": str(world.bundle)}},
    }


def _address(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}
