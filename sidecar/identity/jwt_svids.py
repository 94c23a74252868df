"""Our own JWT-SVIDs: one per audience, cached for half of its remaining life, one call at a time per audience."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final

from delegation_core.bearer import Bearer, parse_jwt_svid
from delegation_core.errors import Denied, Reason, Unavailable
from delegation_core.spiffe_id import SpiffeId
from sidecar.identity.handshake import Clock

MAX_AUDIENCES: Final = 256  # audiences come from settings; this bounds a mistake
RETRY_S: Final = 1.0  # after a failure the old one is used this long before a retry
_MARGIN_S: Final = 2  # it must still be valid when it arrives

Fetch = Callable[[str, SpiffeId], Awaitable[str]]


@dataclass(slots=True)
class _Held:
    token: str = field(repr=False)
    renew_at: float
    expires_at: float


class JwtSvids:
    """The JWT-SVIDs of the identity in use. ``fetch`` raises Unavailable; ``clock`` is the wall clock."""

    def __init__(self, fetch: Fetch, clock: Clock) -> None:
        self._fetch = fetch
        self._clock = clock
        self._owner: SpiffeId | None = None
        self._held: dict[str, _Held] = {}
        self._flights: dict[str, asyncio.Future[str]] = {}
        self._generation = 0
        self._group: asyncio.TaskGroup | None = None

    async def run(self) -> None:
        """Run the calls in flight until cancelled. ``get`` needs it to fetch."""
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                await asyncio.get_running_loop().create_future()
        finally:
            self._group = None

    def belong_to(self, owner: SpiffeId | None) -> None:
        """Set the owner's SPIFFE ID. A change drops all JWT-SVIDs and discards results in flight."""
        if owner != self._owner:
            self._owner = owner
            self._held.clear()
            self._flights.clear()

    def renew(self) -> None:
        """Mark all as old after a new generation of our identity: their signer may have been withdrawn.

        Each is requested again at its next use, and used further only if the request fails.
        """
        self._generation += 1
        for held in self._held.values():
            held.renew_at = 0.0

    async def get(self, audience: str) -> str:
        """Get a JWT-SVID for one audience, valid for some seconds at least.

        Raises:
            Unavailable: NOT_READY: there is no identity, or its source gives no usable JWT-SVID.
        """
        now = self._clock()
        held = self._held.get(audience)
        if held is not None and now < held.renew_at:
            return held.token
        try:
            return await asyncio.shield(self._flights.get(audience) or self._depart(audience))
        except Unavailable:
            held = self._held.get(audience)
            if held is None or self._clock() >= held.expires_at - _MARGIN_S:
                raise
            held.renew_at = min(self._clock() + RETRY_S, held.expires_at - _MARGIN_S)
            return held.token

    def _depart(self, audience: str) -> asyncio.Future[str]:
        if self._group is None or self._owner is None:
            raise Unavailable(Reason.NOT_READY, "this workload has no identity")
        if audience not in self._held and len(self._held) + len(self._flights) >= MAX_AUDIENCES:
            raise Unavailable(Reason.NOT_READY, "too many audiences at once")
        flight = asyncio.get_running_loop().create_future()
        self._flights[audience] = flight
        self._group.create_task(self._fly(audience, self._owner, flight))
        return flight

    async def _fly(self, audience: str, owner: SpiffeId, flight: asyncio.Future[str]) -> None:
        """Fetch, check and cache a JWT-SVID; pass the result to all waiting callers."""
        outcome: str | Unavailable = Unavailable(Reason.NOT_READY, "the call was cancelled")
        generation = self._generation
        try:
            token = await self._fetch(audience, owner)
            held = self._check(token, audience, owner)
            if generation != self._generation:
                held.renew_at = 0.0
            if self._flights.get(audience) is flight:
                self._held[audience] = held
                outcome = token
            else:
                outcome = Unavailable(Reason.NOT_READY, "the identity changed meanwhile")
        except Unavailable as error:
            outcome = error
        finally:
            if self._flights.get(audience) is flight:
                del self._flights[audience]
            if isinstance(outcome, str):
                flight.set_result(outcome)
            else:
                flight.set_exception(outcome)
                flight.exception()  # retrieved: no warning if nobody waits

    def _check(self, token: str, audience: str, owner: SpiffeId) -> _Held:
        """Check owner, audience and expiry; the Workload API is trusted for the signature only."""
        try:
            bearer = parse_jwt_svid(token)
        except Denied as error:
            raise Unavailable(Reason.NOT_READY, f"the JWT-SVID is malformed: {error}") from error
        expires_at = _expires_at(bearer)
        now = self._clock()
        if bearer.claims.get("sub") != owner or bearer.claims.get("aud") not in (audience, [audience]):
            raise Unavailable(Reason.NOT_READY, "the JWT-SVID is for another workload or audience")
        if expires_at - _MARGIN_S <= now:
            raise Unavailable(Reason.NOT_READY, "the JWT-SVID has expired")
        return _Held(token, now + (expires_at - now) / 2, expires_at)


def _expires_at(bearer: Bearer) -> float:
    expires_at = bearer.claims.get("exp")
    if not isinstance(expires_at, int | float):  # True would be a second of 1970
        raise Unavailable(Reason.NOT_READY, "the JWT-SVID has no time of expiry")
    return float(expires_at)
