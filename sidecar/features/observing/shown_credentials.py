"""Fingerprints, for records, of the credentials that an agent or an observed peer itself sends.

A fingerprint costs a thread tens of milliseconds; only the first call with a credential waits for it. New credentials
are rate-limited, because a peer that sends another one in each call would keep a core busy. Over the limit, the record
has only the credential's kind.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from functools import partial
from hashlib import sha256
from math import inf
from typing import Final

from delegation_core.bounded import BoundedCache
from sidecar.observe.secret_names import MIN_BYTES, secret_fingerprint
from sidecar.proxy.journeys.journey import Async, Journey, Tasks
from sidecar.proxy.journeys.stray_credentials import own_credentials
from sidecar.wire.message import Message

MAX_BYTES: Final = 512 * 1024  # about a thousand fingerprints
AT_ONCE: Final = 8.0  # new credentials in a burst
PER_S: Final = 0.5  # new credentials


class ShownCredentials:
    """Cache of fingerprints by a credential's SHA-256; stores no secret. ``monotonic`` returns seconds."""

    def __init__(self, tasks: Tasks, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._tasks = tasks
        self._monotonic = monotonic
        self._known: BoundedCache[bytes, str] = BoundedCache(MAX_BYTES)
        self._left, self._counted_at = AT_ONCE, monotonic()

    def of(self, request: Message) -> Journey[str | None]:
        """Return ``kind:fingerprint`` (or ``kind``) of each credential in a call, comma-separated; None without any.

        Raises:
            Denied: HEADER_MALFORMED, as ``own_credentials``.
        """
        names = []
        for kind, secret in own_credentials(request):
            fingerprint = None
            if secret is not None and len(secret) >= MIN_BYTES:
                digest = sha256(secret).digest()
                fingerprint = self._known.find(digest)
                if fingerprint is None and self._may_learn():
                    fingerprint = yield Async(self._tasks, partial(self._learn, secret, digest))
            names.append(kind if fingerprint is None else f"{kind}:{fingerprint}")
        return ",".join(names) or None

    async def _learn(self, secret: bytes, digest: bytes) -> str | None:
        try:
            fingerprint = await asyncio.to_thread(secret_fingerprint, secret)
        except RuntimeError:  # no thread can be started
            return None
        if fingerprint is not None:
            self._known.keep(digest, fingerprint, cost=len(digest) + len(fingerprint), expires_at=inf)
        return fingerprint

    def _may_learn(self) -> bool:
        now = self._monotonic()
        self._left = min(AT_ONCE, self._left + (now - self._counted_at) * PER_S)
        self._counted_at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True
