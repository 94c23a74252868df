"""Request and answer heads as values, and how they are written. Pure: no socket, no clock, no policy.

Heads are never passed on as they came: they are read strictly (``parse.py``), filtered by ``end_to_end`` and written
anew here. The length of a body is always stated by us, so the fields that state it are dropped on the way.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from http import HTTPStatus
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
_NOT_PASSED: Final = HOP_BY_HOP | FRAMING | {b"expect"}  # we answer an expectation ourselves
_REASONS: Final = {status.value: f"HTTP/1.1 {status.value} {status.phrase}".encode() for status in HTTPStatus}


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
    fields: list[Field]
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
    fields: list[Field]
    content_length: int | None
    chunked: bool
    keep_alive: bool


def is_event_stream(head: ResponseHead) -> bool:
    """Whether the content is a stream of server-sent events (WHATWG HTML section 9.2)."""
    types = [value for name, value in head.fields if name == b"content-type"]
    return any(value.partition(b";")[0].strip(b" \t").lower() == b"text/event-stream" for value in types)


def connection_options(fields: Iterable[Field]) -> frozenset[bytes]:
    """The lower-case members of all Connection fields (RFC 9110 section 7.6.1)."""
    values = [value for name, value in fields if name == b"connection"]
    if not values:
        return _NO_OPTIONS
    return frozenset(option.strip(b" \t").lower() for value in values for option in value.split(b",")) - {b""}


def end_to_end(fields: Sequence[Field]) -> list[Field]:
    """The fields that may travel on: without hop-by-hop fields, those that Connection names, framing and Expect.

    Set own fields only after this: then no Connection of a peer's can remove them.
    """
    passed = [field for field in fields if field[0] not in _NOT_PASSED]
    if len(passed) < len(fields) and (options := connection_options(fields)):  # only then is there a Connection field
        passed = [field for field in passed if field[0] not in options]
    return passed


def encode_request(method: str, target: bytes, fields: Sequence[Field]) -> bytes:
    """A whole HTTP/1.1 request head; ValueError if anything in it would break a line."""
    return _encode(b"%b %b HTTP/1.1" % (method.encode("ascii"), target), fields)


def encode_response(status: int, fields: Sequence[Field]) -> bytes:
    """A whole HTTP/1.1 answer head; ValueError if anything in it would break a line."""
    return _encode(_REASONS.get(status) or b"HTTP/1.1 %d " % status, fields)


def _encode(first_line: bytes, fields: Sequence[Field]) -> bytes:
    head = b"\r\n".join([first_line, *[b": ".join(field) for field in fields], b"\r\n"])
    lines = len(fields) + 2
    if head.count(b"\n") != lines or head.count(b"\r") != lines or b"\0" in head:
        raise ValueError("a header field holds a line break or NUL")
    return head
