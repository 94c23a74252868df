"""The sidecar itself, run as its users run it: with a settings file. No check, limit or record is off."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any, Final

from benchmarks.peers.agents import relay
from benchmarks.peers.binaries import find, missing
from benchmarks.peers.peer import (
    AGENTS,
    AGENTS_HTTP2,
    CHAIN,
    INBOUND,
    MESH,
    NARROW,
    NARROW_HANDSHAKES,
    OUTBOUND,
    OVER_HTTP2,
    PAIR,
    ROUTES,
    Part,
    Peer,
    Role,
    first_line,
)
from benchmarks.peers.sidecar_settings import (
    agents_settings,
    chain_settings,
    engine_of,
    front_settings,
    http2_settings,
    inbound_settings,
    middle_settings,
    numbered_routes,
    route,
    sts_settings,
    tool_settings,
)
from benchmarks.world import FIRST, FRONT, SECOND, TOOL, World
from sidecar import __version__
from sidecar.engine import native_module

_SHARED: Final = "the tool and token service of the other one"


def sidecar() -> Peer:
    """Build the sidecar for every role.

    Its identity comes from PEM files; beyond the inbound side a token service runs beside it.
    """
    front = "sidecar-front"
    return Peer(
        name="sidecar",
        title="delegation sidecar",  # the Python engine
        roles={
            INBOUND: Role(port="sidecar-inbound", counted=("sidecar",)),
            **_own_process("sidecar", NARROW, AGENTS, *ROUTES, *sorted(OVER_HTTP2)),
            CHAIN: _chain_role("sidecar"),
            OUTBOUND: Role(port="sidecar-outbound", counted=(front,), prefix="/next", credential="handle"),
            PAIR: Role(port="sidecar-outbound", counted=(front, "sidecar-tool"), prefix="/pair", credential="handle"),
            MESH: Role(
                port="sidecar-outbound",
                counted=(front, "sidecar-first", "sidecar-second", "sidecar-tool"),
                prefix="/first",
                credential="login",
            ),
        },
        does_not=(),
        missing=lambda: None,
        version=lambda: f"{__version__} on Python {sys.version.split()[0]}",
        parts=_parts,
        judges=True,
    )


def native() -> Peer:
    """Return the sidecar with the native engine, in the roles of `_beside_the_other`, without HTTP/2."""
    return _beside_the_other(
        "sidecar-native",
        "delegation sidecar, native engine",
        does_not=("HTTP/2", _SHARED),
        missing=lambda: "its wheel is not installed (make native)" if native_module() is None else None,
        version=lambda: f"{__version__} on Python {sys.version.split()[0]}",
    )


def earlier(engine: str = "python") -> Peer:
    """Return the sidecar of another version or interpreter with this engine, to compare a change with its base.

    ``--before REF`` prepares its program; ``--binary sidecar-before=PATH`` names the Python of another checkout.
    """
    name = "sidecar-native-before" if engine == "native" else "sidecar-before"
    return _beside_the_other(
        name,
        "delegation sidecar, native engine, before" if engine == "native" else "delegation sidecar, before",
        does_not=("HTTP/2", _SHARED) if engine == "native" else (_SHARED,),
        more=() if engine == "native" else tuple(sorted(OVER_HTTP2)),
        missing=lambda: missing(name, f"--before REF, or --binary {name}=PATH of another checkout's python"),
        version=lambda: first_line([find(name) or "", "-VV"]),
    )


def _beside_the_other(
    name: str,
    title: str,
    *,
    does_not: tuple[str, ...],
    more: tuple[str, ...] = (),
    missing: Callable[[], str | None],
    version: Callable[[], str],
) -> Peer:
    """Return a sidecar with its inbound side, and an outbound side.

    The outbound side is in front of the tool and the token service of ``sidecar``, which takes part too.
    """

    def parts(world: World, roles: frozenset[str]) -> list[Part]:
        python = find(name) or sys.executable
        found = [_run(world, *settings, python=python) for settings in _inbounds(world, name, roles)]
        if OUTBOUND in roles:
            found.append(
                _run(world, f"{name}-front", {**front_settings(world, name), **engine_of(name)}, python=python)
            )
        return [*found, *_chain(world, name, python)] if CHAIN in roles else found

    return Peer(
        name=name,
        title=title,
        roles={
            INBOUND: Role(port=f"{name}-inbound", counted=(name,)),
            **_own_process(name, NARROW, AGENTS, *ROUTES, *more),
            CHAIN: _chain_role(name),
            OUTBOUND: Role(port=f"{name}-outbound", counted=(f"{name}-front",), prefix="/next", credential="handle"),
        },
        does_not=does_not,
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


def _parts(world: World, roles: frozenset[str]) -> list[Part]:
    parts = [_run(world, *settings) for settings in _inbounds(world, "sidecar", roles)]
    if CHAIN in roles:
        parts += _chain(world, "sidecar", sys.executable)
    if not roles & {OUTBOUND, PAIR, MESH}:
        return parts
    parts += [
        _sts(world),
        _run(world, "sidecar-tool", tool_settings(world)),
        _run(world, "sidecar-front", front_settings(world)),
    ]
    if MESH in roles:
        parts.append(
            _run(world, "sidecar-second", middle_settings(world, "second", SECOND, FIRST, route(world, "tool", TOOL)))
        )
        parts.append(
            _run(world, "sidecar-first", middle_settings(world, "first", FIRST, FRONT, route(world, "second", SECOND)))
        )
        parts.append(relay(world, "sidecar-second-agent", to="sidecar-second-outbound", prefix="/tool"))
        parts.append(relay(world, "sidecar-first-agent", to="sidecar-first-outbound", prefix="/second"))
    return parts


def _chain_role(name: str) -> Role:
    front, first, tool = (f"{name}-chain-{part}" for part in ("front", "first", "tool"))
    how: dict[str, Any] = {"prefix": "/next", "mcp_prefix": "/next-mcp", "credential": "login"}
    return Role(port=f"{front}-outbound", counted=(front, first, tool), beside=(f"{name}-chain-sts",), **how)


def _chain(world: World, name: str, python: str) -> list[Part]:
    """Return the processes of two hops with a token service of their own, which is of the same checkout."""
    first = f"{name}-chain-first"
    parts = [_run(world, process, settings, python=python) for process, settings in chain_settings(world, name).items()]
    agent = relay(world, f"{first}-agent", to=f"{first}-outbound", prefix="/next", mcp_prefix="/next-mcp")
    return [_sts(world, f"{name}-chain-sts", python), *parts, agent]


def _sts(world: World, name: str = "sts", python: str = sys.executable) -> Part:
    """A token service. It runs beside the load, not with the proxies, and is not counted."""
    return _part(world, name, ["sts"], sts_settings(world, name), (name,), proxy=False, python=python)


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
