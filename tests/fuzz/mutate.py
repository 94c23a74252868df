"""A plain mutator with a seed: it feeds the harnesses in the ordinary tests, and where atheris is unavailable.

It does not use coverage. It cuts, repeats, swaps, splices two inputs, and inserts words of a dictionary, which works
well for line protocols.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from random import Random
from typing import Final

_LINE: Final = b"\r\n"
_ODD_BYTES: Final = b'\0\t\n\r "#%,./:;=?\\_{}\x7f\x80\xa0\xff'

_NAMED: Final = 0.3  # the share of changed lines beside which a field gets the name that another's value holds
_name: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,40}").fullmatch


def names_in_values(lines: Iterable[bytes]) -> list[bytes]:
    """Return the names of fields that the values of these lines could mean, each once: Connection lists such names."""
    found: dict[bytes, None] = {}
    for line in lines:
        for part in re.split(rb"[,;= \t]+", line.partition(b":")[2].strip()):
            if _name(part):
                found[part] = None
    return list(found)


def with_named_field(data: bytes, random: Random) -> bytes:
    """Insert a field into a message, by a name that the value of another field holds."""
    lines = data.split(_LINE)
    names = names_in_values(lines[1:])
    if names:
        lines.insert(random.randint(1, len(lines) - 1), random.choice(names) + b": 1")
    return _LINE.join(lines)


class Mutator:
    """An endless stream of inputs near the given ones. The same seed, the same stream."""

    def __init__(self, inputs: Sequence[bytes], words: Sequence[bytes], *, seed: int, max_len: int = 4096) -> None:
        self._inputs = list(inputs) or [b""]
        self._words = list(words) or [b"\0"]
        self._random = Random(seed)
        self._max_len = max_len

    def __iter__(self) -> Iterator[bytes]:
        while True:
            data = self._random.choice(self._inputs)
            for _ in range(self._random.choice((1, 1, 1, 2, 3, 5))):
                data = self._changed(data)
            yield data[: self._max_len]

    def _changed(self, data: bytes) -> bytes:
        random = self._random
        change = random.choice(
            (self._word, self._word, self._byte, self._cut, self._repeat, self._splice, self._lines, self._number)
        )
        at = random.randint(0, len(data))
        return change(data, at)

    def _word(self, data: bytes, at: int) -> bytes:
        word = self._random.choice(self._words)
        return data[:at] + word + data[at + self._random.choice((0, 0, len(word))) :]

    def _byte(self, data: bytes, at: int) -> bytes:
        random = self._random
        byte = random.choice(_ODD_BYTES) if random.random() < 0.6 else random.randrange(256)
        return data[:at] + bytes([byte]) + data[at + random.randint(0, 1) :]

    def _cut(self, data: bytes, at: int) -> bytes:
        return data[:at] + data[at + self._random.choice((1, 1, 2, 4, 16)) :]

    def _repeat(self, data: bytes, at: int) -> bytes:
        piece = data[at : at + self._random.randint(1, 64)]
        return data[:at] + piece * self._random.choice((2, 2, 3, 20)) + data[at + len(piece) :]

    def _splice(self, data: bytes, at: int) -> bytes:
        other = self._random.choice(self._inputs)
        return data[:at] + other[self._random.randint(0, len(other)) :]

    def _lines(self, data: bytes, _at: int) -> bytes:
        """Swap or repeat whole lines, or take them from another input."""
        random = self._random
        lines = data.split(_LINE)
        place = random.randrange(len(lines))
        other = random.choice(random.choice(self._inputs).split(_LINE))
        lines[place : place + random.randint(0, 1)] = random.choice(([other], [lines[place], lines[place]], []))
        data = _LINE.join(lines)
        return with_named_field(data, random) if random.random() < _NAMED else data

    def _number(self, data: bytes, at: int) -> bytes:
        """Replace the next number."""
        while at < len(data) and not data[at : at + 1].isdigit():
            at += 1
        end = at
        while end < len(data) and data[end : end + 1].isdigit():
            end += 1
        number = int(data[at : min(end, at + 15)] or b"0")
        other = self._random.choice((0, 1, number + 1, max(0, number - 1), number * 16, 2**31, 2**63, 10**16))
        return data[:at] + str(other).encode() + data[end:]
