"""Settings of a SPIFFE Workload API, separate from its client so that a source of PEM files does not load gRPC."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from urllib.parse import urlsplit

from delegation_core.spiffe_id import SpiffeId


@dataclass(frozen=True, slots=True)
class WorkloadAddress:
    """A Unix socket, or a host and port."""

    path: str | None = None
    host: str | None = None
    port: int | None = None


def parse_address(text: str) -> WorkloadAddress:
    """Read a Workload API address (SPIFFE_ENDPOINT_SOCKET, Workload Endpoint section 4).

    Raises:
        ValueError: it is neither ``unix:///absolute/path`` nor ``tcp://IP-literal:port``.
    """
    try:
        url = urlsplit(text)
        port = url.port
        plain = not (url.query or url.fragment or "?" in text or "#" in text)
        if url.scheme == "unix" and plain and not url.netloc and url.path.startswith("/") and len(url.path) > 1:
            return WorkloadAddress(path=url.path)
        if url.scheme == "tcp" and plain and port and not url.path and "@" not in url.netloc:
            return WorkloadAddress(host=str(ipaddress.ip_address(url.hostname or "")), port=port)
    except ValueError:  # an invalid address or port
        pass
    raise ValueError("a Workload API address must be unix:///absolute/path or tcp://IP-address:port")


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkloadApiSettings:
    """The address of the Workload API, and the SPIFFE ID or hint that selects our SVID from several.

    ``py_spiffe``: use py-spiffe instead of our own client; it supports Unix sockets only, and no hints.
    """

    address: str
    spiffe_id: SpiffeId | None = None
    hint: str | None = None
    py_spiffe: bool = False
    jwt_bundles: bool = False
    first_message_timeout_s: float = 5.0
    call_timeout_s: float = 2.0
    min_backoff_s: float = 0.1
    max_backoff_s: float = 1.0
    expiry_tick_s: float = 1.0

    def __post_init__(self) -> None:
        address = parse_address(self.address)
        if self.py_spiffe and address.path is None:
            raise ValueError("workload_api: py-spiffe supports only Unix sockets; write unix:///path, or remove source")
        if self.py_spiffe and self.hint is not None:
            raise ValueError("hint: py-spiffe does not support hints; set spiffe_id instead")
        if not 0 < self.min_backoff_s <= self.max_backoff_s:
            raise ValueError("the shortest back-off must be above zero and at most the longest")
