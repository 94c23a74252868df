"""AuthBridge as a proxy-sidecar: mTLS by its own SPIFFE client, the token's signature and claims, no cache of tokens.

It is in no registry. Build ``authbridge-lite`` from its repository, as its Dockerfile does. Its health check has a
fixed port, so a network namespace can run only one.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

import yaml

from benchmarks.peers.binaries import find, missing
from benchmarks.peers.peer import INBOUND, Part, Peer, Role, first_line
from benchmarks.world import AGENT, SERVER_NAME, World
from sidecar_dev.certificates import certificate_pem, key_pem
from sidecar_dev.files import write_whole

_FIX: Final = "--binary authbridge=PATH of an authbridge-lite"
_HEALTH: Final = "http://127.0.0.1:9091/readyz"


def lite() -> Peer:
    """The reverse proxy with ``jwt-validation``, in strict mTLS."""
    return Peer(
        name="authbridge",
        title="AuthBridge (lite)",
        roles={INBOUND: Role(port="authbridge-inbound", counted=("authbridge",))},
        does_not=("URI SAN", "act", "cache of verified tokens", "subject and actor in its log"),
        missing=lambda: missing("authbridge", _FIX),
        version=lambda: first_line([find("authbridge") or "authbridge", "--version"]),
        parts=lambda world, _: [workload_api(world), pod(world, "authbridge")],
        judges=True,
    )


def workload_api(world: World) -> Part:
    """Return the Workload API for its identity: one per node, and not counted."""
    key = world.folder / "authority.key"
    certificate = world.folder / "authority.pem"
    write_whole(key, key_pem(world.authority.current.key), private=True)
    write_whole(certificate, certificate_pem(world.authority.current.certificate))
    command = [sys.executable, "-m", "benchmarks.workload_api", "--socket", str(_socket(world))]
    command += ["--authority", str(certificate), "--key", str(key), "--spiffe-id", AGENT, "--name", SERVER_NAME]
    command += ["--port", str(world.port("workload-api"))]
    return Part(name="workload-api", command=command, listens=("workload-api",), proxy=False)


def pod(world: World, name: str) -> Part:
    """One AuthBridge in front of the agent."""
    jwt = {"issuer": world.issuer, "jwks_url": world.jwks_url, "audience": AGENT}
    settings = {
        "mode": "proxy-sidecar",
        "listener": {
            "roles": ["reverse"],
            "reverse_proxy_addr": world.at(f"{name}-inbound"),
            "reverse_proxy_backend": f"http://{world.at('agent')}",
            "session_api_addr": world.at(f"{name}-sessions"),
        },
        "stats": {"address": world.at(f"{name}-stats")},
        "pipeline": {"inbound": {"plugins": [{"name": "jwt-validation", "config": jwt}]}, "outbound": {"plugins": []}},
        "mtls": {"mode": "strict"},
        "spiffe": {"socket": f"unix://{_socket(world)}", "mirror_files": False},
    }
    path = world.folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(settings))
    command = [find("authbridge") or "authbridge", "--config", str(path)]
    return Part(name=name, command=command, listens=(f"{name}-inbound",), ready=_HEALTH)


def _socket(world: World) -> Path:
    return world.folder / "workload-api.sock"
