"""Features of a token service that only some settings use. A process without one never loads its modules.

Each function imports the modules of its feature. Other parts of a running token service import those for types only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sidecar.identity.source import IdentitySource
    from sidecar.observe.record_rate import UnprovenRecords
    from sidecar.sts.endpoints import TokenEndpoint
    from sidecar.sts.introspection import IntrospectionEndpoint
    from sidecar.sts.logout_endpoint import EventSettings, LogoutEndpoint
    from sidecar.sts.rate import RateSettings
    from sidecar.sts.records import EventLog
    from sidecar.sts.replicas import Replicas
    from sidecar.sts.revocation_endpoint import RevocationEndpoint
    from sidecar.sts.revocations import Register, RevocationSettings
    from sidecar.sts.service import TokenService


def introspection_of(
    settings: RateSettings | None, service: TokenService, endpoint: TokenEndpoint
) -> IntrospectionEndpoint | None:
    """Make the endpoint of RFC 7662, with the rate limit of each client; None without settings."""
    if settings is None:
        return None
    from sidecar.sts.introspection import IntrospectionEndpoint
    from sidecar.sts.rate import ExchangeRate

    too_many = "too many introspections by one client"
    return IntrospectionEndpoint(
        service, endpoint, ExchangeRate(settings, monotonic=service.log.monotonic, too_many=too_many)
    )


def register_of(settings: RevocationSettings | None, log: EventLog) -> Register | None:
    """Make the register of operators' orders; None without settings."""
    if settings is None:
        return None
    from sidecar.sts.revocations import Register

    return Register(settings, log)


def revocations_of(service: TokenService, endpoint: TokenEndpoint) -> RevocationEndpoint | None:
    """Make the endpoints of orders and of the signed list; None without a register."""
    if service.register is None:
        return None
    from sidecar.sts.revocation_endpoint import RevocationEndpoint

    return RevocationEndpoint(service, service.register, endpoint)


def replicas_of(register: Register, source: IdentitySource, endpoint: RevocationEndpoint) -> Replicas:
    """Make the exchange of orders with the other replicas."""
    from sidecar.sts.replicas import Replicas

    return Replicas(register, source, replica=endpoint.replica)


def logouts_of(
    settings: EventSettings | None, service: TokenService, unproven: UnprovenRecords
) -> LogoutEndpoint | None:
    """Make the endpoint for logout events; None without settings or a register."""
    if settings is None or service.register is None:
        return None
    from sidecar.sts.logout_endpoint import LogoutEndpoint

    return LogoutEndpoint(service, service.register, settings, unproven=unproven)
