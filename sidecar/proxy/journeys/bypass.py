"""Finds listening sockets by which callers could reach the agent past the sidecar.

A pod's containers share one network namespace. An agent that listens beyond loopback there can be called without a
proven peer, without a token and without a record. The kernel lists every TCP listener of the namespace, including those
of other processes and users.

It is asked for them by sock_diag(7), which takes 0.05 ms. Where that is missing (a kernel without the module, a
sandbox) the tables of proc(5) are read: an empty one costs 0.5 to 4 ms, because the kernel goes through its whole hash
table of connections to find that there is none.
"""

from __future__ import annotations

import ipaddress
import logging
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from struct import Struct
from typing import Final, NamedTuple

_TABLES: Final = (Path("/proc/self/net/tcp"), Path("/proc/self/net/tcp6"))
_LISTENING: Final = 10  # TCP_LISTEN of include/net/tcp_states.h
MAX_TOLD: Final = 8  # listeners that are named; the count includes all
# In one table. The event loop reads it, some 5 microseconds for each; any process in the namespace can open more.
MAX_LISTENERS: Final = 1024

_NETLINK_SOCK_DIAG: Final = 4  # linux/netlink.h, linux/sock_diag.h, linux/inet_diag.h
_SOCK_DIAG_BY_FAMILY: Final = 20
_REQUEST_AND_DUMP: Final = 0x301
_ERROR, _DONE = 2, 3
_INTERRUPTED: Final = 0x10  # the sockets changed while they were listed
_number: Final = Struct("=i")
_header: Final = Struct("=IHHII")  # struct nlmsghdr: length, type, flags, sequence, port
_question: Final = Struct("=BBBBI48x")  # struct inet_diag_req_v2: family, protocol, two zeros, states, any socket
_socket: Final = Struct("=BBBB2s2s16s")  # the beginning of struct inet_diag_msg: family, …, source port, …, source
_ANSWER_BYTES: Final = 32 * 1024  # the kernel's largest piece of an answer

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
    listener at a port of the agent's counts. ``refuse``: no call is served while there is one.
    """

    agent_port: int | None
    allowed: frozenset[int] = frozenset()
    pod: bool = False
    refuse: bool = False
    agent_grpc_port: int | None = None

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
                and (self.pod or one.port in {self.agent_port, self.agent_grpc_port})
            },
            key=lambda one: (one.port, str(one.host)),
        )


class BypassWatch:
    """Watches the namespace's listeners; ``found`` and ``error`` are the result of the last ``look``.

    Without a rule (no inbound side) it does nothing. ``own`` returns our listeners' addresses, ``listening`` all.
    """

    def __init__(
        self,
        rule: Callable[[], ListenerRule | None],
        own: Callable[[], Iterable[tuple[str, int]]],
        listening: Callable[[], list[ListeningSocket]] | None = None,
    ) -> None:
        self._rule = rule
        self._own = own
        self._listening = listening or listening_here
        self.found: list[ListeningSocket] = []
        self.error: str | None = None

    def look(self) -> None:
        """Ask for the listeners and log each change."""
        rule = self._rule()
        if rule is None:
            self.found, self.error = [], None
            return
        before, error_before = self.found, self.error
        try:
            listening = self._listening()
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


def listening_here(
    ask: Callable[[int], list[ListeningSocket]] | None = None, tables: tuple[Path, Path] = _TABLES
) -> list[ListeningSocket]:
    """Return the TCP listeners of this network namespace, as the kernel answers; where it does not, as its tables say.

    Raises:
        OSError: there is no table either.
        ValueError: a table is none, or there are more than ``MAX_LISTENERS`` of one family.
    """
    found: list[ListeningSocket] = []
    for family, table in zip((socket.AF_INET, socket.AF_INET6), tables, strict=True):
        try:
            found += (ask or ask_kernel)(family)
        except OSError:
            from sidecar.proxy.journeys.listening_table import listening_in  # of kernels without sock_diag

            found += (ListeningSocket(*one) for one in listening_in(table, most=MAX_LISTENERS))
    return found


def ask_kernel(family: int) -> list[ListeningSocket]:
    """Return the TCP listeners of one address family by sock_diag(7), which needs no privilege.

    Raises:
        OSError: the kernel has no such interface, or did not answer whole.
        ValueError: there are more than ``MAX_LISTENERS``.
    """
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG) as kernel:
        kernel.settimeout(0)  # each piece of the answer is ready when it is asked for
        question = _question.pack(family, socket.IPPROTO_TCP, 0, 0, 1 << _LISTENING)
        size = _header.size + len(question)
        kernel.sendto(_header.pack(size, _SOCK_DIAG_BY_FAMILY, _REQUEST_AND_DUMP, 1, 0) + question, (0, 0))
        found: list[ListeningSocket] = []
        while True:
            answer, sender = kernel.recvfrom(_ANSWER_BYTES)
            if sender[0] != 0:
                continue  # not the kernel
            if not _take(answer, found):
                return found


def _take(answer: bytes, found: list[ListeningSocket]) -> bool:
    """Add the listeners in one piece of the kernel's answer. Returns False if it was the last."""
    at = 0
    while at + _header.size <= len(answer):
        size, kind, flags, *_ = _header.unpack_from(answer, at)
        if kind == _DONE:  # its number is an error where the kernel has no handler of TCP (no module tcp_diag)
            if size < _header.size + _number.size or _number.unpack_from(answer, at + _header.size)[0] < 0:
                raise OSError("sock_diag could not list the sockets")
            return False
        if flags & _INTERRUPTED or kind == _ERROR or size < _header.size + _socket.size or at + size > len(answer):
            raise OSError("sock_diag gave no whole answer")
        if len(found) == MAX_LISTENERS:
            raise ValueError(f"sock_diag lists more than {MAX_LISTENERS} listeners")
        family, _, _, _, port, _, host = _socket.unpack_from(answer, at + _header.size)
        address = _packed(host[:4] if family == socket.AF_INET else host)
        found.append(ListeningSocket(address, int.from_bytes(port, "big")))
        at += size + 3 & ~3
    return True


def _sockets(addresses: Iterable[tuple[str, int]]) -> tuple[frozenset[ListeningSocket], frozenset[int]]:
    """Return our listeners, and the ports of those whose host is a name other than localhost.

    Resolving a name could take seconds, so at such a port every address counts as ours; localhost is loopback, which is
    no way round anyway (RFC 6761 section 6.3).
    """
    own, named_ports = set(), set()
    for host, port in addresses:
        if host.lower() == "localhost":
            continue
        try:
            own.add(ListeningSocket(ipaddress.ip_address(host), port))
        except ValueError:
            named_ports.add(port)
    return frozenset(own), frozenset(named_ports)


@lru_cache(maxsize=MAX_LISTENERS)
def _packed(address: bytes) -> IpAddress:
    """Read an address in network order."""
    return ipaddress.ip_address(address)


def _is_loopback(host: IpAddress) -> bool:
    mapped = host.ipv4_mapped if isinstance(host, ipaddress.IPv6Address) else None
    return (mapped or host).is_loopback
