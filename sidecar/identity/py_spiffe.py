"""The identity source that follows a SPIFFE Workload API through py-spiffe: a second client for the same API.

Theory of operation. py-spiffe calls back on its own threads; only this module bridges them to the event loop. Its
``X509Source`` is not used: it keeps serving a withdrawn identity, and closes for good on an update that it cannot
parse. Instead, a supervisor runs the client below it: one client per attempt, because the back-off of a long-lived
channel grows; no retries by the client; every error ends the attempt. Errors differ only by their text, so the text
decides, and a test compares it with py-spiffe's.

Data that py-spiffe drops is not available here: hints, and all of an update if one bundle does not parse. An empty
bundle does not parse, so a federated trust domain that withdraws all its authorities makes updates unusable. To keep
our own SVID from expiring meanwhile, the SVIDs are then fetched alone and used with the known bundles.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from types import MappingProxyType
from typing import Any, Final, NoReturn

from spiffe import JwtBundleSet, WorkloadApiClient
from spiffe import SpiffeId as TheirSpiffeId
from spiffe.errors import ArgumentError, PySpiffeError
from spiffe.workloadapi.x509_context import X509Context

from delegation_core.errors import Reason, Unavailable
from delegation_core.spiffe_id import SpiffeId
from sidecar.identity.base_source import BaseSource, Pause
from sidecar.identity.handshake import Clock
from sidecar.identity.py_spiffe_update import read_context, read_jwt_bundle_set, read_svids
from sidecar.identity.source import Identity
from sidecar.identity.update import UpdateError, X509Update
from sidecar.identity.workload_settings import WorkloadApiSettings
from sidecar.identity.workload_stream import Backoff

_HAND_OVER_S: Final = 5.0
_DENIED: Final = "gRPC error: StatusCode.PERMISSION_DENIED"
_LOST: Final = ("gRPC error: ", "Workload API stream ended unexpectedly")  # any other text is about an update
_ABSENT: Final = "the Workload API's socket does not exist"
_SILENT: Final = "the Workload API did not answer in time"

Arrivals = asyncio.Queue[tuple[object, Future[None]]]


class PySpiffeSource(BaseSource):
    """An ``IdentitySource`` on a Workload API, through py-spiffe. Unix sockets only."""

    def __init__(
        self, settings: WorkloadApiSettings, *, clock: Clock = time.time, pause: Pause = asyncio.sleep
    ) -> None:
        super().__init__(clock, self._fetch_jwt_svid)
        self._settings = settings
        self._pause = pause

    async def run(self) -> None:
        """Follow the Workload API until cancelled. No failure of it, or of py-spiffe, ends this."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._jwt_svids.run())
            group.create_task(self._follow_x509())
            if self._settings.jwt_bundles:
                group.create_task(self._follow_jwt_bundles())
            while True:
                await self._pause(self._settings.expiry_tick_s)
                await self._tick()

    async def _follow_x509(self) -> NoReturn:
        backoff = self._backoff()

        async def take(context: Any) -> None:
            self._connected = True
            if await self._take_context(context):
                backoff.reset()

        while True:
            failure = await self._attempt("stream_x509_contexts", take)
            await self._x509_failed(failure)
            await self._pause(backoff.next_s())

    async def _follow_jwt_bundles(self) -> NoReturn:
        backoff = self._backoff()

        async def take(bundles: Any) -> None:
            self._take_jwt_bundles(bundles)
            backoff.reset()

        while True:
            failure = await self._attempt("stream_jwt_bundles", take)
            if failure == _DENIED:
                self._jwt_bundles = MappingProxyType({})
            if _is_lost(failure):
                self._note_loss(_in_our_words(failure))
            else:
                self._discard(UpdateError(_in_our_words(failure)))
            await self._pause(backoff.next_s())

    def _backoff(self) -> Backoff:
        return Backoff(self._settings.min_backoff_s, self._settings.max_backoff_s)

    async def _attempt(self, method: str, take: Callable[[Any], Awaitable[None]]) -> str:
        """Run one client with one stream until it fails; return py-spiffe's error text."""
        arrivals: Arrivals = asyncio.Queue()
        hand_over = _bridge(asyncio.get_running_loop(), arrivals)
        try:
            client = WorkloadApiClient(self._settings.address)
        except ArgumentError:  # the address was checked before; now the socket is missing
            return _ABSENT
        stream = getattr(client, method)(hand_over, hand_over, retry_connect=False)
        timeout_s: float | None = self._settings.first_message_timeout_s
        try:
            while True:
                async with asyncio.timeout(timeout_s):
                    event, taken = await arrivals.get()
                timeout_s = None
                try:
                    if isinstance(event, PySpiffeError):
                        return str(event)
                    await take(event)
                finally:
                    taken.set_result(None)
        except TimeoutError:
            return _SILENT
        finally:
            stream.cancel()
            await asyncio.to_thread(client.close)

    async def _take_context(self, context: X509Context) -> bool:
        return await self._take(
            lambda held: read_context(
                context,
                spiffe_id=self._settings.spiffe_id,
                held=None if held is None else held.spiffe_id,
                known={} if held is None else held.bundles,
            )
        )

    async def _x509_failed(self, failure: str) -> None:
        if _is_lost(failure):
            self._connected = False
            self._note_loss(_in_our_words(failure))
            if failure == _DENIED:
                self._withdraw(_in_our_words(failure))
            return
        self._connected = True  # py-spiffe could not parse an update
        self._discard(UpdateError(_in_our_words(failure)))
        await self._renew_alone()
        self._last_error = _in_our_words(failure)  # a renewal does not replace the lost update

    async def _renew_alone(self) -> None:
        """Fetch our SVIDs without the bundles that py-spiffe cannot parse, and use the known ones."""
        if self._identity is None:
            return
        try:
            svids = await self._call(lambda client: client.fetch_x509_svids(timeout=self._settings.call_timeout_s))
        except PySpiffeError:  # it cannot parse the SVIDs either
            return

        def read(held: Identity | None) -> X509Update:
            if held is None:
                raise UpdateError("the identity was withdrawn")
            return read_svids(svids, spiffe_id=self._settings.spiffe_id, held=held)

        await self._take(read)

    def _take_jwt_bundles(self, bundles: JwtBundleSet) -> None:
        self._jwt_bundles, broken = read_jwt_bundle_set(bundles)
        self.counts.broken_bundles += broken

    async def _fetch_jwt_svid(self, audience: str, spiffe_id: SpiffeId) -> str:
        try:
            svid = await self._call(
                lambda client: client.fetch_jwt_svid(
                    {audience}, subject=TheirSpiffeId(spiffe_id), timeout=self._settings.call_timeout_s
                )
            )
        except PySpiffeError as error:
            raise Unavailable(Reason.NOT_READY, "the Workload API gave no JWT-SVID") from error
        return str(svid.token)

    async def _call(self, call: Callable[[WorkloadApiClient], Any]) -> Any:
        """Make one call in a thread, with a client of its own. Raises PySpiffeError."""

        def in_thread() -> Any:
            with WorkloadApiClient(self._settings.address) as client:
                return call(client)

        return await asyncio.to_thread(in_thread)


def _bridge(loop: asyncio.AbstractEventLoop, arrivals: Arrivals) -> Callable[[object], None]:
    """Make a callback for py-spiffe's thread that waits until the loop has taken its update: one at a time."""

    def hand_over(event: object) -> None:
        taken: Future[None] = Future()
        try:
            loop.call_soon_threadsafe(arrivals.put_nowait, (event, taken))
            taken.result(_HAND_OVER_S)
        except (RuntimeError, TimeoutError):  # the loop has stopped, or the update is not wanted any more
            return

    return hand_over


def _is_lost(failure: str) -> bool:
    return failure in {_ABSENT, _SILENT} or failure.startswith(_LOST)


def _in_our_words(failure: str) -> str:
    """Return the text for the operator. py-spiffe's own text may quote an update, so it is not passed on."""
    if failure == _DENIED:
        return "the Workload API denies this workload an identity"
    if not _is_lost(failure):
        return "py-spiffe cannot parse an update; an empty federated bundle is enough for that"
    return failure
