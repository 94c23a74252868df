"""Client of the transaction token service, for the calls with which a chain begins.

By draft-ietf-oauth-transaction-tokens-09 section 11, without ``request_context`` and ``request_details``.
The subject token is the access token that was issued for the call: usable only by us, and with the ``sub`` and
``txn`` that the transaction token must have. The answer is distrusted as any token service's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from delegation_core.bearer import parse_txn_token
from delegation_core.errors import Denied, Reason, SidecarError, Unavailable
from delegation_core.issued import sts_error
from delegation_core.permit import IssuedPermit
from delegation_core.rfc8693 import TOKEN_TYPE_ACCESS_TOKEN, ExchangeRequest, exchange_form
from delegation_core.txn_token import TxnSource, TxnToken, verify_txn_token
from sidecar.exchange.adapters.adapter import BY_CERTIFICATE, TOKEN, Step, Steps
from sidecar.exchange.channel import StsChannel
from sidecar.exchange.client_auth import ClientAuthenticator, ClientAuthSettings
from sidecar.exchange.conversation import Conversation, Reached
from sidecar.exchange.failover import Caller
from sidecar.identity.endpoint import Endpoint
from sidecar.identity.jwks import IssuerKeys
from sidecar.identity.source import IdentitySource
from sidecar.wire.resolver import Resolver

TOKEN_TYPE_TXN_TOKEN: Final = "urn:ietf:params:oauth:token-type:txn_token"  # noqa: S105 - a name
MAX_ANSWER_BYTES: Final = 65536
_NO_ACCESS_TOKEN: Final = "N_A"  # noqa: S105 - as above


@dataclass(frozen=True, slots=True, kw_only=True)
class TxnTokenSettings:
    """The service, its token endpoint (None: no chain begins here), our authentication there, and a deadline."""

    source: TxnSource
    endpoint: Endpoint | None
    client_auth: ClientAuthSettings
    timeout_s: float = 2.0


class TxnTokenService:
    """Requests transaction tokens. ``clock`` is wall time in seconds."""

    def __init__(
        self,
        settings: TxnTokenSettings,
        source: IdentitySource,
        keys: IssuerKeys,
        clock: Callable[[], float],
        caller: Caller | None = None,
        resolver: Resolver | None = None,
    ) -> None:
        self._settings = settings
        self._keys = keys
        self._clock = clock
        caller = caller or _channel(settings, source, resolver)
        reached = Reached(caller, ClientAuthenticator(settings.client_auth, source, clock))
        self._conversation = Conversation({TOKEN: reached}, retries=1)

    async def issue(self, permit: IssuedPermit) -> TxnToken:
        """Request the transaction token of the chain that begins with this permit's token, and verify it.

        Raises:
            SidecarError: any of the ``sts_*`` reasons, EXCHANGE_DENIED, KEYS_UNAVAILABLE, NOT_READY,
                CREDENTIAL_UNAVAILABLE. The detail names this service.
        """
        try:
            async with asyncio.timeout(self._settings.timeout_s):
                answer = await self._conversation.run(_steps(permit, self._settings), permit.plan.actor)
                return await self._prove(answer.access_token, permit)
        except TimeoutError as error:
            raise Unavailable(Reason.STS_TIMEOUT, "no transaction token within the deadline") from error
        except SidecarError as error:
            raise type(error)(error.reason, f"the transaction token service: {error.detail}") from error

    @property
    def credential_file(self) -> str | None:
        """The file of our static credential; None if authentication is not static."""
        return self._settings.client_auth.credential_file

    async def close(self) -> None:
        """End the calls in flight."""
        await self._conversation.close()

    async def _prove(self, raw: str, permit: IssuedPermit) -> TxnToken:
        source, now = self._settings.source, int(self._clock())
        try:
            bearer = parse_txn_token(raw)
            key = await self._keys.wait_for_key(source.issuer, bearer.kid)
            token = verify_txn_token(bearer, source=source, key=key, now=now)
        except Denied as error:
            raise sts_error(error) from error
        if now >= token.expires_at:  # without leeway: the next hop need not have any
            raise Denied(Reason.STS_LIFETIME, "the transaction token has expired")
        try:
            token.check_beside(permit.token)
        except Denied as error:
            raise Denied(Reason.STS_SUBJECT_MISMATCH, error.detail) from error
        return token


def _steps(permit: IssuedPermit, settings: TxnTokenSettings) -> Steps:
    request = ExchangeRequest(
        subject_token=permit.token.raw,
        subject_token_type=TOKEN_TYPE_ACCESS_TOKEN,
        requested_token_type=TOKEN_TYPE_TXN_TOKEN,
        audience=(settings.source.trust_domain,),
        scope=permit.plan.scope,
    )
    answer = yield Step(form=exchange_form(request))
    # the service decides on the scope, whatever was asked for (section 9.2.1)
    return answer.token(scope=None, issued_token_type=TOKEN_TYPE_TXN_TOKEN, token_type=_NO_ACCESS_TOKEN)


def _channel(settings: TxnTokenSettings, source: IdentitySource, resolver: Resolver | None) -> StsChannel:
    if settings.endpoint is None:
        raise ValueError("token_endpoint: it is missing, but chains begin here")
    return StsChannel(
        settings.endpoint,
        source,
        timeout_s=settings.timeout_s,
        max_bytes=MAX_ANSWER_BYTES,
        resolver=resolver,
        shows_svid=settings.client_auth.method in BY_CERTIFICATE,
    )
