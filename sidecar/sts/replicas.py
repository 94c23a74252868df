"""Exchange of orders between replicas of the token service, so that an order at one replica reaches all.

Every few seconds each replica asks all addresses behind the configured names for their orders, over mTLS pinned to its
own SPIFFE ID, and merges them. ``Peers`` remembers when each answered. An address that leaves the DNS answers is
forgotten; while a name cannot be resolved, only the ages change.

A new order is sent to the others at once, and acknowledged when it is on their disk. In each round a replica is sent
the orders that it may lack.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import defaultdict
from collections.abc import Sequence
from typing import Final
from urllib.parse import urlsplit

from delegation_core.errors import SidecarError, Unavailable
from delegation_core.rfc8693 import MAX_REQUEST_BYTES
from sidecar.identity.endpoint import Endpoint, EndpointError, addresses_of
from sidecar.identity.endpoint_client import EndpointClient
from sidecar.identity.source import IdentitySource
from sidecar.steps import in_steps
from sidecar.sts.book import parse_book
from sidecar.sts.orders import MAX_BOOK_BYTES
from sidecar.sts.revocations import Register

_LOG: Final = logging.getLogger("sidecar.sts")

PATH: Final = "/revocations/orders"
EVERY_S: Final = 5.0
FIRST_S: Final = 0.2  # until the first answer
TIMEOUT_S: Final = 5.0
GIVE_TIMEOUT_S: Final = 2.0
_NAMES: Final = "names"
_MOST_BYTES: Final = MAX_REQUEST_BYTES - 1024  # of orders that are given at once
_JSON: Final = "application/json"


class Replicas:
    """Synchronises this replica's orders with all others. ``replica`` is our own random name."""

    def __init__(self, register: Register, source: IdentitySource, *, replica: str) -> None:
        self._register = register
        self._source = source
        self._replica = replica
        self.failures = 0  # to merge the orders of another replica, since the start
        self._failing: dict[tuple[str, str], str] = {}  # by address, and what fails
        self._giving: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._tags: dict[str, str] = {}  # entity tags of the orders that are merged, by URL
        self._clock_falls = 0  # of the register, when they were merged
        register.share = self.share

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
        for gone in [key for key in self._failing if key[0] not in {_NAMES, *urls}]:
            del self._failing[gone]
        if self._clock_falls != self._register.clock_falls:  # a peer may have what was forgotten too early
            self._clock_falls = self._register.clock_falls
            self._tags.clear()
        self._tags = {one: tag for one, tag in self._tags.items() if one.removesuffix(PATH) in urls}
        ends = [Endpoint(url=url + PATH, peer=identity.spiffe_id) for url in urls]
        tried = await asyncio.gather(*map(self._ask, ends, urls))
        if peers.unkept() is not None and not any(tried):
            await self._keep_again(urls)
        await self.share()

    async def share(self) -> None:
        """Send the other replicas the orders that they may lack; silent replicas get them once they answer.

        Concurrent callers share the calls: one at a time to each replica, with all that it lacks.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GIVE_TIMEOUT_S):
                await asyncio.gather(*map(self._give, self._register.peers.behind()))

    async def _give(self, url: str) -> None:
        peers = self._register.peers
        async with self._giving[url]:
            while rows := self._register.rows(peers.lacked(url), most_bytes=_MOST_BYTES):
                why = await self._post(url, b'{"seq":0,"orders":[%b]}' % b",".join(rows.values()))
                self._report(url, why, "given")
                if why is not None:
                    return
                peers.note_acknowledged(url, rows)

    async def _post(self, url: str, body: bytes) -> str | None:
        """Send orders to one replica. Return the reason why it did not acknowledge them; None if it did."""
        identity = self._source.current
        if identity is None:
            return "this workload has no identity"
        endpoint = Endpoint(url=url + PATH, peer=identity.spiffe_id)
        client = EndpointClient(endpoint, self._source, timeout_s=GIVE_TIMEOUT_S, max_bytes=MAX_REQUEST_BYTES)
        try:
            answer = await client.post(body, _JSON)
        except EndpointError as error:
            return str(error)
        finally:
            await client.close()
        return None if answer.status == 200 else f"it answered with status {answer.status}"

    async def _keep_again(self, urls: Sequence[str]) -> None:
        """Retry a failed write while the replicas with the missing orders are silent."""
        try:
            await self._register.keep_again()
        except Unavailable as error:
            _LOG.debug("the orders still cannot be written to the disk", extra={"why": error.detail})
        else:
            self._register.peers.note_kept(urls)

    async def _ask(self, endpoint: Endpoint, url: str) -> bool:
        """Fetch and merge one replica's orders. Return True if they could not be kept here."""
        peers = self._register.peers
        asked_at = peers.monotonic()  # its answer is at least as new as this
        client = EndpointClient(endpoint, self._source, timeout_s=TIMEOUT_S, max_bytes=MAX_BOOK_BYTES)
        try:
            known = self._tags.get(endpoint.url)
            answer = await client.get(known)
            if answer.status != 200 and (answer.status != 304 or known is None):
                raise ValueError(f"it answered with status {answer.status}")  # noqa: TRY301
            tag = known if answer.status == 304 else answer.etag
            own = tag is not None and tag.startswith(f'"{self._replica}-')
            lacks: list[str] | None = None
            if answer.status == 200 and not own:
                book, _ = await in_steps(parse_book(answer.body))
                await self._register.merge(book)
                lacks = self._register.lacked_by(book)
            if tag is not None:
                self._tags[endpoint.url] = tag
        except SidecarError as error:
            peers.note_not_kept(url, error.detail)
            self._report(url, error.detail)
            return True
        except (EndpointError, ValueError) as error:
            self._report(url, str(error))
            return False
        finally:
            await client.close()
        if own:
            peers.note_own_address(url)
        else:
            peers.note_heard(url, asked_at, lacks)
        self._report(url, None)
        return False

    def _report(self, which: str, why: str | None, what: str = "merged") -> None:
        """Count a failure (``why``), and log each change: a failure, a different one, and the end of it."""
        self.failures += why is not None
        before = self._failing.pop((which, what), None)
        if why is not None:
            self._failing[which, what] = why
        extra = {"replica": urlsplit(which).netloc or which, "why": why}
        orders = "orders of another replica" if what == "merged" else "orders for another replica"
        if why is not None and why != before:
            _LOG.warning("%s are not %s", orders, what, extra=extra)
        elif why is None and before is not None:
            _LOG.warning("%s are %s again", orders, what, extra=extra | {"why": before})
