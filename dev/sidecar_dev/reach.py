"""Port scan of a host: tries the TCP ports on each of the host's IPv4 addresses."""

from __future__ import annotations

import errno
import selectors
import socket
from collections.abc import Sequence
from typing import Final

EVERY: Final = range(1, 65536)
_AT_ONCE: Final = 512
_PATIENCE_S: Final = 5.0


def addresses(host: str) -> list[str]:
    """Return the host's IPv4 addresses.

    Raises:
        OSError: the host has none.
    """
    return sorted({str(found[4][0]) for found in socket.getaddrinfo(host, None, socket.AF_INET)})


def open_ports(addresses: Sequence[str], ports: Sequence[int]) -> frozenset[int]:
    """Return the ports that accept a connection, on any of the addresses."""
    batches = [ports[start : start + _AT_ONCE] for start in range(0, len(ports), _AT_ONCE)]
    return frozenset().union(*(_open_of(address, batch) for address in addresses for batch in batches))


def _open_of(address: str, ports: Sequence[int]) -> set[int]:
    """Return the open ports of one batch; a port without an answer in time counts as closed."""
    found: set[int] = set()
    with selectors.DefaultSelector() as waiting:
        for port in ports:
            trying = socket.socket()
            trying.settimeout(0.0)
            if trying.connect_ex((address, port)) in (0, errno.EINPROGRESS):
                waiting.register(trying, selectors.EVENT_WRITE, port)
            else:
                trying.close()
        while waiting.get_map() and (ready := waiting.select(_PATIENCE_S)):
            for key, _ in ready:
                tried: socket.socket = key.fileobj  # type: ignore[assignment]
                if tried.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0:
                    found.add(key.data)
                waiting.unregister(tried)
                tried.close()
        for key in list(waiting.get_map().values()):
            silent: socket.socket = key.fileobj  # type: ignore[assignment]
            silent.close()
    return found
