"""A request never costs more than ten times the bytes it was received in, however those are arranged."""

from __future__ import annotations

import random
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import permutations
from typing import Final

import pytest

from delegation_core.errors import Denied
from sidecar.wire.framing import ChunkedBody
from sidecar.wire.h1_reader import RequestReader
from sidecar.wire.limits import ServerLimits
from tests.wire.written import parse_request_head

HEAD: Final = b"POST /a HTTP/1.1\r\nHost: a\r\n"
LARGE: Final = 32_000
NAMES: Final = (b"delegation-call", b"traceparent", b"tracestate", b"x-request-id")

HEADS: Final = {
    "one long value": HEAD + b"X: " + b"x" * LARGE + b"\r\n\r\n",
    "many short fields": HEAD + b"a:\r\n" * 7000 + b"\r\n",
    "as many fields as there may be": HEAD + (b"X" * 290 + b": y\r\n") * 98 + b"\r\n",
    "a long target": b"GET /" + b"x" * 8000 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
    "a long Connection": HEAD + b"Connection: " + b"a," * (LARGE // 2) + b"\r\n\r\n",
}
BODIES: Final = {
    "chunks of two bytes": b"2\r\nab\r\n" * 40_000,
    "chunks of one byte": b"1\r\na\r\n" * 40_000,
    "chunks with extensions": b"2;a=b\r\nab\r\n" * 4000,
    "one large chunk": b"40000\r\n" + b"x" * 0x40000,
    "trailers": b"0\r\n" + b"a:\r\n" * 2000,
}


def peak(work: Callable[[bytes], object], stream: bytes) -> int:
    tracemalloc.start()
    try:
        with suppress(Denied):
            work(stream)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("stream", HEADS.values(), ids=HEADS.keys())
def test_a_head_costs_no_more_than_ten_times_its_bytes(stream: bytes) -> None:
    reader = RequestReader(ServerLimits(max_head_bytes=LARGE + 1000), proxy_form=False)
    peak(reader.read, stream)
    assert peak(reader.read, stream) <= 10 * len(stream)


@pytest.mark.parametrize("stream", BODIES.values(), ids=BODIES.keys())
def test_a_body_costs_no_more_than_ten_times_its_bytes(stream: bytes) -> None:
    assert peak(ChunkedBody(max_bytes=1 << 20).feed, stream) <= 10 * len(stream)


def ids_doubled() -> Iterator[bytes]:
    """Heads that differ only in the order of lines of which some come twice."""
    lines = [name + b": 1\r\n" for name in NAMES]
    draw = random.Random(1)
    for _ in range(400):
        yield HEAD + b"".join(draw.choices(lines, k=90)) + b"\r\n"


def ids_in_any_order() -> Iterator[bytes]:
    """Heads with many lines, each with those of ``NAMES`` in every order that there is."""
    lines = [name + b": 1\r\n" for name in NAMES]
    orders = [b"".join(order) for count in range(5) for order in permutations(lines, count)]
    for number in range(7):
        rest = HEAD + b"".join(b"X-%d-%d:\r\n" % (number, at) for at in range(90))
        for order in orders:
            yield rest + order + b"\r\n"


@pytest.mark.parametrize("flood", [ids_doubled, ids_in_any_order])
def test_a_flood_of_orders_of_lines_leaves_next_to_nothing_behind(
    flood: Callable[[], Iterator[bytes]],
) -> None:
    tracemalloc.start()
    try:
        for head in flood():
            parse_request_head(head, max_target_bytes=64, max_fields=100, proxy_form=False)
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 1_500_000
