"""The sidecar itself, run as its users run it: with a settings file. No check, limit or record is off."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

from benchmarks.peers.agents import relay
from benchmarks.peers.binaries import find, missing
from benchmarks.peers.peer import (
    INBOUND,
    MESH,
    NARROW,
    NARROW_HANDSHAKES,
    OUTBOUND,
    PAIR,
    ROUTES,
    Part,
    Peer,
    Role,
    first_line,
)
from benchmarks.peers.sidecar_settings import (
    engine_of,
    front_settings,
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
            **{role: Role(port=f"sidecar-{role}-inbound", counted=(f"sidecar-{role}",)) for role in (NARROW, *ROUTES)},
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
    """Return the sidecar with the native engine, in the roles of `_beside_the_other`."""
    return _beside_the_other(
        "sidecar-native",
        "delegation sidecar, native engine",
        missing=lambda: "its wheel is not installed (make native)" if native_module() is None else None,
        version=lambda: f"{__version__} on Python {sys.version.split()[0]}",
    )


def earlier() -> Peer:
    """Return the sidecar of another checkout or on another interpreter, to compare a change with its base.

    ``--binary sidecar-before=PATH`` names that checkout's Python.
    """
    name = "sidecar-before"
    return _beside_the_other(
        name,
        "delegation sidecar, another checkout",
        missing=lambda: missing(name, "--binary sidecar-before=PATH of another checkout's python"),
        version=lambda: first_line([find(name) or "", "-VV"]),
    )


def _beside_the_other(name: str, title: str, *, missing: Callable[[], str | None], version: Callable[[], str]) -> Peer:
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
        return found

    return Peer(
        name=name,
        title=title,
        roles={
            INBOUND: Role(port=f"{name}-inbound", counted=(name,)),
            **{role: Role(port=f"{name}-{role}-inbound", counted=(f"{name}-{role}",)) for role in (NARROW, *ROUTES)},
            OUTBOUND: Role(port=f"{name}-outbound", counted=(f"{name}-front",), prefix="/next", credential="handle"),
        },
        does_not=("the tool and token service of the other one",),
        missing=missing,
        version=version,
        parts=parts,
        judges=True,
    )


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
    return [(process, {**settings, **engine_of(name)}) for process, settings in found]


def _parts(world: World, roles: frozenset[str]) -> list[Part]:
    parts = [_run(world, *settings) for settings in _inbounds(world, "sidecar", roles)]
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


def _sts(world: World) -> Part:
    """The token service. It runs beside the load, not with the proxies, and is not counted."""
    return _part(world, "sts", ["sts"], sts_settings(world), ("sts",), proxy=False)


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
