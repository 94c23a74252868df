"""The user issuer's https: its own X.509-SVID, kept current, for callers who need not have one.

Browsers and front apps log in here, so nobody is asked for a certificate. Who fetches keys says whom to expect, by
SPIFFE ID (``tls: {peer: …}``) or by a CA file.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator

from sidecar.identity.generation import present
from sidecar.identity.source import Identity
from sidecar.identity.workload_api import WorkloadApiSettings, WorkloadApiSource


@contextlib.asynccontextmanager
async def certified(settings: WorkloadApiSettings) -> AsyncIterator[ssl.SSLContext]:
    """A server's context that presents the newest SVID. It is there once the first one is."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    source = WorkloadApiSource(settings)
    there = asyncio.Event()

    def take(identity: Identity | None) -> None:
        if identity is not None:
            present(context, identity.svid)
            there.set()

    source.subscribe(take)
    following = asyncio.ensure_future(source.run())
    try:
        await there.wait()
        yield context
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
