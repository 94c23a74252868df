"""Makes the part of a sidecar that a reload replaces: policy, keys and clients of token services."""

from __future__ import annotations

import time
from importlib import import_module
from typing import TYPE_CHECKING

from delegation_core.route import Upstream
from sidecar.config.settings import SidecarSettings
from sidecar.engine import PREPARED_CALL_BYTES, engine_of
from sidecar.exchange.client import TokenExchange
from sidecar.exchange.exchanges import Exchanges
from sidecar.exchange.sts import ExchangeSettings
from sidecar.identity.jwks import IssuerKeys
from sidecar.identity.source import IdentitySource
from sidecar.observe.access_log import AccessLog
from sidecar.observe.metrics import Metrics
from sidecar.proxy.journeys.snapshot import Setup
from sidecar.proxy.listening.memory_pressure import MIB
from sidecar.wire.dialer import Origin
from sidecar.wire.resolver import Resolver

if TYPE_CHECKING:
    pass


def make_setup(settings: SidecarSettings, keys: IssuerKeys, exchanges: Exchanges, metrics: Metrics) -> Setup:
    """Make the part of a sidecar that a reload replaces."""
    metrics.declare_issuers(one.issuer for one in settings.keys)
    metrics.declare_routes("inbound", (route.name for route in settings.inbound_routes.routes))
    metrics.declare_routes("outbound", settings.outbound_routes.names)
    if any(route.linger_s for route in settings.inbound_routes.routes):
        import_module("sidecar.proxy.journeys.linger_cache")  # now, so that no request waits for it
    inbound = settings.inbound
    agent_grpc = None if inbound is None else inbound.agent_grpc
    plain = None if inbound is None else inbound.plain
    return Setup(
        make_policy=settings.policy,
        keys=keys,
        exchanges=exchanges,
        agent=None if inbound is None else _agent(inbound.agent, h2c=settings.protocols.agent == "h2c"),
        agent_grpc=None if agent_grpc is None else _agent(agent_grpc, h2c=True),
        needed_issuers=settings.needed_issuers,
        peer_trust_domains=settings.peer_trust_domains,
        listener_rule=settings.listener_rule,
        observe_until=settings.observe_until,
        plain_until=0 if plain is None else plain.until,
    )


def features_of(settings: SidecarSettings) -> frozenset[str]:
    """Return the names of the features that the settings use."""
    inbound, outbound = settings.inbound_routes.routes, settings.outbound_routes
    used: set[str] = {route.protocol for route in inbound} | {route.protocol for route in outbound.routes}
    uses = {
        "metadata": any(route.resource is not None for route in inbound),
        "outside": outbound.outside or outbound.tunnels,
        "observing": settings.observe_until,
        "logins": settings.entry is not None,
        "user_logins": any(route.token == "login" for route in outbound.routes),  # noqa: S105 - a kind
    }
    return frozenset(used.union(name for name, is_used in uses.items() if is_used)) - {"http"}


def _agent(agent: Upstream, *, h2c: bool) -> Origin:
    if h2c:
        return Origin(agent.host, agent.port, key=(agent.host, agent.port, "h2c"), http2="prior")
    return Origin(agent.host, agent.port, key=(agent.host, agent.port))


def make_keys(settings: SidecarSettings, source: IdentitySource, log: AccessLog) -> IssuerKeys:
    """Make the key sets of all issuers, still without keys."""
    return IssuerKeys(settings.keys, source, on_fetched=log.metrics.jwks_updated)


def make_exchanges(settings: SidecarSettings, source: IdentitySource, keys: IssuerKeys, log: AccessLog) -> Exchanges:
    """Make the clients of all token services. Each gets an equal share of the cache limit ``max_issued_mib``."""
    resolver = resolver_of(settings, log)
    max_bytes = settings.memory.max_issued_mib * MIB // max(1, len(settings.exchanges))
    warm_bytes = PREPARED_CALL_BYTES if engine_of(settings.engine) == "native" else 0
    txn = settings.txn_tokens

    def exchange(one: ExchangeSettings) -> TokenExchange:
        service = None
        if txn is not None and txn.endpoint is not None:
            from sidecar.exchange.txn_service import TxnTokenService

            service = TxnTokenService(txn, source, keys, time.time, resolver=resolver)
        return TokenExchange(
            one,
            source,
            keys,
            log,
            log.metrics,
            resolver=resolver,
            max_bytes=max_bytes,
            warm_bytes=warm_bytes,
            txn_service=service,
        )

    return Exchanges({one.issuer: exchange(one) for one in settings.exchanges})


def resolver_of(settings: SidecarSettings, log: AccessLog) -> Resolver:
    """Return a new resolver, with its own cache."""
    dns = None if settings.outbound is None else settings.outbound.dns
    return Resolver(dns, counts=log.metrics.name_lookups)
