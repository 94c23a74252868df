"""The probe listener's answers: metrics and health, and nothing else, so that a pod's network may reach it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final, Protocol

from sidecar.observe.exposition import CONTENT_TYPE
from sidecar.observe.metrics import Metrics
from sidecar.observe.pages import Page, Pages
from sidecar.observe.scrape import render

if TYPE_CHECKING:
    from sidecar.observe.agent_probes import AgentProbes


class Probed(Protocol):
    """The source of the answers: one process, or several that answer as one."""

    async def stuck(self) -> list[str]:
        """Return a line for each event loop that is stuck."""

    async def missing(self) -> list[str]:
        """Return a line for each unmet condition of readiness."""

    async def render(self) -> bytes:
        """Return all metrics as text, of type ``CONTENT_TYPE``."""


class OneProcess:
    """This process alone. Its event loop runs, or it could not answer."""

    def __init__(self, metrics: Metrics, missing: Callable[[], list[str]]) -> None:
        self._metrics = metrics
        self._missing = missing

    async def stuck(self) -> list[str]:
        """See ``Probed``."""
        return []

    async def missing(self) -> list[str]:
        """See ``Probed``."""
        return self._missing()

    async def render(self) -> bytes:
        """See ``Probed``."""
        return render(self._metrics)


REST: Final = 9.0  # pause after a rendering, in multiples of its duration
MAX_REST_S: Final = 0.5
OWN_PATHS: Final = ("/livez", "/readyz", "/metrics")


class Scrapes:
    """Metrics for scrapers, rendered for at most a tenth of the time, which requests need too.

    A request soon after a rendering waits for the next one, shared by all waiting requests, so answers are never stale.
    """

    def __init__(self, render: Callable[[], Awaitable[bytes]]) -> None:
        self._render = render
        self._coming: asyncio.Task[bytes] | None = None
        self._rendering = asyncio.Lock()
        self._rests_until = 0.0

    async def text(self) -> bytes:
        """Return all metrics, rendered after the call."""
        if self._coming is None:
            self._coming = asyncio.ensure_future(self._next())
        return await asyncio.shield(self._coming)

    async def _next(self) -> bytes:
        loop = asyncio.get_running_loop()
        async with self._rendering:
            await asyncio.sleep(self._rests_until - loop.time())
            self._coming = None  # later callers need a later rendering
            began_at = loop.time()
            try:
                return await self._render()
            finally:
                ended_at = loop.time()
                self._rests_until = ended_at + min(REST * (ended_at - began_at), MAX_REST_S)


def probe_pages(probed: Probed, agent: AgentProbes | None = None) -> Pages:
    """Build ``/livez`` and ``/readyz`` (200, or 503 with a line for each error), ``/metrics``, and the ``agent``'s
    probes.
    """

    async def live() -> Page:
        return _health(await probed.stuck(), "live")

    async def ready() -> Page:
        return _health(await probed.missing(), "ready")

    scrapes = Scrapes(probed.render)

    async def scrape() -> Page:
        return Page(await scrapes.text(), content_type=CONTENT_TYPE.encode("ascii"))

    pages = Pages()
    pages.add("/livez", live)
    pages.add("/readyz", ready)
    pages.add("/metrics", scrape)
    if agent is not None:
        agent.add_to(pages)
    return pages


def _health(wrong: list[str], fine: str) -> Page:
    return Page("".join(f"{word}\n" for word in wrong or [fine]).encode(), 503 if wrong else 200)
