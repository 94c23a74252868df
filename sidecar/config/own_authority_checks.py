"""Checks and builder of settings of an agent that acts for itself. Pure; each problem has its field and its fix."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from delegation_core.errors import Problem
from sidecar.config.outbound_model import OutboundRouteSection
from sidecar.config.sidecar_model import SidecarFile, WorkloadHandleSection
from sidecar.proxy.journeys.handle_delivery import WorkloadHandleSettings

_MAX_SOCKET_PATH: Final = 107  # of a Unix socket's address, on Linux


def own_authority_problems(file: SidecarFile) -> Iterator[Problem]:
    """Report settings that mix the agent's own authority with a request's, and an undeliverable workload handle."""
    yield from _self_routes(file)
    yield from _accepted(file)
    section = file.workload_handle
    if section is None:
        return
    known = {route.name for route in file.outbound.routes} if file.outbound is not None else set()
    exchanging = {route.name for _, route in file.mesh_routes() if not (_is_self(route) or route.allow_self)}
    for name in section.may_call:
        if name not in known:
            yield Problem(
                "workload_handle.may_call", f"{name} is not an outbound route", "add the route, or remove the name"
            )
        elif name in exchanging:
            yield Problem(
                "workload_handle.may_call",
                f"{name} exchanges the token of a request, but the workload handle has none",
                "remove it, or give that route token: self",
            )
    yield from _delivery(section, file.admin.socket)


def _self_routes(file: SidecarFile) -> Iterator[Problem]:
    """Report a target that both a request and the agent itself could call, and a request that opens a self route."""
    routes = file.mesh_routes()
    own = {route.name for _, route in routes if _is_self(route)}
    opened = file.workload_handle.may_call if file.workload_handle is not None else []
    for field, route in routes:
        if not _is_self(route):
            continue
        for _, other in routes:
            if not _is_self(other) and _same_target(route, other):
                yield Problem(f"{field}.token", f"is self, but {other.name} calls the same target", "keep one of them")
        if route.observe_until is not None:
            yield Problem(
                f"{field}.observe_until", "has no effect on a self route", "remove it: only the handle opens it"
            )
        if route.name not in opened:
            yield Problem(f"{field}.token", "is self, but no workload handle opens it", "list it in its may_call")
    lists = [(field, inbound.may_call) for field, inbound in file.inbound_routes()]
    lists.append(("entry", file.entry.may_call if file.entry is not None else []))
    for field, names in lists:
        for name in sorted(own.intersection(names)):
            yield Problem(f"{field}.may_call", f"{name} is a self route, which no request opens", "remove it")


def _accepted(file: SidecarFile) -> Iterator[Problem]:
    """Report ``may_call`` beside ``allow_self`` without ``delegate_self``, and ``delegate_self`` without effect."""
    for where, route in file.inbound_routes():
        # What opens a session opens nothing behind it, so a route of MCP may have both.
        if route.allow_self and route.may_call and not route.delegate_self and route.protocol != "mcp":
            yield Problem(
                f"{where}.may_call",
                "is set beside allow_self, but a workload's own token is not exchanged",
                "add delegate_self: true if the token service's self_delegations list the step, or empty may_call",
            )
        if route.delegate_self and not (route.allow_self and route.may_call):
            yield Problem(
                f"{where}.delegate_self", "has no effect without allow_self and may_call", "remove it, or set both"
            )


def _is_self(route: OutboundRouteSection) -> bool:
    return route.token == "self"  # noqa: S105 - a kind


def _same_target(one: OutboundRouteSection, other: OutboundRouteSection) -> bool:
    return (
        one.audience == other.audience
        or one.upstream == other.upstream
        or (one.peer is not None and one.peer == other.peer)
    )


def _delivery(section: WorkloadHandleSection, admin: str | None) -> Iterator[Problem]:
    if section.socket is None and section.file is None:
        yield Problem(
            "workload_handle.socket", "is missing, and so is file", "set one of them, so that the agent gets the handle"
        )
    if section.socket is not None and not section.agent_uids:
        yield Problem("workload_handle.agent_uids", "is empty, so the socket answers nobody", "list the agent's uid")
    if section.socket is None and section.agent_uids:
        yield Problem("workload_handle.agent_uids", "has no effect without socket", "remove it, or add socket")
    if section.socket is not None and section.socket in (section.file, admin):
        yield Problem(
            "workload_handle.socket", "is the path of another file or socket of the sidecar", "choose another path"
        )
    if len((section.socket or "").encode()) > _MAX_SOCKET_PATH:
        yield Problem(
            "workload_handle.socket",
            f"is longer than {_MAX_SOCKET_PATH} bytes",
            "choose a shorter path: this is the limit of Unix sockets",
        )


def workload_handle_of(section: WorkloadHandleSection | None) -> WorkloadHandleSettings | None:
    """Make the settings of the workload handle's delivery; None without a section."""
    if section is None:
        return None
    return WorkloadHandleSettings(
        socket=None if section.socket is None else Path(section.socket),
        file=None if section.file is None else Path(section.file),
        agent_uids=frozenset(section.agent_uids),
        rotate_s=float(section.rotate_s),
    )
