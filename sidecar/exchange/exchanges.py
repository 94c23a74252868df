"""The token services of one workload, and their issued tokens, as one cache."""

from __future__ import annotations

from collections.abc import Callable

from sidecar.delegation.verify import VerifiedToken
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
        """The lookups that found a token."""
        return sum(one.tokens.hits for one in self.values())

    @property
    def misses(self) -> int:
        """The lookups that found none."""
        return sum(one.tokens.misses for one in self.values())

    @property
    def evicted(self) -> int:
        """The tokens that were evicted for others."""
        return sum(one.tokens.evicted for one in self.values())

    def open_circuits(self) -> dict[tuple[str, str], bool]:
        """Return by issuer and endpoint if its circuit is open."""
        return {(issuer, state.label): state.open for issuer, one in self.items() for state in one.endpoints}

    def sweep(self, now: float) -> None:
        """Free the tokens that have expired by ``now``."""
        for one in self.values():
            one.sweep(now)

    def shed(self, to_bytes: int) -> None:
        """Evict the least recently used tokens until no more than ``to_bytes`` of all are left, in equal parts."""
        for one in self.values():
            one.tokens.shed(to_bytes // len(self))

    def carry(self, before: int, after: int, stops: Callable[[VerifiedToken], bool]) -> None:
        """Keep tokens accepted by policy number ``before`` for ``after``, but none that ``stops`` says True of."""
        for one in self.values():
            one.tokens.carry(before, after, stops)

    async def close(self) -> None:
        """Cancel the exchanges in flight at every token service."""
        for one in self.values():
            await one.close()
