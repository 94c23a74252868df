"""Request and answer heads as values, and how they are written. Pure: no socket, no clock, no policy.

Heads are never passed on as they came: they are read strictly (``parse.py``), filtered by ``end_to_end`` and written
anew here. The length of a body is always stated by us, so the fields that state it are dropped on the way.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from operator import itemgetter
from typing import Final

Field = tuple[bytes, bytes]
"""A header field: name in lower case, value without surrounding white space."""

FRAMING: Final = frozenset({b"content-length", b"transfer-encoding", b"connection"})
"""What states where a message ends, and whether another may follow: always written by us."""

HOP_BY_HOP: Final = frozenset(
    {
        b"connection",
        b"http2-settings",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authentication-info",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
"""Fields that speak of one connection only (RFC 9110 section 7.6.1, RFC 9113 section 3.2.1)."""

_NO_OPTIONS: Final[frozenset[bytes]] = frozenset()
_name_of: Final = itemgetter(0)
NOT_PASSED: Final = HOP_BY_HOP | FRAMING | {b"expect"}
"""What never travels on; an expectation we answer ourselves."""
_REASONS: Final = {status.value: f"HTTP/1.1 {status.value} {status.phrase}".encode() for status in HTTPStatus}


class Fields(list[Field]):
    """The fields of one head in order; those of a name are found without looking at each. Not to be changed.

    ``last`` is the last value of each name, ``repeated`` whether some name comes more than once.
    """

    __slots__ = ("last", "repeated")

    def __init__(self, fields: Iterable[Field]) -> None:
        super().__init__(fields)
        self.last = dict(self)
        self.repeated = len(self.last) < len(self)

    def values(self, name: bytes) -> list[bytes]:
        """The values of all fields of a (lower-case) name, in order."""
        if self.repeated:
            return [value for field, value in self if field == name]
        value = self.last.get(name)
        return [] if value is None else [value]


@dataclass(slots=True)
class RequestHead:
    """One valid request head.

    ``target`` is in origin-form and not yet canonical; ``authority`` is the Host in lower case. ``fields`` holds all
    fields as they came, Host and hop-by-hop ones included. ``keep_alive``: the peer may send another request.
    """

    method: str
    target: bytes
    authority: str
    proxy_form: bool
    minor: int
    fields: Fields
    content_length: int | None
    chunked: bool
    keep_alive: bool
    expect: bytes | None = None
    upgrade: bytes | None = None

    @property
    def has_body(self) -> bool:
        """Whether body bytes may follow; an explicit length of zero is no body."""
        return self.chunked or bool(self.content_length)


@dataclass(slots=True)
class ResponseHead:
    """One valid answer head. ``content_length`` is what the field says, also where no body follows (HEAD, 304)."""

    status: int
    minor: int
    fields: Fields
    content_length: int | None
    chunked: bool
    keep_alive: bool


def is_event_stream(head: ResponseHead) -> bool:
    """Whether the content is a stream of server-sent events (WHATWG HTML section 9.2)."""
    types = head.fields.values(b"content-type")
    return any(value.partition(b";")[0].strip(b" \t").lower() == b"text/event-stream" for value in types)


def connection_options(fields: Fields) -> frozenset[bytes]:
    """The lower-case members of all Connection fields (RFC 9110 section 7.6.1)."""
    if b"connection" not in fields.last:
        return _NO_OPTIONS
    values = fields.values(b"connection")
    return frozenset(option.strip(b" \t").lower() for value in values for option in value.split(b",")) - {b""}


def end_to_end(fields: Fields) -> list[Field]:
    """The fields that may travel on: without hop-by-hop fields, those that Connection names, framing and Expect.

    Set own fields only after this: then no Connection of a peer's can remove them.
    """
    return [field for field in not_named_by_connection(fields) if field[0] not in NOT_PASSED]


def not_named_by_connection(fields: Fields) -> Sequence[Field]:
    """The fields but for those that Connection names; for who takes off ``NOT_PASSED`` together with more."""
    options = connection_options(fields)
    return [field for field in fields if field[0] not in options] if options else fields


def without_framing(fields: Sequence[Field]) -> list[Field]:
    """The fields but for those that state where a message ends: a new list, to which these are added."""
    if FRAMING.isdisjoint(map(_name_of, fields)):
        return [*fields]
    return [field for field in fields if field[0] not in FRAMING]


def encode_request(method: str, target: bytes, fields: Sequence[Field]) -> bytes:
    """A whole HTTP/1.1 request head; ValueError if anything in it would break a line."""
    return _encode(b"%b %b HTTP/1.1" % (method.encode("ascii"), target), fields)


def encode_response(status: int, fields: Sequence[Field]) -> bytes:
    """A whole HTTP/1.1 answer head; ValueError if anything in it would break a line."""
    return _encode(_REASONS.get(status) or b"HTTP/1.1 %d " % status, fields)


def _encode(first_line: bytes, fields: Sequence[Field]) -> bytes:
    head = b"\r\n".join([first_line, *map(b": ".join, fields), b"\r\n"])
    lines = len(fields) + 2
    if head.count(b"\n") != lines or head.count(b"\r") != lines or b"\0" in head:
        raise ValueError("a header field holds a line break or NUL")
    return head
