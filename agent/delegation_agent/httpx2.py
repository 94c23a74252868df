"""For httpx2: ``httpx2.Client(mounts={"http://": Transport()})``, and ``AsyncTransport`` for an ``AsyncClient``."""

from __future__ import annotations

from typing import ClassVar

import httpx2

from delegation_agent.transports import SharedAsyncTransport, SharedTransport


class Transport(SharedTransport, httpx2.BaseTransport):
    """Sends requests, and the handle with those to the sidecar. Options are those of ``httpx2.HTTPTransport``."""

    library: ClassVar = httpx2


class AsyncTransport(SharedAsyncTransport, httpx2.AsyncBaseTransport):
    """Sends requests, and the handle with those to the sidecar. Options are those of ``httpx2.AsyncHTTPTransport``."""

    library: ClassVar = httpx2
