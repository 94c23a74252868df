"""One exchange, from plan to permit: ask by the issuer's adapter, distrust the answer, hand it to the core.

Every failure has its own reason, and none has a fallback: no other token is sent in place of the requested one. The
text of a refusal is neither kept nor passed on; its status is enough.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from sidecar.delegation.bearer import Bearer, parse_bearer
from sidecar.delegation.decide import Delegation, Plan, accept_issued
from sidecar.delegation.issued import sts_error
from sidecar.delegation.keyset import VerificationKey
from sidecar.delegation.policy import LoginKind, Policy
from sidecar.delegation.rfc8693 import TOKEN_TYPE_ACCESS_TOKEN, TOKEN_TYPE_ID_TOKEN, TokenResponse
from sidecar.delegation.spiffe_id import SpiffeId
from sidecar.delegation.verify import thumbprint_of
from sidecar.errors import Denied, Reason, Unavailable
from sidecar.exchange.adapters import find_adapter
from sidecar.exchange.adapters.adapter import BY_CERTIFICATE, TOKEN, Adapter, Steps, Wanted
from sidecar.exchange.cache import SKEW_S, Issued
from sidecar.exchange.channel import StsChannel
from sidecar.exchange.client_auth import ClientAuthenticator, ClientAuthSettings
from sidecar.exchange.conversation import Conversation, Reached
from sidecar.exchange.failover import MAX_REPLICAS, Caller, EndpointState, Failover, Replica
from sidecar.exchange.refresh_schedule import refresh_at
from sidecar.identity.endpoint import Endpoint
from sidecar.identity.jwks import IssuerKeys
from sidecar.identity.source import Identity, IdentitySource
from sidecar.wire.resolver import Resolver

_RETRIES: Final = range(4)


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointSettings:
    """An endpoint beside the token endpoint that an adapter asks, the identity that answers, and our authentication."""

    endpoint: Endpoint
    client_auth: ClientAuthSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class ExchangeSettings:
    """The token service, its identity (as in `Endpoint`), our authentication there, and limits on time and size.

    ``further_token_endpoints`` are those of its other replicas, each asked while those before it fail.
    ``timeout_s`` bounds a whole exchange, retries included; ``retries`` count connections that failed before an answer.
    ``endpoints`` are those that the adapter asks beside the token endpoint, by the adapter's names.

    Raises:
        ValueError: the endpoint, the adapter, its options or a number is unusable. The text names field and cure.
    """

    issuer: str
    token_endpoint: str
    further_token_endpoints: tuple[str, ...] = ()
    peer: SpiffeId | None = None
    ca_file: str | None = None
    timeout_s: float = 2.0
    max_response_bytes: int = 65536
    retries: int = 1
    max_flights: int = 256
    adapter: str = "rfc8693"
    client_auth: ClientAuthSettings | None = None  # None: our X.509-SVID
    options: Mapping[str, str] = field(default_factory=dict, hash=False)
    endpoints: Mapping[str, EndpointSettings] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        urls = [one.url for one in self.token_endpoints]
        if len(urls) > MAX_REPLICAS or len(set(urls)) < len(urls):
            raise ValueError(f"token_endpoints: list at most {MAX_REPLICAS}, each once")
        if not self.timeout_s > 0:
            raise ValueError("timeout_s: it is a time above zero, in seconds")
        if self.retries not in _RETRIES:
            raise ValueError("retries: it is a number from 0 to 3")
        if self.max_response_bytes < 1 or self.max_flights < 1:
            raise ValueError("max_response_bytes, max_flights: each is at least 1")
        adapter = self.known
        object.__setattr__(self, "options", adapter.completed(self.options))
        if self.authentication.method not in adapter.client_auth:
            raise ValueError(
                f"client_auth: {adapter.name} knows no {self.authentication.method}; it is one of "
                f"{', '.join(adapter.client_auth)}"
            )
        if self.endpoints.keys() != frozenset(adapter.endpoints):
            raise ValueError(f"endpoints: {adapter.name} asks at {', '.join(adapter.endpoints) or 'none'}; name these")

    @property
    def token_endpoints(self) -> tuple[Endpoint, ...]:
        """The token endpoints, the preferred first, and the identity that answers at each."""
        urls = (self.token_endpoint, *self.further_token_endpoints)
        return tuple(Endpoint(url=url, peer=self.peer, ca_file=self.ca_file) for url in urls)

    @property
    def known(self) -> Adapter:
        """The adapter of this name. Not kept: settings cross from the process that loads them, and functions cannot."""
        return find_adapter(self.adapter)

    @property
    def authentication(self) -> ClientAuthSettings:
        """Our authentication at the token endpoint."""
        return self.client_auth or ClientAuthSettings(audience=self.issuer)


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

    @property
    def endpoints(self) -> list[EndpointState]:
        """The state of each endpoint, the preferred first."""
        return [state for failover in self._failovers for state in failover.states]

    async def exchange(self, plan: Plan, policy: Policy, credentials: set[str] | None = None) -> Issued:
        """Get the planned token and prove it. ``credentials`` as in ``Conversation.run``.

        Raises:
            SidecarError: any of the ``sts_*`` reasons, EXCHANGE_DENIED, KEYS_UNAVAILABLE or NOT_READY.
        """
        before = self._source.current
        try:
            async with asyncio.timeout(self._settings.timeout_s):
                steps = await self._steps(plan, policy)
                response = await self._conversation.run(steps, plan.actor, credentials)
                issued = self._parse(response.access_token)
                key = await self._key_of(issued)
        except TimeoutError as error:
            raise Unavailable(Reason.STS_TIMEOUT, "no token within the deadline") from error
        now = int(self._clock())
        own = _certificate_of(issued, self._source.current, before)
        permit = accept_issued(issued, plan=plan, key=key, policy=policy, now=now, own_certificate_sha256=own)
        usable_until = _usable_until(permit.token.expires_at, response, plan, now)
        subject = plan.subject_token
        subject_until = usable_until + 1 if subject is None else subject.expires_at - SKEW_S
        ahead = refresh_at(now=now, usable_until=usable_until, subject_until=subject_until, spread=self._spread())
        return Issued(permit, usable_until, refresh_at=ahead)

    async def close(self) -> None:
        """End the calls in flight."""
        await self._conversation.close()

    async def _steps(self, plan: Plan, policy: Policy) -> Steps:
        """Begin the adapter's steps for a plan."""
        adapter, options = self._adapter, self._settings.options
        delegation = plan.delegation
        kind = TOKEN_TYPE_ACCESS_TOKEN if delegation is None else _subject_token_type(delegation, policy)
        if delegation is not None and kind not in adapter.capabilities.takes:
            raise Denied(Reason.ISSUER_NOT_FOR_ROUTE, f"{adapter.name} exchanges no token of this type")
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
            raise Denied(Reason.OWN_AUTHORITY_REFUSED, f"{adapter.name} issues no token of a workload's own")
        return adapter.own(wanted)

    def _failover(
        self,
        name: str,
        endpoints: Sequence[Endpoint],
        auth: ClientAuthSettings,
        on_failure: Callable[[str, Reason], None],
        monotonic: Callable[[], float],
    ) -> Failover:
        """Make the connections to the replicas behind one name of the adapter's."""
        settings = self._settings
        made = Failover(
            [
                Replica(
                    label=str(number) if name == TOKEN else name,
                    url=endpoint.url,
                    caller=StsChannel(
                        endpoint,
                        self._source,
                        timeout_s=settings.timeout_s,
                        connect_timeout_s=settings.timeout_s / 2 if len(endpoints) > 1 else None,
                        max_bytes=settings.max_response_bytes,
                        resolver=self._resolver,
                        shows_svid=auth.method in BY_CERTIFICATE,
                    ),
                )
                for number, endpoint in enumerate(endpoints, start=1)
            ],
            timeout_s=settings.timeout_s,
            on_failure=on_failure,
            monotonic=monotonic,
        )
        self._failovers.append(made)
        return made

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
    """Return the hexadecimal SHA-256 of the SVID of ours that a token may be bound to.

    Our SVID may have been renewed during the exchange. A token of the one before is lawful; it is not used any more.
    """
    confirmation = issued.claims.get("cnf")
    bound_to = confirmation.get("x5t#S256") if isinstance(confirmation, dict) else None
    own = [identity.svid.leaf_sha256 for identity in (before, current) if identity is not None]
    return next((one for one in own if thumbprint_of(one) == bound_to), own[-1] if own else None)


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
