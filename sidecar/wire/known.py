"""Heads that came before, found by their bytes but for the values in which like ones differ. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import pairwise
from struct import Struct
from typing import Final, Generic, TypeVar

from sidecar.wire.head import RequestHead, ResponseHead, plain_length
from sidecar.wire.lines import FRESH_NAMES, MAX_HEADS, MAX_KNOWN_BYTES

_MAX_KNOWN_HEAD: Final = 2 * MAX_KNOWN_BYTES  # of a head that is remembered
_VALUE: Final = rb"[!-~]++(?: [!-~]++)*+"
_VALUES: Final = re.compile(_VALUE)  # with a space between them, too
_MOST: Final = len(FRESH_NAMES)  # values that may differ: of more some come twice


def differing_in(names: frozenset[bytes]) -> re.Pattern[bytes]:
    """Finds the lines of these names where they are spelled as almost everybody does: (name, value)."""
    spelled = [spelled for name in sorted(names) for spelled in (name, name.title())]
    return re.compile(rb"\r\n(%b): (%b)(?=\r\n)" % (b"|".join(spelled), _VALUE))


_Texts = tuple[bytes, ...]  # what is around the values
_Places = tuple[tuple[bytes, int], ...]  # the names of the values, and where those are among the parts
_H = TypeVar("_H", RequestHead, ResponseHead)


class KnownHeads(Generic[_H]):
    """Reads heads with ``read``, which looks at nothing but the bytes, and remembers those that it could read.

    A head is looked for where the values stood in the last one of its length. That is a guess and no more: it is found
    only if all around these values is, byte for byte, what was around those of a head that was read, and they are plain
    values too. Then ``read`` would read it, and as the same but for them: the length of its body is the one they state.
    ``differing`` finds the lines whose values may differ: ``differing_in``.
    """

    __slots__ = ("_cuts", "_differing", "_heads", "_read")

    def __init__(self, read: Callable[[bytes], _H], differing: re.Pattern[bytes]) -> None:
        self._read: Callable[[bytes], _H] = read
        self._differing = differing
        self._heads: dict[_Texts, tuple[_H, _Places]] = {}
        self._cuts: dict[int, Struct] = {}  # by their length: what cuts heads into text, value, text, value ... text

    def find(self, data: bytes) -> _H | None:
        """The head that these bytes are, whole and with nothing after it, if it is known."""
        cut = self._cuts.get(len(data))
        if cut is None:
            return None
        parts = cut.unpack(data)
        # By their hash: compared with those of another head, token would stand beside token.
        known = self._heads.get(parts[::2])
        if known is None:
            return None
        head, places = known
        if not places:
            return head
        values = parts[1::2]
        # Ids are letters, digits and hyphens: that is seen in a third of the time.
        if not b"".join(values).replace(b"-", b"").isalnum() and not _VALUES.fullmatch(b" ".join(values)):
            return None
        fresh = head.fresh.copy()
        for name, at in places:
            fresh[name] = parts[at]
        content_length = head.content_length
        if content_length is not None:
            content_length = plain_length(fresh[b"content-length"])
            if content_length is None:
                return None
        return head.differing(fresh, content_length)

    def read(self, data: bytes) -> _H:
        """The head that these bytes are, known or not. Raises what ``read`` raises."""
        if len(data) > _MAX_KNOWN_HEAD:
            return self._read(data)
        head = self.find(data)
        return self._read_new(data) if head is None else head

    def _read_new(self, data: bytes) -> _H:
        lines = [*self._differing.finditer(data)]
        if len(lines) > _MOST:
            return self._read(data)
        cut = _cut_around([line.span(2) for line in lines], len(data))
        parts = cut.unpack(data)
        texts = parts[::2]
        if texts not in self._heads:  # else it was looked for elsewhere
            head = self._read(data)
            places = tuple([(line[1].lower(), 2 * at + 1) for at, line in enumerate(lines)])
            if any(head.fresh.get(name) != parts[at] for name, at in places):  # one comes twice
                return head
            if len(self._heads) >= MAX_HEADS:
                del self._heads[next(iter(self._heads))]
            self._heads[texts] = head, places
        if len(self._cuts) >= MAX_HEADS:
            self._cuts.clear()
        self._cuts[len(data)] = cut
        return self.find(data) or self._read(data)


def _cut_around(spans: list[tuple[int, int]], size: int) -> Struct:
    """What cuts ``size`` bytes into text, value, text, value ... text, the values being at ``spans``."""
    at = [0, *(edge for span in spans for edge in span), size]
    return Struct("".join([f"{end - begin}s" for begin, end in pairwise(at)]))
