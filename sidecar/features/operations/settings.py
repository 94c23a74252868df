"""Settings of the operations of routes, for every protocol above HTTP; those of one are in its own package.

Sections, builders and checks. Pure; each problem has its field and its fix.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from difflib import get_close_matches
from importlib import import_module
from typing import TYPE_CHECKING, Annotated, Protocol, cast

from pydantic import Field, model_validator

from delegation_core import grpc
from delegation_core.errors import Problem
from delegation_core.human import Human
from delegation_core.operation import Operations, RouteProtocol
from delegation_core.route import InboundRoute, OutboundRoute
from delegation_core.spiffe_id import SpiffeId
from sidecar.config.field_types import AcrText, Line, ScopeText, SpiffeIdText
from sidecar.config.sections import Section

if TYPE_CHECKING:
    from sidecar.config.inbound_model import InboundRouteSection
    from sidecar.config.outbound_model import OutboundRouteSection
    from sidecar.config.sidecar_model import SidecarFile


class ProtocolSettings(Protocol):
    """The module ``settings`` of a protocol's package."""

    @property
    def LIFECYCLE(self) -> frozenset[str]:  # noqa: N802 - a constant of the module
        """Keys of the operations that every route has."""

    @property
    def OPEN_TO_OWN(self) -> frozenset[str]:  # noqa: N802 - a constant of the module
        """Keys of the operations that a workload may call for itself, without a user."""

    def methods_of(self, section: InboundRouteSection, /) -> frozenset[str]:
        """Return the HTTP methods of a route."""

    def key_of(self, word: str, /) -> str:
        """Return the key of the operation that a word of the settings, such as ``tools/call:search``, stands for.

        Raises:
            ValueError: "problem; fix": the operation is unknown, lacks its required name, or must have no name.
        """

    def every_operation(self) -> list[str]:
        """Return the words that list all operations; none if a list is required."""

    def inbound_problems(self, file: SidecarFile, /) -> Iterator[Problem]:
        """Report inbound routes that contradict the protocol, and its keys on routes of another."""

    def outbound_problems(self, file: SidecarFile, /) -> Iterator[Problem]:
        """Report routes into the mesh that contradict the protocol, and its keys on routes of another."""


def protocol_settings(protocol: RouteProtocol) -> ProtocolSettings:
    """Return the settings of a protocol above HTTP."""
    return cast("ProtocolSettings", import_module(f"sidecar.features.{protocol}.settings"))


MessageBytes = Annotated[int, Field(ge=1024, le=64 * 1024 * 1024)]


class HumanSection(Section):
    """The login that the user behind a call must have: recent, strong, or both (RFC 9470)."""

    max_age_s: int | None = Field(default=None, ge=1, le=31_536_000, description="the longest time since the login")
    acr: list[AcrText] = Field(
        default=[], description="the values of `acr` of which the login has one, in the order of preference"
    )


class AllowedOperations(Section):
    """Operations with a policy of their own, on top of that of their route."""

    @model_validator(mode="before")
    @classmethod
    def _no_bare_name(cls, value: object) -> object:
        if isinstance(value, str):
            raise ValueError("is not a mapping; write {allow: [tools/list]}")  # noqa: TRY004 - what pydantic reports
        return value

    allow: list[Line] = Field(
        min_length=1,
        description=(
            "the operations: `tools/list`, `tools/call:search` or, for all others, `tools/call:*`; of A2A "
            "`SendMessage`; of gRPC `pkg.Service/Method`, or `pkg.Service/*` for all others of the service"
        ),
    )
    allow_self: bool = Field(
        default=False,
        description="also by workloads that act for themselves; only for the lists of tools, prompts and resources",
    )


class InboundOperations(AllowedOperations):
    """Operations that peers may ask for, with what they need besides what their route needs."""

    scopes: list[ScopeText] = Field(default=[], description="scopes that a token must have, besides the route's")
    peers: list[SpiffeIdText] | None = Field(
        default=None, description="the workloads of the route that may call; if not set, all of them"
    )
    subjects: list[Line] | None = Field(
        default=None, min_length=1, description="the only subjects for whom it may be called; if not set, any"
    )
    human: HumanSection | None = Field(
        default=None, description="the login that the user must have; if not set, as the route says"
    )


class OutboundOperations(AllowedOperations):
    """Operations that the agent may ask for, with the most scopes to ask for."""

    scopes: list[ScopeText] | None = Field(
        default=None, description="the scopes of the route to ask for; if not set, all of them"
    )


def human_of(section: HumanSection | None) -> Human | None:
    """Make the requirement on the user's login, if there is one."""
    return None if section is None else Human(max_age_s=section.max_age_s, acr=tuple(section.acr))


def methods_of(section: InboundRouteSection) -> frozenset[str]:
    """Return the HTTP methods of a route: as listed, or those of its protocol."""
    if section.protocol == "http":
        return frozenset(section.match.methods or ())
    return protocol_settings(section.protocol).methods_of(section)


def keys_of(protocol: RouteProtocol, section: AllowedOperations) -> Iterator[str]:
    """Return the keys of an item; a check reports the words that stand for none."""
    known = protocol_settings(protocol)
    for word in section.allow:
        with suppress(ValueError):
            yield known.key_of(word)


def suggest(word: str, known: Sequence[str], page: str, *, then: str = "") -> str:
    """Return the fix of an unknown word: the closest of the known ones, followed by ``then``, else the page."""
    close = get_close_matches(word, known, n=1)
    return f"did you mean {close[0]}{then}?" if close else f"{page} lists the operations"


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
        for key in protocol_settings(section.protocol).LIFECYCLE
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


def outbound_operations(section: OutboundRouteSection, route: OutboundRoute, named: frozenset[str]) -> OutboundRoute:
    """Give a route of a protocol its operations; without a list, all that the protocol knows."""
    if section.protocol == "http":
        return route
    made: dict[str, OutboundRoute] = {}
    protocol = protocol_settings(section.protocol)
    everything = protocol.every_operation()
    listed = section.operations or ([OutboundOperations(allow=everything)] if everything else [])
    for key in protocol.LIFECYCLE:
        made[key] = _outbound(route, section.protocol, key, own=section.allow_self)
    for one in listed:
        narrowed = route if one.scopes is None else replace(route, scopes=frozenset(one.scopes))
        for key in keys_of(section.protocol, one):
            made[key] = _outbound(narrowed, section.protocol, key, own=one.allow_self)
    return replace(route, protocol=section.protocol, operations=Operations(made, named=named))


def _outbound(route: OutboundRoute, protocol: RouteProtocol, key: str, *, own: bool) -> OutboundRoute:
    operation = replace(route, protocol=protocol, operation=key)
    return replace(operation, for_itself=replace(operation, token="self")) if own else operation  # noqa: S106 - a kind


def inbound_operation_problems(file: SidecarFile) -> Iterator[Problem]:
    """Report operations of inbound routes that do not exist, are listed twice, or would open more than their route."""
    for where, section in file.inbound_routes():
        if section.protocol == "http":
            if not section.match.methods:
                yield Problem(f"{where}.match.methods", "is missing", "list the methods of the route")
            yield from _only_of_protocols(section.operations, section.max_message_bytes, where)
            continue
        if section.match.methods:
            yield Problem(f"{where}.match.methods", "has no effect: the protocol has its own methods", "remove it")
        if not section.operations:
            yield Problem(
                f"{where}.operations", "is missing, so every call would be refused", "list what peers may call"
            )
        yield from _operations(section.protocol, section.operations, where)
        for at, one in enumerate(section.operations):
            yield from _narrower(section, one, f"{where}.operations[{at}]")


def outbound_operation_problems(file: SidecarFile) -> Iterator[Problem]:
    """Report operations of outbound routes that do not exist, are listed twice, or would open more than their route."""
    for where, route in file.mesh_routes():
        if route.protocol == "http":
            yield from _only_of_protocols(route.operations, route.max_message_bytes, where)
            continue
        yield from _operations(route.protocol, route.operations, where)
        for at, asked in enumerate(route.operations):
            for scope in sorted(set(asked.scopes or ()) - set(route.scopes)):
                yield Problem(f"{where}.operations[{at}].scopes", f"{scope} is not one of the route's", "add it there")
            if asked.allow_self and not route.allow_self:
                yield Problem(f"{where}.operations[{at}].allow_self", "is not the route's", "set it there too")


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
    known = protocol_settings(protocol)
    for at, section in enumerate(sections):
        field = f"{where}.operations[{at}].allow"
        for word in section.allow:
            try:
                key = known.key_of(word)
            except ValueError as error:
                wrong, _, fix = str(error).partition("; ")
                yield Problem(field, f"{word}: {wrong}", fix)
                continue
            if key in seen:
                yield Problem(field, f"{word} is listed twice", "keep one of them")
            seen.add(key)
            if section.allow_self and key not in known.OPEN_TO_OWN:
                yield Problem(
                    f"{where}.operations[{at}].allow_self", f"{word} always needs a user", "list it without allow_self"
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
