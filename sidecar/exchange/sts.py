"""One exchange, from plan to permit: ask by the issuer's adapter, distrust the answer, hand it to the core.

Every failure has its own reason, and none has a fallback: no other token is sent in place of the requested one. The
text of a refusal is neither kept nor passed on; its status is enough.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable, Hashable, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from delegation_core.bearer import Bearer, parse_bearer
from delegation_core.decide import accept_issued
from delegation_core.errors import Denied, Reason, Unavailable
from delegation_core.issued import sts_error
from delegation_core.keyset import VerificationKey
from delegation_core.permit import IssuedPermit
from delegation_core.plan import Delegation, Plan, plan_outbound
from delegation_core.policy import Policy
from delegation_core.rfc8693 import TOKEN_TYPE_ACCESS_TOKEN, TOKEN_TYPE_ID_TOKEN, TokenResponse
from delegation_core.verify import thumbprint_of
from sidecar.exchange.adapters.adapter import BY_CERTIFICATE, TOKEN, Steps, Wanted
from sidecar.exchange.cache import SKEW_S, Issued
from sidecar.exchange.channel import StsChannel
from sidecar.exchange.client_auth import ClientAuthenticator, ClientAuthSettings
from sidecar.exchange.conversation import Conversation, Reached
from sidecar.exchange.failover import Caller, EndpointState, Failover, Replica
from sidecar.exchange.refresh_schedule import refresh_at
from sidecar.exchange.sts_settings import EndpointSettings as EndpointSettings
from sidecar.exchange.sts_settings import ExchangeSettings as ExchangeSettings
from sidecar.identity.endpoint import Endpoint
from sidecar.identity.jwks import IssuerKeys
from sidecar.identity.source import Identity, IdentitySource
from sidecar.wire.resolver import Resolver

if TYPE_CHECKING:
    from delegation_core.login import LoginPlan
    from sidecar.exchange.adapters.login import StillPending
    from sidecar.exchange.login_conversation import Begun, LoginConversation


class Sts:
    """Client of one token service."""

    def __init__(
        self,
        settings: ExchangeSettings,
        source: IdentitySource,
        keys: IssuerKeys,
        clock: Callable[[], float],
        caller: Caller | None = None,
        spread: Callable[[], float] = random.random,
        resolver: Resolver | None = None,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        on_failure: Callable[[str, Reason], None] = lambda _label, _reason: None,
    ) -> None:
        self._settings = settings
        self._adapter = settings.known
        self._source = source
        self._keys = keys
        self._clock = clock
        self._spread = spread
        self._authenticator = ClientAuthenticator(settings.authentication, source, clock)
        self._resolver = resolver
        self._failovers: list[Failover] = []
        tokens = (settings.token_endpoints, settings.authentication)
        others = {name: ((one.endpoint,), one.client_auth) for name, one in settings.endpoints.items()}
        self._conversation = Conversation(
            {
                name: Reached(
                    caller or self._failover(name, endpoints, auth, on_failure, monotonic),
                    ClientAuthenticator(auth, source, clock),
                )
                for name, (endpoints, auth) in {TOKEN: tokens, **others}.items()
            },
            retries=settings.retries,
            monotonic=monotonic,
        )
        self._monotonic = monotonic
        self._logins: LoginConversation | None = None

    @property
    def endpoints(self) -> list[EndpointState]:
        """The state of each endpoint, the preferred first."""
        return [state for failover in self._failovers for state in failover.states]

    async def exchange(self, plan: Plan, policy: Policy, credentials: set[str] | None = None) -> Issued:
        """Request the planned token and verify it. ``credentials`` as in ``Conversation.run``.

        Raises:
            SidecarError: any of the ``sts_*`` reasons, EXCHANGE_DENIED, KEYS_UNAVAILABLE or NOT_READY.
        """
        before = self._source.current
        async with self._deadline():
            steps = await self._steps(plan, policy)
            response = await self._conversation.run(steps, plan.actor, credentials, subject=_subject_of(plan))
            issued = self._parse(response.access_token)
            key = await self._key_of(issued)
        now = int(self._clock())
        own = _certificate_of(issued, self._source.current, before)
        permit = accept_issued(issued, plan=plan, key=key, policy=policy, now=now, own_certificate_sha256=own)
        usable_until = _usable_until(permit.token.expires_at, response, plan, now)
        subject = plan.subject_token
        subject_until = usable_until + 1 if subject is None else subject.expires_at - SKEW_S
        ahead = refresh_at(now=now, usable_until=usable_until, subject_until=subject_until, spread=self._spread())
        return Issued(permit, usable_until, refresh_at=ahead)

    async def begin_login(
        self, plan: LoginPlan, *, redirect_uri: str | None, reason: str, credentials: set[str]
    ) -> Begun:
        """Begin a user's login. ``credentials`` as of ``exchange``.

        Raises:
            SidecarError: any of the ``sts_*`` reasons, EXCHANGE_DENIED or NOT_READY.
        """
        async with self._deadline():
            return await self._login_conversation().begin(plan, credentials, redirect_uri=redirect_uri, reason=reason)

    async def complete_login(
        self, begun: Begun, code: str | None, *, plan: LoginPlan, policy: Policy, credentials: set[str]
    ) -> Issued | StillPending:
        """Request the granted token and verify it; `StillPending` before an answer. ``credentials`` as of ``exchange``.

        Raises:
            SidecarError: as ``exchange`` and ``accept_login``; LOGIN_DENIED or LOGIN_EXPIRED; `Unsent`, the code has
                not left.
        """
        from delegation_core.login import accept_login
        from sidecar.exchange.adapters.login import StillPending

        async with self._deadline():
            response = await self._login_conversation().complete(begun, code, plan.actor, credentials)
            if isinstance(response, StillPending):
                return response
            granted = self._parse(response.access_token)
            key = await self._key_of(granted)
        now = int(self._clock())
        delegation = accept_login(granted, plan=plan, key=key, policy=policy, now=now)
        call = plan_outbound(delegation, plan.route, policy=policy, now=now)
        permit = accept_issued(granted, plan=call, key=key, policy=policy, now=now)
        return _granted(permit)

    async def prove_granted(self, plan: Plan, policy: Policy) -> Issued:
        """Verify again a token that a user granted, by the current keys and policy, without an exchange.

        Raises:
            SidecarError: as ``exchange``.
        """
        if plan.delegation is None:
            raise ValueError("a token of the workload's own has no grant of a user")
        async with self._deadline():
            granted = self._parse(plan.delegation.token.raw)
            key = await self._key_of(granted)
        return _granted(accept_issued(granted, plan=plan, key=key, policy=policy, now=int(self._clock())))

    @property
    def credential_files(self) -> tuple[str, ...]:
        """The files of the static credentials for this token service and the adapter's other endpoints."""
        settings = self._settings
        ways = (settings.authentication, *(one.client_auth for one in settings.endpoints.values()))
        return tuple(one.credential_file for one in ways if one.credential_file is not None)

    def forget(self) -> None:
        """Drop the cached shared answers, and do not cache those in flight."""
        self._conversation.forget()

    async def close(self) -> None:
        """End the calls in flight."""
        if self._logins is not None:
            await self._logins.close()
        await self._conversation.close()

    def _login_conversation(self) -> LoginConversation:
        """Return the conversation about logins, created at the first call: few token services have logins."""
        if self._logins is None:
            from sidecar.exchange.login_conversation import LoginConversation

            settings = self._settings
            self._logins = LoginConversation(
                settings,
                self._source,
                self._conversation,
                self._authenticator,
                lambda url: self._channel(settings.at(url), settings.authentication),
                monotonic=self._monotonic,
            )
        return self._logins

    @asynccontextmanager
    async def _deadline(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self._settings.timeout_s):
                yield
        except TimeoutError as error:
            raise Unavailable(Reason.STS_TIMEOUT, "no token within the deadline") from error

    async def _steps(self, plan: Plan, policy: Policy) -> Steps:
        """Begin the adapter's steps for a plan."""
        adapter, options = self._adapter, self._settings.options
        delegation = plan.delegation
        kind = TOKEN_TYPE_ACCESS_TOKEN if delegation is None else _subject_token_type(delegation, policy)
        if delegation is not None and kind not in adapter.capabilities.takes:
            raise Denied(Reason.ISSUER_NOT_FOR_ROUTE, f"{adapter.name} cannot exchange tokens of this type")
        svid = None
        if adapter.needs_jwt_svid(options) and (delegation is not None or not adapter.capabilities.serves_users):
            svid = await self._source.jwt_svid(self._settings.issuer)
        wanted = Wanted(
            plan=plan,
            subject_token_type=kind,
            client_id=self._authenticator.client_id,
            jwt_svid=svid,
            options=options,
        )
        if delegation is not None:
            return adapter.exchange(wanted)
        if adapter.own is None:
            raise Denied(Reason.OWN_AUTHORITY_REFUSED, f"{adapter.name} cannot issue a workload's own token")
        return adapter.own(wanted)

    def _failover(
        self,
        name: str,
        endpoints: Sequence[Endpoint],
        auth: ClientAuthSettings,
        on_failure: Callable[[str, Reason], None],
        monotonic: Callable[[], float],
    ) -> Failover:
        """Create the `Failover` over the replicas of the endpoint ``name``."""
        settings = self._settings
        made = Failover(
            [
                Replica(
                    label=str(number) if name == TOKEN else name,
                    url=endpoint.url,
                    caller=self._channel(endpoint, auth, among=len(endpoints)),
                )
                for number, endpoint in enumerate(endpoints, start=1)
            ],
            timeout_s=settings.timeout_s,
            on_failure=on_failure,
            monotonic=monotonic,
        )
        self._failovers.append(made)
        return made

    def _channel(self, endpoint: Endpoint, auth: ClientAuthSettings, *, among: int = 1) -> StsChannel:
        settings = self._settings
        connect_timeout_s = settings.timeout_s / 2 if among > 1 else None
        if settings.known.login is not None:
            # A login whose deadline ends while a connection is opened would not know that its code has not left.
            connect_timeout_s = settings.timeout_s / (among + 1)
        return StsChannel(
            endpoint,
            self._source,
            timeout_s=settings.timeout_s,
            connect_timeout_s=connect_timeout_s,
            max_bytes=settings.max_response_bytes,
            resolver=self._resolver,
            shows_svid=auth.method in BY_CERTIFICATE,
        )

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


def _certificate_of(issued: Bearer, current: Identity | None, before: Identity | None) -> str | None:
    """Return the hexadecimal SHA-256 of our SVID that a token is bound to, else of the newest; None without an SVID.

    Our SVID may have been renewed during the exchange. A token bound to the previous one is valid, but is not used.
    """
    confirmation = issued.claims.get("cnf")
    bound_to = confirmation.get("x5t#S256") if isinstance(confirmation, dict) else None
    own = [identity.svid.leaf_sha256 for identity in (before, current) if identity is not None]
    return next((one for one in own if thumbprint_of(one) == bound_to), own[-1] if own else None)


def _subject_of(plan: Plan) -> Hashable:
    """Return the subject of the token: the user, the same for all of the user's tokens, or this workload."""
    token = plan.subject_token
    return plan.actor if token is None else (token.issuer, token.subject)


def _granted(permit: IssuedPermit) -> Issued:
    """Return ``Issued`` without a refresh: only the user could grant another token."""
    usable_until = permit.token.expires_at - SKEW_S
    return Issued(permit, usable_until, refresh_at=usable_until)


def _subject_token_type(delegation: Delegation, policy: Policy) -> str:
    """Return the type of the subject token: an access token, or at an entry the kind of its user issuer's tokens."""
    if not delegation.entry or policy.entry is None:
        return TOKEN_TYPE_ACCESS_TOKEN
    from delegation_core.login_issuer import LoginKind

    kind = policy.entry.issuers[delegation.token.issuer].kind
    return TOKEN_TYPE_ID_TOKEN if kind is LoginKind.ID_TOKEN else TOKEN_TYPE_ACCESS_TOKEN


def _usable_until(expires_at: int, response: TokenResponse, plan: Plan, now: int) -> int:
    """Return the earliest of the token's exp, the subject token's exp and ``expires_in``, less ``SKEW_S``."""
    ends = [expires_at]
    if plan.subject_token is not None:
        ends.append(plan.subject_token.expires_at)
    if response.expires_in is not None:
        ends.append(now + response.expires_in)
    return min(ends) - SKEW_S
