"""A control endpoint: its URL and the identity of its server; its answers and errors.

``endpoint_client`` fetches from it.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from urllib.parse import SplitResult, urlsplit

from delegation_core.spiffe_id import SpiffeId


class Trouble(StrEnum):
    """A reason why a call to an endpoint got no answer."""

    NOT_READY = "this workload has no identity"
    IDENTITY = "the other end did not prove the expected identity"
    UNREACHABLE = "the connection failed"
    TIMEOUT = "no complete answer in time"
    BROKEN = "the answer is not whole, valid HTTP"
    ENCODED = "the answer's content is encoded, though identity was asked for"
    TOO_LARGE = "the answer is too large"


class EndpointError(Exception):
    """A call without a usable answer. Neither the text nor ``detail``, for the record, quotes anything of an answer.

    ``may_retry``: the connection failed before the first byte of an answer.
    """

    def __init__(self, trouble: Trouble, detail: str = "", *, may_retry: bool = False) -> None:
        super().__init__(f"{trouble.value}: {detail}" if detail else trouble.value)
        self.trouble = trouble
        self.may_retry = may_retry


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """A URL and the identity that answers: the SPIFFE ID ``peer``, a host certified by ``ca_file``, or (http) loopback.

    Raises:
        ValueError: the URL is unusable, or the server's identity is missing. The text names field and fix.
    """

    url: str
    peer: SpiffeId | None = None
    ca_file: str | None = None

    def __post_init__(self) -> None:
        parts = split_url(self.url)
        if self.peer and self.ca_file:
            raise ValueError("tls: both peer and ca are set; keep one of them")
        proven = bool(self.peer or self.ca_file)
        if parts.scheme == "https" and not proven:
            raise ValueError("tls: it is missing; set peer (a SPIFFE ID) or ca (a file) to verify the server")
        if parts.scheme == "http" and proven:
            raise ValueError("tls: plain http does not verify the server; use https")
        if parts.scheme == "http" and not is_loopback(parts.hostname or ""):
            raise ValueError("url: plain http is for loopback only; use https")

    @property
    def address(self) -> tuple[str, str, int]:
        """Scheme, host and port."""
        return address_of(self.url)

    @property
    def authority(self) -> bytes:
        """The Host field of a request (RFC 9112 section 3.2), without a trailing dot in the name."""
        parts = split_url(self.url)
        name = (parts.hostname or "").removesuffix(".")
        host = f"[{name}]" if ":" in name else name
        return (f"{host}" if parts.port is None else f"{host}:{parts.port}").encode("ascii")

    @property
    def target(self) -> bytes:
        """The request target: path and query."""
        parts = split_url(self.url)
        return f"{parts.path or '/'}{'?' if parts.query else ''}{parts.query}".encode("ascii")


@dataclass(frozen=True, slots=True)
class EndpointAnswer:
    """A complete answer of any status. A repeated single-valued header is None, like an absent one.

    ``unchanged``: the issuer's confirmation in a 304 for a list of revocations.
    """

    status: int
    content_type: str | None
    cache_control: str | None
    body: bytes
    etag: str | None = None
    unchanged: str | None = None


def address_of(url: str) -> tuple[str, str, int]:
    """Return scheme, host and port of a URL. Raises as ``split_url``."""
    parts = split_url(url)
    return parts.scheme, parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)


def split_url(url: str) -> SplitResult:
    """Split an absolute http or https URL.

    Raises:
        ValueError: another kind of URL, or parts that could hide a host or a secret: user info, fragment, unusual
        characters.
    """
    if not url.isascii() or any(character <= " " or character in '\\"<>\x7f' for character in url):
        raise ValueError("url: it has characters that a URL cannot have; encode them")
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.port == 0:
        raise ValueError("url: it is not an absolute http or https URL; write https://host/path")
    if "@" in parts.netloc or "#" in url:
        raise ValueError("url: it has user info or a fragment; remove them")
    return parts


def is_loopback(host: str) -> bool:
    """True if a host is this machine: ``localhost`` or a loopback address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


async def addresses_of(urls: Sequence[str]) -> list[str]:
    """Return the URLs of all addresses behind the hosts' names.

    Raises:
        OSError: a name cannot be resolved. ValueError: a URL is invalid.
    """
    loop = asyncio.get_running_loop()
    found: dict[str, None] = {}
    for url in urls:
        parts = split_url(url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        for family, _, _, _, address in await loop.getaddrinfo(parts.hostname, port, type=socket.SOCK_STREAM):
            host = f"[{address[0]}]" if family == socket.AF_INET6 else address[0]
            found[f"{parts.scheme}://{host}:{port}{parts.path.rstrip('/')}"] = None
    return list(found)
