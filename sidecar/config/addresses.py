"""Parsers of addresses and URLs in settings. Pure. Messages have the form "error; fix" and quote nothing."""

from __future__ import annotations

import ipaddress
import re
from typing import Final, Literal
from urllib.parse import SplitResult

from delegation_core.route import Upstream
from sidecar.config.settings import Address
from sidecar.identity.endpoint import split_url

_PORTS: Final = {"http": 80, "https": 443}
_HOST_PORT: Final = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):([0-9]{1,5})")


def parse_address(text: str) -> Address:
    """Parse ``host:port`` or ``[IPv6]:port``.

    Raises:
        ValueError: it is neither.
    """
    match = _HOST_PORT.fullmatch(text)
    if match is None or int(match[2]) > 65535:
        raise ValueError("is not a listen address; write host:port, such as 127.0.0.1:7080")
    host = match[1]
    if host.startswith("["):
        try:
            host = str(ipaddress.IPv6Address(host[1:-1]))
        except ValueError:
            raise ValueError("is not a listen address; write [IPv6]:port") from None
    return Address(host, int(match[2]))


def parse_origin(text: str) -> SplitResult:
    """Parse ``http(s)://host[:port]``, without path, query or user info.

    Raises:
        ValueError: it is anything else.
    """
    parts = parse_url(text)
    if parts.path not in {"", "/"} or "?" in text:
        raise ValueError("holds a path or a query; write scheme://host:port alone")
    return parts


def parse_url(text: str) -> SplitResult:
    """Parse an absolute http or https URL.

    Raises:
        ValueError: it is anything else.
    """
    try:
        return split_url(text)
    except ValueError as error:
        message = str(error).removeprefix("url: ")
    raise ValueError(message if "; " in message else "is not an absolute http or https URL; write https://host/path")


def upstream_of(origin: str) -> Upstream:
    """Return the address of an origin, with the scheme's port if it names none."""
    parts = parse_origin(origin)
    scheme: Literal["http", "https"] = "https" if parts.scheme == "https" else "http"
    return Upstream(scheme=scheme, host=parts.hostname or "", port=parts.port or _PORTS[scheme])
