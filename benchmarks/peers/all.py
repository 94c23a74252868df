"""Every peer, the base first."""

from __future__ import annotations

from benchmarks.peers import (
    agentgateway,
    authbridge,
    caddy,
    direct,
    envoy,
    ghostunnel,
    haproxy,
    hitch,
    nginx,
    python,
    sidecar,
)
from benchmarks.peers.peer import Peer


def all_peers() -> list[Peer]:
    """Return all peers, installed or not."""
    return [
        haproxy.plain(),
        sidecar.sidecar(),
        sidecar.native(),
        sidecar.earlier(),
        sidecar.earlier("native"),
        haproxy.with_jwt(),
        nginx.plain(),
        nginx.with_njs(),
        envoy.plain(),
        envoy.with_jwt(cache=True),
        envoy.with_jwt(cache=False),
        agentgateway.plain(),
        authbridge.lite(),
        caddy.plain(),
        python.with_aiohttp(cache=True),
        python.with_aiohttp(cache=False),
        ghostunnel.plain(),
        hitch.plain(),
        python.pipe(),
        direct.direct(),
    ]
