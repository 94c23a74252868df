"""Runs an adapter against one token service: sends each step with our authentication, and caches shared answers.

A redirect ends the exchange before the adapter sees it. A shared answer, such as an access token of our own, is cached
for half of its life (five minutes at most), and dropped if a step after it is refused: the server may have revoked it.
An answer younger than ten seconds stays, or each refusal of some user's token would cost another call. All are dropped
when the credential that obtained them changes.
"""

from __future__ import annotations

import asyncio
import random
import time
import weakref
from collections.abc import Callable, Generator, Hashable, Mapping
from dataclasses import dataclass
from typing import Final, TypeVar
from urllib.parse import urlencode

from delegation_core.errors import Denied, Reason, SidecarError, Unavailable
from delegation_core.spiffe_id import SpiffeId
from sidecar.exchange.adapters.adapter import Answer, Step
from sidecar.exchange.client_auth import ClientAuthenticator, Shown
from sidecar.exchange.failover import AllOpen, Caller, Unsent
from sidecar.identity.endpoint import EndpointAnswer

_R = TypeVar("_R")

FIRST_RETRY_S: Final = 0.05
SHARED_S: Final = 300.0  # at most, whatever the answer says of its life
YOUNG_S: Final = 10.0
MAX_STEPS: Final = 8  # an adapter that asks for ever would hold a flight for ever


@dataclass(frozen=True, slots=True)
class Reached:
    """An endpoint: its connections and our authentication there."""

    caller: Caller
    authenticator: ClientAuthenticator


@dataclass(frozen=True, slots=True)
class _Kept:
    """A cached shared answer: received at ``since``, used until ``until`` (monotonic seconds)."""

    answer: Answer
    since: float
    until: float


class Conversation:
    """The calls of one exchange after another. ``endpoints`` by name; ``monotonic`` is in seconds."""

    def __init__(
        self, endpoints: Mapping[str, Reached], *, retries: int, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._endpoints = dict(endpoints)
        self._retries = retries
        self._monotonic = monotonic
        self._shared: dict[tuple[SpiffeId, Step], _Kept] = {}
        # Weak, since a step may have a fresh value in its form each time: a lock lives as long as a call holds it.
        self._asking: weakref.WeakValueDictionary[tuple[SpiffeId, Step], asyncio.Lock] = weakref.WeakValueDictionary()
        self._forgotten = 0

    async def run(
        self,
        steps: Generator[Step, Answer, _R],
        own: SpiffeId,
        credentials: set[str] | None = None,
        *,
        subject: Hashable = None,
    ) -> _R:
        """Run the steps to their end, authenticated as ``own``; return their result.

        ``credentials`` collects the static credentials sent, even if the exchange fails: methods with fingerprints.
        ``subject`` as of ``Caller.post_form``.

        Raises:
            SidecarError: as the adapter raises it, or STS_REDIRECT, NOT_READY, CREDENTIAL_UNAVAILABLE; `Unsent` if the
                failed step is ``once`` or ``shared``, and no form has left but those of shared steps.
        """
        shown, sent = set[str]() if credentials is None else credentials, False
        try:
            step = next(steps)
            for _ in range(MAX_STEPS):
                if step.shared:
                    answer = await self._share(step, own, shown, subject)
                else:
                    answer, sent = await self._ask(step, shown, subject), True
                step = steps.send(answer)
        except StopIteration as end:
            response: _R = end.value
            return response
        except Unsent as error:
            if sent or not (step.once or step.shared):  # other forms may have left in an attempt before the last one
                raise Unavailable(error.reason, error.detail) from error
            raise
        except SidecarError as error:
            if error.reason in (Reason.EXCHANGE_DENIED, Reason.STS_ERROR):
                self._drop_shared()
            raise
        raise Denied(Reason.STS_BAD_RESPONSE, "the adapter made too many requests")

    async def reach(self, name: str, reached: Reached) -> None:
        """Set the connections and authentication of endpoint ``name``, and close its previous connections."""
        before = self._endpoints.get(name)
        self._endpoints[name] = reached
        if before is not None:
            await before.caller.close()

    async def close(self) -> None:
        """End the calls in flight."""
        for reached in self._endpoints.values():
            await reached.caller.close()

    def forget(self) -> None:
        """Drop the cached shared answers, and do not cache those in flight."""
        self._forgotten += 1
        self._shared.clear()

    def _drop_shared(self) -> None:
        young = self._monotonic() - YOUNG_S
        self._shared = {key: kept for key, kept in self._shared.items() if kept.since > young}

    async def _share(self, step: Step, own: SpiffeId, credentials: set[str], subject: Hashable) -> Answer:
        """Return the answer of a shared step, cached or new; one request for all callers. Raises for a refusal."""
        key = (own, step)
        lock = self._asking.setdefault(key, asyncio.Lock())
        async with lock:
            kept = self._shared.get(key)
            if kept is not None and self._monotonic() < kept.until:
                return kept.answer
            forgotten = self._forgotten
            answer = await self._ask(step, credentials, subject)
            life_s = answer.token(scope=None).expires_in or 0  # raises for a refusal, which is not kept
            self._shared = {one: held for one, held in self._shared.items() if self._monotonic() < held.until}
            now = self._monotonic()
            if forgotten == self._forgotten:
                self._shared[key] = _Kept(answer, now, now + min(life_s / 2, SHARED_S))
            return answer

    async def _ask(self, step: Step, credentials: set[str], subject: Hashable) -> Answer:
        shown = await self._shown(step)
        if shown.credential is not None:
            credentials.add(shown.credential)
        pairs = dict.fromkeys((*step.form, *shown.form))  # both may say client_id, and no parameter is there twice
        form = urlencode(tuple(pairs)).encode("ascii")
        caller = self._endpoints[step.endpoint].caller
        answer = await self._post(caller, form, shown.authorization, once=step.once, subject=subject)
        if 300 <= answer.status < 400:
            raise Denied(Reason.STS_REDIRECT)
        return Answer(answer.status, answer.content_type, answer.body)

    async def _shown(self, step: Step) -> Shown:
        if not step.authenticate:
            return Shown()
        try:
            return await self._endpoints[step.endpoint].authenticator.show()
        except Unavailable as error:
            raise Unsent(error.reason, error.detail) from error

    async def _post(
        self, caller: Caller, form: bytes, authorization: str | None, *, once: bool, subject: Hashable
    ) -> EndpointAnswer:
        """Send the form. Retry, within limits, only if the connection failed before any answer."""
        attempt = 0
        while True:
            try:
                return await caller.post_form(form, authorization, once=once, subject=subject)
            except Unavailable as error:
                useless = once or isinstance(error, AllOpen) or error.reason is not Reason.STS_UNAVAILABLE
                if useless or attempt == self._retries:
                    raise
            await asyncio.sleep(FIRST_RETRY_S * 2**attempt * (1 + random.random()))  # noqa: S311  spreads, hides nothing
            attempt += 1
