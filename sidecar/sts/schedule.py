"""Assigns roles to the signing keys, from the keys' times and the current time alone.

Theory of operation. Every key has a second from which it signs. At any time the latest one that is due signs, later
ones are announced, and earlier ones stay published until the last token they signed has expired. Replicas with the same
keys and roughly the same clock therefore agree without talking to each other, and no step depends on somebody moving a
file in time.

Consumers know a key when it signs, because it has been published for ``KeyLags.announce_s`` by then: the time that the
file takes to reach the slowest replica (until then a consumer may be given a set without it), the time that such a set
may be cached, and the time until the consumer fetches again. A key that reaches a running replica later than that
before its time is held back there until the same span is over; meanwhile the key before it goes on signing. A key stays
published for as long again after its successor took over, because another replica may have seen the successor later.

A starting replica cannot know when a key arrived: it may have arrived just now, after its own time, and another replica
may not publish it yet. So the starting replica holds back each key as if it had just arrived, and signs with the key
before it. Other replicas, where the later key may sign since its time, must still publish that earlier key. So keys
stay published for ``LATE_S`` longer, and a key whose time is longer ago than that is not held back. The first key in
the directory has no predecessor and is not held back either. Therefore the order in which replicas start or see a key
does not matter if the key arrives at most ``LATE_S`` after its time.

The signing key never goes back to an earlier one: that one may have left the published set. A replica whose signing key
is gone from the directory has no signer, and is not ready, until a later key is due.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Final

from sidecar.sts.keys import KeyRefusedError, KeyRing, SigningKey

KEYS_MAX_AGE_S: Final = 300  # how long consumers may cache the key set: its Cache-Control
MOUNT_LAG_S: Final = 120  # a kubelet looks at its Secrets every minute, and its cache of them may be a minute old
REFRESH_S: Final = 300  # a fetch that fails is tried again in this time; sidecars may also fetch less often
ANNOUNCE_S: Final = MOUNT_LAG_S + KEYS_MAX_AGE_S + REFRESH_S
GRACE_S: Final = 120  # beyond a token's life: consumers' leeway, and replicas whose clocks differ; 60 s each
LATE_S: Final = 86_400  # a key may be added up to this long after its time
SKEW_S: Final = 60  # tolerated of the clock that named the first key: only this key may sign so long before its time
EPHEMERAL_PERIOD_S: Final = 86_400


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyLags:
    """Times that a new key takes: to reach every replica, to leave caches (``max_age_s``, our Cache-Control), and
    until consumers fetch again.
    """

    mount_lag_s: int = MOUNT_LAG_S
    max_age_s: int = KEYS_MAX_AGE_S
    refresh_s: int = REFRESH_S

    @property
    def announce_s(self) -> int:
        """The time for which a key is published before it signs."""
        return self.mount_lag_s + self.max_age_s + self.refresh_s


@dataclass(frozen=True, slots=True)
class TimedKey:
    """A key, the time from which it signs, and the time until which this replica holds it back."""

    signs_from: int
    key: SigningKey
    held_until: int = 0

    @property
    def due_at(self) -> int:
        """The time, in seconds since the epoch, from which this key may sign."""
        return max(self.signs_from, self.held_until)


@dataclass(frozen=True, slots=True)
class KeySchedule:
    """All keys, in the order of their times. ``floor`` is the time of the key that signed last.

    ``late_s``: how long after its time a key may arrive while other replicas restart.

    Raises:
        KeyRefusedError: there is no key, or a key or a time is duplicated.
    """

    keys: tuple[TimedKey, ...]
    announce_s: int = ANNOUNCE_S
    floor: int = 0
    late_s: int = LATE_S

    def __post_init__(self) -> None:
        if not self.keys:
            raise KeyRefusedError("there is no key")
        if len({one.key.kid for one in self.keys}) != len(self.keys):
            raise KeyRefusedError("one key is listed twice")
        if any(after.signs_from <= before.signs_from for before, after in pairwise(self.keys)):
            raise KeyRefusedError("two keys sign from the same time")

    def at(self, now: int, *, keep_s: int) -> KeyRing:
        """Return the roles at ``now``. ``keep_s``: how long a retired key's last token may be used, in seconds."""
        signer = self.signer_at(now)
        kept_s = keep_s + self.announce_s + self.late_s
        before = () if signer is None else (one for one in self.keys if one.signs_from < signer.signs_from)
        after = self.keys if signer is None else (one for one in self.keys if one.signs_from > signer.signs_from)
        return KeyRing(
            signer=None if signer is None else signer.key,
            announced=tuple(one.key for one in after),
            retired=tuple(one.key for one in before if now < self._succeeded_at(one) + kept_s),
        )

    def signer_at(self, now: int) -> TimedKey | None:
        """Return the key that signs. None: the signing key is gone, and no later one is due."""
        # A key that signed before its own time did so by a clock that was ahead: it bars no earlier one.
        able = [one for one in self.keys if one.signs_from >= self.floor or now + SKEW_S < self.floor]
        due = [one for one in able if one.due_at <= now]
        due = due or [one for one in able if one.signs_from <= now]  # held back for the sake of a key that is gone
        if due:
            return due[-1]
        first = self.keys[0]
        return first if not self.floor and first.signs_from <= now + SKEW_S else None

    def started(self, now: int) -> KeySchedule:
        """Return the schedule of a starting replica: each key but the first is held back as if it had just arrived.

        The hold ends ``late_s`` + ``announce_s`` after the key's time at the latest: the one before may be gone then.
        """
        first, *later = self.keys
        held = (replace(one, held_until=min(now, one.signs_from + self.late_s) + self.announce_s) for one in later)
        return replace(self, keys=(first, *held))

    def followed_by(self, keys: tuple[TimedKey, ...], now: int) -> KeySchedule:
        """Return the schedule for the current set of keys. New keys are held back for ``announce_s``."""
        held = {one.key.kid: one.held_until for one in self.keys}
        until = now + self.announce_s
        fresh = tuple(replace(one, held_until=held.get(one.key.kid, until)) for one in keys)
        signer = self.signer_at(now)
        floor = self.floor
        if signer is not None:  # renaming its file may have changed its time
            floor = next((one.signs_from for one in fresh if one.key.kid == signer.key.kid), signer.signs_from)
        return replace(self, keys=fresh, floor=floor)

    def held_back(self, before: KeySchedule) -> tuple[TimedKey, ...]:
        """Return the keys that are missing in ``before`` and cannot sign at their time."""
        known = {one.key.kid for one in before.keys}
        return tuple(one for one in self.keys if one.key.kid not in known and one.due_at > one.signs_from)

    def _succeeded_at(self, key: TimedKey) -> int:
        return min(one.due_at for one in self.keys if one.signs_from > key.signs_from)


class EphemeralKeys:
    """Keys in memory, for development: replicas do not share them, and a restart invalidates every token. They rotate
    too.
    """

    def __init__(
        self, now: int, *, period_s: int = EPHEMERAL_PERIOD_S, make: Callable[[], SigningKey] = SigningKey.generate
    ) -> None:
        self._period_s = period_s
        self._make = make
        self._schedule = KeySchedule((TimedKey(now, make()),), late_s=0)

    def at(self, now: int, *, keep_s: int) -> KeyRing:
        """Return the roles at ``now``, with the next key announced in time."""
        newest = self._schedule.keys[-1]
        if now >= newest.signs_from + self._period_s - ANNOUNCE_S:
            signs_from = max(newest.signs_from + self._period_s, now + ANNOUNCE_S)
            keys = [*self._schedule.keys, TimedKey(signs_from, self._make())]
            over = [before for before, after in pairwise(keys) if now >= after.signs_from + keep_s + ANNOUNCE_S]
            self._schedule = KeySchedule(tuple(keys[len(over) :]), late_s=0)
        return self._schedule.at(now, keep_s=keep_s)
