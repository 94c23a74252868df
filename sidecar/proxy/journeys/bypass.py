"""Finds listening sockets through which a caller could bypass the sidecar.

A pod's containers share one network namespace. If the agent listens beyond loopback there, anyone can call it without
a proven peer, a token or a record. The kernel lists every TCP listener of the namespace, including those of other
processes and users.

sock_diag(7) returns that list in 0.05 ms. The fallback, for a sandbox or a kernel without that module, is to read the
tables of proc(5): even an empty table costs 0.5 to 4 ms, because the kernel scans its whole hash table of connections.
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
MAX_TOLD: Final = 8  # listeners named in a message; the rest are counted
# Per table. Any process in the namespace can open more, and the event loop spends some 5 microseconds on each.
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
    """Rule that tells which listeners bypass the sidecar. Loopback, our own and the ports in ``allowed`` never do.

    In a pod, every other listener does. Outside a pod (``pod`` false) the namespace is the whole machine's, and only
    listeners at the agent's ports do. ``refuse``: refuse all calls while such a listener exists.
    """

    agent_port: int | None
    allowed: frozenset[int] = frozenset()
    pod: bool = False
    refuse: bool = False
    agent_grpc_port: int | None = None

    def ways_round(
        self, listening: Iterable[ListeningSocket], own: frozenset[ListeningSocket]
    ) -> list[ListeningSocket]:
        """Return the listeners that bypass the sidecar, sorted by port. ``own`` are the sidecar's listeners."""
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

    ``rule`` returns None if there is no inbound side; ``look`` then finds nothing. ``own`` returns the addresses of the
    sidecar's listeners, ``listening`` all listeners of the namespace.
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
        """Update ``found`` and ``error``; log each change."""
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
        """The listeners in ``found`` as text: the first ``MAX_TOLD`` by address, the others as a count."""
        rest = len(self.found) - MAX_TOLD
        return ", ".join(map(str, self.found[:MAX_TOLD])) + (f" and {rest} more" if rest > 0 else "")

    @property
    def refusal(self) -> str | None:
        """The reason to refuse all calls now; None: serve them."""
        rule = self._rule()
        if rule is None or not rule.refuse:
            return None
        if self.error is not None:
            return f"bypass: the listening sockets cannot be read ({self.error})"
        return f"bypass: the agent can be reached past the sidecar at {self.told}" if self.found else None


def listening_here(
    ask: Callable[[int], list[ListeningSocket]] | None = None, tables: tuple[Path, Path] = _TABLES
) -> list[ListeningSocket]:
    """Return the TCP listeners of this network namespace, by sock_diag(7), else from the tables in ``/proc``.

    Raises:
        OSError: both failed.
        ValueError: a table is malformed, or lists more than ``MAX_LISTENERS``.
    """
    found: list[ListeningSocket] = []
    for family, table in zip((socket.AF_INET, socket.AF_INET6), tables, strict=True):
        try:
            found += (ask or ask_kernel)(family)
        except OSError:
            from sidecar.proxy.journeys.listening_table import listening_in  # for kernels without sock_diag

            found += (ListeningSocket(*one) for one in listening_in(table, most=MAX_LISTENERS))
    return found


def ask_kernel(family: int) -> list[ListeningSocket]:
    """Return the TCP listeners of one address family by sock_diag(7), which needs no privilege.

    Raises:
        OSError: the kernel has no such interface, or its answer is incomplete.
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
                continue  # only the kernel's messages count
            if not _take(answer, found):
                return found


def _take(answer: bytes, found: list[ListeningSocket]) -> bool:
    """Add the listeners in one message of the kernel's answer to ``found``. Return False if it was the last message.

    Raises:
        OSError: the kernel reports an error, or the message is incomplete.
        ValueError: ``found`` has ``MAX_LISTENERS`` already.
    """
    at = 0
    while at + _header.size <= len(answer):
        size, kind, flags, *_ = _header.unpack_from(answer, at)
        if kind == _DONE:  # with a negative number if the kernel has no handler for TCP (no module tcp_diag)
            if size < _header.size + _number.size or _number.unpack_from(answer, at + _header.size)[0] < 0:
                raise OSError("sock_diag could not list the sockets")
            return False
        if flags & _INTERRUPTED or kind == _ERROR or size < _header.size + _socket.size or at + size > len(answer):
            raise OSError("sock_diag gave no whole answer")
        if len(found) == MAX_LISTENERS:
            raise ValueError(f"sock_diag lists more than {MAX_LISTENERS} listeners")
        family, _, _, _, port, _, host = _socket.unpack_from(answer, at + _header.size)
        address = _parse_packed(host[:4] if family == socket.AF_INET else host)
        found.append(ListeningSocket(address, int.from_bytes(port, "big")))
        at += size + 3 & ~3
    return True


def _sockets(addresses: Iterable[tuple[str, int]]) -> tuple[frozenset[ListeningSocket], frozenset[int]]:
    """Split our listeners' addresses into sockets, and the ports of listeners with a host name.

    Resolving a name could take seconds, so every address at such a port counts as ours. ``localhost`` is left out: it
    is loopback (RFC 6761 section 6.3), which never counts as a bypass.
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
def _parse_packed(address: bytes) -> IpAddress:
    """Parse an IP address of 4 or 16 octets in network byte order."""
    return ipaddress.ip_address(address)


def _is_loopback(host: IpAddress) -> bool:
    mapped = host.ipv4_mapped if isinstance(host, ipaddress.IPv6Address) else None
    return (mapped or host).is_loopback
