"""Settings of routes of A2A: words of operations, and rules for cards, tasks and notifications.

Sections, builder and checks. Pure; each problem has its field and its fix.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Final, Literal

from pydantic import Field

from delegation_core import a2a
from delegation_core.a2a_rules import CARD_PATHS, PLAIN_RULES, A2aRules
from delegation_core.errors import Problem
from delegation_core.operation import RouteProtocol
from delegation_core.push_urls import parse_push_url
from sidecar.config.field_types import OriginText, PushUrlText
from sidecar.config.sections import Section
from sidecar.features.operations.settings import suggest

if TYPE_CHECKING:
    from sidecar.config.inbound_model import InboundRouteSection
    from sidecar.config.sidecar_model import SidecarFile

LIFECYCLE: Final = frozenset[str]()
OPEN_TO_OWN: Final = frozenset[str]()


class A2aSection(Section):
    """Rules of a route of A2A ([A2A](a2a.md))."""

    rewrite_signed: bool = Field(
        default=False,
        description="drop the signature of an agent's card, which rewriting breaks; if not set, such a card is refused",
    )
    push_urls: list[PushUrlText] = Field(
        default=[],
        description=(
            "the URLs to which notifications may be sent: the exact origin, and a path that covers those below it; if "
            "not set, none"
        ),
    )


class InboundA2aSection(A2aSection):
    """Rules of an inbound route of A2A ([A2A](a2a.md))."""

    card_url: OriginText | None = Field(
        default=None,
        description="the origin of the interfaces in the agent's card; if not set, the one that each peer asked",
    )
    tasks: Literal["seen", "strict"] = Field(
        default="seen",
        description=(
            "`seen`: a task or context that this sidecar saw made is for whoever it was made for, and others pass; "
            "`strict`: others are refused"
        ),
    )


def methods_of(section: InboundRouteSection) -> frozenset[str]:
    """Return the HTTP methods of a route: POST alone at one path, for JSON-RPC."""
    return frozenset({"POST"}) if section.match.path is not None else frozenset({"POST", "GET", "DELETE"})


def key_of(word: str) -> str:
    """Return the key that a word stands for. Raises ValueError as ``ProtocolSettings.key_of`` does."""
    if word == "GetAgentCard":  # as records call it
        raise ValueError("is answered by the sidecar, to every peer of the route; remove it")
    try:
        return a2a.named(word)
    except ValueError as error:
        raise ValueError(f"{error}; {suggest(word, sorted(a2a.OPERATIONS), 'docs/a2a.md')}") from None


def every_operation() -> list[str]:
    """Return the words that list all operations."""
    return sorted(a2a.OPERATIONS)


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


def inbound_problems(file: SidecarFile) -> Iterator[Problem]:
    """Report rules on routes of another protocol, and routes at the path of a card."""
    for where, section in file.inbound_routes():
        yield from _rules(section.protocol, section.a2a, where)
    yield from _card_paths(file)


def outbound_problems(file: SidecarFile) -> Iterator[Problem]:
    """Report rules on routes of another protocol."""
    for where, route in file.mesh_routes():
        yield from _rules(route.protocol, route.a2a, where)


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
