"""Schedule of token refreshes: before a token ends, so that no call waits for the token service. Pure.

Times are seconds since the epoch. ``spread`` is random, from 0 to 1: replicas that got their tokens together should not
all ask for the next ones in the same second.
"""

from __future__ import annotations

from typing import Final

LAST_PART: Final = 0.2  # of a token's life, in which a use refreshes it
LEAST_S: Final = 5  # time for a failed exchange and another one
_MOST_PART: Final = 0.5  # a token that lives for seconds serves half of them first
_SPREAD: Final = 0.25
_RETRY_PART: Final = 0.25  # of the remaining time: retries become more frequent, but stay few
_LEAST_RETRY_S: Final = 2


def refresh_at(*, now: int, usable_until: int, subject_until: int, spread: float) -> int:
    """Return the second from which a token obtained at ``now`` is refreshed when used; ``usable_until`` means never.

    No issued token outlives its subject token. If a token ends with its subject token (``subject_until``), a refresh
    cannot extend its life, and every call would trigger one.
    """
    if usable_until >= subject_until:
        return usable_until
    life = usable_until - now
    ahead = max(LAST_PART * life, LEAST_S) * (1 + _SPREAD * spread)
    return usable_until - int(min(ahead, _MOST_PART * life))


def retry_at(*, now: int, usable_until: int, spread: float) -> int:
    """Return the second from which a refresh that began at ``now`` and has not succeeded is tried again."""
    pause = max(_RETRY_PART * (usable_until - now), _LEAST_RETRY_S)
    return now + int(pause * (1 + _SPREAD * spread))
