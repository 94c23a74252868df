"""One issuer's keys: fetched, refreshed, and cached for a limited time if the issuer is unreachable (RFC 7517).

One task does all the fetching, so there is never more than one fetch in flight. It sleeps until the next refresh, or
until an unknown key ID wakes it. That happens at most once in ``cooldown_s``: anyone can send key IDs, and must not be
able to cause load at the issuer. Tokens never name the URL.

A success replaces the whole set: a key that is gone is revoked, and an empty set means no keys. A failure keeps the set
until it is ``max_age_s`` old; after that there are none, and calls are refused as KEYS_UNAVAILABLE.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from delegation_core.errors import Denied, Reason, Unavailable
from delegation_core.keyset import KeySet, KeySetError, VerificationKey, parse_jwks
from delegation_core.records.record_text import escape
from delegation_core.spiffe_id import SpiffeId
from sidecar.identity.endpoint import Endpoint, EndpointAnswer, EndpointError

_log: Final = logging.getLogger(__name__)

MAX_JWKS_BYTES: Final = 262_144
DEFAULT_REFRESH_S: Final = 300.0
MIN_HINT_S: Final = 60.0  # an issuer's max-age is clamped to these two
MAX_HINT_S: Final = 86_400.0
FIRST_RETRY_S: Final = 0.2
LAST_RETRY_S: Final = 5.0
EMPTY_RETRY_S: Final = 1.0  # while an issuer has never published a key

_MAX_AGE: Final = re.compile(r'(?:^|,)[ \t]*max-age="?([0-9]{1,9})"?[ \t]*(?=,|$)', re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class JwksSettings:
    """The URL of one issuer's keys. Its server is pinned as in `Endpoint`: a peer, a CA file, or loopback.

    ``refresh_s`` None follows the issuer's ``max-age``, or 300 s without one; a number overrides it.

    Raises:
        ValueError: the endpoint is unusable or a time is not positive.
    """

    issuer: str
    url: str
    peer: SpiffeId | None = None
    ca_file: str | None = None
    refresh_s: float | None = None
    max_age_s: float = 3600.0
    cooldown_s: float = 30.0
    timeout_s: float = 5.0

    def __post_init__(self) -> None:
        _ = self.endpoint
        for name in ("refresh_s", "max_age_s", "cooldown_s", "timeout_s"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name}: it must be above 0 s")

    @property
    def endpoint(self) -> Endpoint:
        """The URL and the identity that answers there."""
        return Endpoint(url=self.url, peer=self.peer, ca_file=self.ca_file)


class Fetcher(Protocol):
    """Fetches one issuer's key set document (`EndpointClient` is the real one)."""

    async def get(self) -> EndpointAnswer:
        """Fetch the document; any status is an answer. Raises EndpointError."""

    async def close(self) -> None:
        """Close its connections."""


def refresh_delay(settings: JwksSettings, cache_control: str | None, *, jitter: float) -> float:
    """Return the seconds from a success to the next fetch. ``jitter`` in [0, 1) takes off up to a tenth.

    At most half of ``max_age_s``: a healthy issuer's set never gets too old to be used.
    """
    hint = _MAX_AGE.search(cache_control or "")
    if settings.refresh_s is not None:
        wanted = settings.refresh_s
    elif hint is not None:
        wanted = min(max(float(hint[1]), MIN_HINT_S), MAX_HINT_S)
    else:
        wanted = DEFAULT_REFRESH_S
    return min(wanted, settings.max_age_s / 2) * (1 - jitter / 10)


def retry_delay(failures: int, *, has_keys: bool, cooldown_s: float, jitter: float) -> float:
    """Return the seconds from the ``failures``-th failure in a row to the next fetch: short while there are no keys."""
    longest = max(LAST_RETRY_S, cooldown_s) if has_keys else LAST_RETRY_S
    return min(FIRST_RETRY_S * 2.0 ** min(failures - 1, 16), longest) * (1 - jitter / 2)


class Issuer:
    """One issuer's keys, and the task that keeps them fresh."""

    def __init__(
        self, settings: JwksSettings, fetcher: Fetcher, clock: Callable[[], float], on_fetched: Callable[[], None]
    ) -> None:
        self.settings = settings
        self.last_error: str | None = "no key set has been fetched yet"
        self.ever_had_keys = False
        self._fetcher = fetcher
        self._clock = clock
        self._on_fetched = on_fetched
        self._keys: KeySet | None = None
        self._generation = 0
        self._fetched_at = 0.0
        self._failures = 0
        self._asked_at: float | None = None
        self._wanted = asyncio.Event()
        self._fetching = False
        self._round: asyncio.Future[None] | None = None  # ends with the current or next fetch; None: nobody fetches

    @property
    def keys(self) -> KeySet | None:
        """The current set; None before the first success, and once it is too old."""
        if self._keys is not None and self._clock() - self._fetched_at > self.settings.max_age_s:
            self._keys = None
            self._generation += 1  # decisions by these keys end with them
        return self._keys

    @property
    def generation(self) -> int:
        """A number that grows whenever the current keys change, and only then."""
        if self._keys is not None and self._clock() - self._fetched_at > self.settings.max_age_s:
            _ = self.keys  # too old: decisions by them end with them
        return self._generation

    @property
    def age_s(self) -> float | None:
        """Seconds since the current set was fetched."""
        return None if self.keys is None else self._clock() - self._fetched_at

    def find(self, kid: str | None) -> VerificationKey | None:
        """Return the key with this key ID if it is cached, else None."""
        keys = self.keys
        return None if keys is None else keys.find(kid)

    def wake(self) -> None:
        """Fetch now, unless a fetch is in flight."""
        if not self._fetching:
            self._wanted.set()

    async def wait_for_key(self, kid: str | None) -> VerificationKey:
        """Return the key after one fetch for all callers. Raises Denied UNKNOWN_KEY or Unavailable KEYS_UNAVAILABLE."""
        for _ in range(2):  # a fetch in flight may have begun before the key was published; the next has not
            if not self._ask():
                break
            await self._wait_for_round()
            key = self.find(kid)
            if key is not None:
                return key
        if self.keys is None or self._failures:  # without a fetch the key may exist
            raise Unavailable(Reason.KEYS_UNAVAILABLE, self.last_error or "")
        raise Denied(Reason.UNKNOWN_KEY, "the issuer publishes no such key")

    def _ask(self) -> bool:
        """Return True if there is a fetch to wait for; start one unless the last was within ``cooldown_s``."""
        if self._round is None:
            return False
        if not self._fetching and not self._wanted.is_set():
            now = self._clock()
            if self._asked_at is not None and now - self._asked_at < self.settings.cooldown_s:
                return False
            self._asked_at = now
            self._wanted.set()
        return True

    async def _wait_for_round(self) -> None:
        if self._round is not None:
            await asyncio.wait([self._round], timeout=2 * self.settings.timeout_s)

    async def keep_fresh(self, jitter: Callable[[], float]) -> None:
        """Fetch and sleep until cancelled."""
        loop = asyncio.get_running_loop()
        try:
            while True:
                self._round = self._round or loop.create_future()
                self._wanted.clear()
                delay_s = await self._fetch(jitter)
                self._end_round()
                self._round = loop.create_future()
                await self._sleep(delay_s)
        finally:
            self._end_round()
            await self._fetcher.close()

    def _end_round(self) -> None:
        if self._round is not None:
            self._round.set_result(None)
            self._round = None

    async def _sleep(self, delay_s: float) -> None:
        try:
            async with asyncio.timeout(delay_s):
                await self._wanted.wait()
        except TimeoutError:
            return

    async def _fetch(self, jitter: Callable[[], float]) -> float:
        """Fetch once; return the seconds until the next fetch."""
        self._fetching = True
        try:
            answer = await self._fetcher.get()
            keys = _parse(answer)
        except (EndpointError, KeySetError) as error:
            self.last_error = str(error)
            self._failures += 1
            has_keys = self.keys is not None
            return retry_delay(self._failures, has_keys=has_keys, cooldown_s=self.settings.cooldown_s, jitter=jitter())
        finally:
            self._fetching = False
        self._replace(keys)
        self._on_fetched()
        if not self.ever_had_keys:  # the issuer has just started; we are not ready yet, so no call needs its keys
            return EMPTY_RETRY_S
        return refresh_delay(self.settings, answer.cache_control, jitter=jitter())

    def _replace(self, keys: KeySet) -> None:
        if self.keys is None or not _same(keys, self.keys):
            self._generation += 1
        self._keys = keys
        self._fetched_at = self._clock()
        self._failures = 0
        trouble = _trouble_of(keys)
        if keys.ambiguous and trouble != self.last_error:  # logged once, not at every fetch
            _log.warning("keys of an issuer are refused", extra={"issuer": self.settings.issuer, "why": trouble})
        self.last_error = trouble
        self.ever_had_keys = self.ever_had_keys or len(keys) > 0


def _trouble_of(keys: KeySet) -> str | None:
    """Describe the problem of a current key set for the operator; None if there is none."""
    if keys.ambiguous:
        kids = ", ".join(sorted(escape(kid) for kid in keys.ambiguous))
        return f"different keys have the same kid, so none of them is used: {kids}"
    return None if len(keys) else "the key set is empty"


def _same(one: KeySet, other: KeySet) -> bool:
    """Return True if both sets find the same key for every token, with or without a key ID."""
    return one.kids == other.kids and all(one.find(kid) == other.find(kid) for kid in (None, *one.kids))


def _parse(answer: EndpointAnswer) -> KeySet:
    if answer.status != 200:
        raise KeySetError(f"the answer's status is {answer.status}, not 200")
    return parse_jwks(answer.body, max_bytes=MAX_JWKS_BYTES)
