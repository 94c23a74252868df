"""Relays the agent's own health checks: a kubelet cannot reach an agent behind its sidecar.

Fixed paths from the settings, GET, no query, and only the status is returned: no request of a peer can look like one of
these, and the prober learns as much as a kubelet. Frequent probes cause no more work: concurrent ones share one answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Final

from delegation_core.errors import SidecarError
from sidecar.observe.pages import Page, Pages
from sidecar.wire.dialer import Origin
from sidecar.wire.h1_fields import encode_fields
from sidecar.wire.limits import ClientLimits
from sidecar.wire.message import Response
from sidecar.wire.pool import UpstreamPool

if TYPE_CHECKING:
    from sidecar.wire.upstream import Upstream

TIMEOUT_S: Final = 2.0
_UNAVAILABLE: Final = 503


class AgentProbes:
    """Requests ``paths`` from the agent at ``host`` and ``port``, each time on a new connection."""

    def __init__(self, host: str, port: int, paths: Sequence[str], *, timeout_s: float = TIMEOUT_S) -> None:
        self._origin = Origin(host, port, key=None)
        self._paths = tuple(paths)
        self._timeout_s = timeout_s
        self._limits = ClientLimits(
            connect_timeout_s=timeout_s, first_byte_timeout_s=timeout_s, idle_timeout_s=timeout_s
        )
        self._lines = encode_fields(((b"host", self._origin.authority), (b"accept", b"*/*")))
        self._asking: dict[str, asyncio.Task[int]] = {}

    def add_to(self, pages: Pages) -> None:
        """Serve the paths on the probe listener, in exactly this spelling and without a query."""
        for path in self._paths:
            pages.add(path, partial(self._answer, path), strict=True)

    async def status(self, path: str) -> int:
        """Return the status of the agent's answer; 503 if none arrives in time."""
        asking = self._asking.get(path)
        if asking is None:
            asking = self._asking[path] = asyncio.ensure_future(self._ask(path))
            asking.add_done_callback(lambda _: self._asking.pop(path, None))
        return await asyncio.shield(asking)

    async def _answer(self, path: str) -> Page:
        return Page(status=await self.status(path))

    async def _ask(self, path: str) -> int:
        pool = UpstreamPool(self._limits)  # of one connection
        question = _Question(path.encode("ascii"), self._lines + b"connection: close\r\n")
        try:
            async with asyncio.timeout(self._timeout_s):
                pool.connect(self._origin, question.begin, question.on_response_error, fresh=True)
                return await question.status
        except (SidecarError, TimeoutError):
            return _UNAVAILABLE
        finally:
            await pool.close()


class _Question:
    """One probe of the agent: a ``ResponseSink`` that reads only the status."""

    def __init__(self, path: bytes, lines: bytes) -> None:
        self.status: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._path = path
        self._lines = lines

    def begin(self, connection: Upstream) -> None:
        """Send the request."""
        connection.ask("GET", self._path, self._lines, self)

    def on_response(self, head: Response, _data: bytes) -> None:
        """Note the status."""
        if not self.status.done():
            self.status.set_result(head.status)

    on_whole_response = on_response

    def on_response_error(self, error: SidecarError) -> None:
        """Fail: the answer is missing or truncated."""
        if not self.status.done():
            self.status.set_exception(error)

    def on_response_data(self, data: bytes) -> None:
        """Do nothing: the content stays with the agent."""

    def on_response_end(self) -> None:
        """Do nothing."""

    def on_response_flush(self) -> None:
        """Do nothing."""

    def on_upstream_pause(self) -> None:
        """Do nothing: there is no body."""

    def on_upstream_resume(self) -> None:
        """Do nothing."""
