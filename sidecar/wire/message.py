"""Messages that cross between policy and wire: requests, answers, and the edits that policy makes to their fields.

Neutral: nothing here is the text of one version of HTTP. Policy reads a message by field name and hands back ``Edits``;
the wire reads bytes into messages and writes them again (``h1_head``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count
from operator import itemgetter
from typing import Final, NamedTuple

from delegation_core.errors import Denied, Reason

Field = tuple[bytes, bytes]
"""A header field: name in lower case, value without surrounding white space."""

Passes = Callable[[bytes], bool]
"""A rule: tells whether fields of a (lower-case) name may travel on. It looks at nothing but the name."""

FRAMING: Final = frozenset({b"content-length", b"transfer-encoding", b"connection"})
"""Fields that state where a message ends, and whether another may follow: the wire writes its own on each hop."""

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

NOT_PASSED: Final = HOP_BY_HOP | FRAMING | {b"expect"}
"""Fields that never travel on; an expectation is answered by the sidecar itself."""

SUGGESTS_BODY: Final = frozenset({"POST", "PUT", "PATCH"})  # RFC 9110 section 8.6
NO_NAMES: Final[frozenset[bytes]] = frozenset()


class Edits(NamedTuple):
    """Edits to the fields of a message: forwards the fields whose names pass ``passes``, and sets fields of ours.

    ``names`` and ``values`` are those of the fields that are set, in the same order. Fields that the peer's Connection
    field lists never pass, whatever the rule says; ours are set in any case. The wire sets the fields of ``FRAMING``:
    no edit does.
    """

    passes: Passes
    names: tuple[bytes, ...] = ()
    values: tuple[bytes, ...] = ()


Pick = Callable[[Sequence[bytes]], tuple[bytes, ...]]
"""Picks some of a message's values."""

_NOTHING: Final[Pick] = itemgetter(slice(0))


def picking(places: Sequence[int]) -> Pick:
    """Picks the values at these places, in this order."""
    if len(places) > 1:
        return itemgetter(*places)
    return itemgetter(slice(places[0], places[0] + 1)) if places else _NOTHING


class Layout:
    """The names of a message's fields in order, and data derived from them alone. A layout holds no value.

    ``places`` has the places of the values of each name. ``templates`` is for writers of messages: edited fields as
    text with placeholders for values, by the rule that fields pass and the names that are set.
    """

    __slots__ = ("names", "places", "templates")

    def __init__(self, names: Iterable[bytes]) -> None:
        self.names = tuple(map(bytes.lower, names))
        self.places: dict[bytes, list[int]] = dict(zip(self.names, map(list, zip(count()))))  # noqa: B905 - endless
        if len(self.places) != len(self.names):  # a name is repeated
            self.places = {}
            for at, name in enumerate(self.names):
                self.places.setdefault(name, []).append(at)
        self.templates: dict[tuple[Passes, tuple[bytes, ...]], tuple[bytes, Pick]] = {}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Layout) and self.names == other.names

    def __hash__(self) -> int:
        return hash(self.names)


class Message:
    """The fields of a request or an answer; never changed. Messages with the same names of fields share a layout.

    ``layout`` has the names and ``values`` the values, in the same order. ``listed``: the names in the peer's
    Connection field, except those that never pass anyway. They are not forwarded.
    """

    __slots__ = ()

    layout: Layout
    values: tuple[bytes, ...]
    listed: frozenset[bytes]

    def one(self, name: bytes) -> bytes | None:
        """Return the value of a field (lower-case name) that must not be repeated; None if it is absent.

        Raises:
            Denied: HEADER_MALFORMED, it is repeated.
        """
        places = self.layout.places.get(name)
        if places is None:
            return None
        if len(places) > 1:
            raise Denied(Reason.HEADER_MALFORMED, f"two {name.decode('latin-1').title()} fields")
        return self.values[places[0]]

    def all(self, name: bytes) -> tuple[bytes, ...]:
        """Return the values of all fields of a (lower-case) name, in order."""
        places = self.layout.places.get(name)
        return () if places is None else tuple(map(self.values.__getitem__, places))

    @property
    def fields(self) -> list[Field]:
        """Return all fields, in order."""
        return list(zip(self.layout.names, self.values, strict=True))


@dataclass(slots=True)
class Request(Message):
    """A valid request. ``target`` is in origin-form and not yet canonical; ``authority`` is the Host in lower case.

    The fields are as received, including Host and hop-by-hop fields. ``content_length`` is None without a
    Content-Length: the framing then ends a body. ``keep_alive``: another request may follow. ``minor`` is 0 for a peer
    of HTTP/1.0, which cannot read chunks. ``upgrade`` is the requested protocol; None if it may be ignored.
    """

    layout: Layout
    values: tuple[bytes, ...]
    method: str
    target: bytes
    authority: str
    content_length: int | None = None
    has_body: bool = False
    listed: frozenset[bytes] = NO_NAMES
    keep_alive: bool = True
    minor: int = 1
    expect: bytes | None = None
    upgrade: bytes | None = None


@dataclass(slots=True)
class Response(Message):
    """A valid answer, final or interim. ``content_length`` is the value of its field, even without a body.

    ``keep_alive``: the connection may serve another request after it.
    """

    layout: Layout
    values: tuple[bytes, ...]
    status: int
    content_length: int | None = None
    chunked: bool = False
    listed: frozenset[bytes] = NO_NAMES
    keep_alive: bool = True
    minor: int = 1


# The constructor of a named tuple is interpreted; tuple's own is not.
new_edits: Final[Callable[[tuple[Passes, tuple[bytes, ...], tuple[bytes, ...]]], Edits]] = partial(tuple.__new__, Edits)


def is_event_stream(answer: Response) -> bool:
    """True if the content is a stream of server-sent events (WHATWG HTML section 9.2)."""
    values = answer.all(b"content-type")
    return any(value.partition(b";")[0].strip(b" \t").lower() == b"text/event-stream" for value in values)
