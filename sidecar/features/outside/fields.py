"""Rules for the header fields of calls to hosts outside the mesh. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Final

from sidecar.proxy.journeys.headers import fold, passes_outside
from sidecar.proxy.journeys.trusted_names import is_trusted_name
from sidecar.wire.message import Edits, Field, Message, Passes, new_edits

# Fields in which providers accept keys. The agent's are dropped if the sidecar adds a key.
_KEY_FIELDS: Final = frozenset(
    {b"authorization", b"x-api-key", b"api-key", b"x-goog-api-key", b"x-auth-token", b"private-token", b"cookie"}
)
# The same for fields that ask for partial or encoded answers, which cannot be searched for the key. See ``_accept``.
_NOT_WITH_A_KEY: Final = _KEY_FIELDS | {
    *(b"accept", b"accept-encoding", b"accept-charset", b"range", b"if-range", b"a-im", b"te"),
}
# Fields that describe content and client. None of them selects an account or changes what the host does.
BESIDE_A_KEY: Final = frozenset(
    {b"content-type", b"content-encoding", b"content-language", b"user-agent", b"accept-language", b"idempotency-key"}
)
_media_range: Final = re.compile(
    rb"[ \t]*+(?:\*|[a-zA-Z0-9][\w.+-]*+)/(?:\*|[a-zA-Z0-9][\w.+-]*+)"
    rb"(?:[ \t]*+;[ \t]*+q=[01](?:\.[0-9]{0,3}+)?)?[ \t]*+"
).fullmatch


def to_outside(
    request: Message,
    *,
    host: bytes,
    field: bytes,
    value: bytes,
    also: Iterable[tuple[bytes, bytes]] = (),
    fields: frozenset[str] = frozenset(),
) -> Edits:
    """Return the edits to a call with the sidecar's key: ``value`` in ``field``, and constant fields ``also``.

    Of the agent's fields only the usual ones and those in ``fields``, which the route lists, pass. The trace context
    stays in the mesh. The call asks for an answer without content coding, which is then searched for the key.
    """
    added = ((b"host", host), (b"accept-encoding", b"identity"), *_accept(request), (field, value), *also)
    return new_edits((beside_a_key(fields), tuple(name for name, _ in added), tuple(one for _, one in added)))


def _accept(request: Message) -> list[Field]:
    """Return the Accept field if it has only media types and ``q``; other parameters may select a character set."""
    found = request.all(b"accept")
    whole = b", ".join(found)
    return [(b"accept", whole)] if found and all(map(_media_range, whole.split(b","))) else []


def to_outside_as_is(*, host: bytes) -> Edits:
    """Return the edits to a call with the agent's own credential."""
    return new_edits((passes_with_credential, (b"host",), (host,)))


@lru_cache(maxsize=64)  # the same rule for the same list: the wire caches results by rule
def beside_a_key(listed: frozenset[str]) -> Passes:
    """Return the rule for the agent's fields beside the sidecar's key: the usual ones, and those in ``listed``."""
    names = BESIDE_A_KEY | {name.encode("ascii") for name in listed}

    def rule(name: bytes) -> bool:
        return name in names and may_be_listed(name)

    return rule


def may_be_listed(name: bytes) -> bool:
    """Return True if a route may list a field of this (lower-case) name to pass beside the sidecar's key."""
    return fold(name) not in _NOT_WITH_A_KEY and not is_trusted_name(name) and passes_outside(name)


def passes_with_credential(name: bytes) -> bool:
    """Return True if a field of this (lower-case) name may pass with the agent's own credential."""
    return name == b"authorization" or passes_outside(name)
