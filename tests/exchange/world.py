"""The writer's sidecar in front of a token service: planner → writer → crm, for user-4711."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import cache
from typing import Any

import pytest

from delegation_core.errors import Reason, SidecarError
from delegation_core.inbound_routes import InboundRoutes
from delegation_core.login_issuer import LoginKind, ScopeFrom, UserIssuer
from delegation_core.outbound_routes import OutboundRoutes
from delegation_core.plan import Delegation, Plan, plan_outbound
from delegation_core.policy import Deny, Entry, Policy
from delegation_core.route import OutboundRoute, Upstream
from delegation_core.spiffe_id import SpiffeId
from delegation_core.verify import VerifiedToken
from sidecar.exchange.client import TokenExchange
from sidecar.exchange.client_auth import ClientAuthSettings
from sidecar.exchange.sts import ExchangeSettings
from sidecar.exchange.txn_service import TxnTokenService, TxnTokenSettings
from sidecar.identity.jwks import IssuerKeys, JwksSettings
from sidecar.observe.access_log import AccessLog
from sidecar.observe.metrics import Metrics
from sidecar.observe.sink import Room
from sidecar_dev.pki import TrustDomainAuthority
from tests.fakes.jwks import JwksPublisher
from tests.fakes.lying_sts import LyingSts, Server
from tests.fakes.own_identity import OwnIdentity
from tests.fakes.tokens import CRM, ISSUER, NOW, TRUST_DOMAIN, WRITER, TokenMint
from tests.fakes.txn_tokens import SOURCE, TTS, Tts

STS = SpiffeId("spiffe://acme.example/sts")
LOGIN = TokenMint("https://idp.example", key=3)
SUB_ID = {"format": "iss_sub", "iss": LOGIN.issuer, "sub": "4711"}


def route(name: str = "crm", *, audience: str = CRM, scopes: tuple[str, ...] = ("crm.read",)) -> OutboundRoute:
    return OutboundRoute(
        name=name,
        host=f"{name}.mesh",
        prefix=None,
        upstream=Upstream(scheme="https", host="127.0.0.1", port=7443),
        peer=CRM,
        audience=audience,
        issuer=ISSUER,
        scopes=frozenset(scopes),
    )


def policy(
    number: int = 1,
    *,
    workload: SpiffeId = WRITER,
    mint: TokenMint | None = None,
    kind: LoginKind = LoginKind.ID_TOKEN,
) -> Policy:
    user = UserIssuer(
        trusted=LOGIN.trusted("oidc-id-token"),
        kind=kind,
        client_id="front",
        scope_from=ScopeFrom(claim="groups", map={"sales": frozenset({"crm.read"})}),
    )
    return Policy(
        workload=workload,
        audiences=frozenset({workload}),
        issuers={ISSUER: (mint or TokenMint()).trusted()},
        token_services=frozenset({ISSUER}),
        inbound=InboundRoutes([]),
        outbound=OutboundRoutes([route(), route("mail")]),
        entry=Entry(issuers={LOGIN.issuer: user}, may_call=frozenset({"crm", "mail"})),
        deny=Deny(),
        number=number,
    )


@cache
def _token(claims: str) -> VerifiedToken:
    """Sign a token once: the same claims give the same token, which ECDSA alone would not."""
    lawful: dict[str, object] = {"scope": "crm.read docs.read", "txn": "txn-1", "sub_id": SUB_ID}
    changes: Any = {**lawful, **json.loads(claims)}
    return TokenMint().verified(**changes)


def subject_of(of: Plan) -> VerifiedToken:
    """Return the token that a plan exchanges."""
    assert of.subject_token is not None
    return of.subject_token


def plan(to: OutboundRoute | None = None, *, by: Policy | None = None, **claims: object) -> Plan:
    """Return the plan for a call with a token whose claims are changed."""
    token = _token(json.dumps(claims))
    delegation = Delegation(token=token, may_call=frozenset({"crm", "mail"}), entry=False, scope=token.scope)
    return plan_outbound(delegation, to or route(), policy=by or policy(), now=NOW)


@cache
def authority() -> TrustDomainAuthority:
    return TrustDomainAuthority(TRUST_DOMAIN)


class MemorySink:
    name = "memory"
    begins_line = False

    def __init__(self) -> None:
        self.written = bytearray()

    def write(self, data: memoryview) -> int:
        self.written += data
        return len(data)

    def renew(self) -> bool:
        return False

    def room(self) -> Room | None:
        return None

    def settle(self) -> None:
        pass

    def close(self) -> None:
        pass


class Clock:
    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class World:
    """The parts of an exchange. ``server`` puts a real connection between them; ``tts`` issues transaction tokens."""

    def __init__(
        self, *, server: Server | None = None, sts: LyingSts | None = None, tts: Tts | None = None, **settings: Any
    ) -> None:
        self.sts = server.sts if server else sts or LyingSts()
        self.source = OwnIdentity(authority(), WRITER)
        self.has_keys = asyncio.Event()
        self.jwks = JwksPublisher(self.sts.mint.jwks)
        self.tts_jwks = JwksPublisher(TTS.jwks)
        issuers = [ISSUER, *([] if tts is None else [TTS.issuer])]
        self.keys = IssuerKeys(
            [JwksSettings(issuer=issuer, url="http://127.0.0.1/jwks") for issuer in issuers],
            self.source,
            fetcher_for=lambda settings: self.jwks if settings.issuer == ISSUER else self.tts_jwks,
            on_fetched=lambda _issuer: self.has_keys.set(),
        )
        self.sink = MemorySink()
        self.metrics = Metrics()
        self.metrics.declare_issuers([ISSUER])
        self.log = AccessLog(self.sink, run="test", metrics=self.metrics)
        self.clock = Clock(float(NOW))
        self.monotonic = Clock(500.0)
        lawful: dict[str, Any] = {
            "issuer": ISSUER,
            "token_endpoint": server.url if server else "http://127.0.0.1/token",
        }
        txn = TxnTokenSettings(source=SOURCE, endpoint=None, client_auth=ClientAuthSettings(audience=TTS.issuer))
        self.exchange = TokenExchange(
            ExchangeSettings(**{**lawful, **settings}),
            self.source,
            self.keys,
            self.log,
            self.metrics,
            self.clock,
            monotonic=self.monotonic,
            caller=None if server else self.sts,
            spread=lambda: 0.0,
            txn_service=None if tts is None else TxnTokenService(txn, self.source, self.keys, self.clock, caller=tts),
        )

    async def records(self) -> list[dict[str, object]]:
        """Return all records. Ends the log."""
        await self.log.close()
        return [json.loads(line) for line in self.sink.written.decode().splitlines()]


@asynccontextmanager
async def running(world: World) -> AsyncIterator[World]:
    """Run with the issuer's keys loaded."""
    task = asyncio.create_task(world.keys.run())
    try:
        await world.has_keys.wait()
        yield world
    finally:
        await world.exchange.close()
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        await world.log.close()


async def reason_of(world: World, wanted: Plan | None = None, by: Policy | None = None) -> Reason:
    """Return the reason why the exchange is refused."""
    with pytest.raises(SidecarError) as caught:
        await world.exchange.exchange(wanted or plan(), by or policy())
    return caught.value.reason
