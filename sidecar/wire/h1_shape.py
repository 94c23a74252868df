"""Shapes of heads: two heads of one size usually have their values in the same places.

Usually only a target, a token, a trace id or a date differs. A shape holds the constant bytes between those values, and
no value that may differ by user. A head of this shape is read by one ``struct``, one comparison and one scan for
control bytes, and the result is that of the grammar; any other head is left to the grammar. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import fields
from functools import cache
from itertools import cycle
from struct import Struct
from typing import Any, Final

from sidecar.wire.h1_fields import CONTROLS_MARKED, H1Layout, is_length
from sidecar.wire.message import Request, Response, picking

_values_in: Final = re.compile(rb"[^:\r]++:[\t ]*+([^\r]*+)\r\n").finditer
_is_target: Final = re.compile(rb"/[!-~]*+").fullmatch
_strip: Final = bytes.strip
_MAX_FIELDS: Final = 40  # of a head with a shape
_LEARNED_AFTER: Final = 16  # heads of one size: learning a shape costs as much as parsing two heads
_LASTS_AT_MOST: Final = 1024  # misses; each shape of a size stays twice as long as its predecessor
_EVICTS_AFTER: Final = 64  # heads of one size before its shape may evict another
_MAX_COUNTED: Final = 1024  # sizes
_MAX_SHAPES: Final = 256  # of about 2 KiB
_STEADY: Final = frozenset(
    {
        b"accept",
        b"accept-encoding",
        b"cache-control",
        b"content-encoding",
        b"content-length",
        b"content-type",
        b"server",
        b"user-agent",
        b"vary",
    }
)
"""Fields that tell of programs and content, and of no user. Their values are constant until one is seen to differ."""


class HeadShape:
    """A shape, learned from one head. ``size`` is the size of the head in bytes, ``hole`` the place of its target.

    It is replaced after ``lasts`` other heads: learning is wasted where no two heads are alike.

    Constant: the names of the fields, and two kinds of values. The first kind decides the state of the connection:
    Host, Connection, Expect, Upgrade, Transfer-Encoding, and a Content-Length that is repeated. The second kind are
    ``_STEADY`` fields, unless they differ in ``before``, the shape that this one replaces.
    """

    __slots__ = (
        "_constants",
        "_layout",
        "_length",
        "_only",
        "_pick",
        "_rest",
        "_steady",
        "_texts",
        "_texts_in",
        "_values_in",
        "lasts",
        "size",
    )

    def __init__(
        self,
        head: bytes,
        message: Request | Response,
        layout: H1Layout,
        hole: tuple[int, int] | None,
        before: HeadShape | None = None,
    ) -> None:
        values = message.values
        spans = [match.span(1) for match in _values_in(head, head.index(b"\n") + 1)]
        constants = {at: values[at] for at in layout.constant}
        constants |= {
            at: values[at]
            for at, name in enumerate(layout.names)
            if name in _STEADY and (before is None or before.allows(layout, at, values[at]))
        }
        varying = [at for at in range(len(spans)) if at not in constants]
        sizes, end = [], 0
        for begin, after in [*([] if hole is None else [hole]), *[spans[at] for at in varying]]:
            sizes += [begin - end, after - begin]
            end = after
        sizes.append(len(head) - end)
        self._texts_in = _unpacking(sizes, "sx")
        self._values_in = _unpacking(sizes, "xs")
        self._texts = self._texts_in(head)
        self._steady = constants
        self._constants = tuple(constants.values())
        places = {at: place for place, at in enumerate((*varying, *constants))}
        self._pick = picking([places[at] for at in range(len(spans))])
        self._layout = layout
        self._length = layout.length if layout.usual and layout.length in varying else None
        self._only = message if isinstance(message, Response) and not varying else None
        self._rest = _constants_of(message)
        self.size = len(head)
        self.lasts: int = _LEARNED_AFTER if before is None else min(2 * before.lasts, _LASTS_AT_MOST)

    def allows(self, layout: H1Layout, at: int, value: bytes) -> bool:
        """True if the value may be constant in the next shape: heads of this layout had no other value here."""
        return layout is not self._layout or self._steady.get(at) == value

    def request(self, data: bytes) -> Request | None:
        """Parse the request head at the start of ``data``; None if it has another shape.

        ``data`` must be as long as the input from which the shape was learned.
        """
        if self._texts_in(data) != self._texts:
            return None
        target, *varying = self._values_in(data)
        text = b"".join(varying)
        if text.translate(CONTROLS_MARKED) != text or not _is_target(target):
            return None
        values = self._pick(tuple(map(_strip, varying)) + self._constants)
        method, authority, length, has_body, listed, keep_alive, minor, expect, upgrade = self._rest
        if self._length is not None:
            if not is_length(values[self._length]):
                return None
            length = int(values[self._length])
            has_body = length > 0
        return Request(
            self._layout,
            values,
            method,
            target,
            authority,
            length,
            has_body,
            listed,
            keep_alive,
            minor,
            expect,
            upgrade,
        )

    def response(self, data: bytes) -> Response | None:
        """Parse the answer head at the start of ``data``; as ``request``."""
        if self._texts_in(data) != self._texts:
            return None
        if self._only is not None:
            return self._only
        varying = self._values_in(data)
        text = b"".join(varying)
        if text.translate(CONTROLS_MARKED) != text:
            return None
        values = self._pick(tuple(map(_strip, varying)) + self._constants)
        status, length, chunked, listed, keep_alive, minor = self._rest
        if self._length is not None:
            if not is_length(values[self._length]):
                return None
            length = int(values[self._length])
        return Response(self._layout, values, status, length, chunked, listed, keep_alive, minor)


def _unpacking(sizes: Iterable[int], kinds: str) -> Callable[[bytes], tuple[bytes, ...]]:
    """Return a splitter into pieces of these sizes; ``kinds``: per piece, s to return or x to skip it."""
    return Struct("".join([f"{size}{kind}" for size, kind in zip(sizes, cycle(kinds), strict=False)])).unpack_from


_EACH_ITS_OWN: Final = frozenset({"layout", "values", "target"})


def _constants_of(message: Request | Response) -> tuple[Any, ...]:
    """Return the attributes that heads of a shape share, in the order of the class."""
    return tuple([getattr(message, field.name) for field in fields(message) if field.name not in _EACH_ITS_OWN])


def _hole_of_target(head: bytes, message: Request) -> tuple[int, int] | None:
    """Return the place of path and query in a request's head; in absolute form, the text before them is constant.

    None if the head has no path: an absolute form may end with its authority.
    """
    end = head.index(b" ", head.index(b" ") + 1)
    start = end - len(message.target)
    return (start, end) if head[start:end] == message.target else None


class HeadShapes(dict[int, HeadShape]):
    """Cache of shapes, keyed by the number of bytes that arrived together. Evicts the oldest first.

    Call ``missed`` for each head read without a shape.
    """

    def __init__(self) -> None:
        super().__init__()
        self._missed: dict[int, int] = {}

    def missed(self, size: int, head: bytes, message: Request | Response) -> None:
        """Count a head parsed by the grammar; ``size``: bytes that arrived together. Learns frequent sizes."""
        missed = self._missed.get(size, 0) + 1
        if missed < _LEARNED_AFTER:
            if len(self._missed) >= _MAX_COUNTED:
                self._missed.clear()
            self._missed[size] = missed
            return
        before = self.get(size)
        full = len(self) >= _MAX_SHAPES
        if missed < (before.lasts if before is not None else _EVICTS_AFTER if full else 0):
            self._missed[size] = missed
            return
        self._missed[size] = 0
        layout = message.layout
        hole = _hole_of_target(head, message) if isinstance(message, Request) else None
        if not isinstance(layout, H1Layout) or len(layout.names) > _MAX_FIELDS:
            return
        if hole is None and isinstance(message, Request):
            return
        self.pop(size, None)
        if full and before is None:
            del self[next(iter(self))]
        self[size] = HeadShape(head, message, layout, hole, before)


@cache  # one per kind of listener: a shape holds within its limits only
def request_shapes(_limits: tuple[int, int, int, bool]) -> HeadShapes:
    """Return the shapes of requests within ``_limits``: (head bytes, target bytes, fields, absolute form allowed)."""
    return HeadShapes()


@cache  # as above
def answer_shapes(_limits: tuple[int, int]) -> HeadShapes:
    """Return the shapes of answers within ``_limits``: (head bytes, fields)."""
    return HeadShapes()
