"""The verification keys of all trusted issuers. `issuer.py` keeps the keys of one issuer fresh."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial

from delegation_core.errors import Denied, Reason
from delegation_core.keyset import VerificationKey
from sidecar.identity.endpoint_client import EndpointClient
from sidecar.identity.issuer import MAX_JWKS_BYTES, Fetcher, Issuer, JwksSettings
from sidecar.identity.source import Identity, IdentitySource

__all__ = ["IssuerKeys", "JwksSettings"]


class IssuerKeys:
    """The verification keys of every configured issuer.

    ``source``: our own identity, needed for endpoints pinned by SPIFFE ID. ``clock`` is monotonic, in
    seconds; ``jitter`` gives numbers in [0, 1). ``on_fetched`` is called with the issuer of each fetched set.
    ``after_fetch``, replaceable at any time, is called next, when the set is in use.
    """

    def __init__(
        self,
        settings: Sequence[JwksSettings],
        source: IdentitySource,
        *,
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
        fetcher_for: Callable[[JwksSettings], Fetcher] | None = None,
        on_fetched: Callable[[str], None] = lambda _issuer: None,
    ) -> None:
        if len({one.issuer for one in settings}) != len(settings):
            raise ValueError("issuers: two have the same name; an issuer has one key set")
        self.after_fetch: Callable[[], None] = lambda: None
        self._source = source
        self._jitter = jitter
        self._on_fetched = on_fetched
        make = fetcher_for or self._endpoint_client
        self._issuers: Mapping[str, Issuer] = {
            one.issuer: Issuer(one, make(one), clock, partial(self._fetched, one.issuer)) for one in settings
        }

    def _fetched(self, issuer: str) -> None:
        self._on_fetched(issuer)
        self.after_fetch()

    async def run(self) -> None:
        """Keep every set fresh until cancelled, even without any issuer."""
        self._source.subscribe(self._on_identity)
        try:
            async with asyncio.TaskGroup() as tasks:
                for state in self._issuers.values():
                    tasks.create_task(state.keep_fresh(self._jitter))
                await asyncio.get_running_loop().create_future()
        finally:
            self._source.unsubscribe(self._on_identity)

    def find(self, issuer: str, kid: str | None) -> VerificationKey | None:
        """Return the key if it is cached, else None. Never waits."""
        state = self._issuers.get(issuer)
        return None if state is None else state.find(kid)

    async def wait_for_key(self, issuer: str, kid: str | None) -> VerificationKey:
        """Return the key, cached or after one fetch shared by all callers.

        Raises:
            Denied: UNKNOWN_KEY, the issuer publishes no such key (as of ``cooldown_s`` ago at most);
                WRONG_ISSUER, it is not configured.
            Unavailable: KEYS_UNAVAILABLE: the keys cannot be fetched.
        """
        state = self._issuers.get(issuer)
        if state is None:
            raise Denied(Reason.WRONG_ISSUER, "no key set is configured for this issuer")
        return state.find(kid) or await state.wait_for_key(kid)

    @property
    def generation(self) -> int:
        """A number that grows whenever the keys of any issuer change, and only then."""
        total = 0
        for state in self._issuers.values():  # no generator: every request asks
            total += state.generation
        return total

    @property
    def by_issuer(self) -> Collection[Issuer]:
        """The ``Issuer`` objects, never replaced; their generations add up to ``generation``."""
        return self._issuers.values()

    def of_issuer(self, issuer: str) -> Issuer | None:
        """Return the ``Issuer`` object, which is never replaced; None if it is not configured."""
        return self._issuers.get(issuer)

    def generation_of(self, issuer: str) -> int:
        """Return the generation of one issuer's keys; 0 if it is not configured."""
        state = self._issuers.get(issuer)
        return 0 if state is None else state.generation

    def ready(self, issuer: str) -> bool:
        """Return True if this issuer has a key, in a set that is not too old."""
        state = self._issuers.get(issuer)
        return state is not None and bool(state.keys)

    def known(self, issuer: str) -> bool:
        """Return True if there is a current key set of this issuer, even an empty one."""
        state = self._issuers.get(issuer)
        return state is not None and state.keys is not None

    def ages(self) -> Mapping[str, float | None]:
        """Return the seconds since each issuer's set was fetched; None without a current set."""
        return {issuer: state.age_s for issuer, state in self._issuers.items()}

    def last_errors(self) -> Mapping[str, str | None]:
        """Return the last error of each issuer's keys; None if there is none."""
        return {issuer: state.last_error for issuer, state in self._issuers.items()}

    def _on_identity(self, identity: Identity | None) -> None:
        if identity is None:
            return
        for state in self._issuers.values():
            if state.keys is None:  # it may have failed without an identity: do not wait for the back-off
                state.wake()

    def _endpoint_client(self, settings: JwksSettings) -> EndpointClient:
        return EndpointClient(settings.endpoint, self._source, timeout_s=settings.timeout_s, max_bytes=MAX_JWKS_BYTES)
