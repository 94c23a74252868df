"""The sidecar itself, run as its users run it: with a settings file. No check, limit or record is off."""

from __future__ import annotations

import sys
from collections.abc import Mapping

import yaml

from benchmarks.peers.peer import INBOUND, Launch, Peer
from benchmarks.world import AGENT, CALLER, SCOPE, TRUST_DOMAIN, World
from sidecar import __version__


def inbound() -> Peer:
    """Its inbound side alone, with its identity from PEM files."""
    return Peer(
        name="sidecar",
        title="delegation sidecar",
        roles=frozenset({INBOUND}),
        does_not=(),
        missing=lambda: None,
        version=lambda: f"{__version__} on Python {sys.version.split()[0]}",
        launch=_inbound,
        judges=True,
        verifies=True,
    )


def _inbound(world: World) -> Launch:
    identity = world.identities[AGENT]
    settings = {
        "identity": {
            "spiffe_id": AGENT,
            "files": {"certificate": str(identity.certificate), "key": str(identity.key), "bundle": str(world.bundle)},
        },
        "issuers": [
            {
                "issuer": world.issuer,
                "jwks": world.jwks_url,
                "profile": "sts",
                "actor_trust_domains": [TRUST_DOMAIN],
                "scopes": [SCOPE],
            }
        ],
        "inbound": {
            "listen": world.at("sidecar-inbound"),
            "agent": f"http://{world.at('agent')}",
            "routes": [
                {
                    "name": "all",
                    "match": {"path_prefix": "/", "methods": ["GET", "POST"]},
                    "scopes": [SCOPE],
                    "peers": [CALLER],
                }
            ],
        },
        "probe": {"listen": world.at("sidecar-probe")},
        "records": {"sink": "stdout"},
    }
    return launch(world, "sidecar", settings)


def launch(world: World, name: str, settings: Mapping[str, object]) -> Launch:
    """``sidecar run`` with these settings."""
    path = world.folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(dict(settings)))
    return Launch([sys.executable, "-m", "sidecar.cli", "run", "--config", str(path)])
