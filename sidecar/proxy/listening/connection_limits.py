"""Limits on the connections of a listener, derived from the descriptors that the process may open."""

from __future__ import annotations

import resource
from dataclasses import dataclass
from typing import Annotated, Final

from sidecar.identity.handshake_queue import MOST_CONNECTIONS

RESERVED_DESCRIPTORS: Final = (
    64  # for upstream connections, keys, STS and sink, which must work when peers use the rest
)
MAX_CONNECTIONS: Final = 8192  # of one listener, even with more descriptors: each may cost 100 KiB
_ENDS: Final = 4  # descriptors per connection: two listeners, two ends of each request
_RESERVED_FOR_PEERS: Final = 1024  # connections of proven peers; at most half of all
_ONE_PEERS_SHARE: Final = 0.75


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionLimits:
    """Limits on concurrent connections: in all, per source address, per SPIFFE ID.

    By default, ``max_connections`` follows from the process's descriptors, at most 8192, and ``max_per_address`` and
    ``max_per_peer`` are three quarters of it. At a limit, a new connection evicts one that has been idle for
    ``idle_s``, is slow with a head, or has read nothing of its answer for two seconds. Handshakes use at most half of
    the connections, regardless of ``max_handshakes``. The limits on connections also limit the requests of HTTP/2 in
    progress, because each may need its own upstream connection. At most ``max_waiting_per_peer`` answers may wait for
    one SPIFFE ID to read them, because each may hold a thread of the agent. Connections before their handshake leave
    1024 of ``max_connections``, or half, to others; with enough spare descriptors they do not count at all.
    """

    max_connections: Annotated[
        int | None, "the most connections at once; if not set, as many as file descriptors allow, 8192 at most"
    ] = None
    max_per_address: Annotated[int | None, "the most connections of one source address; if not set, three quarters"] = (
        None
    )
    max_per_peer: Annotated[
        int | None, "the most connections of one SPIFFE ID, known after the handshake; if not set, three quarters"
    ] = None
    max_waiting_per_peer: Annotated[
        int,
        "the most responses that may wait for one SPIFFE ID which has read next to nothing for two seconds; "
        "others are cut, and for half a minute it may have no more requests in progress than this",
    ] = 16
    max_handshakes: Annotated[
        int, "the most concurrent TLS handshakes; others wait with their ClientHello, or the oldest is evicted"
    ] = 1024
    handshake_timeout_s: Annotated[
        float, "timeout of a TLS handshake; the actual one is random, between half of it and all"
    ] = 10.0
    idle_s: Annotated[float, "idle time after which a connection can be evicted for another, at a limit"] = 1.0

    @property
    def total(self) -> int:
        """Limit of connections in all."""
        return self.max_connections or _descriptor_budget()

    @property
    def per_address(self) -> int:
        """Limit of connections from one source address."""
        return min(self.max_per_address or self._one_share, self.total)

    @property
    def per_peer(self) -> int:
        """Limit of connections of one SPIFFE ID."""
        return min(self.max_per_peer or self._one_share, self.total)

    @property
    def before_handshake(self) -> int:
        """Limit of connections before and in their handshake."""
        return max(1, self.total // 2, self.total - _RESERVED_FOR_PEERS, min(self._spare, MOST_CONNECTIONS))

    @property
    def spare_descriptors(self) -> bool:
        """True if there are enough descriptors for ``total`` connections and, besides, those before their handshake."""
        return self._spare > self.total

    @property
    def _spare(self) -> int:
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        return 0 if self.max_connections else (soft - reserve() - _ENDS * self.total) // 2

    @property
    def _one_share(self) -> int:
        return max(1, int(self.total * _ONE_PEERS_SHARE))


def _descriptor_budget() -> int:
    """Return the connections that the descriptors allow: ``_ENDS`` for each, without the reserve."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(1, min(MAX_CONNECTIONS, (soft - reserve()) // _ENDS))


def reserve() -> int:
    """Return the number of descriptors that connections of callers must leave free."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return min(RESERVED_DESCRIPTORS, soft // 4)
