"""Request and answer heads as values, and how they are written. Pure: no socket, no clock, no policy.

Heads are never passed on as they came: they are read strictly (``parse.py``), filtered by name and written anew here.
The length of a body is always stated by us, so the fields that state it are dropped on the way.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from operator import itemgetter
from typing import Final, TypeVar, cast

Field = tuple[bytes, bytes]
"""A header field: name in lower case, value without surrounding white space."""

Passes = Callable[[bytes], bool]
"""Whether fields of a (lower-case) name may travel on. Looks at nothing else."""

FRESH: Final = b"\0fresh"
"""Stands for a value that is told apart from its place; no value that was read holds NUL."""

_T = TypeVar("_T")

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
# Looked for as numbers: to look for a bytes object, bytes.__contains__ raises and clears an exception first.
_NUL: Final = 0x00
_LF: Final = 0x0A
_CR: Final = 0x0D
_LENGTH: Final = re.compile(rb"0|[1-9][0-9]{0,14}")
_STATUS_LINES: Final = {status.value: f"HTTP/1.1 {status.value} {status.phrase}".encode() for status in HTTPStatus}


class Fields(list[Field]):
    """The fields of one head in order; those of a name are found without looking at each. Not to be changed.

    ``last`` is the last value of each name, ``repeated`` whether some name comes more than once. ``fresh_names``
    are told apart (``Head``): their values are at ``fresh_at``.
    """

    __slots__ = ("fresh_at", "fresh_names", "known", "last", "repeated")

    def __init__(self, fields: Iterable[Field]) -> None:
        super().__init__(fields)
        self.last = dict(self)
        self.repeated = len(self.last) < len(self)
        self.fresh_at = [at for at, field in enumerate(self) if field[1] is FRESH]
        self.fresh_names = [self[at][0] for at in self.fresh_at]
        self.known: dict[Callable[..., object], object] = {}

    def values(self, name: bytes) -> list[bytes]:
        """The values of all fields of a (lower-case) name, in order."""
        if self.repeated:
            return [value for field, value in self if field == name]
        value = self.last.get(name)
        return [] if value is None else [value]

    @property
    def has_doubled_place(self) -> bool:
        """Whether a name comes twice whose value is told apart: by name alone it cannot be."""
        return len({*self.fresh_names}) < len(self.fresh_names)

    def once(self, find: Callable[[Fields], _T]) -> _T:
        """What ``find``, which looks at nothing else, makes of these fields: asked once. An error is not kept."""
        found = self.known.get(find)
        if found is None:
            found = self.known[find] = find(self)
        return cast("_T", found)

    def passing(self, passes: Passes) -> tuple[bytes, list[bytes]]:
        """The lines of the fields that may travel on, and the names of fresh ones that may: ``Head.passing``."""
        fields = [field for field in not_named_by_connection(self) if passes(field[0])]
        fresh = [name for name, value in fields if value is FRESH]
        return encode_fields([field for field in fields if field[1] is not FRESH]), fresh


@dataclass(slots=True)
class Head:
    """The fields of one head, in two parts. Never changed: whoever sends the same bytes again is read as the same head.

    ``common`` is shared by all heads that have it. ``fresh`` are the fields by which heads differ that are otherwise
    alike (``lines.FRESH_NAMES``), by name: each comes once. In ``common`` they have their place, with the value
    ``FRESH``.
    """

    common: Fields
    fresh: dict[bytes, bytes]

    @property
    def fields(self) -> Fields:
        """All fields, in order."""
        fresh = self.fresh
        return Fields([(name, fresh[name]) if value is FRESH else (name, value) for name, value in self.common])

    def values(self, name: bytes) -> list[bytes]:
        """The values of all fields of a (lower-case) name, in order."""
        value = self.fresh.get(name)
        return self.common.values(name) if value is None else [value]

    def passing(self, passes: Passes) -> bytes:
        """The lines of the fields that may travel on: of a name that ``passes``, and not named by Connection.

        Our own are added only after this: then no Connection of a peer's can remove them.
        """
        known = self.common.known
        if passes not in known:
            known[passes] = self.common.passing(passes)
        lines, fresh = cast("tuple[bytes, list[bytes]]", known[passes])
        for name in fresh:
            lines += b"%b: %b\r\n" % (name, self.fresh[name])
        return lines


@dataclass(slots=True)
class RequestHead(Head):
    """One valid request head.

    ``target`` is in origin-form and not yet canonical; ``authority`` is the Host in lower case. The fields are all as
    they came, Host and hop-by-hop ones included. ``keep_alive``: the peer may send another request. ``upgrade`` is the
    protocol it asks for; None where it may be ignored.
    """

    method: str
    target: bytes
    authority: str
    proxy_form: bool
    minor: int
    content_length: int | None
    chunked: bool
    keep_alive: bool
    expect: bytes | None = None
    upgrade: bytes | None = None

    def differing(self, fresh: dict[bytes, bytes], content_length: int | None) -> RequestHead:
        """The same head with other fresh fields, and the length that they state."""
        return RequestHead(
            self.common,
            fresh,
            self.method,
            self.target,
            self.authority,
            self.proxy_form,
            self.minor,
            content_length,
            self.chunked,
            self.keep_alive,
            self.expect,
            self.upgrade,
        )

    @property
    def has_body(self) -> bool:
        """Whether body bytes may follow; an explicit length of zero is no body."""
        return self.chunked or bool(self.content_length)


@dataclass(slots=True)
class ResponseHead(Head):
    """One valid answer head. ``content_length`` is what the field says, also where no body follows (HEAD, 304)."""

    status: int
    minor: int
    content_length: int | None
    chunked: bool
    keep_alive: bool

    def differing(self, fresh: dict[bytes, bytes], content_length: int | None) -> ResponseHead:
        """The same head with other fresh fields, and the length that they state."""
        return ResponseHead(self.common, fresh, self.status, self.minor, content_length, self.chunked, self.keep_alive)


def plain_length(value: bytes) -> int | None:
    """The number that a Content-Length is; None if it is none, or not in its plain form."""
    return int(value) if _LENGTH.fullmatch(value) else None


def is_event_stream(head: ResponseHead) -> bool:
    """Whether the content is a stream of server-sent events (WHATWG HTML section 9.2)."""
    return head.common.once(_says_event_stream)


def _says_event_stream(fields: Fields) -> bool:
    types = fields.values(b"content-type")
    return any(value.partition(b";")[0].strip(b" \t").lower() == b"text/event-stream" for value in types)


def connection_options(fields: Fields) -> frozenset[bytes]:
    """The lower-case members of all Connection fields (RFC 9110 section 7.6.1)."""
    if b"connection" not in fields.last:
        return _NO_OPTIONS
    values = fields.values(b"connection")
    return frozenset(option.strip(b" \t").lower() for value in values for option in value.split(b",")) - {b""}


def not_named_by_connection(fields: Fields) -> Sequence[Field]:
    """The fields but for those that Connection names."""
    options = connection_options(fields)
    return [field for field in fields if field[0] not in options] if options else fields


def encode_fields(fields: Sequence[Field]) -> bytes:
    """The lines of some fields, each with its line break.

    Raises:
        ValueError: one would break a line, or states where a message ends: that is said by who writes the head.
    """
    if not FRAMING.isdisjoint(map(_name_of, fields)):
        raise ValueError("a field states where the message ends")
    lines = b"".join([b"%b: %b\r\n" % field for field in fields])
    return checked(lines, len(fields))


def checked(lines: bytes, count: int) -> bytes:
    """``lines`` if they are so many.

    Raises:
        ValueError: a value in them has a line break or NUL.
    """
    if lines.count(b"\n") != count or lines.count(b"\r") != count or _NUL in lines:
        raise ValueError("a header field holds a line break or NUL")
    return lines


def encode_request(method: str, target: bytes, lines: bytes) -> bytes:
    """A whole HTTP/1.1 request head. ``lines``: of all its fields, as ``encode_fields`` makes them.

    Raises:
        ValueError: the target would break a line.
    """
    if _LF in target or _CR in target or _NUL in target:
        raise ValueError("a target holds a line break or NUL")
    return b"%b %b HTTP/1.1\r\n%b\r\n" % (method.encode("ascii"), target, lines)


def encode_response(status: int, lines: bytes) -> bytes:
    """A whole HTTP/1.1 answer head. ``lines``: of all its fields, as ``encode_fields`` makes them."""
    return b"%b\r\n%b\r\n" % (_STATUS_LINES.get(status) or b"HTTP/1.1 %d " % status, lines)
