"""Federated tokens: from the cache, or from one trade shared by all calls that need the same token.

A trade belongs to a route's provider and terms, and to our SPIFFE ID. It outlives the caller that started it. Only the
settings choose its URLs: TLS by a public or a named authority, no redirect, no proxy of the environment, one connection
for each request. A trade that fails is never kept: the next call tries again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from types import MappingProxyType
from typing import Final, Protocol, TypeAlias
from urllib.parse import urlsplit

from delegation_core.errors import Reason, SidecarError, Unavailable
from delegation_core.outside import FederatedKey, Provider
from delegation_core.spiffe_id import SpiffeId
from sidecar.exchange.federation import anthropic, aws, azure, google, openai
from sidecar.exchange.federation.trade import MAX_ANSWER_BYTES, Adapter, Ask, Traded, trade_error
from sidecar.identity.endpoint import Endpoint, EndpointAnswer, EndpointError
from sidecar.identity.endpoint_client import EndpointClient
from sidecar.identity.file_trust import public_authorities
from sidecar.identity.source import IdentitySource

ADAPTERS: Final[Mapping[Provider, Adapter]] = MappingProxyType(
    {
        "openai": openai.trade,
        "anthropic": anthropic.trade,
        "google": google.trade,
        "azure": azure.trade,
        "aws": aws.trade,
    }
)
TRADE_S: Final = 10.0  # for all steps together
_TYPES: Final = ("application/json", "text/xml")  # what adapters read
REJECTION_S: Final = 10.0  # a token is replaced no sooner, however often the provider says 401
_MARGIN_S: Final = 30  # of a token's life that is left unused; a quarter of a shorter one

_Key: TypeAlias = tuple[FederatedKey, SpiffeId]


class Caller(Protocol):
    """Makes one step of a trade. Raises ``EndpointError`` without a whole answer, or ``SidecarError``."""

    async def __call__(self, ask: Ask, ca_file: str | None, /) -> EndpointAnswer: ...  # noqa: D102


@dataclass(frozen=True, slots=True)
class FederatedToken:
    """A provider's token for a route's terms and our SPIFFE ID, and the second (exclusive) until which it is used."""

    of: _Key = field(repr=False)
    value: bytes = field(repr=False)
    fingerprint: str
    traded_at: float
    usable_until: float


class FederatedTokens:
    """The tokens of all ``federate`` routes. Lives in one event loop; ``clock`` is wall time in seconds."""

    def __init__(
        self, source: IdentitySource, clock: Callable[[], float] = time.time, caller: Caller | None = None
    ) -> None:
        self._source = source
        self._clock = clock
        self._call = caller or self._post
        self._kept: dict[_Key, FederatedToken] = {}
        self._flights: dict[_Key, asyncio.Task[FederatedToken | SidecarError]] = {}

    def cached(self, key: FederatedKey) -> FederatedToken | None:
        """Return the cached token for our SPIFFE ID; None: await ``of``."""
        identity = self._source.current
        kept = None if identity is None else self._kept.get((key, identity.spiffe_id))
        return kept if kept is not None and self._clock() < kept.usable_until else None

    async def of(self, key: FederatedKey) -> FederatedToken:
        """Return the token, cached or new; concurrent callers share one trade.

        Raises:
            Unavailable: CREDENTIAL_UNAVAILABLE, the provider gave none; NOT_READY, we have no identity.
        """
        if (kept := self.cached(key)) is not None:  # a flight landed since the caller looked
            return kept
        identity = self._source.current
        if identity is None:
            raise Unavailable(Reason.NOT_READY, "this workload has no identity to show to the provider")
        of_us = (key, identity.spiffe_id)
        flight = self._flights.get(of_us)
        if flight is None:
            flight = self._flights[of_us] = asyncio.get_running_loop().create_task(self._fly(of_us))
        await asyncio.wait([flight])  # unlike awaiting the task, this leaves it alone when the caller goes away
        outcome = trade_error("the trade was cancelled") if flight.cancelled() else flight.result()
        if isinstance(outcome, SidecarError):
            raise outcome
        if self._source.current is None or self._source.current.spiffe_id != identity.spiffe_id:
            raise Unavailable(Reason.NOT_READY, "our identity changed during the trade")
        return outcome

    def reject(self, token: FederatedToken) -> None:
        """Remove a token that the provider's host answered with 401, unless it is younger than ``REJECTION_S``."""
        if self._kept.get(token.of) is token and self._clock() - token.traded_at >= REJECTION_S:
            del self._kept[token.of]

    async def _fly(self, of_us: _Key) -> FederatedToken | SidecarError:
        """Trade, and cache the token. Returns a failure instead of raising it, and does not cache it."""
        try:
            async with asyncio.timeout(TRADE_S):
                token = await self._trade(of_us)
            now = self._clock()
            for key in [key for key, kept in self._kept.items() if kept.usable_until <= now]:
                del self._kept[key]  # of settings and identities that are gone, too
            self._kept[of_us] = token
        except SidecarError as error:
            return error
        except EndpointError as error:
            return trade_error(str(error))
        except TimeoutError:
            return trade_error(f"no token within {TRADE_S:g} s")
        finally:
            del self._flights[of_us]
        return token

    async def _trade(self, of_us: _Key) -> FederatedToken:
        key, _ = of_us
        began_at = self._clock()
        steps = ADAPTERS[key.provider](key, await self._source.jwt_svid(key.audience), began_at)
        ask = next(steps)
        while True:
            answer = await self._call(ask, key.ca_file)
            if answer.status != 200:
                raise trade_error(f"{_host_of(ask)} answered with status {answer.status}")
            if (answer.content_type or "").partition(";")[0].strip().lower() not in _TYPES:
                raise trade_error(f"{_host_of(ask)} answered with another content type")
            try:
                ask = steps.send(answer.body)
            except StopIteration as end:
                return _token(of_us, end.value, began_at)

    async def _post(self, ask: Ask, ca_file: str | None) -> EndpointAnswer:
        endpoint = Endpoint(url=ask.url, ca_file=ca_file or public_authorities())
        client = EndpointClient(endpoint, self._source, timeout_s=TRADE_S, max_bytes=MAX_ANSWER_BYTES)
        try:
            return await client.post(ask.body, ask.content_type, ask.headers)
        finally:
            await client.close()


def _host_of(ask: Ask) -> str:
    return urlsplit(ask.url).netloc


def _token(of_us: _Key, result: Traded, began_at: float) -> FederatedToken:
    value = result.token.encode("ascii")
    usable_until = began_at + result.life_s - min(_MARGIN_S, result.life_s / 4)
    return FederatedToken(of_us, value, sha256(value).hexdigest()[:32], began_at, usable_until)
