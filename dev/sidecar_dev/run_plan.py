"""Plan of a ``sidecar dev run``, read from its options: the agent, and the services that it may call."""

from __future__ import annotations

import argparse
import ipaddress
import re
import urllib.parse
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, Literal

from delegation_core.errors import ConfigError, Problem
from sidecar_dev.processes import listens

RESERVED: Final = frozenset({"agent", "front", "login", "sts", "workload-api"})  # names of our own processes

_NAME: Final = re.compile(r"[a-z][a-z0-9-]{0,30}")
_HOST: Final = re.compile(r"[a-z0-9-]{1,63}(\.[a-z0-9-]{1,63})*(:[0-9]{1,5})?")
_DIGITS: Final = 5
_PATH: Final = re.compile(r"(/[A-Za-z0-9._~-]+)+|/")
_DEFAULT_PATHS: Final = {"mcp": "/mcp", "a2a": "/", "grpc": "/"}

Protocol = Literal["http", "mcp", "a2a", "grpc"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """One program behind a sidecar of its own.

    ``may_call`` names the services that it may call. ``host`` is the name by which others call it; None: by a path
    prefix. ``operations`` are the permitted operations; empty: all.
    """

    origin: str
    may_call: tuple[str, ...] = ()
    host: str | None = None
    protocol: Protocol = "http"
    path: str = "/"
    operations: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The whole run. Ports that are None are chosen automatically."""

    command: Sequence[str]
    user: str
    agent_port: int
    agent: Service
    services: Mapping[str, Service] = field(default_factory=dict)
    port: int | None = None
    outbound_ports: Mapping[str, int] = field(default_factory=dict)
    print_settings: bool = False
    keep: Path | None = None
    """A new folder for the records, and for printed settings."""

    @property
    def everything(self) -> dict[str, Service]:
        """The agent and the services, by name."""
        return {"agent": self.agent, **self.services}


def plan_of(arguments: argparse.Namespace) -> Plan:
    """Make the plan.

    Raises:
        ConfigError: lists all unusable options.
    """
    problems: list[Problem] = []
    if not _NAME.fullmatch(arguments.user):
        problems.append(Problem("--user", "it is not a simple name", "write a name such as alice"))
    services = _services(arguments, problems)
    outbound_ports = _outbound_ports(arguments.outbound_port, services, problems)
    wanted = {
        "--agent-port": arguments.agent_port,
        "--port": arguments.port,
        **{f"--outbound-port {name}": port for name, port in outbound_ports.items()},
    }
    problems += _port_problems({option: port for option, port in wanted.items() if port is not None})
    for protocol in ("mcp", "a2a"):
        _set_protocol(protocol, getattr(arguments, protocol), services, problems)
    for text in arguments.grpc:
        if "=" in text:
            problems.append(Problem("--grpc", f"{text!r} has a path", "write the name alone"))
    _set_protocol("grpc", arguments.grpc, services, problems)
    for name, host in _pairs("--host", arguments.host, services, problems):
        if name == "agent" or not _HOST.fullmatch(host):
            problems.append(Problem("--host", f"{host!r} for {name}", "write NAME=HOST, as crm=crm.acme.example"))
        services[name] = replace(services[name], host=host)
    for name, operation in _pairs("--allow", arguments.allow, services, problems):
        if services[name].protocol == "http":
            problems.append(Problem("--allow", f"{name} has no protocol", f"add --mcp, --a2a or --grpc {name}"))
        services[name] = replace(services[name], operations=(*services[name].operations, operation))
    if arguments.keep is not None and arguments.keep.exists():
        problems.append(Problem("--keep", f"{arguments.keep} is there already", "name a new folder"))
    if problems:
        raise ConfigError(problems)
    agent = services.pop("agent")
    return Plan(
        command=arguments.words,
        user=arguments.user,
        agent_port=arguments.agent_port,
        agent=agent,
        services=services,
        port=arguments.port,
        outbound_ports=outbound_ports,
        print_settings=arguments.print_settings,
        keep=arguments.keep,
    )


def _port_problems(ports: Mapping[str, int]) -> Iterable[Problem]:
    for option, port in ports.items():
        if not 1 <= port <= 65535:
            yield Problem(option, "it is not a port number", "write 1 to 65535")
        elif list(ports.values()).count(port) > 1 or listens(port):
            yield Problem(option, f"{port} is taken", "choose a free one")


def _services(arguments: argparse.Namespace, problems: list[Problem]) -> dict[str, Service]:
    """Parse ``[CALLER:]NAME[=URL]`` options; return the services by name, the agent first."""
    found = {"agent": Service(origin=f"http://127.0.0.1:{arguments.agent_port}")}
    calls: list[tuple[str, str]] = []
    for text in arguments.may_call:
        edge, has_url, url = text.partition("=")
        caller, named, name = edge.rpartition(":")
        calls.append((caller if named else "agent", name))
        if not has_url:
            continue
        if not _NAME.fullmatch(name) or name in RESERVED or name in found:
            problems.append(Problem("--may-call", f"{name!r} is not a free name", "write a name such as crm, once"))
        elif not _is_origin(url):
            problems.append(
                Problem("--may-call", "the URL is not an origin on loopback", "write http://127.0.0.1:PORT")
            )
        found[name] = Service(origin=url.rstrip("/"))
    for caller, name in calls:
        if name not in found:
            problems.append(Problem("--may-call", f"{name!r} has no URL", f"write {name}=http://127.0.0.1:PORT"))
        elif caller not in found:
            problems.append(Problem("--may-call", f"no service is called {caller!r}", "name a service, or agent"))
        elif name in ("agent", caller) or name in found[caller].may_call:
            problems.append(Problem("--may-call", f"{caller} to {name}", "name each call once, and none to itself"))
        else:
            found[caller] = replace(found[caller], may_call=(*found[caller].may_call, name))
    return found


def _outbound_ports(texts: Sequence[str], services: Mapping[str, Service], problems: list[Problem]) -> dict[str, int]:
    """Parse ``PORT`` (the agent's) and ``NAME=PORT`` options; return the ports by name."""
    found: dict[str, int] = {}
    for text in texts:
        name, named, port = text.rpartition("=")
        name = name if named else "agent"
        if not port.isdecimal() or len(port) > _DIGITS:
            problems.append(Problem("--outbound-port", f"{port!r} is not a port number", "write 1 to 65535"))
        elif name not in services or name in found or not (name == "agent" or services[name].may_call):
            problems.append(Problem("--outbound-port", f"{name!r} makes no calls", "name one that does, once"))
        else:
            found[name] = int(port)
    return found


def _set_protocol(
    protocol: Literal["mcp", "a2a", "grpc"], texts: Sequence[str], services: dict[str, Service], problems: list[Problem]
) -> None:
    option = f"--{protocol}"
    for name, path in _pairs(option, texts, services, problems):
        if not _PATH.fullmatch(path or "/"):
            problems.append(Problem(option, f"{path!r} is no path", "write NAME=/PATH, as crm=/mcp"))
        if services[name].protocol != "http":
            problems.append(Problem(option, f"{name} has a protocol already", "give it one"))
        services[name] = replace(services[name], protocol=protocol, path=path or _DEFAULT_PATHS[protocol])
        if protocol == "grpc":  # a client of gRPC cannot put a prefix before its paths
            services[name] = replace(services[name], host=name)


def _pairs(
    option: str, texts: Sequence[str], services: Mapping[str, Service], problems: list[Problem]
) -> list[tuple[str, str]]:
    """Parse ``NAME=VALUE`` options; an unknown name is a problem."""
    pairs = [(name, value) for name, _, value in (text.partition("=") for text in texts)]
    for name, _ in pairs:
        if name not in services:
            problems.append(Problem(option, f"{name!r} is neither agent nor a name of --may-call", "write one of them"))
    return [pair for pair in pairs if pair[0] in services]


def _is_origin(url: str) -> bool:
    parts = urllib.parse.urlsplit(url)
    try:
        loopback = ipaddress.ip_address(parts.hostname or "").is_loopback
        port = parts.port
    except ValueError:
        return False
    return loopback and port is not None and parts.username is None and url.rstrip("/") == f"http://{parts.netloc}"
