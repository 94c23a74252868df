"""The common part of all identity sources: the last good generation, kept as long as it is valid.

A source hands over updates, each the full state. A good one becomes a new generation: built and checked first, then
put in place by one assignment. An unusable one is counted and changes nothing, with one exception: if only its SVID is
unusable (expired, or no bundle vouches for it any more), trust in peers still follows its bundles. A silent source
withdraws nothing: the last generation is used until its SVID expires. No message announces that expiry, so ``current``
reads the wall clock each time, and a slow tick notifies the subscribers. Setting the clock moves the expiry in both
directions: an SVID refused only because of the time is tried again when it becomes valid.

Parsing an update and building its contexts takes tens of milliseconds if a bundle has many authorities, so both are
done in a thread, one update at a time. The state is changed on the event loop only.
"""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType
from typing import Final

from delegation_core.errors import Reason, Unavailable
from delegation_core.keyset import KeySet
from delegation_core.spiffe_id import TrustDomain
from sidecar.identity.bundle import X509Bundle, with_ambiguous_names
from sidecar.identity.generation import IdentityError, new_identity, with_bundles
from sidecar.identity.handshake import Clock
from sidecar.identity.jwt_svids import Fetch, JwtSvids
from sidecar.identity.source import Identity, State, Subscriber, UpdateCounts, X509Svid
from sidecar.identity.update import UpdateError, WithdrawnError, X509Update

Pause = Callable[[float], Awaitable[None]]

_log: Final = logging.getLogger(__name__)


class _OvertakenError(Exception):
    """The identity was withdrawn while an update was parsed or built."""


class BaseSource(ABC):
    """Base class of the identity sources. ``clock`` is wall time in seconds."""

    def __init__(self, clock: Clock, fetch_jwt_svid: Fetch) -> None:
        self.counts = UpdateCounts()
        self._clock = clock
        self._identity: Identity | None = None
        self._waiting: X509Update | None = None  # good, except that its SVID is not valid yet
        self._mixed = False  # True: an earlier SVID is used with the bundles of an update whose SVID is unusable
        self._withdrawn = False
        self._withdrawals = 0
        self._connected = False
        self._last_error: str | None = None
        self.unusable: str | None = None  # why there is no use in waiting for the identity that is there
        self._jwt_bundles: Mapping[TrustDomain, KeySet] = MappingProxyType({})
        self._jwt_svids = JwtSvids(fetch_jwt_svid, clock)
        self._subscribers: list[Subscriber] = []
        self._told: Identity | None = None
        self._taking = asyncio.Lock()

    @property
    def current(self) -> Identity | None:
        """The newest generation. None before the first, after withdrawal and once it has expired."""
        identity = self._identity
        return identity if identity is not None and self._clock() < identity.svid.not_after else None

    @property
    def state(self) -> State:
        """The state of the source."""
        if self._identity is None:
            return State.DENIED if self._withdrawn else State.STARTING
        if self.current is None:
            return State.EXPIRED
        return State.READY if self._connected else State.STALE

    @property
    def last_error(self) -> str | None:
        """The last error; None after a good update."""
        return self._last_error

    @property
    def jwt_bundles(self) -> Mapping[TrustDomain, KeySet]:
        """The keys for JWT-SVIDs by trust domain; empty if none were requested."""
        return self._jwt_bundles

    def subscribe(self, callback: Subscriber) -> None:
        """Call back on every new generation, and with None on withdrawal and expiry."""
        self._subscribers.append(callback)

    def unsubscribe(self, callback: Subscriber) -> None:
        """Remove a subscriber."""
        if callback in self._subscribers:
            self._subscribers.remove(callback)

    async def jwt_svid(self, audience: str) -> str:
        """Return a JWT-SVID of our own for one audience. Raises Unavailable(NOT_READY)."""
        if self.current is None:
            raise Unavailable(Reason.NOT_READY, "this workload has no identity")
        return await self._jwt_svids.get(audience)

    @abstractmethod
    async def run(self) -> None:
        """Keep the identity fresh until cancelled."""

    async def _take(self, read: Callable[[Identity | None], X509Update]) -> bool:
        """Put an update in place; False if unusable or overtaken. ``read`` gets the current identity, in a thread."""
        async with self._taking:
            return await self._take_alone(read)

    async def _take_alone(self, read: Callable[[Identity | None], X509Update]) -> bool:
        withdrawals = self._withdrawals
        try:
            update = await asyncio.to_thread(read, self._identity)
            self._require_no_withdrawal_since(withdrawals)
            await self._put(update)
        except _OvertakenError:
            return False
        except WithdrawnError as error:
            self._withdraw(str(error))
            return True
        except (UpdateError, IdentityError) as error:
            self._discard(error)
            return False
        self.counts.broken_bundles += update.broken
        self._last_error = f"{update.broken} federated bundles cannot be used" if update.broken else None
        self._announce()
        return True

    async def _put(self, update: X509Update) -> None:
        try:
            await self._use(update)
        except IdentityError as error:
            if not await self._trust_as(update):
                raise
            raise IdentityError(f"{error}; the previous SVID stays in use, with the current bundles") from error
        self._mixed = False

    async def _use(self, update: X509Update) -> None:
        now = int(self._clock())
        self._waiting = None
        if not _in_time(update.svid, now):
            self._waiting = update
            raise IdentityError("our own SVID is expired or not valid yet, by this machine's clock")
        if self._mixed or not self._is_held(update.svid, update.bundles):
            await self._replace(lambda: new_identity(self._next, update.svid, update.bundles, now=now))

    async def _trust_as(self, update: X509Update) -> bool:
        """Use the bundles of an update whose SVID is unusable, with the SVID in use; True if these are then mixed.

        An authority missing from the bundles was withdrawn. Our peers judge their trust in our SVID.
        """
        held = self.current
        own = update.svid.spiffe_id.trust_domain
        if held is None or held.spiffe_id.trust_domain != own:
            return False
        bundle = update.bundles.get(own)
        if bundle is None or not bundle.authorities:  # malformed: the bundle beside an SVID is mandatory
            return False
        if self._is_held(held.svid, update.bundles):
            return self._mixed
        try:
            await self._replace(lambda: with_bundles(self._next, held.svid, update.bundles))
        except IdentityError:  # OpenSSL rejects a bundle: the whole generation stays
            return False
        self._mixed = True
        self.counts.broken_bundles += update.broken
        return True

    @property
    def _next(self) -> int:
        return self.counts.generations + 1

    def _is_held(self, svid: X509Svid, bundles: Mapping[TrustDomain, X509Bundle]) -> bool:
        held = self._identity
        return held is not None and held.svid == svid and dict(held.bundles) == dict(bundles)

    async def _replace(self, build: Callable[[], Identity]) -> None:
        def build_and_look() -> tuple[Identity, frozenset[TrustDomain]]:
            identity = build()
            return identity, with_ambiguous_names(identity.bundles.values())

        withdrawals = self._withdrawals
        identity, ambiguous = await asyncio.to_thread(build_and_look)
        self._require_no_withdrawal_since(withdrawals)
        self._identity = identity  # no await from here to the announcement
        self.counts.generations = identity.number
        if ambiguous:
            _log.warning(
                "CA certificates share a name, and no key identifier tells them apart: their SVIDs may be refused",
                extra={"trust_domains": sorted(ambiguous)},
            )

    def _require_no_withdrawal_since(self, withdrawals: int) -> None:
        if self._withdrawals != withdrawals:
            raise _OvertakenError

    def _discard(self, error: Exception) -> None:
        self.counts.discarded += 1
        if str(error) != self._last_error:  # some sources repeat the same update
            _log.warning("an identity update cannot be used", extra={"error": str(error)})
        self._last_error = str(error)
        self._announce()

    def _note_loss(self, why: str) -> None:
        """Note that the connection to the source is lost; the identity stays."""
        self.counts.lost_connections += 1
        if why != self._last_error:  # retried continually
            _log.info("the identity source is lost", extra={"error": why})
        self._last_error = why

    def _withdraw(self, why: str) -> None:
        self._identity = self._waiting = None
        self._withdrawals += 1
        self._withdrawn = True
        self._last_error = why
        self._announce()

    async def _tick(self) -> None:
        """Check the clock: an SVID expires, or a waiting one becomes valid."""
        if self._taking.locked():  # an update is in progress; an expired identity does not wait for it
            self._announce()
        async with self._taking:
            waiting = self._waiting
            if waiting is not None and _in_time(waiting.svid, int(self._clock())):
                await self._take_alone(lambda _held: waiting)
        self._announce()

    def _announce(self) -> None:
        """Notify the subscribers of the current identity, if it has changed."""
        current = self.current
        self._jwt_svids.belong_to(current.spiffe_id if current is not None else None)
        if current is not self._told:
            self._told = current
            self._jwt_svids.renew()
            for callback in tuple(self._subscribers):  # a callback may unsubscribe another
                callback(current)


def _in_time(svid: X509Svid, now: int) -> bool:
    return svid.not_before <= now < svid.not_after
