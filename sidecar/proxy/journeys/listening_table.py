"""Lists TCP listeners from the kernel's tables in ``/proc/net``, where sock_diag(7) is not available."""

from __future__ import annotations

import ipaddress
import sys
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Final

_LISTENING: Final = "0A"  # TCP_LISTEN of include/net/tcp_states.h
_ORDER: Final = sys.byteorder

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def listening_in(table: Path, *, most: int) -> Iterator[tuple[_Address, int]]:
    """Yield address and port of each TCP listener in a kernel table (proc(5), ``/proc/net/tcp``).

    The kernel lists listeners before connections (``tcp_get_idx`` of net/ipv4/tcp_ipv4.c), so reading stops at the
    first connection and its cost does not grow with traffic. A missing table of IPv6 counts as empty.

    Raises:
        OSError: the table is not readable.
        ValueError: the table is malformed, or lists more than ``most`` listeners.
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
            if count == most:
                raise ValueError(f"{table} lists more than {most} listeners")
            host, _, port = local.partition(":")
            yield _address(host), int(port, 16)


@lru_cache(maxsize=1024)
def _address(text: str) -> _Address:
    """Parse an address in hex: words of four bytes, each in the machine's byte order."""
    raw = bytes.fromhex(text)
    words = [raw[at : at + 4] for at in range(0, len(raw), 4)]
    return ipaddress.ip_address(b"".join(int.from_bytes(word, _ORDER).to_bytes(4, "big") for word in words))
