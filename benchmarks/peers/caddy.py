"""Caddy on one core: mTLS and a log."""

from __future__ import annotations

from typing import Final

from benchmarks.peers.binaries import find, missing
from benchmarks.peers.peer import HTTP2, HTTP2_OPEN, Part, Peer, first_line, single
from benchmarks.world import AGENT, SERVER_NAME, World

_CONFIGURATION: Final = """{{
    admin off
    auto_https off
    storage file_system {folder}/caddy
}}
https://{name}:{port} {{
    bind 127.0.0.1
    tls {certificate} {key} {{
        protocols tls1.3
        client_auth {{
            mode require_and_verify
            trusted_ca_cert_file {bundle}
        }}
    }}
    log {{
        output stdout
        format json
    }}
    reverse_proxy http://{agent} {{
        flush_interval -1
        transport http {{
            keepalive 300s
            keepalive_idle_conns_per_host 128
        }}
    }}
}}
"""


def plain() -> Peer:
    """mTLS and a log."""
    return single(
        "caddy",
        "Caddy",
        does_not=("URI SAN", "any look at the token", "subject and actor in its log", "exchange of tokens"),
        missing=lambda: missing("caddy", "apt-get install caddy"),
        version=lambda: first_line([find("caddy") or "caddy", "version"]),
        launch=lambda world: _launch(world, "caddy"),  # it speaks HTTP/2 with whoever offers it
        over_http2=dict.fromkeys((HTTP2, HTTP2_OPEN), _launch),
    )


def _launch(world: World, process: str) -> Part:
    identity = world.identities[AGENT]
    path = world.folder / f"{process}.Caddyfile"
    path.write_text(
        _CONFIGURATION.format(
            folder=world.folder,
            name=SERVER_NAME,
            port=world.port(f"{process}-inbound"),
            certificate=identity.certificate,
            key=identity.key,
            bundle=world.bundle,
            agent=world.at("agent"),
        )
    )
    environment = {"GOMAXPROCS": "1", "HOME": str(world.folder), "XDG_DATA_HOME": str(world.folder)}
    command = [find("caddy") or "caddy", "run", "--config", str(path), "--adapter", "caddyfile"]
    return Part(name=process, command=command, environment=environment, listens=(f"{process}-inbound",))
