"""Checks and builders of the operations of routes of MCP and A2A. Pure; each problem has its field and its fix."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final
from urllib.parse import urlsplit

from delegation_core import grpc, mcp
from delegation_core.a2a_rules import CARD_PATHS, PLAIN_RULES, A2aRules
from delegation_core.errors import Problem
from delegation_core.human import Human
from delegation_core.operation import ANY_NAME, Operations, RouteProtocol
from delegation_core.push_urls import parse_push_url
from delegation_core.resource_metadata import WELL_KNOWN, ProtectedResource, is_plain_url
from delegation_core.route import InboundRoute, OutboundRoute
from delegation_core.spiffe_id import SpiffeId
from sidecar.config.inbound_model import InboundRouteSection
from sidecar.config.operation_model import (
    A2aSection,
    AllowedOperations,
    HumanSection,
    InboundA2aSection,
    InboundOperations,
    OutboundOperations,
)
from sidecar.config.operation_words import every_operation, key_of, keys_of
from sidecar.config.outbound_model import OutboundRouteSection
from sidecar.config.sidecar_model import SidecarFile

_HTTP_METHODS: Final = {
    "mcp": frozenset({"POST", "GET", "DELETE"}),
    "a2a": frozenset({"POST", "GET", "DELETE"}),
    "grpc": frozenset({"POST"}),
}


def methods_of(section: InboundRouteSection) -> frozenset[str]:
    """Return the HTTP methods of a route: as listed, or those of its protocol."""
    if section.protocol == "http":
        return frozenset(section.match.methods or ())
    if section.protocol == "a2a" and section.match.path is not None:
        return frozenset({"POST"})
    return _HTTP_METHODS[section.protocol]


def resource_of(section: InboundRouteSection, issuers: Sequence[str]) -> ProtectedResource | None:
    """Make the protected-resource metadata of a route; None without any, or with an invalid URL."""
    if section.resource is None or not is_plain_url(section.resource):
        return None
    servers = section.authorization_servers or section.issuers or issuers
    return ProtectedResource(section.resource, tuple(servers))


def human_of(section: HumanSection | None) -> Human | None:
    """Make the requirement on the user's login, if there is one."""
    return None if section is None else Human(max_age_s=section.max_age_s, acr=tuple(section.acr))


def operation_problems(file: SidecarFile) -> Iterator[Problem]:
    """Report operations that do not exist, are listed twice, or would open more than their route."""
    yield from _metadata_place(file)
    yield from _inbound_operations(file)
    yield from _card_paths(file)
    yield from _outbound_operations(file)


def _inbound_operations(file: SidecarFile) -> Iterator[Problem]:
    for where, section in file.inbound_routes():
        if section.protocol != "mcp" and section.sessions is not None:
            yield Problem(f"{where}.sessions", "is for routes of MCP", "set protocol to mcp, or remove it")
        if section.protocol != "mcp" and section.filter_lists:
            yield Problem(f"{where}.filter_lists", "is for routes of MCP", "set protocol to mcp, or remove it")
        yield from _resource(section, where)
        yield from _rules(section.protocol, section.a2a, where)
        if section.protocol == "http":
            if not section.match.methods:
                yield Problem(f"{where}.match.methods", "is missing", "list the methods of the route")
            yield from _only_of_protocols(section.operations, section.max_message_bytes, where)
            continue
        if section.match.methods:
            yield Problem(f"{where}.match.methods", "has no effect: the protocol has its own methods", "remove it")
        if section.protocol == "mcp" and section.match.path is None:
            yield Problem(f"{where}.match", "MCP is served at one path", "write path in place of path_prefix")
        if section.protocol == "grpc":
            yield from _grpc_route(file, section.max_message_bytes, where)
            yield from _grpc_agent(file, where)
            if section.match.path is not None and not grpc.is_word(section.match.path):
                yield Problem(
                    f"{where}.match.path", "is not the path of a method", "write path_prefix in place of path"
                )
        if not section.operations:
            yield Problem(
                f"{where}.operations", "is missing, so every call would be refused", "list what peers may call"
            )
        yield from _operations(section.protocol, section.operations, where)
        for at, one in enumerate(section.operations):
            yield from _narrower(section, one, f"{where}.operations[{at}]")


def _outbound_operations(file: SidecarFile) -> Iterator[Problem]:
    for where, route in file.mesh_routes():
        yield from _rules(route.protocol, route.a2a, where)
        if route.protocol == "http":
            yield from _only_of_protocols(route.operations, route.max_message_bytes, where)
            if route.allow_self:
                yield Problem(f"{where}.allow_self", "is only for MCP routes", "remove it, or use token: self")
            continue
        if route.allow_self and (route.protocol != "mcp" or route.token != "exchange"):  # noqa: S105 - a kind
            yield Problem(f"{where}.allow_self", "is for exchange routes of MCP", "remove it")
        if route.protocol == "mcp" and route.token == "self":  # noqa: S105 - a kind
            yield Problem(
                f"{where}.token", "own authority cannot call tools", "use exchange, with allow_self for the rest"
            )
        if route.protocol == "grpc":
            yield from _grpc_route(file, route.max_message_bytes, where)
            if not route.operations:
                yield Problem(f"{where}.operations", "is missing, and gRPC has no list of all", "list pkg.Service/*")
        yield from _operations(route.protocol, route.operations, where)
        for at, asked in enumerate(route.operations):
            for scope in sorted(set(asked.scopes or ()) - set(route.scopes)):
                yield Problem(f"{where}.operations[{at}].scopes", f"{scope} is not one of the route's", "add it there")
            if asked.allow_self and not route.allow_self:
                yield Problem(f"{where}.operations[{at}].allow_self", "is not the route's", "set it there too")


def _grpc_route(file: SidecarFile, max_message_bytes: int | None, where: str) -> Iterator[Problem]:
    if not file.protocols.http2:
        yield Problem(f"{where}.protocol", "gRPC needs HTTP/2, which is off", "set protocols.http2 to true")
    if max_message_bytes is not None:
        yield Problem(f"{where}.max_message_bytes", "has no effect: gRPC messages are not read", "remove it")


def _grpc_agent(file: SidecarFile, where: str) -> Iterator[Problem]:
    if file.inbound is None or not file.protocols.http2:
        return
    if file.protocols.agent != "h2c" and file.inbound.agent_grpc is None:
        yield Problem(
            f"{where}.protocol",
            "gRPC needs an agent that is called by HTTP/2, and this one is called by HTTP/1.1",
            "set protocols.agent to h2c, or inbound.agent_grpc if gRPC has a port of its own",
        )


def _resource(section: InboundRouteSection, where: str) -> Iterator[Problem]:
    if section.resource is None:
        if section.authorization_servers:
            yield Problem(f"{where}.authorization_servers", "have no effect without resource", "set resource too")
        return
    if section.protocol != "mcp":
        yield Problem(f"{where}.resource", "is for routes of MCP", "set protocol to mcp, or remove it")
    elif not is_plain_url(section.resource):
        yield Problem(f"{where}.resource", "is not a plain URL", "write https://host/path, without query and fragment")
    elif urlsplit(section.resource).path != section.match.path:
        yield Problem(f"{where}.resource", "has another path than the route", "write the URL of match.path")


def _metadata_place(file: SidecarFile) -> Iterator[Problem]:
    """Report routes that lead to the agent where the sidecar serves metadata."""
    routes = file.inbound_routes()
    if all(section.resource is None for _, section in routes):
        return
    for where, section in routes:
        path = section.match.path or section.match.path_prefix or ""
        if f"{path.lower()}/".startswith(f"{WELL_KNOWN}/"):
            yield Problem(f"{where}.match", "is where the sidecar serves metadata", "remove the route")


def _rules(protocol: RouteProtocol, section: A2aSection | None, where: str) -> Iterator[Problem]:
    if section is None:
        return
    if protocol != "a2a":
        yield Problem(f"{where}.a2a", "is for routes of A2A", "set protocol to a2a, or remove it")
    for at, url in enumerate(section.push_urls):
        if "?" in url:
            yield Problem(f"{where}.a2a.push_urls[{at}]", "has a query, which is not compared", "remove the query")


def _card_paths(file: SidecarFile) -> Iterator[Problem]:
    """Report routes that would never be asked, because the sidecar itself serves the card there."""
    routes = file.inbound_routes()
    of_a2a = [one.match for _, one in routes if one.protocol == "a2a"]
    starts = {"", *((match.path or match.path_prefix or "").rstrip("/") for match in of_a2a)}
    served = {start + path for start in starts for path in CARD_PATHS}
    for where, one in routes if of_a2a else ():
        if one.match.path in served:
            yield Problem(f"{where}.match.path", "is of an agent card, which the sidecar serves", "remove the route")


def _only_of_protocols(
    operations: Sequence[AllowedOperations], max_message_bytes: int | None, where: str
) -> Iterator[Problem]:
    if operations:
        yield Problem(
            f"{where}.operations", "needs a protocol above HTTP", "set protocol to mcp, a2a or grpc, or remove it"
        )
    if max_message_bytes is not None:
        yield Problem(f"{where}.max_message_bytes", "needs a protocol above HTTP", "remove it")


def _operations(protocol: RouteProtocol, sections: Sequence[AllowedOperations], where: str) -> Iterator[Problem]:
    seen: set[str] = set()
    for at, section in enumerate(sections):
        field = f"{where}.operations[{at}].allow"
        for word in section.allow:
            try:
                key = key_of(protocol, word)
            except ValueError as error:
                wrong, _, fix = str(error).partition("; ")
                yield Problem(field, f"{word}: {wrong}", fix)
                continue
            if key in seen:
                yield Problem(field, f"{word} is listed twice", "keep one of them")
            seen.add(key)
            if section.allow_self and (protocol != "mcp" or key not in mcp.OPEN_TO_OWN):
                yield Problem(
                    f"{where}.operations[{at}].allow_self", f"{word} always needs a user", "list it without allow_self"
                )

    for method in sorted(mcp.BY_URI):
        if f"{method}:{ANY_NAME}" in seen and sum(key.startswith(f"{method}:") for key in seen) > 1:
            yield Problem(
                f"{where}.operations",
                f"{method}:* is listed beside URIs, but servers accept several spellings of one URI",
                f"list all URIs, or {method}:* alone",
            )


def _narrower(route: InboundRouteSection, section: InboundOperations, where: str) -> Iterator[Problem]:
    for peer in section.peers or []:
        if peer not in route.peers:
            yield Problem(f"{where}.peers", f"{peer} is not a peer of the route", "add it there, or remove it here")
    if section.subjects is not None and len(route.issuers or []) > 1:
        yield Problem(
            f"{where}.subjects", "is ambiguous: the route accepts several issuers", "name one issuer at the route"
        )
    if section.allow_self and not route.allow_self:
        yield Problem(f"{where}.allow_self", "is not the route's", "set it there too")
    if section.human is not None and section.human.max_age_s is None and not section.human.acr:
        yield Problem(f"{where}.human", "requires nothing", "write max_age_s, acr or both, or remove it")


def named_operations(file: SidecarFile) -> frozenset[str]:
    """Return the operations that any route of the file lists by name: records may hold them, whoever asks for them."""
    listed: list[AllowedOperations] = []
    for _, section in file.inbound_routes():
        listed += section.operations
    for _, route in file.mesh_routes():
        listed += route.operations
    words = [word for one in listed for word in one.allow]
    return frozenset({*words, *(grpc.key_of_word(word) for word in words if grpc.is_word(word))})


def inbound_operations(section: InboundRouteSection, route: InboundRoute, named: frozenset[str]) -> InboundRoute:
    """Return a protocol's route with its operations: each is a copy of the route with its own settings."""
    if section.protocol == "http":
        return route
    bare = replace(route, allow_self=False, delegate_self=False)
    made = {
        key: replace(route, protocol=section.protocol, operation=key)
        for key in (mcp.LIFECYCLE if section.protocol == "mcp" else ())
    }
    for one in section.operations:
        for key in keys_of(section.protocol, one):
            made[key] = replace(
                bare,
                protocol=section.protocol,
                operation=key,
                scopes=route.scopes | frozenset(one.scopes),
                peers=route.peers if one.peers is None else frozenset(map(SpiffeId, one.peers)),
                subjects=frozenset(one.subjects or ()),
                human=route.human if one.human is None else human_of(one.human),
                allow_self=one.allow_self,
            )
    return replace(
        route,
        protocol=section.protocol,
        operations=Operations(made, named=named),
        allow_self=False,
        delegate_self=False,
        scopes=frozenset[str]().union(*(one.scopes for one in made.values())),
    )


def a2a_rules(section: A2aSection | None, *, grpc: bool) -> A2aRules:
    """Make the rules of an A2A route; ``grpc``: the route permits gRPC."""
    if section is None:
        return replace(PLAIN_RULES, grpc=grpc)
    inbound = section if isinstance(section, InboundA2aSection) else InboundA2aSection()
    return A2aRules(
        card_url=None if inbound.card_url is None else inbound.card_url.rstrip("/"),
        rewrite_signed=section.rewrite_signed,
        strict_tasks=inbound.tasks == "strict",
        push_urls=tuple(map(parse_push_url, section.push_urls)),
        grpc=grpc,
    )


def outbound_operations(section: OutboundRouteSection, route: OutboundRoute, named: frozenset[str]) -> OutboundRoute:
    """Give a route of a protocol its operations; without a list, all that the protocol knows."""
    if section.protocol == "http":
        return route
    made: dict[str, OutboundRoute] = {}
    everything = every_operation(section.protocol)
    listed = section.operations or ([OutboundOperations(allow=everything)] if everything else [])
    for key in mcp.LIFECYCLE if section.protocol == "mcp" else ():
        made[key] = _outbound(route, section.protocol, key, own=section.allow_self)
    for one in listed:
        narrowed = route if one.scopes is None else replace(route, scopes=frozenset(one.scopes))
        for key in keys_of(section.protocol, one):
            made[key] = _outbound(narrowed, section.protocol, key, own=one.allow_self)
    return replace(route, protocol=section.protocol, operations=Operations(made, named=named))


def _outbound(route: OutboundRoute, protocol: RouteProtocol, key: str, *, own: bool) -> OutboundRoute:
    operation = replace(route, protocol=protocol, operation=key)
    return replace(operation, for_itself=replace(operation, token="self")) if own else operation  # noqa: S106 - a kind
