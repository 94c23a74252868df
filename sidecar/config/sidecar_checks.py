"""Checks of what must agree between the sections of a sidecar's settings. Pure; each problem has its cure."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import combinations
from typing import Final

from sidecar.config.addresses import parse_address, parse_origin
from sidecar.config.crossing_checks import crosses, crossing_problems
from sidecar.config.federate_checks import federate_problems
from sidecar.config.issuers import (
    development_problems,
    kind_problems,
    login_issuer,
    preset_of,
    profile_of,
    profile_problems,
    token_endpoint_problems,
)
from sidecar.config.operation_checks import operation_problems
from sidecar.config.outbound_model import ConnectRouteSection, OutboundRouteSection
from sidecar.config.outside_checks import connect_problems, outside_problems
from sidecar.config.own_authority_checks import own_authority_problems
from sidecar.config.sections import IssuerSection, ProfileSection
from sidecar.config.sidecar_model import (
    EntryIssuerSection,
    InboundRouteSection,
    InboundSection,
    SidecarFile,
    exchange_routes,
    exchange_sections,
    route_issuer,
)
from sidecar.delegation.policy import DELEGATION_LIFE_S
from sidecar.delegation.spiffe_id import SpiffeId
from sidecar.errors import Problem
from sidecar.identity.endpoint import is_loopback
from sidecar.observe.probe import OWN_PATHS

_PLAIN_PATH: Final = re.compile(r"[A-Za-z0-9._~/-]+")
_MAX_SOCKET_PATH: Final = 107  # of a Unix socket's address, on Linux


def _sections(file: SidecarFile) -> Iterator[Problem]:
    if file.inbound is None and file.outbound is None:
        yield Problem("inbound", "is missing, and so is outbound", "add the side that the agent needs")
    if file.inbound is not None and not file.issuers:
        yield Problem("issuers", "is empty, so no token could be believed", "list the token service")


def _listeners(file: SidecarFile) -> Iterator[Problem]:
    listeners = {"probe.listen": parse_address(file.probe.listen)}
    if file.inbound is not None:
        listeners["inbound.listen"] = parse_address(file.inbound.listen)
        if file.inbound.plain is not None:
            listeners["inbound.plain.listen"] = parse_address(file.inbound.plain.listen)
        for field, text in _agents(file.inbound):
            agent = parse_origin(text)
            if agent.scheme != "http" or not is_loopback(agent.hostname or ""):
                yield Problem(field, "is not plain http on loopback", "write http://127.0.0.1:PORT")
            if agent.port is None:
                yield Problem(field, "names no port", "write http://127.0.0.1:PORT")
    if file.outbound is not None:
        listeners["outbound.listen"] = address = parse_address(file.outbound.listen)
        if not address.is_loopback:
            yield Problem("outbound.listen", "is open to others than the agent", "listen on 127.0.0.1 or [::1]")
    if file.entry is not None and file.entry.door is not None:
        listeners["entry.door.listen"] = parse_address(file.entry.door.listen)
    for (first, one), (second, other) in combinations(listeners.items(), 2):
        if one.port and one.port == other.port and (one.host == other.host or _any_host(one.host, other.host)):
            yield Problem(first, f"is the address of {second}", "give each listener a port of its own")
    for field, text in () if file.inbound is None else _agents(file.inbound):
        for name, address in listeners.items():
            if address.port and address.port == parse_origin(text).port:
                yield Problem(field, f"is our own {name}", "write the agent's own port")


def _agents(inbound: InboundSection) -> Iterator[tuple[str, str]]:
    yield "inbound.agent", inbound.agent
    if inbound.agent_grpc is not None:
        yield "inbound.agent_grpc", inbound.agent_grpc


def _agent_probes(file: SidecarFile) -> Iterator[Problem]:
    if file.probe.agent and file.inbound is None:
        yield Problem("probe.agent", "asks an agent, and inbound names none", "leave it out")
    for path in repeated(file.probe.agent):
        yield Problem("probe.agent", f"{path} is listed twice", "keep one of them")
    for path in file.probe.agent:
        if path in OWN_PATHS:
            yield Problem("probe.agent", f"{path} is the sidecar's own", "let the agent answer at another path")
        if not _PLAIN_PATH.fullmatch(path):
            yield Problem("probe.agent", f"{path} can be written in other ways", "keep to letters, digits and -._~/")


def _any_host(*hosts: str) -> bool:
    return any(host in {"0.0.0.0", "::"} for host in hosts)  # noqa: S104 - compared, not bound


def _issuers(file: SidecarFile) -> Iterator[Problem]:
    for name in repeated(section.issuer for section in file.issuers):
        yield Problem("issuers", f"{name} is listed twice", "keep one of them")
    for number, section in enumerate(file.issuers):
        yield from profile_problems(section, f"issuers[{number}]")
    users = file.entry.issuers if file.entry is not None else []
    yield from development_problems(
        [
            *((f"issuers[{number}]", section) for number, section in enumerate(file.issuers)),
            *((f"entry.issuers[{number}]", section) for number, section in enumerate(users)),
        ]
    )


def _audiences(file: SidecarFile) -> Iterator[Problem]:
    own = file.inbound.audiences if file.inbound is not None else []
    for name in repeated(own):
        yield Problem("inbound.audiences", f"{name} is listed twice", "keep one of them")
    for number, audience in enumerate(own):
        if audience.lower().startswith("spiffe:"):
            yield Problem(
                f"inbound.audiences[{number}]", "is a SPIFFE ID", "remove it: our own always counts, others' never"
            )
    peers: dict[str, str | None] = {}
    for field, route in exchange_routes(file):
        where = f"{field}.audience"
        if route.audience in own:
            yield Problem(where, "is our own audience too", "give each audience to one workload")
        if peers.setdefault(route.audience, route.peer) != route.peer:
            yield Problem(where, "belongs to another peer on an earlier route", "give each audience to one workload")
        if route.audience.startswith("spiffe:") and route.peer is not None and route.audience != route.peer:
            yield Problem(where, "is the SPIFFE ID of another workload than peer", "write the peer's")


def _inbound_routes(file: SidecarFile) -> Iterator[Problem]:
    callable_names = {route.name for route in file.outbound.routes} if file.outbound is not None else set()
    for number, route in enumerate(file.inbound.routes if file.inbound is not None else []):
        where = f"inbound.routes[{number}]"
        if (route.match.path is None) == (route.match.path_prefix is None):
            yield Problem(f"{where}.match", "needs exactly one of path and path_prefix", "keep one of them")
        yield from _may_call(route.may_call, callable_names, f"{where}.may_call")
        yield from _route_issuers(file, route, where)
        yield from _reachable(file, route, where)
        yield from _human(route, f"{where}.human")


def _human(route: InboundRouteSection, where: str) -> Iterator[Problem]:
    if route.human is None:
        return
    if route.human.max_age_s is None and not route.human.acr:
        yield Problem(where, "requires nothing", "write max_age_s, acr or both, or remove it")
    if route.allow_self and route.protocol != "mcp":
        yield Problem(where, "is set beside allow_self, whose callers have no user", "keep one of them")


def _may_call(names: list[str], known: set[str], where: str) -> Iterator[Problem]:
    for name in names:
        if name not in known:
            yield Problem(where, f"{name} is not an outbound route", "add the route, or remove the name")


def _route_issuers(file: SidecarFile, route: InboundRouteSection, where: str) -> Iterator[Problem]:
    known = {section.issuer for section in file.issuers}
    if route.issuers is None and len(file.issuers) > 1:
        yield Problem(f"{where}.issuers", "is missing, and there are several issuers", "name those that count here")
    for issuer in route.issuers or []:
        if issuer not in known:
            yield Problem(f"{where}.issuers", f"{issuer} is not a configured issuer", "list it under issuers")
    for _, target in exchange_routes(file):
        asked, counting = route_issuer(file, target), set(route.issuers or known)
        if target.name in route.may_call and asked is not None and not crosses(file, target, counting):
            yield Problem(
                f"{where}.may_call",
                f"{target.name} cannot be used: its tokens are of {asked}, which does not count here",
                "add that issuer to the route's issuers, list a crossing, or remove the name",
            )


def _reachable(file: SidecarFile, route: InboundRouteSection, where: str) -> Iterator[Problem]:
    """Report a scope above an issuer's ceiling, or a peer that no issuer may vouch for: no call could use the route."""
    for section in _counting(file, route):
        needed = set(route.scopes).union(*(one.scopes for one in route.operations))
        for scope in sorted(needed - set(section.scopes)):
            yield Problem(
                f"{where}.scopes",
                f"{scope} is above the ceiling of {section.issuer}",
                "add it to that issuer's scopes, or remove it here",
            )
    domains = {domain for section in _counting(file, route) for domain in section.actor_trust_domains}
    for peer in route.peers:
        if _counting(file, route) and SpiffeId(peer).trust_domain not in domains:
            yield Problem(
                f"{where}.peers",
                f"no issuer of this route may speak for actors of {SpiffeId(peer).trust_domain}",
                "add the trust domain to actor_trust_domains, or remove the peer",
            )


def _counting(file: SidecarFile, route: InboundRouteSection) -> list[IssuerSection]:
    return [section for section in file.issuers if route.issuers is None or section.issuer in route.issuers]


def _outbound_routes(file: SidecarFile) -> Iterator[Problem]:
    routes = file.outbound.routes if file.outbound is not None else []
    for number, route in enumerate(routes):
        where = f"outbound.routes[{number}]"
        if isinstance(route, ConnectRouteSection):
            continue
        if (route.match.host is None) == (route.match.prefix is None):
            yield Problem(f"{where}.match", "needs exactly one of host and prefix", "keep one of them")
        if f"{route.match.prefix}/".startswith("/.sidecar/"):
            yield Problem(f"{where}.match.prefix", "is below the sidecar's own paths", "choose another prefix")
    for where, mesh_route in exchange_routes(file):
        yield from _upstream(mesh_route, where)
        if not mesh_route.scopes and mesh_route.observe_until is None:
            yield Problem(f"{where}.scopes", "is empty, so every call is refused", "list what may be asked for there")
        yield from _route_exchange(file, mesh_route, f"{where}.exchange")
    if exchange_routes(file) and not exchange_sections(file):
        yield Problem("exchange", "is missing, and outbound routes need tokens", "say who issues them")


def _protocols(file: SidecarFile) -> Iterator[Problem]:
    if file.protocols.http2:
        return
    off = "needs HTTP/2, which is off", "set protocols.http2, or remove it"
    if file.protocols.agent != "http/1.1":
        yield Problem("protocols.agent", *off)
    if file.inbound is not None and file.inbound.agent_grpc is not None:
        yield Problem("inbound.agent_grpc", *off)
    for where, route in exchange_routes(file):
        if route.http_version == "2":
            yield Problem(f"{where}.http_version", *off)


def _route_exchange(file: SidecarFile, route: OutboundRouteSection, where: str) -> Iterator[Problem]:
    issuers = {section.issuer for _, section in exchange_sections(file)}
    if route.exchange is None and len(issuers) > 1:
        yield Problem(where, "is missing, and there are several token services", "name the issuer of one of them")
    if route.exchange is not None and route.exchange not in issuers:
        yield Problem(where, f"{route.exchange} has no token service", "list it under exchange, or name another")


def _upstream(route: OutboundRouteSection, where: str) -> Iterator[Problem]:
    upstream = parse_origin(route.upstream)
    if upstream.scheme == "https" and route.peer is None:
        yield Problem(f"{where}.peer", "is missing, so anybody could answer", "name the SPIFFE ID of the next hop")
    if upstream.scheme == "http" and route.peer is not None:
        yield Problem(f"{where}.upstream", "is plain http, which proves no peer", "use https")
    if upstream.scheme == "http" and not is_loopback(upstream.hostname or ""):
        yield Problem(f"{where}.upstream", "is plain http beyond loopback", "use https and name the peer")


def _exchange(file: SidecarFile) -> Iterator[Problem]:
    known = {section.issuer: section for section in file.issuers}
    exchanges = exchange_sections(file)
    for field, exchange in exchanges:
        if exchange.peer is not None and exchange.tls is not None:
            yield Problem(f"{field}.tls", "is set beside peer", "keep one of them")
        yield from token_endpoint_problems(exchange, field)
        if exchange.issuer not in known:
            yield Problem(f"{field}.issuer", "is not a configured issuer", "list it under issuers, with its keys")
    for name in repeated(exchange.issuer for _, exchange in exchanges):
        yield Problem("exchange", f"{name} is listed twice", "keep one of them")
    for field, route in exchange_routes(file):
        section = known.get(route_issuer(file, route) or "")
        if section is None:
            continue
        for scope in sorted(set(route.scopes) - set(section.scopes)):
            yield Problem(
                f"{field}.scopes",
                f"{scope} is above the ceiling of {section.issuer}",
                "add it to that issuer's scopes, or remove it here",
            )


def _records(file: SidecarFile) -> Iterator[Problem]:
    countersign = file.records.countersign
    if countersign is None:
        return
    if countersign.peer is not None and countersign.tls is not None:
        yield Problem("records.countersign.tls", "is set beside peer", "keep one of them")
    if all(section.issuer != countersign.issuer for section in file.issuers):
        yield Problem(
            "records.countersign.issuer",
            "names an issuer that is not configured, so its signatures could not be verified",
            "list it under issuers, with its keys",
        )


def _entry(file: SidecarFile) -> Iterator[Problem]:
    entry = file.entry
    if entry is None:
        return
    if file.inbound is not None and file.inbound.subjects_at_once is not None:
        yield Problem(
            "inbound.subjects_at_once",
            "says nothing of an entry, whose users call without a peer",
            "remove it, or have users log in at another workload",
        )
    exchanges = {section.issuer for _, section in exchange_sections(file)}
    if file.outbound is None or not exchanges:
        yield Problem("entry", "needs outbound and exchange", "add them: a chain starts with a call out")
    names = {route.name for route in file.outbound.routes} if file.outbound is not None else set()
    yield from _may_call(entry.may_call, names, "entry.may_call")
    for name in repeated(section.issuer for section in entry.issuers):
        yield Problem("entry.issuers", f"{name} is listed twice", "keep one of them")
    for number, section in enumerate(entry.issuers):
        yield from kind_problems(section, f"entry.issuers[{number}]")
        if section.issuer in exchanges:
            yield from _own_login(file, section, f"entry.issuers[{number}]")
        elif section.subject_prefix and section.issuer in _kept(file, exchanges):
            where = f"entry.issuers[{number}].subject_prefix"
            yield Problem(where, "changes a subject that subject_issuer says is kept", "remove it")


def _kept(file: SidecarFile, exchanges: set[str]) -> set[str | None]:
    """Return the login issuers whose subjects keep their names at one of these token services."""
    profiles = [one.profile for one in file.issuers if one.issuer in exchanges]
    return {profile.subject_issuer for profile in profiles if isinstance(profile, ProfileSection)}


def _own_login(file: SidecarFile, section: EntryIssuerSection, where: str) -> Iterator[Problem]:
    """Report an issuer that is both login and token service, where it cannot be or has two names for one user."""
    trusted = next((one for one in file.issuers if one.issuer == section.issuer), None)
    if trusted is not None and preset_of(trusted.profile) == "sts":
        yield Problem(f"{where}.issuer", "is the token service itself", "name the issuer where users log in")
        return
    if section.subject_prefix:
        yield Problem(f"{where}.subject_prefix", "changes a subject that its own issuer keeps", "remove it")
    login, trust = login_issuer(section).profile, None if trusted is None else profile_of(trusted.profile)
    if "aud" in login.audience_claims[1:] and login.required_claims.isdisjoint({"azp", "client_id"}):
        yield Problem(
            f"{where}.profile",
            "reads the client from aud where azp and client_id are missing, and aud is what an exchange asked for",
            "write required_claims: [azp], or [client_id], as this issuer names its clients",
        )
    exchange = next(one for _, one in exchange_sections(file) if one.issuer == section.issuer)
    if trust is not None and trust.names_actor_by_client:
        clients = {exchange.client_id, *(sub for _, sub in trust.actor_table)}
        if section.client_id in clients or section.client_id.startswith("spiffe://"):
            yield Problem(
                f"{where}.client_id",
                "is also the client that exchanges, so whoever is given its token could log in with it",
                "register a client of its own for one of the two",
            )


def _first_tokens(file: SidecarFile) -> Iterator[Problem]:
    entry, routes = file.entry, exchange_routes(file)
    ceiling_s = DELEGATION_LIFE_S if entry is None else entry.delegation_life_s or DELEGATION_LIFE_S
    lives = [(field, route.first_token_life_s) for field, route in routes]
    lives.append(("entry", None if entry is None else entry.first_token_life_s))
    for where, life_s in lives:
        if life_s is not None and life_s > ceiling_s:
            yield Problem(
                f"{where}.first_token_life_s",
                f"is above the {ceiling_s} s of entry.delegation_life_s",
                "shorten it, or raise entry.delegation_life_s here and at the token service",
            )
    opened = set() if entry is None else set(entry.may_call)
    audiences: dict[str, int | None] = {}
    for field, route in routes:
        where = f"{field}.first_token_life_s"
        if route.first_token_life_s is not None and route.name not in opened:
            yield Problem(where, "says nothing where no chain starts", "remove it, or add the route to entry.may_call")
        if audiences.setdefault(route.audience, route.first_token_life_s) != route.first_token_life_s:
            yield Problem(where, "differs from an earlier route to this audience", "write both alike")


def _revocations(file: SidecarFile) -> Iterator[Problem]:
    for number, section in enumerate(file.issuers):
        found, where = section.revocations, f"issuers[{number}].revocations.max_stale_s"
        if found is None:
            continue
        life_s = None if isinstance(section.profile, str) else section.profile.max_lifetime_s
        if life_s is not None and found.max_stale_s > life_s:
            yield Problem(where, f"is above the {life_s} s that a token of this issuer may live", "shorten it")
        if found.max_stale_s < 2 * found.every_s:
            yield Problem(where, "leaves no time for a second poll", "make it at least twice every_s")


def _deny(file: SidecarFile) -> Iterator[Problem]:
    for number, row in enumerate(file.deny):
        if sum(value is not None for value in (row.subject, row.actor, row.jti, row.txn)) != 1:
            yield Problem(f"deny[{number}]", "needs exactly one of subject, actor, jti, txn", "write one row for each")
        elif row.issuer is not None and row.subject is None:
            yield Problem(f"deny[{number}].issuer", "says nothing without a subject", "remove it")


def _admin(file: SidecarFile) -> Iterator[Problem]:
    if len((file.admin.socket or "").encode()) > _MAX_SOCKET_PATH:
        yield Problem(
            "admin.socket", f"is longer than {_MAX_SOCKET_PATH} bytes", "choose a shorter path: sockets end there"
        )


def repeated(names: Iterable[str]) -> list[str]:
    """Return the names that occur more than once."""
    return sorted(name for name, times in Counter(names).items() if times > 1)


# A check reports everything that contradicts something else, or is unsafe.
CHECKS: Final[tuple[Callable[[SidecarFile], Iterator[Problem]], ...]] = (
    _sections,
    _listeners,
    _agent_probes,
    _issuers,
    _audiences,
    _inbound_routes,
    _outbound_routes,
    _protocols,
    operation_problems,
    outside_problems,
    connect_problems,
    federate_problems,
    own_authority_problems,
    crossing_problems,
    _exchange,
    _records,
    _entry,
    _first_tokens,
    _revocations,
    _deny,
    _admin,
)
