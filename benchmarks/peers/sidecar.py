"""The sidecar itself, run as its users run it: with a settings file. No check, limit or record is off."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

from benchmarks.peers.agents import chain_roles, links, relays
from benchmarks.peers.binaries import find, missing
from benchmarks.peers.peer import (
    AGENTS,
    AGENTS_HTTP2,
    CHAINS,
    INBOUND,
    NARROW,
    NARROW_HANDSHAKES,
    OUTBOUND,
    OVER_HTTP2,
    ROUTES,
    Part,
    Peer,
    Role,
    first_line,
)
from benchmarks.peers.sidecar_settings import (
    ENGINES,
    agents_settings,
    chain_settings,
    engine_of,
    front_settings,
    http2_settings,
    inbound_settings,
    numbered_routes,
    sts_settings,
)
from benchmarks.world import World
from sidecar import __version__
from sidecar.engine import native_module


def sidecar() -> Peer:
    """Return the sidecar with the engine in Python."""
    return _sidecar("sidecar", "delegation sidecar", missing=lambda: None, version=_version)


def native() -> Peer:
    """Return the sidecar with the native engine, without HTTP/2."""
    return _sidecar(
        "sidecar-native",
        "delegation sidecar, native engine",
        missing=lambda: "its wheel is not installed (make native)" if native_module() is None else None,
        version=_version,
    )


def earlier(engine: str = "python") -> Peer:
    """Return the sidecar of another version or interpreter with this engine, to compare a change with its base.

    ``--before REF`` prepares its program; ``--binary sidecar-before=PATH`` names the Python of another checkout.
    """
    name = "sidecar-native-before" if engine == "native" else "sidecar-before"
    return _sidecar(
        name,
        "delegation sidecar, native engine, before" if engine == "native" else "delegation sidecar, before",
        missing=lambda: missing(name, f"--before REF, or --binary {name}=PATH of another checkout's python"),
        version=lambda: first_line([find(name) or "", "-VV"]),
    )


def _version() -> str:
    return f"{__version__} on Python {sys.version.split()[0]}"


def _sidecar(name: str, title: str, *, missing: Callable[[], str | None], version: Callable[[], str]) -> Peer:
    """Return a sidecar for every role, except for those of HTTP/2 if its engine is the native one.

    Its identity comes from PEM files; beyond the inbound side a token service of the same version runs beside it.
    """
    http2 = () if ENGINES[name] == "native" else tuple(sorted(OVER_HTTP2))
    onward = {"prefix": "/next", "mcp_prefix": "/next-mcp"}

    def parts(world: World, roles: frozenset[str]) -> list[Part]:
        python = find(name) or sys.executable
        found = [_run(world, *settings, python=python) for settings in _inbounds(world, name, roles)]
        if roles & {OUTBOUND, *CHAINS}:
            sts = f"{name}-sts"
            found.append(_part(world, sts, ["sts"], sts_settings(world, sts), (sts,), proxy=False, python=python))
        if OUTBOUND in roles:
            found.append(_run(world, f"{name}-front", front_settings(world, name), python=python))
        for role in sorted(roles & CHAINS.keys()):
            chain = {link.process: chain_settings(world, name, link) for link in links(name, role)}
            found += [_run(world, *settings, python=python) for settings in chain.items()]
            found += relays(world, name, role, **onward)
        return found

    return Peer(
        name=name,
        title=title,
        roles={
            INBOUND: Role(port=f"{name}-inbound", counted=(name,)),
            **_own_process(name, NARROW, AGENTS, *ROUTES, *http2),
            **chain_roles(name, **onward, beside=(f"{name}-sts",), credential="login"),
            OUTBOUND: Role(port=f"{name}-outbound", counted=(f"{name}-front",), prefix="/next", credential="handle"),
        },
        does_not=() if http2 else ("HTTP/2",),
        missing=missing,
        version=version,
        parts=parts,
        judges=True,
    )


def _own_process(name: str, *roles: str) -> dict[str, Role]:
    """Return roles of an inbound side in a process of its own."""
    return {role: Role(port=f"{name}-{role}-inbound", counted=(f"{name}-{role}",)) for role in roles}


def pod(world: World, name: str) -> Part:
    """One sidecar of many, with its inbound side."""
    return _run(world, name, {**inbound_settings(world, name), **engine_of("sidecar")})


def native_pod(world: World, name: str) -> Part:
    """One sidecar of many with the native engine."""
    return _run(world, name, {**inbound_settings(world, name), **engine_of("sidecar-native")})


def earlier_pod(world: World, name: str) -> Part:
    """One sidecar of another checkout or interpreter."""
    return _run(world, name, inbound_settings(world, name), python=find("sidecar-before") or sys.executable)


def _inbounds(world: World, name: str, roles: frozenset[str]) -> list[tuple[str, dict[str, Any]]]:
    """Return the settings of each inbound side that these roles need, with the name of its process."""
    found = [(name, inbound_settings(world, name))] if INBOUND in roles else []
    if NARROW in roles:
        settings = inbound_settings(world, f"{name}-{NARROW}")
        settings["inbound"]["connections"] = {"max_handshakes": NARROW_HANDSHAKES}
        found.append((f"{name}-{NARROW}", settings))
    found += [
        (f"{name}-{role}", inbound_settings(world, f"{name}-{role}", numbered_routes(ROUTES[role])))
        for role in sorted(roles & ROUTES.keys())
    ]
    for role in sorted(roles & {AGENTS, AGENTS_HTTP2}):
        found.append((f"{name}-{role}", agents_settings(world, f"{name}-{role}", http2=role in OVER_HTTP2)))
    for role in sorted(roles & OVER_HTTP2 - {AGENTS_HTTP2}):
        found.append((f"{name}-{role}", http2_settings(world, f"{name}-{role}", role)))
    return [(process, {**settings, **engine_of(name)}) for process, settings in found]


def _run(world: World, name: str, settings: dict[str, Any], *, python: str = sys.executable) -> Part:
    listens = [section["listen"] for key in ("inbound", "outbound") if (section := settings.get(key))]
    return _part(world, name, ["run"], settings, tuple(map(world.name_of, listens)), python=python)


def _part(
    world: World,
    name: str,
    command: list[str],
    settings: dict[str, Any],
    listens: tuple[str, ...],
    *,
    proxy: bool = True,
    python: str = sys.executable,
) -> Part:
    path = world.folder / f"{name}.yaml"
    path.write_text(json.dumps(settings, separators=(",", ":")))  # JSON is YAML
    program = [python, "-P", "-m", "sidecar.cli", *command, "--config", str(path)]
    ready = f"http://{settings['probe']['listen']}/readyz"
    return Part(name=name, command=program, listens=listens, ready=ready, proxy=proxy)
