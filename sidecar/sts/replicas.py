"""Exchange of orders between replicas of the token service, so that one that missed an order learns of it.

Every few seconds each replica asks all addresses behind the configured names for their orders, over mTLS pinned to its
own SPIFFE ID, and merges them. ``Peers`` remembers when each answered. An address that the names no longer lead to is a
replica that is gone; a name that cannot be looked up changes nothing but the ages.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Final
from urllib.parse import urlsplit

from sidecar.errors import SidecarError, Unavailable
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
_NAMES: Final = "names"


class Replicas:
    """Keeps one replica's orders those of all. ``replica`` is our own random name."""

    def __init__(self, register: Register, source: IdentitySource, *, replica: str) -> None:
        self._register = register
        self._source = source
        self._replica = replica
        self.failures = 0  # to merge the orders of another replica, since the start
        self._failing: dict[str, str] = {}
        self._tags: dict[str, str] = {}  # entity tags of the orders that are merged, by URL
        self._clock_falls = 0  # of the register, when they were merged

    async def run(self) -> None:
        """Ask until cancelled."""
        while True:
            await self.ask_all()
            await asyncio.sleep(FIRST_S if self._register.peers.silence_s() is None else EVERY_S)

    async def ask_all(self) -> None:
        """Ask every replica once and merge the answers."""
        identity, peers = self._source.current, self._register.peers
        if identity is None:
            return
        try:
            urls = await addresses_of(self._register.settings.replicas)
        except OSError as error:
            self._report(_NAMES, f"a name cannot be resolved: {error.strerror}")
            return
        self._report(_NAMES, None)
        peers.follow(urls)
        for gone in self._failing.keys() - {_NAMES, *urls}:
            del self._failing[gone]
        if self._clock_falls != self._register.clock_falls:  # a peer may have what was forgotten too early
            self._clock_falls = self._register.clock_falls
            self._tags.clear()
        self._tags = {one: tag for one, tag in self._tags.items() if one.removesuffix(PATH) in urls}
        ends = [Endpoint(url=url + PATH, peer=identity.spiffe_id) for url in urls]
        tried = await asyncio.gather(*map(self._ask, ends, urls))
        if peers.unkept() is not None and not any(tried):
            await self._keep_again(urls)

    async def _keep_again(self, urls: Sequence[str]) -> None:
        """Find out if the disk takes orders again, where the replica that had them is not there to give them."""
        try:
            await self._register.keep_again()
        except Unavailable as error:
            _LOG.debug("the orders still cannot be kept", extra={"why": error.detail})
        else:
            self._register.peers.kept_again(urls)

    async def _ask(self, endpoint: Endpoint, url: str) -> bool:
        """Ask one replica. Return True if it has orders that could not be kept here."""
        peers = self._register.peers
        asked_at = peers.monotonic()  # what it says was true after this
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
        except SidecarError as error:
            peers.not_kept(url, error.detail)
            self._report(url, error.detail)
            return True
        except (EndpointError, ValueError) as error:
            self._report(url, str(error))
            return False
        finally:
            await client.close()
        if own:
            peers.answered_ourselves(url)
        else:
            peers.heard(url, asked_at)
        self._report(url, None)
        return False

    def _report(self, which: str, why: str | None) -> None:
        """Count a failure, and log each change: a failure, another one, and its end."""
        self.failures += why is not None
        before = self._failing.pop(which, None)
        if why is not None:
            self._failing[which] = why
        extra = {"replica": urlsplit(which).netloc or which, "why": why}
        if why is not None and why != before:
            _LOG.warning("orders of another replica are not merged", extra=extra)
        elif why is None and before is not None:
            _LOG.warning("orders of another replica are merged again", extra=extra | {"why": before})
