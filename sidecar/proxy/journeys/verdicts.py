"""Caches of verified tokens and of permits: a repeated call costs a lookup instead of a signature check.

The key is the whole token *and* the peer: a variant of a token (JWS signatures are malleable) only misses. A permit
is found only for the same route and the same certificate of the peer. The epoch of both is the generation of
all issuers' keys and the number of the policy: a change of either empties them. Otherwise only the time changes, and
the core checks it each time. Both are bounded in bytes, and expired tokens are swept. A token that is held by both is
accounted once, as a verdict, and takes its permits along when it goes. Permits also use what verdicts leave free.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final, NamedTuple

from delegation_core.bounded import BoundedCache
from delegation_core.decide import delegate
from delegation_core.permit import Permit
from delegation_core.plan import Delegation
from delegation_core.records.record import RecordFields
from delegation_core.spiffe_id import SpiffeId
from delegation_core.verify import VerifiedToken
from sidecar.observe.attribution import facts_of_call, facts_of_token
from sidecar.proxy.journeys.headers import identity_values

PERMIT_BYTES: Final = 1280  # beside its token, its scopes and the Authorization field: permit, delegation and facts

Epoch = tuple[int, int]  # the generation of the keys, the number of the policy


class Call(NamedTuple):
    """The key of a permit. ``authorization``: the field's value, None if there is not exactly one.

    ``route``: the key of the route.
    """

    authorization: bytes | None
    certificate: str
    route: str


# The constructor of a named tuple is interpreted; tuple's own is not.
new_call: Final[Callable[[tuple[bytes | None, str, str]], Call]] = partial(tuple.__new__, Call)


class Given(NamedTuple):
    """A permit, the authority of its request, the facts of its call and of its token for records, and what
    the agent is told of its caller.
    """

    permit: Permit
    delegation: Delegation
    facts: RecordFields
    of_token: RecordFields
    identity: tuple[bytes, ...]
    warm: list[object]  # kept here by the native engine


_Key = tuple[str, SpiffeId]


class Verdicts(BoundedCache[_Key, VerifiedToken]):
    """Verified tokens, by token and peer. The oldest is evicted first, and its permits with it."""

    __slots__ = ("_permits", "_tied")

    def __init__(self, max_bytes: int) -> None:
        super().__init__(max_bytes)
        self._permits: Permits | None = None
        self._tied: dict[_Key, dict[Call, None]] = {}  # calls of permits that hold a token of here: many

    def add(self, token: VerifiedToken, peer: SpiffeId, epoch: Epoch) -> None:
        """Keep a verified token, unless keys or policy changed meanwhile, or others are better kept."""
        until = token.expires_at + token.leeway_s
        found = self.hits + (0 if self._permits is None else self._permits.hits)  # a permit is found before its token
        if self.worth(token.held_bytes, found):
            self.keep((token.raw, peer), token, cost=token.held_bytes, expires_at=until, epoch=epoch)
            if self._permits is not None:
                self._permits.give_room()

    def go_with(self, permits: Permits) -> None:
        """Set the cache of permits from which a dropped token's permits are evicted."""
        self._permits = permits

    def tie(self, call: Call, permit: Permit, epoch: Epoch) -> bool:
        """Account a permit's token here if this cache holds it at ``epoch``; True if it does."""
        key = permit.token.raw, permit.peer
        if self.epoch != epoch or self.get(key) is not permit.token:
            return False
        self._tied.setdefault(key, {})[call] = None
        return True

    def untie(self, call: Call, permit: Permit) -> None:
        """Undo ``tie`` for a permit that its cache dropped."""
        key = permit.token.raw, permit.peer
        calls = self._tied.get(key, {})
        calls.pop(call, None)
        if not calls:
            self._tied.pop(key, None)

    def drop(self, key: _Key) -> None:
        """Forget a token, and its permits."""
        super().drop(key)
        self._revoke(key)

    def clear(self) -> None:
        """Forget everything."""
        super().clear()
        for key in [*self._tied]:
            self._revoke(key)

    def shed(self, to_bytes: float) -> list[tuple[_Key, VerifiedToken]]:
        """Evict the oldest tokens, with their permits."""
        shed = super().shed(to_bytes)
        for key, _ in shed:
            self._revoke(key)
        return shed

    def _revoke(self, key: _Key) -> None:
        calls = self._tied.pop(key, {})
        if self._permits is not None:
            for call in calls:
                self._permits.drop(call)


class Permits(BoundedCache[Call, Given]):
    """Permits, by call. The oldest is evicted first. Of a token in ``verdicts`` only the rest is accounted.

    ``warm_bytes`` are those that the native engine adds to each, beside a copy of what the agent is told.
    """

    __slots__ = ("_least_bytes", "_verdicts", "warm_bytes")

    def __init__(self, max_bytes: int, verdicts: Verdicts) -> None:
        super().__init__(max_bytes)
        self._least_bytes = max_bytes
        self.warm_bytes = 0
        self._verdicts = verdicts
        verdicts.go_with(self)

    def give(self, call: Call, permit: Permit, epoch: Epoch) -> Given:
        """Return a permit with its facts; cache it for a call with a token if the epoch is current and it pays."""
        token = permit.token
        given = Given(
            permit, delegate(permit), facts_of_call(permit), facts_of_token(token), identity_values(permit), []
        )
        if call.authorization is not None:
            self.drop(call)
            self.give_room()
            told = sum(map(len, given.identity))
            cost = len(call.authorization) + PERMIT_BYTES + 16 * len(token.scope) + told
            if self.warm_bytes:
                cost += self.warm_bytes + told
            tied = self.epoch == epoch and self._verdicts.tie(call, permit, epoch)
            if not tied:
                cost += token.held_bytes
            until = token.expires_at + token.leeway_s
            kept = self.worth(cost) and self.keep(call, given, cost=cost, expires_at=until, epoch=epoch)
            if tied and not kept:
                self._verdicts.untie(call, permit)
        return given

    def give_room(self) -> None:
        """Set ``max_bytes`` to the own share plus the free bytes of ``verdicts``; evict the excess."""
        self.max_bytes = self._least_bytes + max(0, self._verdicts.max_bytes - self._verdicts.bytes)
        if self.bytes > self.max_bytes:
            self.shed(self.max_bytes)

    def drop(self, key: Call) -> None:
        """Forget a permit, if there is one."""
        given = self.get(key)
        super().drop(key)
        if given is not None:
            self._verdicts.untie(key, given.permit)

    def clear(self) -> None:
        """Forget everything."""
        held = [(call, entry.value.permit) for call, entry in self.entries.items()]
        super().clear()
        for call, permit in held:
            self._verdicts.untie(call, permit)

    def shed(self, to_bytes: float) -> list[tuple[Call, Given]]:
        """Evict the oldest permits."""
        shed = super().shed(to_bytes)
        for call, given in shed:
            self._verdicts.untie(call, given.permit)
        return shed
