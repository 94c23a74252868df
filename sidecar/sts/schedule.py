"""Assigns roles to the signing keys, from the keys' times and the current time alone.

Theory of operation. Every key has a second from which it signs. At any time the latest one that is due signs, later
ones are announced, and earlier ones stay published until the last token they signed has expired. Replicas with the same
keys and roughly the same clock therefore agree without talking to each other, a restart changes nothing, and no step
depends on somebody moving a file in time.

This is safe for consumers because a new key is added at least ``ANNOUNCE_S`` before it signs, twice as long as anybody
may cache our key set (``KEYS_MAX_AGE_S``), so each consumer has seen it by then. A replica whose clock is behind signs
with the old key, which is still published. A consumer that missed all this fetches again for an unknown key.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from sidecar.sts.keys import KeyRefusedError, KeyRing, SigningKey

KEYS_MAX_AGE_S: Final = 300  # how long consumers may cache the key set: its Cache-Control
ANNOUNCE_S: Final = 2 * KEYS_MAX_AGE_S
GRACE_S: Final = 120  # beyond a token's life: consumers' leeway, and replicas whose clocks differ; 60 s each
EPHEMERAL_PERIOD_S: Final = 86_400


@dataclass(frozen=True, slots=True)
class TimedKey:
    """A key, and the second since the epoch from which it signs."""

    signs_from: int
    key: SigningKey


@dataclass(frozen=True, slots=True)
class KeySchedule:
    """All keys, in the order in which they sign.

    Raises:
        KeyRefusedError: no key, or one key or one time twice.
    """

    keys: tuple[TimedKey, ...]

    def __post_init__(self) -> None:
        if not self.keys:
            raise KeyRefusedError("there is no key")
        if len({one.key.kid for one in self.keys}) != len(self.keys):
            raise KeyRefusedError("one key is listed twice")
        if any(after.signs_from <= before.signs_from for before, after in pairwise(self.keys)):
            raise KeyRefusedError("two keys sign from the same time")

    def at(self, now: int, *, keep_s: int) -> KeyRing:
        """Return the roles at ``now``. ``keep_s`` is how long a key stays published after the next one has taken over.

        If no key is due yet, the first one signs: no consumer can know another.
        """
        due = [one for one in self.keys if one.signs_from <= now] or [self.keys[0]]
        return KeyRing(
            active=due[-1].key,
            announced=tuple(one.key for one in self.keys if one.signs_from > due[-1].signs_from),
            retired=tuple(before.key for before, after in pairwise(due) if now < after.signs_from + keep_s),
        )

    def announced_late(self, before: KeySchedule, now: int) -> tuple[TimedKey, ...]:
        """Return keys that were not in ``before`` and sign before every consumer can know them."""
        known = {one.key.kid for one in before.keys}
        return tuple(one for one in self.keys if one.key.kid not in known and one.signs_from < now + ANNOUNCE_S)


class EphemeralKeys:
    """Keys in memory, for development: replicas do not share them, and a restart invalidates every token. They rotate
    too.
    """

    def __init__(
        self, now: int, *, period_s: int = EPHEMERAL_PERIOD_S, make: Callable[[], SigningKey] = SigningKey.generate
    ) -> None:
        self._period_s = period_s
        self._make = make
        self._schedule = KeySchedule((TimedKey(now, make()),))

    def at(self, now: int, *, keep_s: int) -> KeyRing:
        """Return the roles at ``now``, with the next key announced in time."""
        newest = self._schedule.keys[-1]
        if now >= newest.signs_from + self._period_s - ANNOUNCE_S:
            signs_from = max(newest.signs_from + self._period_s, now + ANNOUNCE_S)
            keys = [*self._schedule.keys, TimedKey(signs_from, self._make())]
            over = [before for before, after in pairwise(keys) if now >= after.signs_from + keep_s]
            self._schedule = KeySchedule(tuple(keys[len(over) :]))
        return self._schedule.at(now, keep_s=keep_s)
