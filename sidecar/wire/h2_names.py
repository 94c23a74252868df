"""Field names of HTTP/2 heads: validity, positions of fields, layout of the message.

Like ``h1_fields.Layouts``: the next head with the same names in the same order shares the entry. No value is part of a
key or an entry. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from delegation_core.errors import Denied, Reason
from sidecar.wire.h1_fields import H1Layout, Layouts, answer_layouts, request_layouts
from sidecar.wire.message import NO_NAMES, Field, Request, Response, picking

FIELD_BYTES: Final = 32  # overhead of each field (RFC 9113 section 10.5.1)
_MAX_KNOWN: Final = 256  # lists of names, of about 2 KiB
_MAX_NAMES: Final = 4096  # size of the names of a cached head
_is_name: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]++").fullmatch
_has_capital: Final = re.compile(rb"[A-Z]").search
_OF_REQUESTS: Final = frozenset({b":method", b":scheme", b":path", b":authority"})
_OF_ANSWERS: Final = frozenset({b":status"})
_OF_CONNECTIONS: Final = frozenset(
    {b"connection", b"proxy-connection", b"keep-alive", b"transfer-encoding", b"upgrade", b"http2-settings"}
)
"""Fields that speak of a connection of HTTP/1.1: in HTTP/2 they make a message malformed (section 8.2.2)."""


class Fields(list[Field]):
    """Decoded fields of a head. ``size``: bytes by RFC 9113. ``message``: the cached parse, or None."""

    __slots__ = ("message", "size")

    size: int
    message: Request | Response | None


class HeadNames:
    """The valid names of one head.

    ``method``, ``scheme``, ``path``, ``authority`` and ``status`` are the positions of these pseudo-header fields, or
    the number of values if missing. ``names``: the other fields, with ``host`` first if only ``:authority`` is present;
    ``pick`` selects their values. ``layout``: the message's, or None if Cookie fields must be joined. ``hosts`` and
    ``te``: positions of these fields. ``size``: bytes of all names by RFC 9113.

    Raises:
        Denied: BAD_REQUEST, AMBIGUOUS_FRAMING.
    """

    __slots__ = ("authority", "hosts", "layout", "method", "names", "path", "pick", "scheme", "size", "status", "te")

    def __init__(self, names: tuple[bytes, ...], known: frozenset[bytes], layouts: Layouts) -> None:
        pseudo: dict[bytes, int] = {}
        for at, name in enumerate(names):
            if not name.startswith(b":"):
                _check(name)
            elif name == b":protocol":
                raise Denied(Reason.BAD_REQUEST, "the field :protocol of extended CONNECT, which is not offered")
            elif at > len(pseudo) or name in pseudo or name not in known:
                raise Denied(Reason.BAD_REQUEST, "a pseudo-header field is unknown, repeated or behind another field")
            else:
                pseudo[name] = at
        missing = len(names)
        self.method = pseudo.get(b":method", missing)
        self.scheme = pseudo.get(b":scheme", missing)
        self.path = pseudo.get(b":path", missing)
        self.authority = pseudo.get(b":authority", missing)
        self.status = pseudo.get(b":status", missing)
        self.hosts = _places(names, b"host")
        self.te = _places(names, b"te")
        self.size = size_of_names(names)
        others = range(len(pseudo), missing)
        self.names = names[len(pseudo) :]
        if self.authority < missing and not self.hosts:
            self.names = (b"host", *self.names)
            self.pick = picking([self.authority, *others])
        else:
            self.pick = picking(others)
        self.layout: H1Layout | None = None if self.names.count(b"cookie") > 1 else layouts[self.names]


def _check(name: bytes) -> None:
    if _has_capital(name):
        raise Denied(Reason.BAD_REQUEST, "the name of a field has a capital letter")
    if not _is_name(name):
        raise Denied(Reason.BAD_REQUEST, "the name of a field is no token")
    if name in _OF_CONNECTIONS:
        if name == b"transfer-encoding":
            raise Denied(Reason.AMBIGUOUS_FRAMING, "a Transfer-Encoding in HTTP/2")
        raise Denied(Reason.BAD_REQUEST, "a field of HTTP/1.1's connections in HTTP/2")


def _places(names: Iterable[bytes], of: bytes) -> list[int]:
    return [at for at, name in enumerate(names) if name == of]


def size_of_names(names: Iterable[bytes]) -> int:
    """Return the size by RFC 9113 of fields with these names, without values."""
    return sum([len(name) + FIELD_BYTES for name in names])


class KnownNames(dict[tuple[bytes, ...], HeadNames]):
    """Cache of ``HeadNames`` of one kind of heads. Evicts the oldest first; malformed heads are not cached.

    A dict, so that a hit runs no Python code of ours.
    """

    def __init__(self, known: frozenset[bytes], layouts: Layouts) -> None:
        super().__init__()
        self._known = known
        self._layouts = layouts

    def __missing__(self, names: tuple[bytes, ...]) -> HeadNames:
        found = HeadNames(names, self._known, self._layouts)
        if found.size <= _MAX_NAMES:
            if len(self) >= _MAX_KNOWN:
                del self[next(iter(self))]
            self[names] = found
        return found


of_requests: Final = KnownNames(_OF_REQUESTS, request_layouts)
of_answers: Final = KnownNames(_OF_ANSWERS, answer_layouts)
of_trailers: Final = KnownNames(NO_NAMES, answer_layouts)
