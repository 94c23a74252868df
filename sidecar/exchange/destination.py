"""Where an exchange goes: the token endpoint, who must answer there, and which connections may carry it now.

Connections are shared only while nothing that they prove has changed: with every new generation of our identity (a
renewed SVID, other bundles) and with every new CA file, calls go out on new ones, and the old ones are retired.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Hashable
from typing import NamedTuple

from sidecar.delegation.spiffe_id import SpiffeId
from sidecar.identity.endpoint import Endpoint, EndpointError, FileTrust, Trouble, split_url
from sidecar.identity.pinned_origin import leaf_of, life_s, still_trusted
from sidecar.identity.source import Identity, IdentitySource
from sidecar.identity.tls import client_context
from sidecar.wire.dial import Origin


class _Key(NamedTuple):
    """Who shares connections. ``own`` is the leaf of our SVID, ``trust`` what the other end is judged by."""

    url: str
    peer: SpiffeId | None
    own: bytes | None
    trust: Hashable


class Destination:
    """One token endpoint. ``retire`` is the pool's; ``clock`` is wall time, as certificates go by it."""

    def __init__(
        self, endpoint: Endpoint, source: IdentitySource, *, clock: Callable[[], float], retire: Callable[[], None]
    ) -> None:
        parts = split_url(endpoint.url)
        self._endpoint = endpoint
        self._source = source
        self._clock = clock
        self._retire = retire
        self._host = parts.hostname or ""
        self._port = parts.port or (443 if parts.scheme == "https" else 80)
        self._pinned = None if endpoint.peer is None else client_context(source, expected=endpoint.peer)
        self._file = None if endpoint.ca_file is None else FileTrust(endpoint.ca_file)
        self._origin: Origin | None = None
        self.target = f"{parts.path or '/'}{'?' if parts.query else ''}{parts.query}".encode("ascii")
        host = f"[{self._host}]" if ":" in self._host else self._host
        self.authority = (host if parts.port is None else f"{host}:{parts.port}").encode("ascii")
        if self._pinned is not None:
            source.subscribe(self._follow)

    def origin(self) -> Origin:
        """Whose connections may be used by a call that begins now.

        Raises:
            EndpointError: NOT_READY, there is no identity to show; IDENTITY, the CA file cannot be used.
        """
        identity: Identity | None = None
        context: ssl.SSLContext | None = None
        trust: Hashable = None
        if self._pinned is not None:
            identity = self._source.current
            if identity is None:
                raise EndpointError(Trouble.NOT_READY)
            context, trust = self._pinned, identity.number
        elif self._file is not None:
            context = trust = self._file.context()
        key = _Key(self._endpoint.url, self._endpoint.peer, leaf_of(identity), trust)
        if self._origin is None or self._origin.key != key:
            self._retire()
            self._origin = self._origin_of(key, context)
        return self._origin

    def close(self) -> None:
        """Follow our identity no more."""
        self._source.unsubscribe(self._follow)

    def _origin_of(self, key: Hashable, context: ssl.SSLContext | None) -> Origin:
        if self._pinned is not None:
            still_good, life = self._still_trusted, self._life_s
            return Origin(self._host, self._port, key, context, still_good=still_good, life_s=life)
        return Origin(self._host, self._port, key, context, life_s=None if context is None else self._hosts_life_s)

    def _follow(self, _identity: Identity | None) -> None:
        """A new generation, or none: what the old one proved counts for no further call."""
        self._origin = None
        self._retire()

    def _still_trusted(self, transport: asyncio.BaseTransport) -> bool:
        return still_trusted(transport, self._clock())

    def _life_s(self, transport: asyncio.BaseTransport) -> float:
        return life_s(self._source, transport, self._clock())

    def _hosts_life_s(self, transport: asyncio.BaseTransport) -> float:
        """To the end of the certificate of a host that a CA file vouches for."""
        certificate = transport.get_extra_info("peercert") or {}
        return max(0.0, ssl.cert_time_to_seconds(certificate["notAfter"]) - self._clock())
