"""The agents in the middle of a chain: they forward their Authorization header and do nothing else."""

from __future__ import annotations

from benchmarks.peers.peer import Part
from benchmarks.world import World


def relay(world: World, name: str, *, to: str, prefix: str = "", mcp_prefix: str = "") -> Part:
    """Return an agent on the port of its name that calls the port ``to`` below ``prefix``; for MCP, ``mcp_prefix``."""
    command = [str(world.folder / "bin" / "relay"), "--port", str(world.port(name))]
    command += ["--to", str(world.port(to)), "--prefix", prefix, "--mcp-prefix", mcp_prefix]
    return Part(name=name, command=command, listens=(name,), proxy=False)
