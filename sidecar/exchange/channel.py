"""Reused connections to the token endpoint: a handshake costs three times as much as the exchange after it.

Theory of operation. The engine of the data plane does the HTTP: heads are read strictly, and an answer has one
unambiguous length. A connection with anything irregular (unrequested bytes, an answer after its caller left, a late or
too large answer) is cut and never used again, so no answer can be taken for another caller's. No redirect is followed,
no proxy is taken from the environment, no cookie is kept, nothing is decompressed.

The other end may have closed a kept connection unnoticed. If that shows before one byte of an answer, the form is sent
once more, on a new connection. It may have been served before; that does no harm. An exchange consumes nothing (RFC
8693 section 2.1: a subject token is not an authorization code), an issued token reaches only us, and a token issued
into a broken connection reaches nobody. The token service's records show both. A form that does consume something goes
out on a new connection at once, where nothing is stale.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Hashable, Mapping
from typing import Final

from delegation_core.errors import Denied, Reason, SidecarError, Unavailable
from sidecar.exchange.failover import Unsent
from sidecar.identity.call import Call, fields_for
from sidecar.identity.endpoint import Endpoint, EndpointAnswer, Trouble
from sidecar.identity.handshake import HandshakeRefused
from sidecar.identity.pinned_origin import Address, Pin, PinnedOrigins
from sidecar.identity.source import IdentitySource
from sidecar.wire.h1_fields import encode_fields
from sidecar.wire.limits import ClientLimits
from sidecar.wire.pool import UpstreamPool
from sidecar.wire.resolver import Resolver
from sidecar.wire.upstream_errors import StaleConnection

MAX_KEPT: Final = 8  # more are opened while more exchanges are in flight, and closed after them
_MAX_CONNECTING: Final = 8  # a call that waits meanwhile takes a connection that another exchange gives back
_KEEP_S: Final = 30.0  # idle; below the idle timeouts of servers and load balancers
_MAX_AGE_S: Final = 300.0  # so that replicas of the token service share the work again after one was added

_FORM: Final = encode_fields(((b"content-type", b"application/x-www-form-urlencoded"),))
_FAILURES: Final[Mapping[Reason, SidecarError]] = {
    Reason.UPSTREAM_IDENTITY: Denied(Reason.STS_IDENTITY, Trouble.IDENTITY),
    Reason.UPSTREAM_UNREACHABLE: Unavailable(Reason.STS_UNAVAILABLE, Trouble.UNREACHABLE),
    Reason.UPSTREAM_TIMEOUT: Unavailable(Reason.STS_TIMEOUT, Trouble.TIMEOUT),
    Reason.UPSTREAM_BAD_RESPONSE: Denied(Reason.STS_BAD_RESPONSE, Trouble.BROKEN),
    Reason.UPSTREAM_ABORTED: Denied(Reason.STS_BAD_RESPONSE, Trouble.BROKEN),
}


class StsChannel:
    """Sends forms to one token endpoint. ``timeout_s`` limits each step; the caller limits the whole call.

    ``connect_timeout_s`` limits connecting, to leave time for other endpoints; None: ``timeout_s``.

    ``shows_svid``: present our X.509-SVID to a host certified by a CA file, if it requests a certificate.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        source: IdentitySource,
        *,
        timeout_s: float,
        max_bytes: int,
        resolver: Resolver | None = None,
        clock: Callable[[], float] = time.time,
        shows_svid: bool = False,
        connect_timeout_s: float | None = None,
    ) -> None:
        limits = ClientLimits(
            connect_timeout_s=connect_timeout_s or timeout_s,
            first_byte_timeout_s=timeout_s,
            idle_timeout_s=timeout_s,
            max_connecting=_MAX_CONNECTING,
            max_idle=MAX_KEPT,
            idle_keep_s=_KEEP_S,
            max_age_s=_MAX_AGE_S,
        )
        self._pool = UpstreamPool(limits, resolver=resolver)
        self._origins = PinnedOrigins(source, clock, self._pool.retire, per_generation=True)
        self._address = Address(*endpoint.address)
        self._pin: Pin = endpoint.peer
        if endpoint.ca_file is not None:
            from sidecar.identity.file_trust import FileTrust

            self._pin = FileTrust(endpoint.ca_file, source if shows_svid else None)
        self._target = endpoint.target
        self._max_bytes = max_bytes
        self._timeout_s = timeout_s
        self._lines = fields_for(endpoint.authority)

    async def post_form(
        self,
        form: bytes,
        authorization: str | None = None,
        *,
        once: bool = False,
        subject: Hashable = None,  # noqa: ARG002  of a `Caller`: all subjects share the connections
    ) -> EndpointAnswer:
        """Send an urlencoded form. Return the answer, whatever its status.

        ``authorization``: value of the Authorization field. ``once``: use a new connection, and never resend.

        Raises:
            SidecarError: NOT_READY, or any of the ``sts_*`` reasons for a call without a whole answer; `Unsent` if not
                a byte of the form has left.
        """
        lines = _FORM
        if authorization is not None:
            lines += encode_fields(((b"authorization", authorization.encode("latin-1")),))
        try:
            try:
                return await self._send(form, lines, fresh=once)
            except StaleConnection:
                return await self._send(form, lines, fresh=True)
        except SidecarError as error:
            raise failure_of(error) from error

    async def get(self, etag: str | None) -> EndpointAnswer:
        """Fetch a document; status 304 if its entity tag is still ``etag``. Errors as ``post_form``."""
        lines = b"" if etag is None else encode_fields(((b"if-none-match", etag.encode("latin-1")),))
        try:
            async with asyncio.timeout(self._timeout_s):
                try:
                    return await self._send(None, lines)
                except StaleConnection:
                    return await self._send(None, lines, fresh=True)
        except TimeoutError as error:
            raise Unavailable(Reason.STS_TIMEOUT, Trouble.TIMEOUT) from error
        except SidecarError as error:
            raise failure_of(error) from error

    def reconnect(self) -> None:
        """Make the next call open a new connection, possibly to another replica."""
        self._pool.retire()

    async def close(self) -> None:
        """Cut every connection and end the calls in flight, for good."""
        self._origins.close()
        await self._pool.close()

    async def _send(self, form: bytes | None, lines: bytes, *, fresh: bool = False) -> EndpointAnswer:
        call = Call(self._target, self._lines + lines, form, max_bytes=self._max_bytes)
        try:
            origin = self._origins.of(self._address, self._pin)
            kept = None if fresh else self._pool.take(origin)
            if kept is not None:
                call.begin(kept)
            else:
                call.waits = self._pool.connect(origin, call.begin, call.fail, fresh=fresh)
            return await call.answer
        except asyncio.CancelledError:
            if call.silent:  # the service may be gone without closing: the other connections are in doubt too
                self._pool.retire()
            raise
        except Unavailable as error:
            if call.sent:
                raise
            failure = failure_of(error)
            raise Unsent(failure.reason, failure.detail) from error
        finally:
            call.end()


def failure_of(error: SidecarError) -> SidecarError:
    """Convert a connection error into an exchange error; return other errors unchanged."""
    known = _FAILURES.get(error.reason)
    if known is None:
        return error
    refused = error.__cause__
    if isinstance(refused, HandshakeRefused) and refused.refusal is Reason.NOT_READY:
        # Our identity can be lost between the first look and the handshake.
        return Unavailable(Reason.NOT_READY, Trouble.NOT_READY)
    return type(known)(known.reason, f"{known.detail}: {error.detail}" if error.detail else known.detail)
