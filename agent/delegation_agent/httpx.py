"""For httpx: ``httpx.Client(mounts={"http://": Transport()})``, and ``AsyncTransport`` for an ``AsyncClient``."""

from __future__ import annotations

from typing import ClassVar

import httpx

from delegation_agent.transports import SharedAsyncTransport, SharedTransport


class Transport(SharedTransport, httpx.BaseTransport):
    """Sends requests, and the handle with those to the sidecar. Options are those of ``httpx.HTTPTransport``."""

    library: ClassVar = httpx


class AsyncTransport(SharedAsyncTransport, httpx.AsyncBaseTransport):
    """Sends requests, and the handle with those to the sidecar. Options are those of ``httpx.AsyncHTTPTransport``."""

    library: ClassVar = httpx
