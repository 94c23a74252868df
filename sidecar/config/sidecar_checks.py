"""Cross-section checks of a sidecar's settings. Pure; each problem has its fix."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from itertools import combinations
from typing import Final

from delegation_core.errors import Problem
from sidecar.config.addresses import parse_address, parse_origin
from sidecar.config.crossing_checks import crossing_problems
from sidecar.config.exchange_checks import exchange_problems
from sidecar.config.inbound_checks import inbound_route_problems
from sidecar.config.inbound_model import InboundSection
from sidecar.config.issuers import development_problems
from sidecar.config.outbound_checks import outbound_route_problems
from sidecar.config.own_authority_checks import own_authority_problems
from sidecar.config.profiles import profile_problems
from sidecar.config.sidecar_model import SidecarFile
from sidecar.config.validation import repetitions
from sidecar.features.a2a import settings as a2a
from sidecar.features.grpc import settings as grpc
from sidecar.features.logins.settings import entry_problems, first_token_problems
from sidecar.features.mcp import settings as mcp
from sidecar.features.operations.settings import (
    ProtocolSettings,
    inbound_operation_problems,
    outbound_operation_problems,
)
from sidecar.features.outside.federate_settings import federate_problems
from sidecar.features.outside.settings import connect_problems, outside_problems
from sidecar.identity.endpoint import is_loopback
from sidecar.observe.probe import OWN_PATHS

_PLAIN_PATH: Final = re.compile(r"[A-Za-z0-9._~/-]+")
_MAX_SOCKET_PATH: Final = 107  # of a Unix socket's address, on Linux


def _sections(file: SidecarFile) -> Iterator[Problem]:
    if file.inbound is None and file.outbound is None:
        yield Problem("inbound", "is missing, and so is outbound", "add the side that the agent needs")
    if file.inbound is not None and not file.issuers:
        yield Problem("issuers", "is empty, so every token would be refused", "list the token service")


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
                yield Problem(field, "has no port", "write http://127.0.0.1:PORT")
    if file.outbound is not None:
        listeners["outbound.listen"] = address = parse_address(file.outbound.listen)
        if not address.is_loopback:
            yield Problem("outbound.listen", "is reachable by others than the agent", "listen on 127.0.0.1 or [::1]")
    if file.entry is not None and file.entry.door is not None:
        listeners["entry.door.listen"] = parse_address(file.entry.door.listen)
    for (first, one), (second, other) in combinations(listeners.items(), 2):
        if one.port and one.port == other.port and (one.host == other.host or _any_host(one.host, other.host)):
            yield Problem(first, f"is the address of {second}", "give each listener a port of its own")
    for field, text in () if file.inbound is None else _agents(file.inbound):
        for name, address in listeners.items():
            if address.port and address.port == parse_origin(text).port:
                yield Problem(field, f"is the sidecar's own {name}", "write the agent's own port")


def _agents(inbound: InboundSection) -> Iterator[tuple[str, str]]:
    yield "inbound.agent", inbound.agent
    if inbound.agent_grpc is not None:
        yield "inbound.agent_grpc", inbound.agent_grpc


def _agent_probes(file: SidecarFile) -> Iterator[Problem]:
    if file.probe.agent and file.inbound is None:
        yield Problem("probe.agent", "probes an agent, but inbound has none", "leave it out")
    yield from repetitions("probe.agent", file.probe.agent)
    for path in file.probe.agent:
        if path in OWN_PATHS:
            yield Problem("probe.agent", f"{path} is the sidecar's own", "let the agent answer at another path")
        if not _PLAIN_PATH.fullmatch(path):
            yield Problem("probe.agent", f"{path} can be written in other ways", "keep to letters, digits and -._~/")


def _any_host(*hosts: str) -> bool:
    return any(host in {"0.0.0.0", "::"} for host in hosts)  # noqa: S104 - compared, not bound


def _issuers(file: SidecarFile) -> Iterator[Problem]:
    yield from repetitions("issuers", (section.issuer for section in file.issuers))
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
    yield from repetitions("inbound.audiences", own)
    for number, audience in enumerate(own):
        if audience.lower().startswith("spiffe:"):
            yield Problem(
                f"inbound.audiences[{number}]",
                "is a SPIFFE ID",
                "remove it: our own is always accepted, any other never",
            )
    peers: dict[str, str | None] = {}
    for field, route in file.mesh_routes():
        where = f"{field}.audience"
        if route.audience in own:
            yield Problem(where, "is also our own audience", "give each audience to one workload")
        if peers.setdefault(route.audience, route.peer) != route.peer:
            yield Problem(where, "belongs to another peer on an earlier route", "give each audience to one workload")
        if route.audience.startswith("spiffe:") and route.peer is not None and route.audience != route.peer:
            yield Problem(where, "is the SPIFFE ID of another workload than peer", "write the peer's")


def _protocols(file: SidecarFile) -> Iterator[Problem]:
    if file.protocols.http2:
        return
    off = "needs HTTP/2, which is off", "set protocols.http2 to true, or remove it"
    if file.protocols.agent != "http/1.1":
        yield Problem("protocols.agent", *off)
    if file.inbound is not None and file.inbound.agent_grpc is not None:
        yield Problem("inbound.agent_grpc", *off)
    for where, route in file.mesh_routes():
        if route.http_version == "2":
            yield Problem(f"{where}.http_version", *off)


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
            yield Problem(f"deny[{number}].issuer", "has no effect without subject", "remove it")


def _admin(file: SidecarFile) -> Iterator[Problem]:
    if len((file.admin.socket or "").encode()) > _MAX_SOCKET_PATH:
        yield Problem(
            "admin.socket",
            f"is longer than {_MAX_SOCKET_PATH} bytes",
            "choose a shorter path: this is the limit of Unix sockets",
        )


_PROTOCOLS: Final[tuple[ProtocolSettings, ...]] = (mcp, a2a, grpc)

# A check reports everything that contradicts something else, or is unsafe.
CHECKS: Final[tuple[Callable[[SidecarFile], Iterator[Problem]], ...]] = (
    _sections,
    _listeners,
    _agent_probes,
    _issuers,
    _audiences,
    inbound_route_problems,
    outbound_route_problems,
    _protocols,
    *(one.inbound_problems for one in _PROTOCOLS),
    inbound_operation_problems,
    *(one.outbound_problems for one in _PROTOCOLS),
    outbound_operation_problems,
    outside_problems,
    connect_problems,
    federate_problems,
    own_authority_problems,
    crossing_problems,
    exchange_problems,
    _records,
    entry_problems,
    first_token_problems,
    _revocations,
    _deny,
    _admin,
)
