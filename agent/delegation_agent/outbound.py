"""The sidecar's outbound address. Handles are sent there only."""

from __future__ import annotations

import ipaddress
import os
import re
import urllib.request
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from delegation_agent.handles import HEADER, handle

VARIABLE: Final = "SIDECAR_OUTBOUND_URL"

_HTTP_PORT: Final = 80
_EXAMPLE: Final = "such as http://127.0.0.1:7080"
# Clients read these differently: before "@" or after "\" may be another host.
_AMBIGUOUS: Final = re.compile(r"[\\@\x00-\x20\x7f]")


class ConfigurationError(ValueError):
    """The sidecar's address is missing or unusable. The message names the fix."""


class Address(NamedTuple):
    """The place that a client connects to by plain HTTP."""

    host: str
    port: int


class Outbound:
    """The sidecar's outbound address. ``url`` is by default the variable SIDECAR_OUTBOUND_URL.

    Raises:
        ConfigurationError: the address is missing, or is not plain HTTP on loopback.
    """

    def __init__(self, url: str | None = None) -> None:
        name = VARIABLE if url is None else "outbound"
        url = os.environ.get(VARIABLE) if url is None else url
        if not url:
            raise ConfigurationError(f"{name} is not set: write the sidecar's outbound address, {_EXAMPLE}")
        self.address: Final = _check(name, url)

    @property
    def origin(self) -> str:
        """The address as a URL, always with its port."""
        host, port = self.address
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    def is_at(self, scheme: str, host: str | None, port: int | None) -> bool:
        """Return True if a connection to this host (the proxy's, if there is one) leads to the sidecar.

        Pass the parts as the client itself parsed the URL: another parser may find another host.
        """
        return scheme == "http" and host is not None and Address(host.lower(), port or _HTTP_PORT) == self.address

    def is_proxy(self, url: str) -> bool:
        """Return True if ``url``, in the form of HTTP_PROXY, is the sidecar."""
        parts = urlsplit(url if "://" in url else f"http://{url}")
        return self.is_at(parts.scheme, parts.hostname, parts.port)


def headers(url: str, *, outbound: str | None = None) -> dict[str, str]:
    """Return the header fields to add to a call: the handle if ``url`` is at the sidecar, otherwise none.

    For HTTP clients without a module in this package. Such a client must not follow redirects, which would take the
    header to any host, and must not have a proxy of its own.

    Raises:
        ConfigurationError: see ``Outbound``; or the environment names a proxy that would get the call.
    """
    target = Outbound(outbound)
    held = handle()
    if held is None or _AMBIGUOUS.search(url):
        return {}
    proxy, host = environment_proxy(), target.address.host
    if proxy and not target.is_proxy(proxy) and not bypasses_proxy(host):
        raise ConfigurationError(f"HTTP_PROXY would get the calls to the sidecar: add {host} to NO_PROXY")
    try:
        parts = urlsplit(url)
        found = target.is_at(parts.scheme, parts.hostname, parts.port)
    except ValueError:
        return {}
    return {HEADER: held} if found else {}


def environment_proxy() -> str | None:
    """Return the URL of the proxy for plain HTTP that the environment names (HTTP_PROXY, ALL_PROXY)."""
    known = urllib.request.getproxies()
    proxy = known.get("http") or known.get("all")
    return proxy if not proxy or "://" in proxy else f"http://{proxy}"


def bypasses_proxy(host: str) -> bool:
    """Tell if NO_PROXY excepts a host."""
    return bool(urllib.request.proxy_bypass(host))


def _check(name: str, url: str) -> Address:
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port or _HTTP_PORT
    except ValueError as error:
        raise ConfigurationError(f"{name} is not a URL: write the sidecar's outbound address, {_EXAMPLE}") from error
    if parts.scheme != "http" or _AMBIGUOUS.search(url):
        raise ConfigurationError(f"{name} is not plain http: the sidecar listens on loopback; write it {_EXAMPLE}")
    if not _is_loopback(host):
        raise ConfigurationError(
            f"{name} is not on loopback: a handle never leaves the machine; write the sidecar's address, {_EXAMPLE}"
        )
    if parts.path not in {"", "/"} or parts.query or parts.fragment:
        raise ConfigurationError(f"{name} has more than an address: remove the path, so that it reads {_EXAMPLE[8:]}")
    return Address(host, port)


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
