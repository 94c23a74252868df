"""Request heads that came before, found by their bytes but for the values by which requests differ. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import pairwise
from struct import Struct
from typing import Final

from sidecar.wire.head import Places, RequestHead
from sidecar.wire.lines import MAX_HEADS, MAX_KNOWN_BYTES, NEVER_AGAIN

_MAX_KNOWN_HEAD: Final = 2 * MAX_KNOWN_BYTES  # of a head that is remembered
_VALUE: Final = rb"[!-~]++(?: [!-~]++)*+"
_VALUES: Final = re.compile(_VALUE)  # with a space between them, too
# In these, as almost everybody spells them, heads differ that are otherwise alike.
_NAMES: Final = sorted(NEVER_AGAIN | {b"content-length"})
_DIFFERING: Final = re.compile(
    rb"\r\n(%b): (%b)(?=\r\n)" % (b"|".join(spelled for name in _NAMES for spelled in (name, name.title())), _VALUE)
)


_Texts = tuple[bytes, ...]  # what is around the values
_Known = tuple[RequestHead, Places]


class KnownHeads:
    """Reads heads with ``read``, which looks at nothing but the bytes, and remembers those that it could read.

    A head is looked for where the values stood in the last one of its length. That is a guess and no more: it is found
    only if all around these values is, byte for byte, what was around those of a head that was read, and they are plain
    values too. Then ``read`` would read it, and as the same but for them: the length of its body is the one they state.
    """

    __slots__ = ("_heads", "_last", "_read")

    def __init__(self, read: Callable[[bytes], RequestHead]) -> None:
        self._read = read
        self._heads: dict[_Texts, _Known] = {}
        # By their length: what cuts heads into text, value, text, value ... text, and the last one that was found so.
        self._last: dict[int, tuple[Struct, _Texts, _Known]] = {}

    def find(self, data: bytes) -> RequestHead | None:
        """The head that these bytes are, whole and with nothing after it, if it is known."""
        last = self._last.get(len(data))
        if last is None:
            return None
        cut, last_texts, known = last
        parts = cut.unpack(data)
        texts = parts[::2]
        if texts != last_texts:
            found = self._heads.get(texts)
            if found is None:
                return None
            known = found
            self._last[len(data)] = cut, texts, known
        head, places = known
        if not places:
            return head
        values = parts[1::2]
        # Ids are letters, digits and hyphens: that is seen in a third of the time.
        if not b"".join(values).replace(b"-", b"").isalnum() and not _VALUES.fullmatch(b" ".join(values)):
            return None
        return head.renewed(places, parts)

    def read(self, data: bytes) -> RequestHead:
        """The head that these bytes are, known or not. Raises what ``read`` raises."""
        if len(data) > _MAX_KNOWN_HEAD:
            return self._read(data)
        head = self.find(data)
        return self._read_new(data) if head is None else head

    def _read_new(self, data: bytes) -> RequestHead:
        differing = [*_DIFFERING.finditer(data)]
        if len(differing) > len(_NAMES):  # one comes twice
            return self._read(data)
        cut = _cut_around([match.span(2) for match in differing], len(data))
        parts = cut.unpack(data)
        texts = parts[::2]
        known = self._heads.get(texts)
        head = known[0].renewed(known[1], parts) if known is not None else None  # it was looked for elsewhere
        if known is None or head is None:
            head = self._read(data)
            places = tuple([(match[1].lower(), 2 * at + 1) for at, match in enumerate(differing)])
            if any(head.fresh.get(name) != parts[at] for name, at in places):  # one comes twice, spelled otherwise
                return head
            known = head, places
            if len(self._heads) >= MAX_HEADS:
                del self._heads[next(iter(self._heads))]
            self._heads[texts] = known
        if len(self._last) >= MAX_HEADS:
            self._last.clear()
        self._last[len(data)] = cut, texts, known
        return head


def _cut_around(spans: list[tuple[int, int]], size: int) -> Struct:
    """What cuts ``size`` bytes into text, value, text, value ... text, the values being at ``spans``."""
    at = [0, *(edge for span in spans for edge in span), size]
    return Struct("".join([f"{end - begin}s" for begin, end in pairwise(at)]))
