"""Checks and builder of settings of an agent that acts for itself. Pure; each problem has its field and its cure."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from sidecar.config.sidecar_model import SidecarFile, WorkloadHandleSection, exchange_routes
from sidecar.errors import Problem
from sidecar.proxy.handle_delivery import WorkloadHandleSettings

_MAX_SOCKET_PATH: Final = 107  # of a Unix socket's address, on Linux


def own_authority_problems(file: SidecarFile) -> Iterator[Problem]:
    """Report a workload handle that opens what it must not, or that no agent could get."""
    section = file.workload_handle
    if section is None:
        return
    known = {route.name for route in file.outbound.routes} if file.outbound is not None else set()
    exchanging = {route.name for _, route in exchange_routes(file)}
    for name in section.may_call:
        if name not in known:
            yield Problem(
                "workload_handle.may_call", f"{name} is not an outbound route", "add the route, or remove the name"
            )
        elif name in exchanging:
            yield Problem(
                "workload_handle.may_call",
                f"{name} exchanges the token of a request, which the workload handle has not",
                "remove it",
            )
    yield from _delivery(section, file.admin.socket)


def _delivery(section: WorkloadHandleSection, admin: str | None) -> Iterator[Problem]:
    if section.socket is None and section.file is None:
        yield Problem("workload_handle.socket", "is missing, and so is file", "say how the agent gets the handle")
    if section.socket is not None and not section.agent_uids:
        yield Problem("workload_handle.agent_uids", "is empty, so the socket answers nobody", "list the agent's uid")
    if section.socket is None and section.agent_uids:
        yield Problem("workload_handle.agent_uids", "says nothing without a socket", "remove it, or add socket")
    if section.socket is not None and section.socket in (section.file, admin):
        yield Problem("workload_handle.socket", "is the path of another file or socket of ours", "choose another path")
    if len((section.socket or "").encode()) > _MAX_SOCKET_PATH:
        yield Problem(
            "workload_handle.socket",
            f"is longer than {_MAX_SOCKET_PATH} bytes",
            "choose a shorter path: sockets end there",
        )


def workload_handle_of(section: WorkloadHandleSection | None) -> WorkloadHandleSettings | None:
    """Make the settings of the handle's delivery."""
    if section is None:
        return None
    return WorkloadHandleSettings(
        socket=None if section.socket is None else Path(section.socket),
        file=None if section.file is None else Path(section.file),
        agent_uids=frozenset(section.agent_uids),
        rotate_s=float(section.rotate_s),
    )
