"""Tokens already verified, so that a kept token costs one dictionary look-up instead of a signature check.

The key is the whole token *and* the peer: a variant of a token (JWS signatures are malleable) only misses. What may
change between two requests, time, policy and route, is judged again each time by the core; what may not, the signature
under a key we still trust, is dropped as soon as any issuer's key set or the policy changes.
"""

from __future__ import annotations

from typing import Final

from sidecar.delegation.spiffe_id import SpiffeId
from sidecar.delegation.verify import VerifiedToken

MAX_VERDICTS: Final = 8192


class Verdicts:
    """A bounded cache of verified tokens. The oldest goes first."""

    def __init__(self, max_entries: int = MAX_VERDICTS) -> None:
        self._max_entries = max_entries
        self._tokens: dict[tuple[str, SpiffeId], VerifiedToken] = {}
        self._valid_for: tuple[int, int] = (-1, -1)

    def __len__(self) -> int:
        return len(self._tokens)

    def find(self, raw: str, peer: SpiffeId, *, keys: int, policy: int) -> VerifiedToken | None:
        """The token as verified before under the same ``keys`` generation and ``policy`` number, or None."""
        if self._valid_for != (keys, policy):
            self._tokens.clear()
            self._valid_for = (keys, policy)
            return None
        return self._tokens.get((raw, peer))

    def keep(self, token: VerifiedToken, peer: SpiffeId, *, keys: int, policy: int) -> None:
        """Remember a verified token, unless keys or policy changed while it was being verified."""
        if self._valid_for != (keys, policy):
            return
        if len(self._tokens) >= self._max_entries:
            del self._tokens[next(iter(self._tokens))]
        self._tokens[token.raw, peer] = token
