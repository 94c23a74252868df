"""No proxy at all: straight to the agent, in plain HTTP. What a hop adds is told from here."""

from __future__ import annotations

from benchmarks.peers.peer import INBOUND, PAIR, Peer, Role


def direct() -> Peer:
    """Asked only where latency is looked at. Its CPU time is the agent's own."""
    return Peer(
        name="direct",
        title="no proxy (its CPU is the agent's)",
        roles=dict.fromkeys((INBOUND, PAIR), Role(port="agent", counted=("agent",))),
        does_not=("anything: latencies are told beside it",),
        missing=lambda: None,
        version=lambda: "-",
        parts=lambda _world, _roles: [],
    )
