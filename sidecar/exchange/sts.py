"""One exchange, from plan to permit: ask with our own JWT-SVID, distrust the answer, hand it to the core.

Every failure has its own reason, and none has a fallback: no other token is sent in place of the requested one. The
text of a refusal is neither kept nor passed on; its status is enough.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from sidecar.delegation.bearer import Bearer, parse_bearer
from sidecar.delegation.decide import Delegation, Plan, accept_issued
from sidecar.delegation.issued import sts_error
from sidecar.delegation.keyset import VerificationKey
from sidecar.delegation.policy import LoginKind, Policy
from sidecar.delegation.rfc8693 import TOKEN_TYPE_ACCESS_TOKEN, TOKEN_TYPE_ID_TOKEN, TokenResponse
from sidecar.delegation.spiffe_id import SpiffeId
from sidecar.errors import Denied, Reason, Unavailable
from sidecar.exchange.adapters import ADAPTERS
from sidecar.exchange.cache import SKEW_S, Issued
from sidecar.exchange.channel import StsChannel
from sidecar.exchange.refresh_schedule import refresh_at
from sidecar.identity.endpoint import Endpoint, EndpointAnswer
from sidecar.identity.jwks import IssuerKeys
from sidecar.identity.source import IdentitySource
from sidecar.wire.resolver import Resolver

FIRST_RETRY_S: Final = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class ExchangeSettings:
    """The token service, its identity (as in `Endpoint`), and limits on time, size and retries.

    ``timeout_s`` bounds a whole exchange, retries included; ``retries`` count connections that failed before an answer.

    Raises:
        ValueError: the endpoint or a number is unusable. The text names field and cure.
    """

    issuer: str
    token_endpoint: str
    peer: SpiffeId | None = None
    ca_file: str | None = None
    timeout_s: float = 2.0
    max_response_bytes: int = 65536
    retries: int = 1
    max_flights: int = 256
    adapter: str = "rfc8693"

    def __post_init__(self) -> None:
        _ = self.endpoint
        if not self.timeout_s > 0:
            raise ValueError("timeout_s: it is a time above zero, in seconds")
        if not 0 <= self.retries <= 3:
            raise ValueError("retries: it is a number from 0 to 3")
        if self.max_response_bytes < 1 or self.max_flights < 1:
            raise ValueError("max_response_bytes, max_flights: each is at least 1")
        if self.adapter not in ADAPTERS:
            raise ValueError(f"adapter: it is unknown; choose one of {', '.join(sorted(ADAPTERS))}")

    @property
    def endpoint(self) -> Endpoint:
        """The token endpoint and the identity that answers there."""
        return Endpoint(url=self.token_endpoint, peer=self.peer, ca_file=self.ca_file)


class Caller(Protocol):
    """Sends a form to the token endpoint (`StsChannel` is the real one)."""

    async def post_form(self, form: bytes) -> EndpointAnswer:
        """Return the answer, whatever its status. Raises SidecarError."""

    async def close(self) -> None:
        """Close its connections."""


class Sts:
    """One token service, as this sidecar asks it."""

    def __init__(
        self,
        settings: ExchangeSettings,
        source: IdentitySource,
        keys: IssuerKeys,
        clock: Callable[[], float],
        caller: Caller | None = None,
        spread: Callable[[], float] = random.random,
        resolver: Resolver | None = None,
    ) -> None:
        self._settings = settings
        self._source = source
        self._keys = keys
        self._clock = clock
        self._spread = spread
        self._adapter = ADAPTERS[settings.adapter]
        self._caller: Caller = caller or StsChannel(
            settings.endpoint,
            source,
            timeout_s=settings.timeout_s,
            max_bytes=settings.max_response_bytes,
            resolver=resolver,
        )

    async def exchange(self, plan: Plan, policy: Policy) -> Issued:
        """Get the planned token and prove it.

        Raises:
            SidecarError: any of the ``sts_*`` reasons, EXCHANGE_DENIED, KEYS_UNAVAILABLE or NOT_READY.
        """
        try:
            async with asyncio.timeout(self._settings.timeout_s):
                form = await self._form(plan, policy)
                answer = await self._post(form)
                response = self._adapter.read(answer.status, answer.content_type, answer.body, plan=plan)
                issued = self._parse(response.access_token)
                key = await self._key_of(issued)
        except TimeoutError as error:
            raise Unavailable(Reason.STS_TIMEOUT, "no token within the deadline") from error
        now = int(self._clock())
        permit = accept_issued(issued, plan=plan, key=key, policy=policy, now=now)
        usable_until = _usable_until(permit.token.expires_at, response, plan, now)
        subject = plan.subject_token
        subject_until = usable_until + 1 if subject is None else subject.expires_at - SKEW_S
        ahead = refresh_at(now=now, usable_until=usable_until, subject_until=subject_until, spread=self._spread())
        return Issued(permit, usable_until, refresh_at=ahead)

    async def close(self) -> None:
        """End the calls in flight."""
        await self._caller.close()

    async def _form(self, plan: Plan, policy: Policy) -> bytes:
        """Build the request. For a token of our own the X.509-SVID of the connection is all that identifies us."""
        if plan.delegation is None:
            return self._adapter.build_own(plan)
        actor_token = await self._source.jwt_svid(self._settings.issuer)
        subject_token_type = _subject_token_type(plan.delegation, policy)
        return self._adapter.build(plan, plan.delegation.token, actor_token, subject_token_type=subject_token_type)

    async def _post(self, form: bytes) -> EndpointAnswer:
        """Send the form. Retry, within limits, only if the connection failed before any answer."""
        attempt = 0
        while True:
            try:
                return await self._caller.post_form(form)
            except Unavailable as error:
                if error.reason is not Reason.STS_UNAVAILABLE or attempt == self._settings.retries:
                    raise
            await asyncio.sleep(FIRST_RETRY_S * 2**attempt * (1 + random.random()))  # noqa: S311  spreads, hides nothing
            attempt += 1

    def _parse(self, raw: str) -> Bearer:
        try:
            issued = parse_bearer(raw)
        except Denied as error:  # its reason is about a caller's token; this one is the STS's
            raise sts_error(error) from error
        if issued.issuer != self._settings.issuer:
            raise Denied(Reason.STS_ISSUER, "the issued token names another issuer")
        return issued

    async def _key_of(self, issued: Bearer) -> VerificationKey:
        try:
            return await self._keys.wait_for_key(self._settings.issuer, issued.kid)
        except Denied as error:
            raise sts_error(error) from error


def _subject_token_type(delegation: Delegation, policy: Policy) -> str:
    """Return the type of the subject token: an access token, or at an entry the kind that its user issuer gives."""
    if not delegation.entry or policy.entry is None:
        return TOKEN_TYPE_ACCESS_TOKEN
    kind = policy.entry.issuers[delegation.token.issuer].kind
    return TOKEN_TYPE_ID_TOKEN if kind is LoginKind.ID_TOKEN else TOKEN_TYPE_ACCESS_TOKEN


def _usable_until(expires_at: int, response: TokenResponse, plan: Plan, now: int) -> int:
    """Return the earliest of: the token's own exp, the subject token's exp, and ``expires_in``."""
    ends = [expires_at]
    if plan.subject_token is not None:
        ends.append(plan.subject_token.expires_at)
    if response.expires_in is not None:
        ends.append(now + response.expires_in)
    return min(ends) - SKEW_S
