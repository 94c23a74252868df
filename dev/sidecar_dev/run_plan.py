"""Plan of a ``sidecar dev run``, read from its options: the agent, and the services that it may call."""

from __future__ import annotations

import argparse
import ipaddress
import re
import urllib.parse
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Literal

from sidecar.errors import ConfigError, Problem
from sidecar_dev.processes import listens

RESERVED: Final = frozenset({"agent", "front", "login", "sts", "workload-api"})  # names of our own processes

_NAME: Final = re.compile(r"[a-z][a-z0-9-]{0,30}")
_HOST: Final = re.compile(r"[a-z0-9-]{1,63}(\.[a-z0-9-]{1,63})*(:[0-9]{1,5})?")
_PATH: Final = re.compile(r"(/[A-Za-z0-9._~-]+)+|/")
_DEFAULT_PATHS: Final = {"mcp": "/mcp", "a2a": "/"}

Protocol = Literal["http", "mcp", "a2a"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """One program behind a sidecar of its own.

    ``host`` is the name by which the agent calls it, if not by a prefix. ``operations`` are those that may be asked
    for; if there are none, all.
    """

    origin: str
    host: str | None = None
    protocol: Protocol = "http"
    path: str = "/"
    operations: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The whole run. Ports that are None are chosen."""

    command: Sequence[str]
    user: str
    agent_port: int
    agent: Service
    services: Mapping[str, Service] = field(default_factory=dict)
    port: int | None = None
    outbound_port: int | None = None
    print_settings: bool = False

    @property
    def everything(self) -> dict[str, Service]:
        """The agent and the services, by name."""
        return {"agent": self.agent, **self.services}


def plan_of(arguments: argparse.Namespace) -> Plan:
    """Make the plan.

    Raises:
        ConfigError: options that cannot be used; all of them are told.
    """
    problems: list[Problem] = []
    if not _NAME.fullmatch(arguments.user):
        problems.append(Problem("--user", "it is not a simple name", "write a name such as alice"))
    wanted = {
        "--agent-port": arguments.agent_port,
        "--port": arguments.port,
        "--outbound-port": arguments.outbound_port,
    }
    problems += _port_problems({option: port for option, port in wanted.items() if port is not None})
    services = {"agent": Service(origin=f"http://127.0.0.1:{arguments.agent_port}"), **_services(arguments, problems)}
    for protocol in ("mcp", "a2a"):
        _set_protocol(protocol, getattr(arguments, protocol), services, problems)
    for name, host in _pairs("--host", arguments.host, services, problems):
        if name == "agent" or not _HOST.fullmatch(host):
            problems.append(Problem("--host", f"{host!r} for {name}", "write NAME=HOST, as crm=crm.acme.example"))
        services[name] = replace(services[name], host=host)
    for name, operation in _pairs("--allow", arguments.allow, services, problems):
        if services[name].protocol == "http":
            problems.append(Problem("--allow", f"{name} has no protocol", f"add --mcp {name} or --a2a {name}"))
        services[name] = replace(services[name], operations=(*services[name].operations, operation))
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
        outbound_port=arguments.outbound_port,
        print_settings=arguments.print_settings,
    )


def _port_problems(ports: Mapping[str, int]) -> Iterable[Problem]:
    for option, port in ports.items():
        if not 1 <= port <= 65535:
            yield Problem(option, "it is not a port number", "write 1 to 65535")
        elif list(ports.values()).count(port) > 1 or listens(port):
            yield Problem(option, f"{port} is taken", "choose a free one")


def _services(arguments: argparse.Namespace, problems: list[Problem]) -> dict[str, Service]:
    """``NAME=URL`` → name → service."""
    found: dict[str, Service] = {}
    for text in arguments.may_call:
        name, _, url = text.partition("=")
        if not _NAME.fullmatch(name) or name in RESERVED or name in found:
            problems.append(Problem("--may-call", f"{name!r} is not a free name", "write a name such as crm, once"))
        elif not _is_origin(url):
            problems.append(
                Problem("--may-call", "the URL is not an origin on loopback", "write http://127.0.0.1:PORT")
            )
        found[name] = Service(origin=url.rstrip("/"))
    return found


def _set_protocol(
    protocol: Literal["mcp", "a2a"], texts: Sequence[str], services: dict[str, Service], problems: list[Problem]
) -> None:
    option = f"--{protocol}"
    for name, path in _pairs(option, texts, services, problems):
        if not _PATH.fullmatch(path or "/"):
            problems.append(Problem(option, f"{path!r} is no path", "write NAME=/PATH, as crm=/mcp"))
        if services[name].protocol != "http":
            problems.append(Problem(option, f"{name} has a protocol already", "give it one"))
        services[name] = replace(services[name], protocol=protocol, path=path or _DEFAULT_PATHS[protocol])


def _pairs(
    option: str, texts: Sequence[str], services: Mapping[str, Service], problems: list[Problem]
) -> list[tuple[str, str]]:
    """``NAME=VALUE`` of names that there are."""
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
