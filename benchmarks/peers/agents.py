"""Agents in the middle of a chain, which forward the credential of their caller (``native/relay.c``)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from benchmarks.peers.peer import CHAINS, Part, Role
from benchmarks.world import FIRST, FRONT, SECOND, TOOL, World


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """A process of a chain, and its neighbours. The entry has no caller and no agent; the tool has no next process."""

    process: str
    own: str
    caller: str | None
    agent: str | None  # the port of the agent behind it
    audience: str | None
    to: str | None  # the port of the next one


def links(name: str, role: str) -> Iterator[Link]:
    """Return the processes of a peer's chain. The ports of each are its name with ``-inbound`` and ``-outbound``."""
    hops = CHAINS[role]
    owns = [*(FRONT, FIRST, SECOND)[:hops], TOOL]
    processes = [f"{name}-{role}-{own.rpartition('/')[2]}" for own in owns]
    for at, (process, own) in enumerate(zip(processes, owns, strict=True)):
        last = at == hops
        yield Link(
            process=process,
            own=own,
            caller=owns[at - 1] if at else None,
            agent=("agent" if last else f"{process}-agent") if at else None,
            audience=None if last else owns[at + 1],
            to=None if last else f"{processes[at + 1]}-inbound",
        )


def chain_roles(name: str, **how: Any) -> dict[str, Role]:
    """Return the role of each chain of a peer."""
    chains = {role: [link.process for link in links(name, role)] for role in CHAINS}
    return {role: Role(port=f"{chain[0]}-outbound", counted=tuple(chain), **how) for role, chain in chains.items()}


def relays(world: World, name: str, role: str, **prefixes: str) -> list[Part]:
    """Return the agents in the middle of a peer's chain."""
    middle = [link for link in links(name, role) if link.agent and link.to]
    return [relay(world, f"{link.process}-agent", to=f"{link.process}-outbound", **prefixes) for link in middle]


def relay(world: World, name: str, *, to: str, prefix: str = "", mcp_prefix: str = "") -> Part:
    """Return an agent on the port of its name that calls the port ``to`` below ``prefix``; for MCP, ``mcp_prefix``."""
    command = [str(world.folder / "bin" / "relay"), "--port", str(world.port(name))]
    command += ["--to", str(world.port(to)), "--prefix", prefix, "--mcp-prefix", mcp_prefix]
    return Part(name=name, command=command, listens=(name,), proxy=False)
