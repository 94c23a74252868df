"""agentgateway on one thread: mTLS, the token's signature and claims, a rule on the tool of MCP.

It is in no registry: name a binary. The configuration follows its documentation and was never run, without a binary.
"""

from __future__ import annotations

import json
from typing import Any, Final

from benchmarks.peers.binaries import find, missing
from benchmarks.peers.peer import AGENTS, Part, Peer, Role, first_line
from benchmarks.peers.sidecar_settings import MCP_PATH, TOOL_NAME
from benchmarks.world import AGENT, World

_NAME: Final = "agentgateway"


def plain() -> Peer:
    """Return the peer for the agents' rows of one hop."""
    return Peer(
        name=_NAME,
        title=_NAME,
        roles={AGENTS: Role(port=f"{_NAME}-inbound", counted=(_NAME,))},
        does_not=("URI SAN", "act = peer", "cache of verified tokens", "operations of A2A", "actor in its log"),
        missing=lambda: missing(_NAME, f"--binary {_NAME}=PATH of a release"),
        version=lambda: first_line([find(_NAME) or _NAME, "--version"]),
        parts=lambda world, _roles: [_launch(world)],
        judges=True,
    )


def _launch(world: World) -> Part:
    identity = world.identities[AGENT]
    jwt = {"mode": "strict", "issuer": world.issuer, "audiences": [AGENT], "jwks": {"file": str(world.jwks)}}
    policies: dict[str, Any] = {"jwtAuth": jwt, "backendAuth": {"passthrough": {}}}
    rules = {"rules": [f'mcp.tool.name == "{TOOL_NAME}"']}
    targets = [{"name": "agent", "mcp": {"host": f"http://{world.at('agent')}{MCP_PATH}"}}]
    routes = [
        {
            "name": "mcp",
            "matches": [{"path": {"exact": MCP_PATH}}],
            "policies": {**policies, "mcpAuthorization": rules},
            "backends": [{"mcp": {"statefulMode": "stateless", "targets": targets}}],
        },
        {
            "name": "all",
            "matches": [{"path": {"pathPrefix": "/"}}],
            "policies": policies,
            "backends": [{"host": world.at("agent")}],
        },
    ]
    tls = {"cert": str(identity.certificate), "key": str(identity.key), "root": str(world.bundle)}
    listener = {"protocol": "HTTPS", "tls": tls, "routes": routes}
    path = world.folder / f"{_NAME}.yaml"
    path.write_text(json.dumps({"binds": [{"port": world.port(f"{_NAME}-inbound"), "listeners": [listener]}]}))
    command = [find(_NAME) or _NAME, "-f", str(path)]
    return Part(name=_NAME, command=command, environment={"WORKER_THREADS": "1"}, listens=(f"{_NAME}-inbound",))
