"""TLS of the user issuer, with its own current X.509-SVID and without client certificates.

Browsers and front apps log in here. Clients that fetch keys verify the server by its SPIFFE ID (``tls: {peer: …}``) or
by a CA file.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator

from sidecar.background import Parts
from sidecar.identity.generation import present
from sidecar.identity.source import Identity
from sidecar.identity.workload_api import WorkloadApiSource
from sidecar.identity.workload_settings import WorkloadApiSettings


@contextlib.asynccontextmanager
async def certified(settings: WorkloadApiSettings, background: Parts) -> AsyncIterator[ssl.SSLContext]:
    """Wait for the first SVID, then yield a server context that presents the newest. ``background`` runs the updates.

    Raises:
        PartEndedError: a part has ended by itself before the first SVID.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    source = WorkloadApiSource(settings)
    there = asyncio.Event()

    def take(identity: Identity | None) -> None:
        if identity is not None:
            present(context, identity.svid)
            there.set()

    source.subscribe(take)
    background.start("identity", source.run())
    try:
        await background.run_until(there)
        yield context
    finally:
        await background.close()
