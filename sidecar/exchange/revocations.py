"""The issuers' lists of revocations: polled every two seconds, verified, merged, and known to be fresh or not.

Every answer contains, signed, the times of its replica's last contact with each other replica. The age of a list is the
time since contact with a majority of the replicas, not since the last answer. A 304 without a confirmation does not
count. A list is stale if it is older than ``max_stale_s``, or than the ``ttl`` that its issuer allows (the life of a
token); then the core refuses calls that depend on it. While the answering replica has no contact with a majority, each
poll opens a new connection, which may lead to another replica.

A list is verified with its issuer's published keys, so a foreign issuer needs only a URL. A long list is read in steps;
its revocations take effect after the last step.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from delegation_core.errors import SidecarError
from delegation_core.keyset import VerificationKey
from delegation_core.revocation import InForce, Kind
from delegation_core.revocation_list import SKEW_S, parse_list, parse_unchanged, verify_list, verify_unchanged
from delegation_core.revocations_kept import NONE, Knowledge, Revocations, RevocationsError
from sidecar.identity.endpoint import Endpoint, EndpointAnswer
from sidecar.steps import in_steps

_log: Final = logging.getLogger("sidecar.revocations")

FIRST_RETRY_S: Final = 0.05
POLL_TIMEOUT_S: Final = 2.0  # a replica that does not answer costs one poll, not the bound of a revocation
RECONNECT_LAG_S: Final = 15  # three rounds of the replicas: the one that answers is cut off
UNCONFIRMED_S: Final = 10  # then an issuer whose 304 has no confirmation, as of earlier versions, is asked for the list
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
        """Fetch the list; status 304 if its entity tag is still ``etag``. Raises SidecarError."""

    def reconnect(self) -> None:
        """Use a new connection from the next call on."""

    async def close(self) -> None:
        """Close it."""


class Keys(Protocol):
    """Source of the issuers' keys (``identity.jwks.IssuerKeys``)."""

    def find(self, issuer: str, kid: str | None) -> VerificationKey | None:
        """Return the key if cached, else None."""

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
        self._complete_at: float | None = None
        self.lag_s = 0.0  # delay of the newest answer

    @property
    def age_s(self) -> float | None:
        """Seconds since the list was known to be complete; None if there is none yet."""
        return None if self._complete_at is None else self._monotonic() - self._complete_at

    @property
    def stale(self) -> bool:
        """True if there is no list yet, or it is too old to rely on."""
        age_s = self.age_s
        return age_s is None or age_s > min(self.settings.max_stale_s, self.revocations.ttl_s)

    @property
    def problem(self) -> str | None:
        """The reason why the list gets older, for the operator; None if it stays fresh."""
        if self.last_error is None and self.lag_s > RECONNECT_LAG_S:
            return f"the replica that answers has heard no majority of the replicas for {int(self.lag_s)} s"
        return self.last_error

    async def poll(self) -> None:
        """Poll once. A refused list or a failed call changes only ``last_error``, and the list gets older."""
        asked_at = self._monotonic()  # the answer says what was true after this
        self._now()
        etag = self._etag
        knowledge: Knowledge | None
        try:
            answer = await self._channel.get(etag)
            if answer.status == 200:
                knowledge = await self._read(answer)
            elif answer.status == 304 and etag is not None:
                knowledge = await self._unchanged(answer, etag)
            else:
                raise RevocationsError(f"status {answer.status}")  # noqa: TRY301
        except (SidecarError, RevocationsError) as error:
            if self.last_error != str(error):
                _log.warning("no valid list of revocations", extra={"issuer": self.settings.issuer, "why": str(error)})
            self.last_error = str(error)
            return
        self.last_error = None
        if knowledge is not None:
            self._count(knowledge, asked_at)
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
                first = self._complete_at is None  # nothing is served before the first list
                retry_s = FIRST_RETRY_S * 2.0 ** min(failures, 16)
                await asyncio.sleep(min(retry_s, self.settings.every_s) if first else self.settings.every_s)
        finally:
            await self._channel.close()

    def _count(self, knowledge: Knowledge, asked_at: float) -> None:
        """Advance the time up to which the list is complete; it never goes back. Reconnect from a lagging replica."""
        replayed_s = self._wall() - knowledge.issued_at - SKEW_S  # positive: clock skew does not explain the age
        self.lag_s = knowledge.lag_s + max(0.0, replayed_s)
        if self._complete_at is None or asked_at - self.lag_s > self._complete_at:
            self._complete_at = asked_at - self.lag_s
        if self.lag_s > RECONNECT_LAG_S:
            self._channel.reconnect()

    async def _unchanged(self, answer: EndpointAnswer, etag: str) -> Knowledge | None:
        """Return the replica's knowledge from its confirmation of our list; None without one."""
        if answer.unchanged is None:
            if (self.age_s or 0.0) > UNCONFIRMED_S:
                self._etag = None
            return None
        jws = parse_unchanged(answer.unchanged)
        key, algorithms = await self._key(jws.kid), self.settings.algorithms
        wall = int(self._wall())
        return verify_unchanged(jws, issuer=self.settings.issuer, tag=etag, key=key, algorithms=algorithms, now=wall)

    async def _key(self, kid: str | None) -> VerificationKey:
        issuer, keys = self.settings.issuer, self._keys()
        return keys.find(issuer, kid) or await keys.wait_for_key(issuer, kid)

    async def _read(self, answer: EndpointAnswer) -> Knowledge:
        issuer = self.settings.issuer
        jws = await in_steps(parse_list(answer.body))
        key = await self._key(jws.kid)
        wall = int(self._wall())
        listed = verify_list(jws, issuer=issuer, key=key, algorithms=self.settings.algorithms, now=wall)
        fresh = await in_steps(listed)
        async with self._changing:
            self.revocations = await in_steps(self.revocations.merged(fresh, now=self._now()))
            self._etag = answer.etag
        return Knowledge(issued_at=fresh.issued_at, heard=fresh.heard)

    def _now(self) -> int:
        """Return the wall time in seconds. After the clock was set back the next poll fetches the whole list: a
        revocation removed as ended may be in force again.
        """
        now = int(self._wall())
        if now < self._judged_at:
            self._etag = None
        self._judged_at = now
        return now


class RevocationLists:
    """The lists of all issuers that have one. ``after_change`` is called when revocations or stale lists change."""

    def __init__(self, lists: Sequence[RevocationList] = ()) -> None:
        self.after_change: Callable[[], None] = lambda: None
        self._lists = {one.settings.issuer: one for one in lists}
        for one in lists:
            one.after_poll = self.look
        self._seen = self._now()

    def in_force(self, own: frozenset[str]) -> InForce:
        """Return the revocations in force; those of ``own`` issuers apply to tokens of every issuer."""
        return InForce(
            lists={issuer: one.revocations for issuer, one in self._lists.items()},
            own=own & self._lists.keys(),
            stale=frozenset(issuer for issuer, one in self._lists.items() if one.stale),
        )

    def missing(self) -> list[str]:
        """Return a reason for each list that may not be relied on, for the operator."""
        stale = [(issuer, one.problem) for issuer, one in self._lists.items() if one.stale]
        return [f"revocations of {issuer} ({error or 'too old'})" for issuer, error in stale]

    def ages(self) -> Mapping[str, float]:
        """Return the seconds since each list was known to be complete."""
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
                "last_error": one.problem,
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
        """Detect a change of the revocations in force, or of the stale lists."""
        seen = self._now()
        if seen != self._seen:
            self._seen = seen
            self.after_change()

    def _now(self) -> list[tuple[bool, object]]:
        return [(one.stale, one.revocations.stopped) for one in self._lists.values()]
