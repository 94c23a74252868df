"""ghostunnel: TLS in, TCP out, with the URI SAN checked. Not in a registry: the command line gives its path."""

from __future__ import annotations

from benchmarks.peers.binaries import find, missing
from benchmarks.peers.peer import Part, Peer, first_line, single
from benchmarks.world import AGENT, CALLER, World


def plain() -> Peer:
    """A lower bound with SPIFFE."""
    return single(
        "ghostunnel",
        "ghostunnel (TLS only, URI SAN)",
        does_not=("HTTP", "any look at the token", "a log of requests"),
        missing=lambda: missing("ghostunnel", "--binary ghostunnel=PATH"),
        version=lambda: first_line([find("ghostunnel") or "ghostunnel", "--version"]),
        launch=_launch,
        speaks_http=False,
    )


def _launch(world: World) -> Part:
    identity = world.identities[AGENT]
    listen, target = world.at("ghostunnel-inbound"), world.at("agent")
    files = ["--cert", str(identity.certificate), "--key", str(identity.key), "--cacert", str(world.bundle)]
    command = [find("ghostunnel") or "ghostunnel", "server", "--listen", listen, "--target", target]
    return Part(
        name="ghostunnel",
        command=[*command, *files, "--allow-uri", CALLER],
        environment={"GOMAXPROCS": "1"},
        listens=("ghostunnel-inbound",),
    )
