"""TLS contexts for listeners and clients that follow an identity source: each new connection gets the newest
generation.

A delegating context holds nothing itself: ``wrap_bio`` hands the work to the contexts of ``source.current``. So
rotation is one assignment, the certificates and authorities of a connection always belong together, and without an
identity nothing can be presented or accepted.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Sequence
from typing import Any, NoReturn

from delegation_core.errors import Denied, Reason
from delegation_core.spiffe_id import SpiffeId
from sidecar.identity.generation import ALPN, bare_context
from sidecar.identity.handshake import Binding, Clock, OnRefused, PeerGuard, VerifyingSSLObject
from sidecar.identity.source import IdentitySource
from sidecar.identity.ssl_object import ScreenedContext
from sidecar.identity.svid import VerifiedPeer


class DelegatingContext(ssl.SSLContext):
    """An ``SSLContext`` for asyncio, uvloop and aiohttp that follows an identity source."""

    _binding: Binding
    _nothing: ssl.SSLContext
    _alpn: list[str]

    def follow(self, binding: Binding, alpn: Sequence[str]) -> None:
        """Set the identity and trust to use, and the protocols to offer, the preferred one first."""
        self._binding = binding
        self._alpn = list(alpn)
        self._nothing = bare_context(self.protocol)

    def wrap_bio(
        self,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        server_side: bool = False,  # noqa: FBT001, FBT002 - the base class's signature
        server_hostname: str | bytes | None = None,
        session: ssl.SSLSession | None = None,  # noqa: ARG002 - sessions are never resumed
    ) -> VerifyingSSLObject:
        """Start a connection of the newest generation; without one, a connection that will be refused."""
        identity = self._binding.source.current
        if identity is None:
            inner = self._nothing
        else:
            inner = identity.server_context if server_side else identity.client_context
        if isinstance(inner, ScreenedContext):
            inner.offer(self._alpn)  # a client's connection copies them; all listeners of a process agree
        ssl_object = inner.wrap_bio(incoming, outgoing, server_side=server_side, server_hostname=server_hostname)
        assert isinstance(ssl_object, VerifyingSSLObject)  # noqa: S101 - for the type only; unbound it refuses all
        ssl_object.bind(self._binding)
        ssl_object.shown = None if identity is None else identity.svid.leaf_sha256
        return ssl_object

    def wrap_socket(self, *_arguments: Any, **_named: Any) -> NoReturn:
        """Refuse blocking sockets: they would bypass the check.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError("only event loops use this context")


def server_context(
    source: IdentitySource,
    *,
    on_refused: OnRefused | None = None,
    clock: Clock = time.time,
    alpn: Sequence[str] = ALPN,
) -> ssl.SSLContext:
    """Make a context for listeners: every client proves its SPIFFE ID inside the handshake.

    ``on_refused`` is called once for each refused handshake; the address comes from ``peer_address``.
    """
    return _delegating(ssl.PROTOCOL_TLS_SERVER, Binding(source, None, on_refused, clock), alpn)


def client_context(
    source: IdentitySource, *, expected: SpiffeId, clock: Clock = time.time, alpn: Sequence[str] = ALPN
) -> ssl.SSLContext:
    """Make a context for calls to exactly one workload. Any other server fails with ``HandshakeRefused``."""
    return _delegating(ssl.PROTOCOL_TLS_CLIENT, Binding(source, expected, None, clock), alpn)


def _delegating(protocol: int, binding: Binding, alpn: Sequence[str]) -> DelegatingContext:
    context = bare_context(protocol, DelegatingContext)
    assert isinstance(context, DelegatingContext)  # noqa: S101 - for the type only
    context.follow(binding, alpn)
    return context


def guard_of(transport: asyncio.BaseTransport) -> PeerGuard:
    """Return the proof of a connection's peer.

    Raises:
        Denied: NO_CLIENT_CERT, the connection has none.
    """
    ssl_object = transport.get_extra_info("ssl_object")
    guard = ssl_object.guard if isinstance(ssl_object, VerifyingSSLObject) else None
    if guard is None:
        raise Denied(Reason.NO_CLIENT_CERT, "the connection has no verified peer")
    return guard


def own_certificate_of(transport: asyncio.BaseTransport) -> str | None:
    """Return the SHA-256 (hexadecimal) of the SVID that we presented on a connection; None if we presented none."""
    ssl_object = transport.get_extra_info("ssl_object")
    return ssl_object.shown if isinstance(ssl_object, VerifyingSSLObject) else None


def peer_of(transport: asyncio.BaseTransport) -> VerifiedPeer:
    """Return the verified peer of a connection, as of its handshake. Errors as ``guard_of``."""
    return guard_of(transport).peer
