"""Token services of a sidecar's settings: builder, and checks against their adapters' capabilities."""

from __future__ import annotations

from collections.abc import Iterator

from delegation_core.errors import Problem
from delegation_core.login_issuer import LoginKind
from delegation_core.profile import IssuerProfile
from delegation_core.rfc8693 import TOKEN_TYPE_ACCESS_TOKEN, TOKEN_TYPE_ID_TOKEN
from delegation_core.spiffe_id import SpiffeId
from sidecar.config.endpoints import (
    client_auth_of,
    endpoint_of,
    mesh_names,
    rename_member,
    same_origin,
    static_problem,
    tls_of,
    token_endpoint_problems,
    token_endpoints_of,
)
from sidecar.config.exchange_model import ClientAuthSection, ExchangeEndpointSection, ExchangeSection
from sidecar.config.identity import jwt_svid_problems
from sidecar.config.issuers import trusted_issuers
from sidecar.config.platform_file import Platform
from sidecar.config.profiles import kind_of
from sidecar.config.sections import scalars
from sidecar.config.sidecar_model import SidecarFile
from sidecar.config.validation import repetitions
from sidecar.exchange.adapters.adapter import STATIC, Adapter, ClientAuth
from sidecar.exchange.sts import EndpointSettings, ExchangeSettings
from sidecar.exchange.txn_service import TxnTokenSettings
from sidecar.features.logins.settings import EntrySection
from sidecar.identity.source_factory import IdentitySettings

_ASSERTED = frozenset({ClientAuth.JWT_SVID, ClientAuth.JWT_SPIFFE})
_TYPES = {LoginKind.ID_TOKEN: TOKEN_TYPE_ID_TOKEN, LoginKind.ACCESS_TOKEN: TOKEN_TYPE_ACCESS_TOKEN}


def exchange_of(section: ExchangeSection) -> ExchangeSettings:
    """Make the settings of a token service that is asked for tokens."""
    tls = tls_of(section)
    first, *further = token_endpoints_of(section)
    with rename_member("url", "token_endpoints" if section.token_endpoints else "token_endpoint"):
        return ExchangeSettings(
            issuer=section.issuer,
            token_endpoint=first,
            further_token_endpoints=tuple(further),
            peer=SpiffeId(tls.peer) if tls.peer is not None else None,
            ca_file=tls.ca,
            adapter=section.adapter,
            client_auth=client_auth_of(section, section.issuer),
            options=section.options,
            endpoints={name: _endpoint(name, one) for name, one in section.endpoints.items()},
            authorization_endpoint=section.authorization_endpoint,
            metadata=section.metadata,
            **scalars(section, ExchangeSettings),
        )


def exchange_problems(file: SidecarFile) -> Iterator[Problem]:
    """Report token services without keys, listed twice, or whose issuer may not grant what a route asks for."""
    known = {section.issuer: section for section in file.issuers}
    exchanges = file.exchange_sections()
    for field, exchange in exchanges:
        if exchange.peer is not None and exchange.tls is not None:
            yield Problem(f"{field}.tls", "is set beside peer", "keep one of them")
        yield from token_endpoint_problems(exchange, field)
        if exchange.issuer not in known:
            yield Problem(f"{field}.issuer", "is not a configured issuer", "list it under issuers, with its keys")
    yield from repetitions("exchange", (exchange.issuer for _, exchange in exchanges))
    for field, route in file.mesh_routes():
        section = known.get(file.issuer_of(route) or "")
        if section is None:
            continue
        for scope in sorted(set(route.scopes) - set(section.scopes)):
            yield Problem(
                f"{field}.scopes",
                f"{scope} is above the ceiling of {section.issuer}",
                "add it to that issuer's scopes, or remove it here",
            )


def adapter_problems(file: SidecarFile, exchanges: tuple[ExchangeSettings, ...]) -> Iterator[Problem]:
    """Report routes that need a capability that their adapter lacks."""
    made = {one.issuer: one for one in exchanges}
    profiles = {one.issuer: one.profile for one in trusted_issuers(file).values()}
    opened = {name for _, route in file.inbound_routes() for name in route.may_call}
    for field, route in file.mesh_routes():
        exchange = made.get(file.issuer_of(route) or "")
        if exchange is None:
            continue
        adapter = exchange.known
        if route.token == "self" and adapter.own is None:  # noqa: S105 - a kind
            yield Problem(
                f"{field}.token",
                f"is self, but {adapter.name} does not issue such tokens",
                "remove it, or use another token service",
            )
        why_not = _no_later_hop(adapter, profiles.get(exchange.issuer))
        if route.token != "self" and not adapter.capabilities.serves_users:  # noqa: S105 - a kind
            yield Problem(
                f"{field}.exchange",
                f"uses {adapter.name}, which issues no tokens for users",
                "use another token service",
            )
        elif route.name in opened and route.token == "exchange" and why_not is not None:  # noqa: S105
            yield Problem(
                f"{field}.name",
                f"is opened by inbound routes, but {adapter.name} {why_not}, so each such call would be refused",
                "open it by entry.may_call alone, or have another token service issue its tokens",
            )
        if file.entry is not None and route.name in file.entry.may_call and route.token == "exchange":  # noqa: S105
            yield from _login_problems(file.entry, route.name, adapter)


def _no_later_hop(adapter: Adapter, profile: IssuerProfile | None) -> str | None:
    """Return the reason why an adapter cannot carry a chain on; None if it can."""
    if TOKEN_TYPE_ACCESS_TOKEN not in adapter.capabilities.takes:
        return "accepts only login tokens"
    if not adapter.capabilities.nests_act:
        return "drops the actor chain"
    by_client = profile is not None and profile.names_actor_by_client
    return "issues tokens whose profile has one actor and no chain" if by_client else None


def _login_problems(entry: EntrySection, route: str, adapter: Adapter) -> Iterator[Problem]:
    """Report logins whose tokens an adapter cannot exchange, or would send to another issuer."""
    for number, user in enumerate(entry.issuers):
        kind = kind_of(user)
        if kind is not None and _TYPES[kind] not in adapter.capabilities.takes:
            yield Problem(
                f"entry.issuers[{number}].kind",
                f"is {kind}, but {adapter.name}, which the route {route} uses, does not accept such tokens",
                "have users log in with another kind, or another token service issue the route's tokens",
            )
    if adapter.capabilities.asks_login_issuer and len(entry.issuers) > 1:
        yield Problem(
            "entry.issuers",
            f"has several, but {adapter.name}, which the route {route} uses, would send the tokens of all to one",
            "keep one, or have another token service issue the route's tokens",
        )


def audience_problems(file: SidecarFile, platform: Platform | None) -> Iterator[Problem]:
    """Report an assertion audience that lets the receiving server replay the JWT-SVID to a server of the mesh."""
    names = mesh_names(file) | (set() if platform is None else platform.names())
    names |= {user.issuer.rstrip("/") for user in (file.entry.issuers if file.entry is not None else [])}
    for field, section in file.exchange_sections():
        own = {section.issuer, *token_endpoints_of(section)}
        shown: list[tuple[str, ClientAuthSection, set[str], str]] = [
            (field, section, own, token_endpoints_of(section)[0])
        ]
        shown += [(f"{field}.endpoints.{name}", one, {one.url}, one.url) for name, one in section.endpoints.items()]
        for where, auth, accepted, url in shown:
            audience = auth.assertion_audience
            if audience is None or audience in accepted or (section is not auth and same_origin(audience, url)):
                continue
            if _is_of_mesh(audience, names):
                yield _other_audience(where)
    txn = file.txn_tokens
    if txn is not None and txn.token_endpoint is not None and txn.client_auth in _ASSERTED:
        audience = txn.assertion_audience or txn.issuer
        if not same_origin(audience, txn.token_endpoint) and _is_of_mesh(audience, names):
            yield _other_audience("txn_tokens")


def _is_of_mesh(audience: str, names: set[str]) -> bool:
    return audience.rstrip("/") in names or audience.startswith("spiffe://")


def _other_audience(where: str) -> Problem:
    return Problem(
        f"{where}.assertion_audience",
        "is another service of the mesh, to which this server could send our JWT-SVID",
        "use an audience that only this server accepts",
    )


def client_actor_problems(file: SidecarFile) -> Iterator[Problem]:
    """Report accepted issuers whose profile cannot tell a delegated token from a client's own token."""
    accepted: set[str] = set()
    for _, route in file.inbound_routes():
        accepted.update(route.issuers or (section.issuer for section in file.issuers))
    trusted = trusted_issuers(file)
    for number, section in enumerate(file.issuers):
        known = trusted.get(section.issuer)
        if known is not None and section.issuer in accepted and not known.profile.tells_delegation:
            yield Problem(
                f"issuers[{number}].profile",
                "reads the actor from the client, so a client's own token or a login there would count as a delegation",
                "write required_values, or accept this issuer on no inbound route",
            )


def svid_problems(
    identity: IdentitySettings, exchanges: tuple[ExchangeSettings, ...], txn_tokens: TxnTokenSettings | None
) -> Iterator[Problem]:
    """Report each missing JWT-SVID that an exchange needs as actor token or client assertion."""
    audiences: dict[str, str] = {}
    for one in exchanges:
        if one.known.needs_jwt_svid(one.options):
            audiences.setdefault(one.issuer, "actor token")
        for auth in (one.authentication, *(other.client_auth for other in one.endpoints.values())):
            if auth.method in _ASSERTED:
                audiences.setdefault(auth.audience, "client assertion")
    if txn_tokens is not None and txn_tokens.endpoint is not None and txn_tokens.client_auth.method in _ASSERTED:
        audiences.setdefault(txn_tokens.client_auth.audience, "client assertion")
    for audience, what in audiences.items():
        yield from jwt_svid_problems(identity, audience, what)


def exchange_ceiling_problems(
    file: SidecarFile, platform: Platform, exchanges: tuple[ExchangeSettings, ...]
) -> Iterator[Problem]:
    """Report static credentials, further endpoints and their issuers that the platform file does not list."""
    fields = {section.issuer: field for field, section in file.exchange_sections()}
    for one in exchanges:
        field = fields[one.issuer]
        if one.authentication.method in STATIC and one.issuer not in platform.static_client_auth:
            yield static_problem(field, one.issuer)
        for name, other in one.endpoints.items():
            where, endpoint = f"{field}.endpoints.{name}", other.endpoint
            listed = platform.exchange_endpoints.get(endpoint)
            if listed is None:
                yield Problem(
                    f"{where}.url", "is not one of the platform's exchange_endpoints", "list it there, with tls"
                )
            for issuer in sorted(_exchanged(file, one.issuer) - (listed or frozenset())) if listed else ():
                yield Problem(
                    f"{where}.url",
                    f"would receive tokens of {issuer}",
                    "list that issuer there, or remove its routes",
                )
            if other.client_auth.method in STATIC and endpoint.url not in platform.static_client_auth:
                yield static_problem(where, endpoint.url)


def _exchanged(file: SidecarFile, issuer: str) -> set[str]:
    """Return the issuers whose tokens are exchanged at this issuer's token service."""
    routes = {route.name for _, route in file.mesh_routes() if file.issuer_of(route) == issuer}
    found: set[str] = set()
    for _, route in file.inbound_routes():
        if routes & set(route.may_call):
            found.update(route.issuers or (section.issuer for section in file.issuers))
    if file.entry is not None and routes & set(file.entry.may_call):
        found.update(user.issuer for user in file.entry.issuers)
    return found


def _endpoint(name: str, section: ExchangeEndpointSection) -> EndpointSettings:
    tls = tls_of(section)
    with rename_member("url", f"endpoints.{name}.url"):
        endpoint = endpoint_of(section.url, tls)
    return EndpointSettings(endpoint=endpoint, client_auth=client_auth_of(section, section.url))
