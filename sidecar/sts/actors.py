"""Cache of verified actor tokens: a client shows the same JWT-SVID with every exchange, for half of its life.

A cached signature counts while the trust domain's bundle holds the same key. Time and channel are checked at each use.
The cache key is the whole token: a variant of a cached token (JWS signatures are malleable) only misses.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from delegation_core.bounded import BoundedCache, bytes_of
from delegation_core.errors import Denied, Reason
from delegation_core.jwt_svid import JwtSvid
from delegation_core.keyset import KeySet, VerificationKey
from delegation_core.spiffe_id import SpiffeId, TrustDomain
from delegation_core.verify import check_times
from sidecar.sts.tokens import key_of_actor, verify_actor

MAX_BYTES: Final = 16 * 1024 * 1024
_KEPT_BYTES: Final = 256  # besides the token


class _Kept(NamedTuple):
    """A verified actor token, the ``key`` that verified it, and its ``audience``."""

    actor: JwtSvid
    key: VerificationKey
    audience: str


class ActorTokens:
    """Verified actor tokens, bounded in bytes. The oldest is evicted first; expired ones are dropped on insertion."""

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self._kept: BoundedCache[str, _Kept] = BoundedCache(max_bytes)

    def __len__(self) -> int:
        return len(self._kept)

    def verify(
        self, raw: str, *, client: SpiffeId, bundles: Mapping[TrustDomain, KeySet], audience: str, now: int
    ) -> JwtSvid:
        """Verify as ``tokens.verify_actor``, with the same errors, at lower cost."""
        kept = self._kept.get(raw)
        if (
            kept is None
            or kept.audience != audience
            or key_of_actor(kept.actor.spiffe_id, kept.actor.kid, bundles) is not kept.key
        ):
            return self._verify_anew(raw, client, bundles, audience, now)
        try:
            check_times(kept.actor, now)
        except Denied as error:
            self._kept.drop(raw)
            raise Denied(Reason.ACTOR_TOKEN_INVALID, str(error)) from error
        if kept.actor.spiffe_id != client:
            raise Denied(Reason.ACTOR_NOT_CLIENT, "the actor token names another workload")
        return kept.actor

    def _verify_anew(
        self, raw: str, client: SpiffeId, bundles: Mapping[TrustDomain, KeySet], audience: str, now: int
    ) -> JwtSvid:
        self._kept.drop(raw)
        self._kept.sweep(now)
        actor = verify_actor(raw, client=client, bundles=bundles, audience=audience, now=now)
        key = key_of_actor(actor.spiffe_id, actor.kid, bundles)
        if key is None:  # the token has just been verified with one
            return actor
        until = actor.expires_at + actor.leeway_s
        self._kept.keep(raw, _Kept(actor, key, audience), cost=bytes_of(actor) + _KEPT_BYTES, expires_at=until)
        return actor
