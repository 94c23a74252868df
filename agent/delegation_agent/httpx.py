"""For httpx: ``httpx.Client(mounts=mounts())`` and ``httpx.AsyncClient(mounts=async_mounts())``."""

from __future__ import annotations

from typing import Any, ClassVar

import httpx

from delegation_agent.transports import SharedAsyncTransport, SharedTransport


class Transport(SharedTransport, httpx.BaseTransport):
    """Sends requests, and the handle with those to the sidecar. Options are those of ``httpx.HTTPTransport``."""

    library: ClassVar = httpx


class AsyncTransport(SharedAsyncTransport, httpx.AsyncBaseTransport):
    """Sends requests, and the handle with those to the sidecar. Options are those of ``httpx.AsyncHTTPTransport``."""

    library: ClassVar = httpx


def mounts(*, outbound: str | None = None, **options: Any) -> dict[str, httpx.BaseTransport | None]:
    """Return the mounts of a client: all plain HTTP by one ``Transport`` with these options.

    Raises:
        ConfigurationError: see ``Outbound``.
    """
    transport = Transport(outbound=outbound, **options)
    return dict.fromkeys(transport.patterns, transport)


def async_mounts(*, outbound: str | None = None, **options: Any) -> dict[str, httpx.AsyncBaseTransport | None]:
    """Return the mounts of an asynchronous client, as ``mounts``."""
    transport = AsyncTransport(outbound=outbound, **options)
    return dict.fromkeys(transport.patterns, transport)
