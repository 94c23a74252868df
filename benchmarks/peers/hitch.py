"""hitch: TLS in, TCP out, without HTTP: a lower bound for everything with HTTP."""

from __future__ import annotations

import grp
import os
import pwd
from typing import Final

from benchmarks.peers.binaries import find, missing
from benchmarks.peers.peer import Part, Peer, first_line, single
from benchmarks.world import AGENT, World

_CONFIGURATION: Final = """
frontend = "[{host}]:{port}"
backend = "[{agent_host}]:{agent_port}"
pem-file = "{identity}"
client-verify = required
client-verify-ca = "{bundle}"
tls-protos = TLSv1.3
workers = 1
backlog = 4096
keepalive = 3600
syslog = off
log-level = 0
daemon = off
user = "{user}"
group = "{group}"
"""


def plain() -> Peer:
    """A lower bound."""
    return single(
        "hitch",
        "hitch (floor: TLS only)",
        does_not=("HTTP", "URI SAN", "any look at the token", "a log of requests"),
        missing=lambda: missing("hitch", "apt-get install hitch"),
        version=lambda: first_line([find("hitch") or "hitch", "--version"]),
        launch=_launch,
        speaks_http=False,
    )


def _launch(world: World) -> Part:
    host, _, port = world.at("hitch-inbound").partition(":")
    agent_host, _, agent_port = world.at("agent").partition(":")
    path = world.folder / "hitch.conf"
    path.write_text(
        _CONFIGURATION.format(
            host=host,
            port=port,
            agent_host=agent_host,
            agent_port=agent_port,
            identity=world.identities[AGENT].both,
            bundle=world.bundle,
            user=pwd.getpwuid(os.geteuid()).pw_name,
            group=grp.getgrgid(os.getegid()).gr_name,
        )
    )
    return Part(name="hitch", command=[find("hitch") or "hitch", f"--config={path}"], listens=("hitch-inbound",))
