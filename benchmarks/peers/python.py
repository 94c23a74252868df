"""Two proxies in Python beside ours: the obvious one, with and without a cache, and a bare pipe."""

from __future__ import annotations

import sys

import aiohttp

from benchmarks.peers.peer import Part, Peer, single
from benchmarks.world import AGENT, SCOPE, World


def with_aiohttp(*, cache: bool) -> Peer:
    """Build the proxy that any Python engineer would write."""
    name = "aiohttp" if cache else "aiohttp-nocache"
    lacks = ("strict heads and canonical paths", "limits and deadlines", "change of keys and certificates", "metrics")
    return single(
        name,
        "aiohttp proxy, cached tokens" if cache else "aiohttp proxy, no cache",
        does_not=lacks if cache else ("cache of verified tokens", *lacks),
        missing=lambda: None,
        version=lambda: f"aiohttp {aiohttp.__version__} on uvloop",
        launch=lambda world: _aiohttp(world, name, cache=cache),
        judges=True,
    )


def pipe() -> Peer:
    """The lower bound for Python."""
    return single(
        "pipe",
        "Python pipe (floor: TLS only)",
        does_not=("HTTP", "URI SAN", "any look at the token", "a log of requests"),
        missing=lambda: None,
        version=lambda: f"uvloop on Python {sys.version.split()[0]}",
        launch=_pipe,
        speaks_http=False,
    )


def _aiohttp(world: World, name: str, *, cache: bool) -> Part:
    command = _command(world, "aiohttp_proxy", name)
    command += ["--public-key", str(world.public_key), "--issuer", world.issuer, "--audience", AGENT]
    command += ["--scope", SCOPE, "--upstream", f"http://{world.at('agent')}"]
    return Part(name=name, command=command + (["--cache"] if cache else []), listens=(f"{name}-inbound",))


def _pipe(world: World) -> Part:
    command = [*_command(world, "pipe", "pipe"), "--upstream", str(world.port("agent"))]
    return Part(name="pipe", command=command, listens=("pipe-inbound",))


def _command(world: World, module: str, name: str) -> list[str]:
    identity = world.identities[AGENT]
    options = ["--port", str(world.port(f"{name}-inbound")), "--bundle", str(world.bundle)]
    options += ["--certificate", str(identity.certificate), "--key", str(identity.key)]
    return [sys.executable, "-m", f"benchmarks.peers.{module}", *options]
