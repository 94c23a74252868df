"""The token service as countersigner of our record stream, over a pinned connection. Its answer is distrusted."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from delegation_core.checkpoint import Checkpoint, CheckpointError, Head, head_form, parse_checkpoint
from delegation_core.errors import Denied, Reason, Unavailable
from delegation_core.keyset import VerificationKey
from delegation_core.strict_json import StrictJsonError, parse_object
from sidecar.exchange.failover import Caller
from sidecar.identity.endpoint import Endpoint
from sidecar.identity.source import IdentitySource

MAX_ANSWER_BYTES: Final = 8192
_SKEW_S: Final = 300  # between the token service's clock and ours


@dataclass(frozen=True, slots=True, kw_only=True)
class CountersignSettings:
    """The token service that countersigns: its ``issuer``, whose keys are known, its ``endpoint``, and the interval."""

    issuer: str
    endpoint: Endpoint
    every_s: float = 60.0


class Keys(Protocol):
    """Source of the issuer's keys (``identity.jwks.IssuerKeys``)."""

    def find(self, issuer: str, kid: str | None) -> VerificationKey | None:
        """Return the key if cached, else None."""

    async def wait_for_key(self, issuer: str, kid: str | None) -> VerificationKey:
        """Return the key after a fetch. Raises Denied UNKNOWN_KEY, Unavailable KEYS_UNAVAILABLE."""


class Countersigner:
    """Requests signatures of heads, and verifies each."""

    def __init__(
        self,
        issuer: str,
        source: IdentitySource,
        keys: Callable[[], Keys],
        caller: Caller,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """``keys`` returns the keys in force: a reload replaces them."""
        self._issuer = issuer
        self._source = source
        self._keys = keys
        self._caller = caller
        self._clock = clock

    async def countersign(self, head: Head) -> Checkpoint:
        """Return a verified checkpoint of ``head``.

        Raises:
            SidecarError: NOT_READY without an identity, any of the ``sts_*`` reasons, STS_BAD_RESPONSE for an answer
                that does not countersign this head for us, UNKNOWN_KEY or KEYS_UNAVAILABLE.
        """
        own = self._source.current
        if own is None:
            raise Unavailable(Reason.NOT_READY, "this workload has no identity")
        answer = await self._caller.post_form(head_form(head))
        if answer.status != 200:
            raise Denied(Reason.STS_BAD_RESPONSE, f"the token service answered with status {answer.status}")
        try:
            text = parse_object(answer.body, max_bytes=MAX_ANSWER_BYTES).get("checkpoint")
            checkpoint = parse_checkpoint(text if isinstance(text, str) else "", workload=own.spiffe_id, run=head.run)
        except (StrictJsonError, CheckpointError) as error:
            raise Denied(Reason.STS_BAD_RESPONSE, str(error)) from error
        if checkpoint.issuer != self._issuer or checkpoint.head != head:
            raise Denied(Reason.STS_BAD_RESPONSE, "the checkpoint has another issuer or head")
        if abs(checkpoint.at - self._clock()) > _SKEW_S:
            raise Denied(Reason.STS_BAD_RESPONSE, "the checkpoint's time is too far from now")
        keys = self._keys()
        key = keys.find(self._issuer, checkpoint.kid) or await keys.wait_for_key(self._issuer, checkpoint.kid)
        checkpoint.verify(key)
        return checkpoint
