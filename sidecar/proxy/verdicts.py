"""Caches of verified tokens and of permits: a repeated call costs a lookup instead of a signature check.

The key is the whole token *and* the peer: a variant of a token (JWS signatures are malleable) only misses. A permit
is found only for the same route and the same certificate of the peer. The epoch of both is the generation of
all issuers' keys and the number of the policy: a change of either empties them. Otherwise only the time changes, and
the core checks it each time. Both are bounded in bytes, and expired tokens are swept.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final, NamedTuple

from sidecar.bounded import BoundedCache
from sidecar.delegation.decide import Delegation, Permit, delegate
from sidecar.delegation.spiffe_id import SpiffeId
from sidecar.delegation.verify import VerifiedToken
from sidecar.observe.attribution import facts_of, facts_of_token
from sidecar.observe.record import RecordFields
from sidecar.proxy.headers import identity_values

PERMIT_BYTES: Final = 4096  # beside its token and the Authorization field: permit, delegation and facts

Epoch = tuple[int, int]  # the generation of the keys, the number of the policy


class Verdicts(BoundedCache[tuple[str, SpiffeId], VerifiedToken]):
    """Verified tokens, by token and peer. The oldest is evicted first."""

    def add(self, token: VerifiedToken, peer: SpiffeId, epoch: Epoch) -> None:
        """Keep a verified token, unless keys or policy changed meanwhile."""
        until = token.expires_at + token.leeway_s
        self.keep((token.raw, peer), token, cost=token.held_bytes, expires_at=until, epoch=epoch)


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
    """A permit, the authority of its request, the facts of its request and of its token for records, and what
    the agent is told of its caller.
    """

    permit: Permit
    delegation: Delegation
    facts: RecordFields
    token_facts: RecordFields
    identity: tuple[bytes, ...]


class Permits(BoundedCache[Call, Given]):
    """Permits, by call. The oldest is evicted first."""

    def give(self, call: Call, permit: Permit, epoch: Epoch) -> Given:
        """Keep a permit, unless keys or policy changed meanwhile."""
        token = permit.token
        of_token = facts_of_token(token)
        given = Given(permit, delegate(permit), facts_of(permit, of_token), of_token, identity_values(permit))
        if call.authorization is not None:
            cost = token.held_bytes + len(call.authorization) + PERMIT_BYTES
            cost += sum(map(len, given.identity))
            self.keep(call, given, cost=cost, expires_at=token.expires_at + token.leeway_s, epoch=epoch)
        return given
