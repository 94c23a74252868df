"""Address of the peer whose handshake runs in this context.

An SSL object knows no address. The acceptor of a connection sets it before the handshake starts.
"""

from __future__ import annotations

from contextvars import ContextVar

peer_address: ContextVar[str | None] = ContextVar("peer_address", default=None)
