"""Settings of routes of gRPC: words of operations, and checks. Pure; each problem has its field and its fix."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from delegation_core import grpc
from delegation_core.errors import Problem

if TYPE_CHECKING:
    from sidecar.config.inbound_model import InboundRouteSection
    from sidecar.config.sidecar_model import SidecarFile

LIFECYCLE: Final = frozenset[str]()
OPEN_TO_OWN: Final = frozenset[str]()
key_of = grpc.key_of_word


def methods_of(_section: InboundRouteSection) -> frozenset[str]:
    """Return the HTTP methods of a route of gRPC."""
    return frozenset({"POST"})


def every_operation() -> list[str]:
    """Return no word: only a route's list knows the services."""
    return []


def inbound_problems(file: SidecarFile) -> Iterator[Problem]:
    """Report routes of gRPC without HTTP/2, towards an agent of HTTP/1.1, or at a path that is no method's."""
    for where, section in file.inbound_routes():
        if section.protocol != "grpc":
            continue
        yield from _route(file, section.max_message_bytes, where)
        yield from _agent(file, where)
        if section.match.path is not None and not grpc.is_word(section.match.path):
            yield Problem(f"{where}.match.path", "is not the path of a method", "write path_prefix in place of path")


def outbound_problems(file: SidecarFile) -> Iterator[Problem]:
    """Report routes of gRPC without HTTP/2, or without a list of operations."""
    for where, route in file.mesh_routes():
        if route.protocol != "grpc":
            continue
        yield from _route(file, route.max_message_bytes, where)
        if not route.operations:
            yield Problem(f"{where}.operations", "is missing, and gRPC has no list of all", "list pkg.Service/*")


def _route(file: SidecarFile, max_message_bytes: int | None, where: str) -> Iterator[Problem]:
    if not file.protocols.http2:
        yield Problem(f"{where}.protocol", "gRPC needs HTTP/2, which is off", "set protocols.http2 to true")
    if max_message_bytes is not None:
        yield Problem(f"{where}.max_message_bytes", "has no effect: gRPC messages are not read", "remove it")


def _agent(file: SidecarFile, where: str) -> Iterator[Problem]:
    if file.inbound is None or not file.protocols.http2:
        return
    if file.protocols.agent != "h2c" and file.inbound.agent_grpc is None:
        yield Problem(
            f"{where}.protocol",
            "gRPC needs an agent that is called by HTTP/2, and this one is called by HTTP/1.1",
            "set protocols.agent to h2c, or inbound.agent_grpc if gRPC has a port of its own",
        )
