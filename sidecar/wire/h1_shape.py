"""Shapes of heads: of two heads of one size the second mostly has its values in the same places.

Usually only a target, a token, a trace id, a length or a date differs. A shape has the constant bytes between those
values, and none of the values. A head of this shape is read by one ``struct``, one comparison and one scan for control
bytes, and the result is that of the grammar; any other head is left to the grammar. Pure.
"""

from __future__ import annotations

import re
from functools import cache
from struct import Struct
from typing import Any, Final

from sidecar.wire.h1_fields import LINE_BREAK, LINE_TEXT, H1Layout, is_length
from sidecar.wire.message import Request, Response, new_request, new_response, picking

_values_in: Final = re.compile(rb"[^:\r]++:[\t ]*+([^\r]*+)\r\n").finditer
_is_target: Final = re.compile(rb"/[!-~]*+").fullmatch
_strip: Final = bytes.strip
_MAX_FIELDS: Final = 40  # of a head with a shape
_LEARNED_AFTER: Final = 16  # heads of a size: to learn a shape costs as much as to read two
_MAX_COUNTED: Final = 256  # sizes
_MAX_SHAPES: Final = 64  # of about 2 KiB


class HeadShape:
    """A shape, learned from one head. ``size`` is the size of the head in bytes, ``hole`` the place of its target.

    Constant are the names of the fields, and the values from which the state of the connection follows: Host,
    Connection, Expect, Upgrade, Transfer-Encoding, and a Content-Length that is repeated.
    """

    __slots__ = (
        "_breaks",
        "_constants",
        "_layout",
        "_length",
        "_method",
        "_pick",
        "_rest",
        "_still",
        "_unpack",
        "size",
    )

    def __init__(self, head: bytes, message: Request | Response, layout: H1Layout, hole: tuple[int, int]) -> None:
        spans = [match.span(1) for match in _values_in(head, head.index(b"\n") + 1)]
        still = sorted(layout.constant)
        varying = [at for at in range(len(spans)) if at not in layout.constant]
        holes = [hole]
        holes += [spans[at] for at in varying]
        sizes, end = [], 0
        for begin, after in holes:
            sizes += [begin - end, after - begin]
            end = after
        self._unpack = Struct("".join([f"{size}s" for size in (*sizes, len(head) - end)])).unpack_from
        self._constants = self._unpack(head)[::2]
        self._still = tuple([message.values[at] for at in still])
        places = {at: 3 + 2 * number for number, at in enumerate(varying)}
        places |= {at: len(sizes) + 1 + number for number, at in enumerate(still)}
        self._pick = picking([places[at] for at in range(len(spans))])
        self._breaks = LINE_BREAK * (len(spans) + 2)
        self._layout = layout
        self._length = layout.length if layout.usual else None
        self._method = message.method if isinstance(message, Request) else ""
        self._rest: tuple[Any, ...] = message[4:] if isinstance(message, Request) else message[2:]
        self.size = len(head)

    def request(self, data: bytes) -> Request | None:
        """Read the request head at the beginning of ``data``; None if it is not of this shape."""
        pieces = self._pieces(data)
        if pieces is None or not _is_target(pieces[1]):
            return None
        values = tuple(map(_strip, self._pick(pieces + self._still)))
        at = self._length
        if at is None:
            return new_request((self._layout, values, self._method, pieces[1], *self._rest))
        if not is_length(values[at]):
            return None
        length = int(values[at])
        authority, listed, _, _, *rest = self._rest
        return new_request(
            (self._layout, values, self._method, pieces[1], authority, listed, length, length > 0, *rest)
        )

    def response(self, data: bytes) -> Response | None:
        """Read the answer head at the beginning of ``data``; None if it is not of this shape."""
        pieces = self._pieces(data)
        if pieces is None:
            return None
        values = tuple(map(_strip, self._pick(pieces + self._still)))
        at = self._length
        if at is None:
            return new_response((self._layout, values, *self._rest))
        if not is_length(values[at]):
            return None
        status, listed, _, *rest = self._rest
        return new_response((self._layout, values, status, listed, int(values[at]), *rest))

    def _pieces(self, data: bytes) -> tuple[bytes, ...] | None:
        """Cut the head at the beginning of ``data`` into constants and values, in turn; None: it has another shape."""
        size = self.size
        if len(data) < size:
            return None
        pieces = self._unpack(data)
        if pieces[::2] != self._constants:
            return None
        head = data if len(data) == size else data[:size]
        return pieces if head.translate(None, LINE_TEXT) == self._breaks else None


def _hole_of_target(head: bytes, message: Request | Response) -> tuple[int, int] | None:
    """Return the place of a request's path and query: in absolute form, what comes before them is constant.

    None if they are not there as they were read: an absolute form may end with its authority.
    """
    if not isinstance(message, Request):
        return 0, 0
    end = head.index(b" ", head.index(b" ") + 1)
    start = end - len(message.target)
    return (start, end) if head[start:end] == message.target else None


class HeadShapes(dict[int, HeadShape]):
    """Cache of shapes by the number of bytes that arrived together. The oldest is evicted first.

    Call ``missed`` with each head that was read without a shape.
    """

    def __init__(self) -> None:
        super().__init__()
        self._missed: dict[int, int] = {}

    def missed(self, size: int, head: bytes, message: Request | Response) -> None:
        """Count a head read by the grammar, of ``size`` bytes that arrived together; learn its shape if many came."""
        missed = self._missed.get(size, 0) + 1
        if missed < _LEARNED_AFTER:
            if len(self._missed) >= _MAX_COUNTED:
                self._missed.clear()
            self._missed[size] = missed
            return
        self._missed[size] = 0
        layout, hole = message.layout, _hole_of_target(head, message)
        if isinstance(layout, H1Layout) and len(layout.names) <= _MAX_FIELDS and hole is not None:
            self.pop(size, None)
            if len(self) >= _MAX_SHAPES:
                del self[next(iter(self))]
            self[size] = HeadShape(head, message, layout, hole)


@cache  # one per kind of listener: a shape holds within its limits only
def request_shapes(_limits: tuple[int, int, int, bool]) -> HeadShapes:
    """Return the shapes of requests within (most bytes of a head, of a target, most fields, absolute form is read)."""
    return HeadShapes()


@cache  # as above
def answer_shapes(_limits: tuple[int, int]) -> HeadShapes:
    """Return the shapes of answers within (most bytes of a head, most fields)."""
    return HeadShapes()
