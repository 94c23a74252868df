"""The identity source that follows a SPIFFE Workload API.

Theory of operation. Two streams at most (X.509, and JWT bundles if JWT-SVIDs are verified) run for ever, each
in a loop of its own: connect, take messages, on any failure wait 0.1 to 1 s and connect again. Each message is the full
state, handled as for every source (``base_source.py``). A withdrawal counts at once:
PERMISSION_DENIED, or a message without our SVID, leaves no identity. A lost connection withdraws nothing.
SPIRE does not announce the expiry of an SVID: it sends nothing, and gives an expired SVID to new streams.
"""

from __future__ import annotations

import asyncio
import time
from types import MappingProxyType
from typing import Any

from delegation_core.errors import Reason, Unavailable
from delegation_core.spiffe_id import SpiffeId
from sidecar.identity import workload_pb
from sidecar.identity.base_source import BaseSource, Pause
from sidecar.identity.handshake import Clock
from sidecar.identity.update import UpdateError
from sidecar.identity.workload_client import IdentityDeniedError, WorkloadApiClient, WorkloadApiError
from sidecar.identity.workload_settings import WorkloadApiSettings, parse_address
from sidecar.identity.workload_stream import Backoff, Subscription, follow
from sidecar.identity.workload_update import read_jwt_bundles, read_x509_update


class WorkloadApiSource(BaseSource):
    """An ``IdentitySource`` on a Workload API."""

    def __init__(
        self,
        settings: WorkloadApiSettings,
        *,
        clock: Clock = time.time,
        pause: Pause = asyncio.sleep,
    ) -> None:
        super().__init__(clock, self._fetch_jwt_svid)
        self._settings = settings
        self._pause = pause
        self._client = WorkloadApiClient(
            parse_address(settings.address),
            first_message_timeout_s=settings.first_message_timeout_s,
            call_timeout_s=settings.call_timeout_s,
        )

    async def run(self) -> None:
        """Follow the Workload API until cancelled. No failure of it ends this."""
        streams = [self._x509_stream()]
        if self._settings.jwt_bundles:
            streams.append(self._jwt_bundle_stream())
        async with asyncio.TaskGroup() as group:
            group.create_task(self._jwt_svids.run())
            for stream in streams:
                backoff = Backoff(self._settings.min_backoff_s, self._settings.max_backoff_s)
                group.create_task(follow(self._client, stream, backoff, self._pause))
            while True:
                await self._pause(self._settings.expiry_tick_s)
                await self._tick()

    def _x509_stream(self) -> Subscription:
        return Subscription(
            name="X.509",
            method="FetchX509SVID",
            request=workload_pb.X509SVIDRequest(),
            reply_type=workload_pb.X509SVIDResponse,
            take=self._take_x509,
            lost=self._note_loss_x509,
        )

    def _jwt_bundle_stream(self) -> Subscription:
        return Subscription(
            name="JWT bundles",
            method="FetchJWTBundles",
            request=workload_pb.JWTBundlesRequest(),
            reply_type=workload_pb.JWTBundlesResponse,
            take=self._take_jwt_bundles,
            lost=self._note_loss_jwt_bundles,
        )

    async def _take_x509(self, message: Any) -> bool:
        """Put a message in place; False if it is unusable."""
        self._connected = True
        return await self._take(
            lambda held: read_x509_update(
                message,
                spiffe_id=self._settings.spiffe_id,
                hint=self._settings.hint,
                held=None if held is None else held.spiffe_id,
                known={} if held is None else held.bundles,
            )
        )

    async def _take_jwt_bundles(self, message: Any) -> bool:
        try:
            self._jwt_bundles, broken = read_jwt_bundles(message, known=self._jwt_bundles)
        except UpdateError as error:
            self._discard(error)
            return False
        self.counts.broken_bundles += broken
        return True

    def _note_loss_x509(self, failure: WorkloadApiError) -> None:
        self._connected = False
        self._note_loss(str(failure))
        if isinstance(failure, IdentityDeniedError):
            self._withdraw(str(failure))

    def _note_loss_jwt_bundles(self, failure: WorkloadApiError) -> None:
        self._note_loss(str(failure))
        if isinstance(failure, IdentityDeniedError):
            self._jwt_bundles = MappingProxyType({})

    async def _fetch_jwt_svid(self, audience: str, spiffe_id: SpiffeId) -> str:
        request = workload_pb.JWTSVIDRequest(audience=[audience], spiffe_id=spiffe_id)
        try:
            response = await self._client.call("FetchJWTSVID", request, workload_pb.JWTSVIDResponse)
        except WorkloadApiError as error:
            raise Unavailable(Reason.NOT_READY, str(error)) from error
        if not response.svids:
            raise Unavailable(Reason.NOT_READY, "the Workload API gave no JWT-SVID")
        return str(response.svids[0].svid)
