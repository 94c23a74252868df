"""No proxy: directly to the agent, in plain HTTP. The base for the cost of a hop."""

from __future__ import annotations

from benchmarks.peers.peer import INBOUND, OVER_HTTP2, PAIR, Peer, Role


def direct() -> Peer:
    """A peer for latency only. Its CPU time is the agent's own."""
    return Peer(
        name="direct",
        title="no proxy (its CPU is the agent's)",
        roles={
            **dict.fromkeys((INBOUND, PAIR), Role(port="agent", counted=("agent",))),
            **dict.fromkeys(OVER_HTTP2, Role(port="agent-h2c", counted=("agent-h2c",))),
        },
        does_not=("anything: latencies are told beside it",),
        missing=lambda: None,
        version=lambda: "-",
        parts=lambda _world, _roles: [],
    )
