"""Parsers of foreign bytes are linear: twice the input takes about twice the bytecodes.

The harnesses are measured, which do slightly more than the product, in proportion to it.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from typing import Final

import pytest

from tests.counting import bytecodes
from tests.fuzz.harnesses import HARNESSES, Harness
from tests.fuzz.inputs import SEEDS, read_inputs

SIZE: Final = 1024  # and twice of it
TIMES: Final = 10
FEWER: Final = {"http2_answers_beside_library": 3}  # the library's own steps, which are counted as well, take long
NOTEWORTHY: Final = 20_000  # bytecodes; below, an input's fixed cost dominates
MOST: Final = 2.7
# Whole connections, which depend on time, or whose other end is a library: `http2_connection` measures their parsers.
NO_READERS: Final = frozenset({"event_orders", "request_stream", "answer_stream", "http2_beside_library"})
UNITS: Final = (
    b"a", b" ", b",", b".", b"/", b"%2e", b'"', b"\\", b"\r\n", b"a: b\r\n", b"1\r\na\r\n", b";a=b", b'{"a":', b"[",
    b"{},", b"1,", b"eyJ", b"eyJhbGci.", b"=", b"&a=b", b"%41", b"\x00", b"\xff", b"\x30\x00", b"\x81\x00", b"\\u0041",
    b"- ", b"a:\n", b"\n", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"HTTP/1.1 100 Continue\r\n\r\n",
)  # fmt: skip


def inputs(harness: Harness) -> Iterator[tuple[bytes, bytes, bytes]]:
    """Return an input that repeats a part of a seed, and the same with twice and four times as many repetitions."""
    chance = random.Random(harness.name)
    seeds = read_inputs(SEEDS / f"{harness.name}.txt") or [b""]
    for _ in range(FEWER.get(harness.name, TIMES)):
        seed, unit = chance.choice(seeds), chance.choice(UNITS)
        at = chance.randrange(len(seed) + 1)
        part = unit * (SIZE // len(unit))
        once, twice, four_times = (seed[:at] + part * times + seed[at:] for times in (1, 2, 4))
        yield once, twice, four_times


def work(harness: Harness, data: bytes) -> int:
    """Count the bytecodes of one check."""
    return bytecodes(lambda: harness.check(data), Exception)


@pytest.mark.parametrize("name", sorted(HARNESSES.keys() - NO_READERS))
def test_twice_the_input_takes_about_twice_the_work(name: str) -> None:
    harness = HARNESSES[name]
    for once, twice, four_times in inputs(harness):
        with contextlib.suppress(AssertionError):
            harness.check(twice)  # fills the caches before counting
        least, most = work(harness, once), work(harness, twice)
        if most >= max(NOTEWORTHY, MOST * least):  # one step may be another way through the code, two are growth
            assert work(harness, four_times) < MOST * most, once[:200]
