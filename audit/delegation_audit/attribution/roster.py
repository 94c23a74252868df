"""The operator's list of agents (``--agents FILE``): parses it; matches names, addresses and User-Agents against it.

One agent per line: one identifier, or a name and its identifiers::

    spiffe://acme.example/agent/planner
    writer = spiffe://acme.example/agent/writer, writer-client, ip:10.0.3.0/24, user-agent:writer/*

An identifier is a SPIFFE ID, a client id, a service account, an ARN (``*`` matches any text), an address or network,
or a pattern for a User-Agent.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fnmatch import translate
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from pathlib import Path
from typing import Final

MAX_FILE_BYTES: Final = 4 << 20
_CACHED: Final = 16384
_LINE: Final = re.compile(r"([^=,]{1,256}?)\s+=\s+(.+)")
_KIND: Final = re.compile(
    r"(?i)(user[-_]?agent|ua|ip|cidr|address|client(?:[-_]id)?|service[-_]?account|sa|name)\s*:(?!//)\s*(.*)"
)
_USER_AGENT: Final = frozenset({"user-agent", "user_agent", "useragent", "ua"})
_ADDRESS: Final = frozenset({"ip", "cidr", "address"})
_COMMON_WORDS: Final = frozenset({"agent", "agents", "client", "app", "service", "sa", "bot", "prod", "dev", "test"})
_OWN_PREFIX: Final = re.compile(r"(?:agent|client|service|workload|serviceaccount):(?!/)")
_ROLE_SESSION: Final = re.compile(r"arn:(aws[a-z-]*):sts::(\d+):assumed-role/([^/]+)/.*")
_PORT: Final = re.compile(r"\[?([0-9A-Fa-f:.]{2,45})\]?:\d{1,5}")

Network = IPv4Network | IPv6Network


class RosterError(ValueError):
    """The list of agents cannot be used. The message names file and line, and the fix."""


@dataclass(slots=True)
class Roster:
    """The agents. Matching ignores case. Each identity that fits a pattern without a name is an agent of its own."""

    names: dict[str, str] = field(default_factory=dict)
    patterns: list[tuple[re.Pattern[str], str | None]] = field(default_factory=list)
    user_agents: list[tuple[re.Pattern[str], str]] = field(default_factory=list)
    networks: list[tuple[Network, str]] = field(default_factory=list)
    broad: set[str] = field(default_factory=set)  # unnamed networks and User-Agent patterns: may fit several agents
    _known: dict[tuple[str, str], str | None] = field(default_factory=dict)

    def identity(self, value: str) -> str | None:
        """Return the agent that the name of a user, actor, client or peer identifies; None if it is no agent."""
        return self._look_up("identity", value, self._identity)

    def user_agent(self, value: str) -> str | None:
        """Return the agent that a User-Agent claims to be, or None."""
        return self._look_up("user-agent", value, self._user_agent)

    def address(self, value: str) -> str | None:
        """Return the agent at an address, which may have a port; None if there is none."""
        return self._look_up("address", value, self._address)

    def _look_up(self, kind: str, value: str, find: Callable[[str], str | None]) -> str | None:
        key = kind, value
        if key not in self._known:
            if len(self._known) >= _CACHED:
                self._known.clear()
            self._known[key] = find(value)
        return self._known[key]

    def _identity(self, value: str) -> str | None:
        for form in _forms(value.casefold()):
            if form in self.names:
                return self.names[form]
            for pattern, name in self.patterns:
                if pattern.match(form):
                    return name or value
        return None

    def _user_agent(self, value: str) -> str | None:
        folded = value.casefold()
        by_pattern = next((name for pattern, name in self.user_agents if pattern.match(folded)), None)
        return by_pattern or self.names.get(folded.partition("/")[0])  # "writer/1.0" names a product as the list does

    def _address(self, value: str) -> str | None:
        address = address_of(value)
        if address is None:
            return None
        mapped = getattr(address, "ipv4_mapped", None) or address
        return next((name for network, name in self.networks if mapped in network), None)


def address_of(value: str) -> IPv4Address | IPv6Address | None:
    """Parse an IP address, with or without a port; None if the text is no address."""
    port = _PORT.fullmatch(value.strip())
    for text in (value.strip().strip("[]"), port[1] if port else ""):
        try:
            return ip_address(text)
        except ValueError:
            continue
    return None


def _forms(value: str) -> Iterator[str]:
    """Yield an identity, then its other spellings in the logs of its platform."""
    yield value
    if value.startswith("spiffe://"):
        yield value.removeprefix("spiffe://")  # Istio's principals
    if value.startswith("service-account-"):
        yield value.removeprefix("service-account-")  # Keycloak: the service account of a client
    if prefix := _OWN_PREFIX.match(value):
        yield value[prefix.end() :]
    if role := _ROLE_SESSION.fullmatch(value):
        yield f"arn:{role[1]}:iam::{role[2]}:role/{role[3]}"


def load(path: str) -> Roster:
    """Read the list of agents.

    Raises:
        RosterError: the file cannot be read, or see ``parse``.
    """
    try:
        with Path(path).open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
        text = content.decode("utf-8-sig")
    except OSError as error:
        raise RosterError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise RosterError(f"{path}: not UTF-8; save it as UTF-8") from None
    if len(content) > MAX_FILE_BYTES:
        raise RosterError(
            f"{path}: larger than {MAX_FILE_BYTES} bytes; use patterns such as spiffe://acme.example/agent/*"
        )
    return parse(text, path)


def parse(text: str, path: str = "agents") -> Roster:
    """Parse the lines of a list.

    Raises:
        RosterError: a line is invalid, one identifier belongs to two agents, or the list is empty.
    """
    roster = Roster()
    for number, line in enumerate(text.splitlines(), 1):
        words = re.split(r"(?:^|\s)#", line, maxsplit=1)[0].strip()
        if not words:
            continue
        named = _LINE.fullmatch(words)
        name, identifiers = (named[1], named[2].split(",")) if named else (None, [words])
        for identifier in identifiers:
            try:
                _add(roster, name, identifier.strip())
            except ValueError as error:
                raise RosterError(f"{path}:{number}: {error}") from None
    if not (roster.names or roster.patterns or roster.user_agents or roster.networks):
        raise RosterError(f"{path}: names no agent; write one per line, such as spiffe://acme.example/agent/writer")
    return roster


def _add(roster: Roster, name: str | None, identifier: str) -> None:
    found = _KIND.fullmatch(identifier)
    kind, value = (found[1].lower(), found[2]) if found else ("", identifier)
    if not value:
        raise ValueError("an identifier is empty; write one between the commas")
    if value.strip("*") in {"", "spiffe://"}:
        raise ValueError(f"{value!r} would make everybody an agent; write more of the name")
    if kind in _USER_AGENT:
        _add_user_agent(roster, name, value)
        return
    network = _network(value)
    if network is not None and not network.prefixlen:
        raise ValueError(f"{value!r} would make every address an agent's; write the network of the agents")
    if network is not None and (not kind or kind in _ADDRESS):
        roster.networks.append((network, name or value))
        if name is None and network.num_addresses > 1:
            roster.broad.add(value)
    elif kind in _ADDRESS:
        raise ValueError(f"{value!r} is no address and no network; write ip:10.0.3.7 or ip:10.0.3.0/24")
    else:
        _add_identity(roster, name, value, also_user_agent=not kind)


def _add_identity(roster: Roster, name: str | None, value: str, *, also_user_agent: bool) -> None:
    if also_user_agent and "://" not in value and ("/" in value or "*" in value) and not value.startswith("arn:"):
        _add_user_agent(roster, name, value)
    if "*" in value or "?" in value:
        roster.patterns.append((_pattern(value), name))
        return
    key = value.casefold()
    owner = name or value
    for form in (key, key.removeprefix("spiffe://")):
        if roster.names.setdefault(form, owner) != owner:
            raise ValueError(f"{value!r} already belongs to the agent {roster.names[form]!r}; write it once")


def _add_user_agent(roster: Roster, name: str | None, value: str) -> None:
    roster.user_agents.append((_pattern(value), name or value))
    if name is None:
        roster.broad.add(value)


def alike(one: str, other: str) -> bool:
    """Return True if two names may be of one agent: ``…/agent/writer`` and ``writer-client`` share a word."""
    return one == other or bool(_words(one) & _words(other))


def _words(name: str) -> set[str]:
    last = re.split(r"[/:]", name.casefold().rstrip("/*"))[-1]
    return set(re.findall(r"[a-z0-9]+", last)) - _COMMON_WORDS


def _pattern(value: str) -> re.Pattern[str]:
    return re.compile(translate(value.casefold()))


def _network(value: str) -> Network | None:
    try:
        return ip_network(value, strict=False)
    except ValueError:
        return None
