"""The issuers' lists of revocations: polled every two seconds, verified, merged, and known to be fresh or not.

A poll that is answered 200 or 304 confirms a list. One that was not confirmed for ``max_stale_s``, or for as long as
its issuer lets readers rely on it (its ``ttl``, the life of a token), is stale: the core refuses what it would decide.
A list is verified by its issuer's published keys, so a foreign issuer needs nothing but a URL. A long one is read in
steps: what it stops counts when the last step is done.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from sidecar.delegation.keyset import VerificationKey
from sidecar.delegation.revocation import NONE, InForce, Kind, Revocations, RevocationsError
from sidecar.delegation.revocation_list import parse_list, verify_list
from sidecar.errors import SidecarError
from sidecar.identity.endpoint import Endpoint, EndpointAnswer
from sidecar.steps import in_steps

_log: Final = logging.getLogger("sidecar.revocations")

FIRST_RETRY_S: Final = 0.05
POLL_TIMEOUT_S: Final = 2.0  # a replica that does not answer costs one poll, not the bound of a revocation
LOOK_S: Final = 0.25  # between two looks at the clock: for lists that become stale, revocations that end


@dataclass(frozen=True, slots=True, kw_only=True)
class RevocationListSettings:
    """One issuer's list: its ``endpoint``, and the ``algorithms`` that the issuer may sign with."""

    issuer: str
    endpoint: Endpoint
    algorithms: frozenset[str]
    every_s: float = 2.0
    max_stale_s: float = 300.0


class Channel(Protocol):
    """A connection to one list (``exchange.channel.StsChannel``)."""

    async def get(self, etag: str | None) -> EndpointAnswer:
        """Fetch it, unless it still has this entity tag. Raises SidecarError."""

    async def close(self) -> None:
        """Close it."""


class Keys(Protocol):
    """Source of the issuers' keys (``identity.jwks.IssuerKeys``)."""

    def find(self, issuer: str, kid: str | None) -> VerificationKey | None:
        """Return the key, if it is known now."""

    async def wait_for_key(self, issuer: str, kid: str | None) -> VerificationKey:
        """Return the key after a fetch. Raises SidecarError."""


class RevocationList:
    """One issuer's list. ``wall`` is the clock of expiry, ``monotonic`` that of age; in seconds."""

    def __init__(
        self,
        settings: RevocationListSettings,
        channel: Channel,
        keys: Callable[[], Keys],
        *,
        wall: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.settings = settings
        self.revocations: Revocations = NONE
        self.last_error: str | None = "no list has been fetched yet"
        self.after_poll: Callable[[], None] = lambda: None
        self._channel = channel
        self._keys = keys
        self._wall = wall
        self._monotonic = monotonic
        self._changing = asyncio.Lock()  # a list is merged, and what is over removed, one after the other
        self._etag: str | None = None
        self._judged_at = 0  # when the ends of revocations were last compared with the clock
        self._confirmed_at: float | None = None

    @property
    def age_s(self) -> float | None:
        """Seconds since the list was confirmed; None if there is none yet."""
        return None if self._confirmed_at is None else self._monotonic() - self._confirmed_at

    @property
    def stale(self) -> bool:
        """True if it may not be relied on."""
        age_s = self.age_s
        return age_s is None or age_s > min(self.settings.max_stale_s, self.revocations.ttl_s)

    async def poll(self) -> None:
        """Ask once. A list that is refused, or no answer, leaves all as it was but the age."""
        asked_at = self._monotonic()  # the answer says what was true after this
        self._now()
        etag = self._etag
        try:
            answer = await self._channel.get(etag)
            if answer.status == 200:
                await self._read(answer)
            elif answer.status != 304 or etag is None:
                raise RevocationsError(f"status {answer.status}")  # noqa: TRY301
        except (SidecarError, RevocationsError) as error:
            if self.last_error != str(error):
                _log.warning("no revocations", extra={"issuer": self.settings.issuer, "why": str(error)})
            self.last_error = str(error)
            return
        self._confirmed_at = asked_at
        self.last_error = None
        self.after_poll()  # at once: a sidecar that is ready must enforce it already

    async def expire(self) -> None:
        """Remove the revocations that have ended."""
        async with self._changing:
            self.revocations = await in_steps(self.revocations.at(self._now()))

    async def run(self) -> None:
        """Poll until cancelled."""
        failures = 0
        try:
            while True:
                await self.poll()
                failures = 0 if self.last_error is None else failures + 1
                first = self._confirmed_at is None  # nothing is served before the first list
                retry_s = FIRST_RETRY_S * 2.0 ** min(failures, 16)
                await asyncio.sleep(min(retry_s, self.settings.every_s) if first else self.settings.every_s)
        finally:
            await self._channel.close()

    async def _read(self, answer: EndpointAnswer) -> None:
        issuer, keys = self.settings.issuer, self._keys()
        jws = await in_steps(parse_list(answer.body))
        key = keys.find(issuer, jws.kid) or await keys.wait_for_key(issuer, jws.kid)
        wall = int(self._wall())
        listed = verify_list(jws, issuer=issuer, key=key, algorithms=self.settings.algorithms, now=wall)
        fresh = await in_steps(listed)
        async with self._changing:
            self.revocations = await in_steps(self.revocations.merged(fresh, now=self._now()))
            self._etag = answer.etag

    def _now(self) -> int:
        """Return the time. After the clock fell the next poll asks for the whole list: an end that seemed to be over
        may still come.
        """
        now = int(self._wall())
        if now < self._judged_at:
            self._etag = None
        self._judged_at = now
        return now


class RevocationLists:
    """The lists of all issuers that have one. ``after_change`` is called when another set is in force, or stale."""

    def __init__(self, lists: Sequence[RevocationList] = ()) -> None:
        self.after_change: Callable[[], None] = lambda: None
        self._lists = {one.settings.issuer: one for one in lists}
        for one in lists:
            one.after_poll = self.look
        self._seen = self._now()

    def in_force(self, own: frozenset[str]) -> InForce:
        """Return what is in force now; the lists of ``own`` issuers count for every token."""
        return InForce(
            lists={issuer: one.revocations for issuer, one in self._lists.items()},
            own=own & self._lists.keys(),
            stale=frozenset(issuer for issuer, one in self._lists.items() if one.stale),
        )

    def missing(self) -> list[str]:
        """Return a reason for each list that may not be relied on, for the operator."""
        stale = [(issuer, one.last_error) for issuer, one in self._lists.items() if one.stale]
        return [f"revocations of {issuer} ({error or 'too old'})" for issuer, error in stale]

    def ages(self) -> Mapping[str, float]:
        """Return the seconds since each list was confirmed."""
        return {issuer: one.age_s for issuer, one in self._lists.items() if one.age_s is not None}

    def count(self) -> Mapping[str, int]:
        """Count the revocations in force by kind."""
        return {kind: sum(len(one.revocations.names(kind)) for one in self._lists.values()) for kind in Kind}

    def rows(self) -> list[dict[str, object]]:
        """Return each list's state, for ``sidecar status``."""
        return [
            {
                "issuer": issuer,
                "seq": one.revocations.seq,
                "revoked": len(one.revocations.in_force),
                "age_s": None if one.age_s is None else int(one.age_s),
                "stale": one.stale,
                "last_error": one.last_error,
            }
            for issuer, one in self._lists.items()
        ]

    def numbers(self) -> str:
        """Return each list's issuer and number, and how many revocations it has, for a record."""
        return " ".join(
            f"iss={issuer} seq={one.revocations.seq} revoked={len(one.revocations.in_force)}"
            for issuer, one in self._lists.items()
        )

    async def run(self) -> None:
        """Poll all lists until cancelled, even without any."""
        async with asyncio.TaskGroup() as tasks:
            for one in self._lists.values():
                tasks.create_task(one.run())
            while True:
                await self.expire()
                self.look()
                await asyncio.sleep(LOOK_S)

    async def expire(self) -> None:
        """Remove the revocations that have ended."""
        for one in self._lists.values():
            await one.expire()

    def look(self) -> None:
        """Detect a change of what is in force or stale."""
        seen = self._now()
        if seen != self._seen:
            self._seen = seen
            self.after_change()

    def _now(self) -> list[tuple[bool, object]]:
        return [(one.stale, one.revocations.stopped) for one in self._lists.values()]
