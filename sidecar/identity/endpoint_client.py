"""One bounded HTTP call to a control endpoint.

Used for key sets, never for a peer's request; token exchanges use ``exchange/channel.py``. The engine of the
data plane does the HTTP. Only the settings choose a URL: no redirect is followed, no proxy is taken from the
environment, no cookie is kept, nothing is decompressed. Each call has its own connection. That costs a handshake every
few minutes, and has three advantages: a late or second answer can never reach the next caller, each call proves both
ends again (after a rotation too), and a failure before the answer is a failure of this call alone.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from delegation_core.errors import Denied, Reason, SidecarError
from sidecar.identity.call import Call, fields_for
from sidecar.identity.endpoint import Endpoint, EndpointAnswer, EndpointError, Trouble
from sidecar.identity.handshake import HandshakeRefused
from sidecar.identity.source import IdentitySource
from sidecar.identity.tls import client_context
from sidecar.wire.dialer import Origin
from sidecar.wire.h1_fields import encode_fields
from sidecar.wire.limits import ClientLimits
from sidecar.wire.pool import UpstreamPool
from sidecar.wire.resolver import Resolver

if TYPE_CHECKING:
    from sidecar.identity.file_trust import FileTrust

_LAST: Final = b"connection: close\r\n"
_TROUBLES: Final[Mapping[Reason, Trouble]] = {
    Reason.NOT_READY: Trouble.NOT_READY,
    Reason.UPSTREAM_TIMEOUT: Trouble.TIMEOUT,
    Reason.UPSTREAM_BAD_RESPONSE: Trouble.BROKEN,
    Reason.UPSTREAM_ABORTED: Trouble.BROKEN,
    Reason.STS_BAD_RESPONSE: Trouble.ENCODED,
    Reason.STS_TOO_LARGE: Trouble.TOO_LARGE,
}


class EndpointClient:
    """Fetches from one endpoint, each time on a new connection."""

    def __init__(self, endpoint: Endpoint, source: IdentitySource, *, timeout_s: float, max_bytes: int) -> None:
        self._endpoint = endpoint
        self._source = source
        self._timeout_s = timeout_s
        self._max_bytes = max_bytes
        self._limits = ClientLimits(
            connect_timeout_s=timeout_s, first_byte_timeout_s=timeout_s, idle_timeout_s=timeout_s
        )
        self._pinned = client_context(source, expected=endpoint.peer) if endpoint.peer else None
        self._trust: FileTrust | None = None
        if endpoint.ca_file:
            from sidecar.identity.file_trust import FileTrust

            self._trust = FileTrust(endpoint.ca_file)
        self._resolver = Resolver()
        self._running: set[UpstreamPool] = set()
        self._lines = fields_for(endpoint.authority)

    async def get(self, etag: str | None = None) -> EndpointAnswer:
        """Fetch the document; status 304 if its entity tag is still ``etag``. Errors as ``post``."""
        return await self._ask(None, {} if etag is None else {"if-none-match": etag})

    async def post(self, body: bytes, content_type: str, headers: Mapping[str, str] | None = None) -> EndpointAnswer:
        """Send a document. ``headers``: fields besides its content type.

        Raises:
            EndpointError: there is no complete answer within the size and the total deadline.
        """
        return await self._ask(body, {**(headers or {}), "content-type": content_type})

    async def _ask(self, body: bytes | None, headers: Mapping[str, str]) -> EndpointAnswer:
        _, host, port = self._endpoint.address
        origin = Origin(host, port, key=None, tls=self._tls())
        ours = encode_fields([(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()])
        call = Call(self._endpoint.target, self._lines + ours + _LAST, body, max_bytes=self._max_bytes)
        pool = UpstreamPool(self._limits, resolver=self._resolver)  # of one connection
        self._running.add(pool)
        try:
            async with asyncio.timeout(self._timeout_s):
                call.waits = pool.connect(origin, call.begin, call.fail, fresh=True)
                return await call.answer
        except TimeoutError as error:
            raise EndpointError(Trouble.TIMEOUT) from error
        except SidecarError as error:
            raise _error_of(error) from error
        finally:
            self._running.discard(pool)
            call.end()
            await pool.close()

    async def close(self) -> None:
        """End the calls in flight. The client may be used again."""
        await asyncio.gather(*(pool.close() for pool in self._running))

    def _tls(self) -> ssl.SSLContext | None:
        if self._pinned is not None and self._source.current is None:
            raise EndpointError(Trouble.NOT_READY)
        if self._trust is None:
            return self._pinned
        try:
            return self._trust.context()
        except Denied as error:
            raise EndpointError(Trouble.IDENTITY, error.detail) from error


def _error_of(error: SidecarError) -> EndpointError:
    """Convert the error of a connection into an ``EndpointError``."""
    if error.reason is Reason.UPSTREAM_IDENTITY:
        return _tls_error(error.__cause__)
    trouble = _TROUBLES.get(error.reason)
    return EndpointError(Trouble.UNREACHABLE, may_retry=True) if trouble is None else EndpointError(trouble)


def _tls_error(refused: BaseException | None) -> EndpointError:
    """Convert a TLS error, including a loss of our identity between the first check and the handshake."""
    if isinstance(refused, HandshakeRefused):
        if refused.refusal is Reason.NOT_READY:
            return EndpointError(Trouble.NOT_READY)
        return EndpointError(Trouble.IDENTITY, str(refused))
    message = refused.verify_message if isinstance(refused, ssl.SSLCertVerificationError) else ""
    return EndpointError(Trouble.IDENTITY, message)
