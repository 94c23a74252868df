"""Settings of routes of MCP: words of operations, metadata of the resource, and checks. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from delegation_core import mcp
from delegation_core.errors import Problem
from delegation_core.operation import ANY_NAME
from delegation_core.resource_metadata import WELL_KNOWN, ProtectedResource, is_plain_url
from sidecar.features.operations.settings import AllowedOperations, keys_of, suggest

if TYPE_CHECKING:
    from sidecar.config.inbound_model import InboundRouteSection
    from sidecar.config.sidecar_model import SidecarFile

LIFECYCLE: Final = mcp.LIFECYCLE
OPEN_TO_OWN: Final = mcp.OPEN_TO_OWN


def methods_of(_section: InboundRouteSection) -> frozenset[str]:
    """Return the HTTP methods of a route of MCP."""
    return frozenset({"POST", "GET", "DELETE"})


def key_of(word: str) -> str:
    """Return the key that a word stands for. Raises ValueError as ``ProtocolSettings.key_of`` does."""
    method, colon, name = word.partition(":")
    if method not in mcp.METHODS:
        meant = suggest(method, sorted(mcp.METHODS), "docs/mcp.md", then=colon + name)
        raise ValueError(f"not an operation of MCP; {meant}")
    if method in mcp.NAMED and not name:
        raise ValueError(f"has no name; write {method}:NAME, or {method}:*")
    if method not in mcp.NAMED and colon:
        raise ValueError(f"has a name; write {method} alone")
    if name != name.strip():
        raise ValueError("begins or ends with white space; remove it")
    return word


def every_operation() -> list[str]:
    """Return the words that list all operations."""
    return sorted(f"{key}:{ANY_NAME}" if key in mcp.NAMED else key for key in mcp.METHODS - LIFECYCLE)


def resource_of(section: InboundRouteSection, issuers: Sequence[str]) -> ProtectedResource | None:
    """Make the protected-resource metadata of a route; None without any, or with an invalid URL."""
    if section.resource is None or not is_plain_url(section.resource):
        return None
    servers = section.authorization_servers or section.issuers or issuers
    return ProtectedResource(section.resource, tuple(servers))


def inbound_problems(file: SidecarFile) -> Iterator[Problem]:
    """Report keys of MCP on other routes, and routes of MCP whose path or resource contradicts the protocol."""
    yield from _metadata_place(file)
    for where, section in file.inbound_routes():
        if section.protocol != "mcp" and section.sessions is not None:
            yield Problem(f"{where}.sessions", "is for routes of MCP", "set protocol to mcp, or remove it")
        if section.protocol != "mcp" and section.filter_lists:
            yield Problem(f"{where}.filter_lists", "is for routes of MCP", "set protocol to mcp, or remove it")
        yield from _resource(section, where)
        if section.protocol != "mcp":
            continue
        if section.match.path is None:
            yield Problem(f"{where}.match", "MCP is served at one path", "write path in place of path_prefix")
        yield from _uris(section.operations, where)


def outbound_problems(file: SidecarFile) -> Iterator[Problem]:
    """Report routes whose own authority calls more than the lists of MCP, and URIs beside all URIs."""
    for where, route in file.mesh_routes():
        if route.allow_self and route.protocol == "http":
            yield Problem(f"{where}.allow_self", "is only for MCP routes", "remove it, or use token: self")
        elif route.allow_self and (route.protocol != "mcp" or route.token != "exchange"):  # noqa: S105 - a kind
            yield Problem(f"{where}.allow_self", "is for exchange routes of MCP", "remove it")
        if route.protocol == "mcp" and route.token == "self":  # noqa: S105 - a kind
            yield Problem(
                f"{where}.token", "own authority cannot call tools", "use exchange, with allow_self for the rest"
            )
        if route.protocol == "mcp":
            yield from _uris(route.operations, where)


def _uris(sections: Sequence[AllowedOperations], where: str) -> Iterator[Problem]:
    keys = {key for section in sections for key in keys_of("mcp", section)}
    for method in sorted(mcp.BY_URI):
        if f"{method}:{ANY_NAME}" in keys and sum(key.startswith(f"{method}:") for key in keys) > 1:
            yield Problem(
                f"{where}.operations",
                f"{method}:* is listed beside URIs, but servers accept several spellings of one URI",
                f"list all URIs, or {method}:* alone",
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
