"""No proxy: directly to the agent, in plain HTTP. The base for the cost of a hop."""

from __future__ import annotations

from typing import Final

from benchmarks.peers.agents import relay
from benchmarks.peers.peer import AGENTS, AGENTS_HTTP2, INBOUND, OVER_HTTP2, PAIR, TWO_HOPS, Part, Peer, Role
from benchmarks.world import World

_MIDDLE: Final = "direct-agent"


def direct() -> Peer:
    """A peer for latency only. Its CPU time is the agent's own."""
    return Peer(
        name="direct",
        title="no proxy (its CPU is the agent's)",
        roles={
            **dict.fromkeys((INBOUND, PAIR, AGENTS), Role(port="agent", counted=("agent",))),
            **dict.fromkeys(OVER_HTTP2, Role(port="agent-h2c", counted=("agent-h2c",))),
            AGENTS_HTTP2: Role(port="agent", counted=("agent",), http2=False),  # agent-h2c never waits
            TWO_HOPS: Role(port=_MIDDLE, counted=(_MIDDLE, "agent")),
        },
        does_not=("anything: latencies are told beside it",),
        missing=lambda: None,
        version=lambda: "-",
        parts=_parts,
    )


def _parts(world: World, roles: frozenset[str]) -> list[Part]:
    return [relay(world, _MIDDLE, to="agent")] if TWO_HOPS in roles else []
