"""Limits and deadlines of both sides. Sizes in bytes, times in seconds; deadlines may fire up to 0.25 s late."""

from __future__ import annotations

from dataclasses import dataclass, fields


def _require_positive(limits: object, names: list[str]) -> None:
    for name in names:
        if getattr(limits, name) <= 0:
            raise ValueError(f"{name} must be more than zero")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerLimits:
    """Limits of one server connection.

    ``head_timeout_s`` runs from a head's first byte to its last, and from the connection to the first byte.
    Within each ``body_timeout_s`` a body that is wanted, and within each ``write_timeout_s`` an answer that the peer
    is behind with, must move by ``min_rate`` bytes a second on average: silence is too slow, and so are single bytes.
    An answer has moved as far as the peer's kernel acknowledged it; that one may ask for more only in large steps.
    ``max_upload_s`` and ``max_stream_s`` are the longest that a request may come, and an answer go on, past the end of
    its token; what never ends by itself (event streams, WebSockets) ends with the token. ``linger_*`` bound what is
    still read, and thrown away, after an early answer: silence ends it only where the connection cannot be half closed
    (TLS).
    """

    max_head_bytes: int = 32768
    max_fields: int = 100
    max_target_bytes: int = 8192
    max_body_bytes: int = 256 * 1024 * 1024
    head_timeout_s: float = 10.0
    body_timeout_s: float = 30.0
    keep_alive_timeout_s: float = 75.0
    write_timeout_s: float = 30.0
    min_rate: int = 256
    max_upload_s: float = 300.0
    max_stream_s: float = 900.0
    max_age_s: float = 3600.0
    linger_timeout_s: float = 3.0
    linger_silence_s: float = 0.3
    max_linger_bytes: int = 4 * 1024 * 1024

    def __post_init__(self) -> None:
        _require_positive(self, [field.name for field in fields(self)])


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientLimits:
    """Limits of upstream connections.

    ``first_byte_timeout_s`` runs from the end of the request to the end of the answer's head; ``idle_timeout_s`` is the
    longest silence inside an answer, and the longest time in which the upstream takes nothing of a request;
    ``stream_idle_timeout_s`` is the longest silence of an event stream, or of a WebSocket in both directions. At most
    ``max_connecting`` connections per origin are being opened at a time. At most ``max_idle`` are kept; one is closed
    after ``idle_keep_s`` without use, and at a random age of 80 to 100 % of ``max_age_s``, so that not all go at once;
    with mTLS no later than after half the life of our own SVID.
    """

    connect_timeout_s: float = 5.0
    max_connecting: int = 32
    first_byte_timeout_s: float = 60.0
    idle_timeout_s: float = 60.0
    stream_idle_timeout_s: float = 300.0
    max_head_bytes: int = 65536
    max_fields: int = 200
    max_interim: int = 8
    max_idle: int = 128
    idle_keep_s: float = 30.0
    max_age_s: float = 3600.0

    def __post_init__(self) -> None:
        _require_positive(self, [field.name for field in fields(self)])
