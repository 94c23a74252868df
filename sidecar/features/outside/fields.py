"""Fields of calls to hosts outside the mesh: only our own and the caller's credentials stay behind. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Final

from sidecar.proxy.journeys.headers import folded, passes_outside
from sidecar.proxy.journeys.trusted_names import is_trusted_name
from sidecar.wire.message import Edits, Field, Message, Passes, new_edits

# The fields in which providers take keys. Of these the agent sends none beside a key that the sidecar holds.
_KEY_FIELDS: Final = frozenset(
    {b"authorization", b"x-api-key", b"api-key", b"x-goog-api-key", b"x-auth-token", b"private-token", b"cookie"}
)
# Nor fields that make the host answer in parts or encodings that cannot be searched. Accept goes by its value.
_NOT_WITH_A_KEY: Final = _KEY_FIELDS | {
    *(b"accept", b"accept-encoding", b"accept-charset", b"range", b"if-range", b"a-im", b"te"),
}
# Fields that describe the content and the client, and never choose who is billed or how the host works.
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
    """Edits to a call with a key of ours in ``field``: only listed fields of the agent go with it.

    ``fields`` are those that the route lists. The trace goes no further than the mesh; the answer must not be encoded,
    since it is searched for the key.
    """
    added = ((b"host", host), (b"accept-encoding", b"identity"), *_accept(request), (field, value), *also)
    return new_edits((beside_a_key(fields), tuple(name for name, _ in added), tuple(one for _, one in added)))


def _accept(request: Message) -> list[Field]:
    """Return the Accept field if it has only media types and ``q``: another parameter may choose a character set."""
    found = request.all(b"accept")
    whole = b", ".join(found)
    return [(b"accept", whole)] if found and all(map(_media_range, whole.split(b","))) else []


def to_outside_as_is(*, host: bytes) -> Edits:
    """Edits to a call that carries the agent's own credential."""
    return new_edits((passes_with_credential, (b"host",), (host,)))


@lru_cache(maxsize=64)  # by lists of routes; the wire remembers each rule's outcome
def beside_a_key(listed: frozenset[str]) -> Passes:
    """Return the rule for fields beside a static key: the usual ones, and those that a route lists."""
    names = BESIDE_A_KEY | {name.encode("ascii") for name in listed}

    def rule(name: bytes) -> bool:
        return name in names and may_be_listed(name)

    return rule


def may_be_listed(name: bytes) -> bool:
    """Tell whether a route may list a field of this (lower-case) name to go beside a static key: no credential."""
    return folded(name) not in _NOT_WITH_A_KEY and not is_trusted_name(name) and passes_outside(name)


def passes_with_credential(name: bytes) -> bool:
    """Tell whether a field of this (lower-case) name may go with the agent's own credential."""
    return name == b"authorization" or passes_outside(name)
