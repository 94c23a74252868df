"""Finds listening sockets by which callers could reach the agent past the sidecar.

A pod's containers share one network namespace. An agent that listens beyond loopback there can be called without a
proven peer, without a token and without a record. The kernel lists every TCP listener of the namespace, including those
of other processes and users.
"""

from __future__ import annotations

import ipaddress
import logging
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final, NamedTuple

_ORDER: Final = sys.byteorder
_TABLES: Final = (Path("/proc/self/net/tcp"), Path("/proc/self/net/tcp6"))
_LISTENING: Final = "0A"  # TCP_LISTEN of include/net/tcp_states.h
MAX_TOLD: Final = 8  # listeners that are named; the count includes all
# In one table. The event loop reads it, some 5 microseconds for each; any process in the namespace can open more.
MAX_LISTENERS: Final = 1024

_log: Final = logging.getLogger("sidecar")

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


class ListeningSocket(NamedTuple):
    """A TCP listener of this network namespace."""

    host: IpAddress
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if self.host.version == 6 else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ListenerRule:
    """Rule for the listeners that do not bypass the sidecar. ``allowed``: ports besides loopback and our own.

    In a pod every other listener counts. Outside one (``pod`` false) the namespace is the machine's, and only a
    listener at the agent's port counts. ``refuse``: no call is served while there is one.
    """

    agent_port: int | None
    allowed: frozenset[int] = frozenset()
    pod: bool = False
    refuse: bool = False

    def ways_round(
        self, listening: Iterable[ListeningSocket], own: frozenset[ListeningSocket]
    ) -> list[ListeningSocket]:
        """Return the listeners that reach past the sidecar, sorted. ``own`` are ours."""
        return sorted(
            {
                one
                for one in listening
                if not _is_loopback(one.host)
                and one not in own
                and one.port not in self.allowed
                and (self.pod or one.port == self.agent_port)
            },
            key=lambda one: (one.port, str(one.host)),
        )


class BypassWatch:
    """Watches the namespace's listeners; ``found`` and ``error`` are the result of the last ``look``.

    Without a rule (no inbound side) it does nothing. ``own`` returns our listeners' addresses.
    """

    def __init__(
        self,
        rule: Callable[[], ListenerRule | None],
        own: Callable[[], Iterable[tuple[str, int]]],
        *,
        tables: Iterable[Path] = _TABLES,
    ) -> None:
        self._rule = rule
        self._own = own
        self._tables = tuple(tables)
        self.found: list[ListeningSocket] = []
        self.error: str | None = None

    def look(self) -> None:
        """Read the tables and log each change."""
        rule = self._rule()
        if rule is None:
            self.found, self.error = [], None
            return
        before, error_before = self.found, self.error
        try:
            listening = [one for table in self._tables for one in listening_in(table)]
        except (OSError, ValueError) as error:
            self.error = str(error)
        else:
            self.error = None
            own, named_ports = _sockets(self._own())
            self.found = [one for one in rule.ways_round(listening, own) if one.port not in named_ports]
        if self.error is not None and error_before is None:
            _log.warning("the listening sockets cannot be read", extra={"error": self.error})
        if self.found != before:
            if self.found:
                _log.warning("the agent can be reached past the sidecar", extra={"listeners": self.told})
            else:
                _log.info("the agent can no longer be reached past the sidecar")

    @property
    def told(self) -> str:
        """The listeners that were found, the first ``MAX_TOLD`` by name."""
        rest = len(self.found) - MAX_TOLD
        return ", ".join(map(str, self.found[:MAX_TOLD])) + (f" and {rest} more" if rest > 0 else "")

    @property
    def refusal(self) -> str | None:
        """The reason to serve no call now; None: calls are served."""
        rule = self._rule()
        if rule is None or not rule.refuse:
            return None
        if self.error is not None:
            return f"bypass: the listening sockets cannot be read ({self.error})"
        return f"bypass: the agent can be reached past the sidecar at {self.told}" if self.found else None


def listening_in(table: Path) -> Iterator[ListeningSocket]:
    """Yield the TCP listeners of one of the kernel's tables (proc(5), ``/proc/net/tcp``).

    The kernel lists listeners before connections (``tcp_get_idx`` of net/ipv4/tcp_ipv4.c), so reading ends at the first
    connection: its cost does not grow with traffic. A kernel without IPv6 has no table of it.

    Raises:
        OSError: the table cannot be read.
        ValueError: it is none, or lists more than ``MAX_LISTENERS``.
    """
    try:
        lines = table.open(encoding="ascii")
    except FileNotFoundError:
        if table.name.endswith("6"):
            return
        raise
    with lines:
        if "local_address" not in next(lines, ""):
            raise ValueError(f"{table} has no local_address column")
        for count, line in enumerate(lines):
            _, local, _, state, _ = line.split(None, 4)
            if state != _LISTENING:
                return
            if count == MAX_LISTENERS:
                raise ValueError(f"{table} lists more than {MAX_LISTENERS} listeners")
            host, _, port = local.partition(":")
            yield ListeningSocket(_address(host), int(port, 16))


def _sockets(addresses: Iterable[tuple[str, int]]) -> tuple[frozenset[ListeningSocket], frozenset[int]]:
    """Return our listeners, and the ports of those whose host is a name, such as localhost.

    Resolving a name could take seconds, so at such a port every address counts as ours.
    """
    own, named_ports = set(), set()
    for host, port in addresses:
        try:
            own.add(ListeningSocket(ipaddress.ip_address(host), port))
        except ValueError:
            named_ports.add(port)
    return frozenset(own), frozenset(named_ports)


@lru_cache(maxsize=MAX_LISTENERS)
def _address(text: str) -> IpAddress:
    """Read an address: words of four bytes, each in the machine's order."""
    raw = bytes.fromhex(text)
    words = [raw[at : at + 4] for at in range(0, len(raw), 4)]
    return ipaddress.ip_address(b"".join(int.from_bytes(word, _ORDER).to_bytes(4, "big") for word in words))


def _is_loopback(host: IpAddress) -> bool:
    mapped = host.ipv4_mapped if isinstance(host, ipaddress.IPv6Address) else None
    return (mapped or host).is_loopback
