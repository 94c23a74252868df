"""An admin socket with answers set by the test."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sidecar.proxy.listening.admin import AdminSocket, admin_pages


@contextmanager
def serving(path: Path, document: dict[str, Any], chains: dict[str, Any] | None = None) -> Iterator[None]:
    """Serve a sidecar's admin socket in its own thread: the command blocks."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    async def status() -> dict[str, Any]:
        return document

    async def being_served() -> dict[str, Any]:
        return chains or {}

    admin = AdminSocket(admin_pages(status, being_served), path)
    asyncio.run_coroutine_threadsafe(admin.open(), loop).result(5)
    try:
        yield
    finally:
        asyncio.run_coroutine_threadsafe(admin.close(), loop).result(5)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
