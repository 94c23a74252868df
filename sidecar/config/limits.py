"""Sections of limits, made from the settings dataclasses of ``wire`` and ``proxy``, with the meaning of each key.

A limit that is added there is a setting at once; without a meaning here the import fails.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, TypeAlias, get_type_hints

from pydantic import Field, create_model

from sidecar.config.sections import Section
from sidecar.proxy.listening.connection_limits import ConnectionLimits
from sidecar.proxy.listening.memory_pressure import MemoryLimits
from sidecar.wire.limits import ClientLimits, ServerLimits
from sidecar.wire.resolver import ResolverSettings


def _section(name: str, settings: type, **meanings: str) -> type[Section]:
    """Make a section with the fields and defaults of a settings dataclass; numbers must be above zero."""
    hints = get_type_hints(settings)
    fields: dict[str, Any] = {
        field.name: (hints[field.name], _limit(field.default, meanings[field.name]))
        for field in dataclasses.fields(settings)
        if field.default is not dataclasses.MISSING
    }
    return create_model(name, __base__=Section, __doc__=settings.__doc__, **fields)


def _limit(default: object, meaning: str) -> Any:
    return Field(default, description=meaning, gt=0 if isinstance(default, int | float | None) else None)


if TYPE_CHECKING:
    ConnectionLimitsSection: TypeAlias = Section
    ServerLimitsSection: TypeAlias = Section
    ClientLimitsSection: TypeAlias = Section
    DnsSection: TypeAlias = Section
    MemorySection: TypeAlias = Section
else:
    ConnectionLimitsSection = _section(
        "ConnectionLimitsSection",
        ConnectionLimits,
        max_connections="the most connections at once; if not set, as many as file descriptors allow, 8192 at most",
        max_per_address="the most connections of one source address; if not set, three quarters",
        max_per_peer="the most connections of one SPIFFE ID, known after the handshake; if not set, three quarters",
        max_waiting_per_peer=(
            "the most responses that may wait for one SPIFFE ID which has read next to nothing for two seconds; others "
            "are cut, and for half a minute it may have no more requests in progress than this"
        ),
        max_handshakes=(
            "the most concurrent TLS handshakes; others wait with their ClientHello, or the oldest is evicted"
        ),
        handshake_timeout_s="timeout of a TLS handshake; the actual one is random, between half of it and all",
        idle_s="idle time after which a connection can be evicted for another, at a limit",
    )
    ServerLimitsSection = _section(
        "ServerLimitsSection",
        ServerLimits,
        max_head_bytes="the longest head",
        max_fields="the most header fields",
        max_target_bytes="the longest request target",
        max_body_bytes="the longest request body",
        head_timeout_s="the longest time from a head's first byte to its last",
        body_timeout_s=(
            "each such interval must bring `min_rate` bytes a second on average, or the end of the request body"
        ),
        keep_alive_timeout_s="how long a connection waits for its next request",
        write_timeout_s=(
            "in each such interval the other end must accept `min_rate` bytes a second on average, or everything"
        ),
        unread_timeout_s="how long a response waits if the other end has read nothing of it, or next to nothing",
        min_rate="the least bytes per second of an incoming body and of a pending response",
        max_upload_s="once its token has expired, a request body ends this long after its request began",
        max_stream_s="once its token has expired, a response ends this long after its head",
        max_age_s="age at which a connection accepts no further request",
        linger_timeout_s="how long input after an early response is read and discarded",
        linger_silence_s="the silence that ends the discarding",
        max_linger_bytes="the most bytes to discard",
    )
    ClientLimitsSection = _section(
        "ClientLimitsSection",
        ClientLimits,
        connect_timeout_s="timeout of connecting: name lookup, all addresses and TLS handshake together",
        max_connecting="the most connections per origin that are being opened at once",
        first_byte_timeout_s="timeout from the end of the request to the end of the response's head",
        idle_timeout_s="the longest silence inside a response",
        stream_idle_timeout_s=(
            "the longest silence of an event stream, and of both directions of a call of gRPC, a WebSocket, a tunnel "
            "or a route with `stream`"
        ),
        max_head_bytes="the longest head",
        max_fields="the most header fields",
        max_interim="the most 1xx responses before the final one",
        max_idle="the most idle connections per origin",
        idle_keep_s="how long an idle connection is kept",
        max_age_s="age at which a connection accepts no further request",
    )
    DnsSection = _section(
        "DnsSection",
        ResolverSettings,
        timeout_s="timeout of a lookup",
        cache_s="how long addresses are cached",
        failure_cache_s="how long a failure is cached",
        max_stale_s="how long the last good addresses are used beyond that while lookups fail",
        max_lookups="the most concurrent lookups, hanging ones included",
    )
    MemorySection = _section(
        "MemorySection",
        MemoryLimits,
        max_handles_mib="handles that outlive their request, with their tokens; logins use at most half of it",
        max_handles_per_subject="the most login handles of one subject",
        max_verdicts_mib="verified tokens of peers; an entry uses as much again for logins",
        max_permits_mib="earlier permits",
        max_issued_mib="tokens issued for outbound calls",
    )
