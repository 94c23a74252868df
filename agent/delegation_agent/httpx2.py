"""For httpx2: ``httpx2.Client(mounts=mounts())`` and ``httpx2.AsyncClient(mounts=async_mounts())``."""

from __future__ import annotations

from typing import Any, ClassVar

import httpx2

from delegation_agent.transports import SharedAsyncTransport, SharedTransport


class Transport(SharedTransport, httpx2.BaseTransport):
    """Sends requests, and the handle with those to the sidecar. Options are those of ``httpx2.HTTPTransport``."""

    library: ClassVar = httpx2


class AsyncTransport(SharedAsyncTransport, httpx2.AsyncBaseTransport):
    """Sends requests, and the handle with those to the sidecar. Options are those of ``httpx2.AsyncHTTPTransport``."""

    library: ClassVar = httpx2


def mounts(*, outbound: str | None = None, **options: Any) -> dict[str, httpx2.BaseTransport | None]:
    """Return the mounts of a client: all plain HTTP by one ``Transport`` with these options.

    Raises:
        ConfigurationError: see ``Outbound``.
    """
    transport = Transport(outbound=outbound, **options)
    return dict.fromkeys(transport.patterns, transport)


def async_mounts(*, outbound: str | None = None, **options: Any) -> dict[str, httpx2.AsyncBaseTransport | None]:
    """Return the mounts of an asynchronous client, as ``mounts``."""
    transport = AsyncTransport(outbound=outbound, **options)
    return dict.fromkeys(transport.patterns, transport)
