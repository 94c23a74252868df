"""The verification keys of every issuer we believe. How one issuer's are kept fresh is in `issuer.py`."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from sidecar.delegation.keyset import VerificationKey
from sidecar.errors import Denied, Reason
from sidecar.identity.endpoint import EndpointClient
from sidecar.identity.issuer import MAX_JWKS_BYTES, Fetcher, Issuer, JwksSettings
from sidecar.identity.source import Identity, IdentitySource

__all__ = ["IssuerKeys", "JwksSettings"]


class IssuerKeys:
    """The verification keys of every configured issuer.

    ``source`` is our own identity, needed to speak to an endpoint named by SPIFFE ID. ``clock`` is monotonic, in
    seconds; ``jitter`` gives numbers in [0, 1). ``on_fetched`` is told the issuer whose set was fetched just now.
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
        self._source = source
        self._jitter = jitter
        make = fetcher_for or self._endpoint_client
        self._issuers: Mapping[str, Issuer] = {
            one.issuer: Issuer(one, make(one), clock, partial(on_fetched, one.issuer)) for one in settings
        }

    async def run(self) -> None:
        """Keep every set fresh until cancelled, also where there is no issuer."""
        self._source.subscribe(self._on_identity)
        try:
            async with asyncio.TaskGroup() as tasks:
                for state in self._issuers.values():
                    tasks.create_task(state.keep_fresh(self._jitter))
                await asyncio.get_running_loop().create_future()
        finally:
            self._source.unsubscribe(self._on_identity)

    def find(self, issuer: str, kid: str | None) -> VerificationKey | None:
        """The key, if it is known now. Never waits."""
        state = self._issuers.get(issuer)
        return None if state is None else state.find(kid)

    async def wait_for_key(self, issuer: str, kid: str | None) -> VerificationKey:
        """The key that `find` does not know, after one fetch for all who ask.

        Raises:
            Denied: UNKNOWN_KEY, the issuer publishes no such key (as of ``cooldown_s`` ago at most);
                WRONG_ISSUER, it is not configured.
            Unavailable: KEYS_UNAVAILABLE, the issuer cannot be asked.
        """
        state = self._issuers.get(issuer)
        if state is None:
            raise Denied(Reason.WRONG_ISSUER, "no key set is configured for this issuer")
        return state.find(kid) or await state.wait_for_key(kid)

    @property
    def generation(self) -> int:
        """Grows whenever the keys of some issuer change, and only then."""
        return sum(state.generation for state in self._issuers.values())

    def generation_of(self, issuer: str) -> int:
        """The same for one issuer; 0 for one that is not configured."""
        state = self._issuers.get(issuer)
        return 0 if state is None else state.generation

    def ready(self, issuer: str) -> bool:
        """Whether this issuer has had a key at least once, and its set is not too old to be used."""
        state = self._issuers.get(issuer)
        return state is not None and state.ever_had_keys and state.keys is not None

    def known(self, issuer: str) -> bool:
        """Whether a key set of this issuer is in force, an empty one too."""
        state = self._issuers.get(issuer)
        return state is not None and state.keys is not None

    def ages(self) -> Mapping[str, float | None]:
        """Seconds since each issuer's set was fetched; None where there is no set in force."""
        return {issuer: state.age_s for issuer, state in self._issuers.items()}

    def last_errors(self) -> Mapping[str, str | None]:
        """What is wrong with each issuer's keys now, in our words; None where nothing is."""
        return {issuer: state.last_error for issuer, state in self._issuers.items()}

    def _on_identity(self, identity: Identity | None) -> None:
        if identity is None:
            return
        for state in self._issuers.values():
            if state.keys is None:  # it may have failed for want of an identity: do not sit out the back-off
                state.wake()

    def _endpoint_client(self, settings: JwksSettings) -> EndpointClient:
        return EndpointClient(settings.endpoint, self._source, timeout_s=settings.timeout_s, max_bytes=MAX_JWKS_BYTES)
