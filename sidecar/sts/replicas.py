"""Exchange of orders between replicas of the token service, so that one that missed an order learns of it.

Every few seconds each replica asks all addresses behind the configured names for their orders, over mTLS pinned to its
own SPIFFE ID, and merges them. A replica counts as up to date once another one has answered, or once its names lead to
nobody but itself.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final
from urllib.parse import urlsplit

from sidecar.errors import SidecarError
from sidecar.identity.endpoint import Endpoint, EndpointError, addresses_of
from sidecar.identity.endpoint_client import EndpointClient
from sidecar.identity.source import IdentitySource
from sidecar.steps import in_steps
from sidecar.sts.orders import MAX_BOOK_BYTES, parse_book
from sidecar.sts.revocations import Register

_LOG: Final = logging.getLogger("sidecar.sts")

PATH: Final = "/revocations/orders"
EVERY_S: Final = 5.0
FIRST_S: Final = 0.2  # until the first answer
TIMEOUT_S: Final = 5.0


class Replicas:
    """Keeps one replica's orders those of all. ``replica`` is our own random name."""

    def __init__(self, register: Register, source: IdentitySource, *, replica: str) -> None:
        self._register = register
        self._source = source
        self._replica = replica
        self._failing: dict[str, str] = {}
        self._tags: dict[str, str] = {}  # entity tags of the orders that are merged, by URL
        self._clock_falls = 0  # of the register, when they were merged

    async def run(self) -> None:
        """Ask until cancelled."""
        while True:
            await self.ask_all()
            await asyncio.sleep(EVERY_S if self._register.heard else FIRST_S)

    async def ask_all(self) -> None:
        """Ask every replica once and merge the answers."""
        identity = self._source.current
        if identity is None or not self._register.settings.replicas:
            return
        try:
            urls = await addresses_of(self._register.settings.replicas)
        except OSError as error:
            self._log_once("names", f"a name cannot be resolved: {error.strerror}")
            return
        if self._clock_falls != self._register.clock_falls:  # a peer may have what was forgotten too early
            self._clock_falls = self._register.clock_falls
            self._tags.clear()
        self._tags = {one: tag for one, tag in self._tags.items() if one.removesuffix(PATH) in urls}
        ends = [Endpoint(url=url + PATH, peer=identity.spiffe_id) for url in urls]
        answers = await asyncio.gather(*map(self._ask, ends))
        if any(answer is False for answer in answers) or (urls and all(answer is True for answer in answers)):
            self._register.heard = True

    async def _ask(self, endpoint: Endpoint) -> bool | None:
        """Return True if we answered ourselves, False if another replica did, None if nobody did."""
        client = EndpointClient(endpoint, self._source, timeout_s=TIMEOUT_S, max_bytes=MAX_BOOK_BYTES)
        try:
            known = self._tags.get(endpoint.url)
            answer = await client.get(known)
            if answer.status != 200 and (answer.status != 304 or known is None):
                raise ValueError(f"it answered with status {answer.status}")  # noqa: TRY301
            tag = known if answer.status == 304 else answer.etag
            own = tag is not None and tag.startswith(f'"{self._replica}-')
            if answer.status == 200 and not own:
                book, _ = await in_steps(parse_book(answer.body))
                await self._register.merge(book)
            if tag is not None:
                self._tags[endpoint.url] = tag
        except (EndpointError, ValueError, SidecarError) as error:
            self._log_once(endpoint.url, str(error))
            return None
        finally:
            await client.close()
        self._failing.pop(endpoint.url, None)
        return own

    def _log_once(self, which: str, why: str) -> None:
        if self._failing.get(which) != why:
            self._failing[which] = why
            _LOG.warning("a replica gives no orders", extra={"replica": urlsplit(which).netloc or which, "why": why})
