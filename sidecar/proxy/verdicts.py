"""Tokens already verified and permits already given, so that what comes again costs a look-up, and no signature check.

The key is the whole token *and* the peer: a variant of a token (JWS signatures are malleable) only misses. A permit is
had again for the same route and the same certificate of the peer only. Both are dropped as soon as any issuer's key set
or the policy changes; what is left to change, time, is judged by the core each time.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from sidecar.delegation.decide import Delegation, Permit, delegate
from sidecar.delegation.spiffe_id import SpiffeId
from sidecar.delegation.verify import VerifiedToken
from sidecar.observe.attribution import facts_of
from sidecar.observe.record import RecordFields

MAX_VERDICTS: Final = 8192
MAX_PERMITS: Final = 1024  # each holds 2 to 3 KiB; who misses one has the verdict still


class Verdicts:
    """A bounded cache of verified tokens. The oldest goes first."""

    def __init__(self, max_entries: int = MAX_VERDICTS) -> None:
        self._max_entries = max_entries
        self._tokens: dict[tuple[str, SpiffeId], VerifiedToken] = {}
        self._valid_for: tuple[int, int] = (-1, -1)

    def __len__(self) -> int:
        return len(self._tokens)

    def find(self, raw: str, peer: SpiffeId, *, keys: int, policy: int) -> VerifiedToken | None:
        """The token as verified before under the same ``keys`` generation and ``policy`` number, or None."""
        if self._valid_for != (keys, policy):
            self._tokens.clear()
            self._valid_for = (keys, policy)
            return None
        return self._tokens.get((raw, peer))

    def keep(self, token: VerifiedToken, peer: SpiffeId, *, keys: int, policy: int) -> None:
        """Remember a verified token, unless keys or policy changed while it was being verified."""
        if self._valid_for != (keys, policy):
            return
        if len(self._tokens) >= self._max_entries:
            del self._tokens[next(iter(self._tokens))]
        self._tokens[token.raw, peer] = token


class Call(NamedTuple):
    """What a permit is had again for. ``authorization``: the field's value, None if there is not exactly one."""

    authorization: bytes | None
    certificate: str
    route: str


class Given(NamedTuple):
    """A permit, what the handle of its request stands for, and what the record of its request says of it."""

    permit: Permit
    delegation: Delegation
    facts: RecordFields


class Permits:
    """A bounded memory of permits. The oldest goes first."""

    def __init__(self, max_entries: int = MAX_PERMITS) -> None:
        self._max_entries = max_entries
        self._given: dict[Call, Given] = {}
        self._valid_for: tuple[int, int] = (-1, -1)

    def __len__(self) -> int:
        return len(self._given)

    def find(self, call: Call, *, keys: int, policy: int) -> Given | None:
        """What was given for such a call under the same ``keys`` generation and ``policy`` number, or None."""
        if self._valid_for != (keys, policy):
            self._given.clear()
            self._valid_for = (keys, policy)
            return None
        return self._given.get(call)

    def give(self, call: Call, permit: Permit, *, keys: int, policy: int) -> Given:
        """Remember a permit, unless keys or policy changed while it was being decided on."""
        given = Given(permit, delegate(permit), facts_of(permit))
        if self._valid_for == (keys, policy) and call.authorization is not None:
            if len(self._given) >= self._max_entries:
                del self._given[next(iter(self._given))]
            self._given[call] = given
        return given
