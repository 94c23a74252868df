"""Growth of the cost per request while one quantity grows."""

from __future__ import annotations

from typing import Final

from benchmarks.peers.peer import OUTBOUND, ROUTES
from benchmarks.scenarios import Scenario

# The growing quantity on each axis, and the fault to look for.
AXES: Final = {
    "connections": "open connections, all busy",
    "routes": "inbound routes; the last one is asked",
    "tokens": "different tokens in turn; up to 8,192 are remembered, more are verified each time",
    "handles": "handles alive; 16 of them are used",
    "chain": "actors in the chain of each token, each token new",
    "body": "bytes of the request's body",
}


def _inbound(axis: str, amount: int, **how: object) -> Scenario:
    return Scenario(name=f"{axis}-{amount}", title=f"{amount:,} {AXES[axis]}", axis=axis, amount=amount, **how)  # type: ignore[arg-type]


GROWTH: Final = (
    *(_inbound("connections", amount, connections=amount) for amount in (1, 10, 100, 1000)),
    *(_inbound("routes", amount, role=role, path=f"/r{amount - 1}/x") for role, amount in ROUTES.items()),
    *(_inbound("tokens", amount, tokens=amount) for amount in (10, 1000, 8000, 100_000)),
    *(_inbound("handles", amount, role=OUTBOUND, handles=amount) for amount in (16, 2000)),
    *(_inbound("chain", amount, chain=amount, fresh_tokens=True) for amount in (1, 2, 4, 8)),
    *(_inbound("body", amount, method="POST", body=amount) for amount in (100, 10_000, 100_000, 1_000_000)),
)
