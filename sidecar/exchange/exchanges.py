"""The token services of one workload, and their issued tokens, as one cache."""

from __future__ import annotations

from collections.abc import Callable

from delegation_core.verify import VerifiedToken
from sidecar.exchange.client import TokenExchange


class Exchanges(dict[str, TokenExchange]):
    """The token services that this workload asks, by issuer: each with its own flights and cache."""

    __slots__ = ()

    @property
    def bytes(self) -> int:
        """The accounted bytes of all tokens kept."""
        return sum(one.tokens.bytes for one in self.values())

    @property
    def hits(self) -> int:
        """Number of cache hits."""
        return sum(one.tokens.hits for one in self.values())

    @property
    def misses(self) -> int:
        """Number of cache misses."""
        return sum(one.tokens.misses for one in self.values())

    @property
    def evicted(self) -> int:
        """Number of evicted tokens."""
        return sum(one.tokens.evicted for one in self.values())

    def open_circuits(self) -> dict[tuple[str, str], bool]:
        """Return True for each open circuit and False for each closed one, by issuer and endpoint label."""
        return {(issuer, state.label): state.open for issuer, one in self.items() for state in one.endpoints}

    def sweep(self, now: float) -> None:
        """Remove the tokens expired at ``now``, and expired rejections."""
        for one in self.values():
            one.sweep(now)

    def shed(self, to_bytes: int) -> None:
        """Evict the least recently used tokens of each cache until it holds at most an equal share of ``to_bytes``."""
        for one in self.values():
            one.tokens.shed(to_bytes // len(self))

    def carry(self, before: int, after: int, stops: Callable[[VerifiedToken], bool]) -> None:
        """Carry the tokens of policy ``before`` over to ``after``, as ``IssuedTokens.carry``."""
        for one in self.values():
            one.tokens.carry(before, after, stops)

    async def close(self) -> None:
        """Cancel the exchanges in flight at every token service."""
        for one in self.values():
            await one.close()
