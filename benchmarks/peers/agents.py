"""The agents in the middle of a chain: they pass on the Authorization header they were given, and know nothing else."""

from __future__ import annotations

from benchmarks.peers.peer import Part
from benchmarks.world import World


def relay(world: World, name: str, *, to: str, prefix: str = "") -> Part:
    """An agent on the port of its name that asks the port ``to``, below ``prefix``."""
    command = [str(world.folder / "bin" / "relay"), "--port", str(world.port(name))]
    command += ["--to", str(world.port(to)), "--prefix", prefix]
    return Part(name=name, command=command, listens=(name,), proxy=False)
