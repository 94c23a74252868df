"""An issuer's JWKS endpoint without a network: the test controls the document, the failures and the timing."""

from __future__ import annotations

import asyncio

from sidecar.identity.endpoint import EndpointAnswer, EndpointError


class JwksPublisher:
    """Answers every fetch with ``document``, or with ``error``; ``hold`` keeps the answers back."""

    def __init__(self, document: bytes) -> None:
        self.document = document
        self.status = 200
        self.cache_control: str | None = None
        self.error: EndpointError | None = None
        self.fetches = 0
        self.closed = False
        self._may_answer = asyncio.Event()
        self._may_answer.set()
        self._fetched = asyncio.Condition()

    async def get(self) -> EndpointAnswer:
        async with self._fetched:
            self.fetches += 1
            self._fetched.notify_all()
        await self._may_answer.wait()
        if self.error is not None:
            raise self.error
        return EndpointAnswer(self.status, "application/json", self.cache_control, self.document)

    async def close(self) -> None:
        self.closed = True

    def hold(self) -> None:
        """Let fetches wait until ``release``."""
        self._may_answer.clear()

    def release(self) -> None:
        self._may_answer.set()

    async def wait_for_fetches(self, count: int) -> None:
        """Wait until ``count`` fetches have begun, in all."""
        async with asyncio.timeout(5), self._fetched:
            await self._fetched.wait_for(lambda: self.fetches >= count)
