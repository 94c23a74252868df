"""A cached head is read as without the cache, whatever came before."""

from __future__ import annotations

import gc
import tracemalloc
from functools import partial
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.errors import Denied, Reason
from sidecar.wire.head import RequestHead
from sidecar.wire.known import _MAX_KNOWN_HEAD, KnownHeads
from sidecar.wire.lines import MAX_HEADS, MAX_KNOWN_BYTES, NEVER_AGAIN
from sidecar.wire.parse import (
    ANSWERS_DIFFER,
    REQUESTS_DIFFER,
    _read_request_head,
    _read_response_head,
    parse_request_head,
    parse_response_head,
)

read: Final = partial(_read_request_head, max_target_bytes=64, max_fields=8, proxy_form=True)


def outcome(head: bytes, known: KnownHeads[RequestHead] | None = None) -> RequestHead | Reason:
    try:
        return known.read(head) if known is not None else read(head)
    except Denied as error:
        return error.reason


def with_lines(*lines: bytes) -> bytes:
    return b"\r\n".join([b"GET /a HTTP/1.1", b"Host: a", *lines, b"", b""])


def known_from(*heads: bytes) -> KnownHeads[RequestHead]:
    known = KnownHeads(read, REQUESTS_DIFFER)
    for head in heads:
        known.read(head)
    return known


ONE: Final = with_lines(b"Authorization: Bearer t", b"Delegation-Call: 0123", b"traceparent: 00-45-67")


def test_a_head_that_differs_in_ids_alone_is_found_with_its_own() -> None:
    known = known_from(ONE)
    other = ONE.replace(b"0123", b"4567").replace(b"45-67", b"89-ab")
    found = known.find(other)
    assert found == read(other) != read(ONE)
    assert found is not None
    assert found.common is known.read(ONE).common
    assert known.find(ONE) == read(ONE)


def test_a_head_without_ids_is_found_as_it_is() -> None:
    plain = with_lines(b"Authorization: Bearer t")
    known = known_from(plain)
    assert known.find(plain) is known.read(plain)
    assert known.find(plain.replace(b"Bearer t", b"Bearer u")) is None


def test_ids_of_another_length_are_found_where_they_stand() -> None:
    known = known_from(ONE)
    longer = ONE.replace(b"0123", b"0123456")
    found = known.read(longer)
    assert found == read(longer)
    assert found.common is known.read(ONE).common


def test_a_head_is_known_by_its_length_only_until_another_is_read_that_is_as_long() -> None:
    swapped = with_lines(b"Authorization: Bearer t", b"traceparent: 00-45-67", b"Delegation-Call: 0123")
    assert len(swapped) == len(ONE)
    known = known_from(ONE, swapped)
    for head in (ONE, swapped, ONE):
        assert known.read(head) == read(head)
        assert known.find(head) == read(head)


@pytest.mark.parametrize(
    "value",
    [
        *[b"", b" ", b"\t", b" 1", b"1 ", b"1  2", b"1\t2", b"a=1, b=2", b"\xe9", b"-", b"--", b"_"],
        *[b"\0", b"\x7f", b"\r", b"\n", b"\r\n", b"1\r\nx: y", b"1\r\n\r\n", b"\r\nHost: b", b"\r\n 1"],
        b"1\r\n\r\nGET / HTTP/1.1",
    ],
)
@pytest.mark.parametrize("at", [0, 1])
def test_a_value_is_taken_as_it_is_read_anew(value: bytes, at: int) -> None:
    """Each in the place of one as long, so that all else is as it was."""
    lines = [b"Delegation-Call: ", b"traceparent: "]
    usual = with_lines(*[line + (b"x" * len(value) if number == at else b"id") for number, line in enumerate(lines)])
    odd = with_lines(*[line + (value if number == at else b"id") for number, line in enumerate(lines)])
    known = known_from(usual)
    assert known.find(odd) in (None, outcome(odd))
    assert outcome(odd, known) == outcome(odd)


@pytest.mark.parametrize(
    "length",
    [
        b"0",
        b"7",
        b"42",
        b"00",
        b"07",
        b"+7",
        b"-7",
        b"7-",
        b"0x",
        b"1 2",
        b"1, 2",
        b"_7",
        b"",
        b" ",
        b"7" * 15,
        b"7" * 16,
    ],
)
def test_a_length_is_read_for_each_head_and_as_strictly(length: bytes) -> None:
    usual, other = (
        with_lines(b"Content-Length: " + value, b"traceparent: 1") for value in (b"1" * len(length), length)
    )
    known = KnownHeads(read, REQUESTS_DIFFER)
    outcome(usual, known)
    assert known.find(other) in (None, outcome(other))
    assert outcome(other, known) == outcome(other)


def test_heads_that_differ_in_the_length_of_their_body_are_one_but_for_that() -> None:
    short, long = (with_lines(b"Content-Length: %d" % length) for length in (10, 99))
    known = known_from(short)
    found = known.find(long)
    assert found is not None
    assert (found.content_length, found.common) == (99, known.read(short).common)
    assert known.read(short).content_length == 10


@pytest.mark.parametrize(("name", "one", "two"), [(b"Date", b"Thu, 1", b"Fri, 2"), (b"content-length", b"10", b"42")])
def test_answers_that_differ_in_their_date_or_length_are_one_but_for_that(name: bytes, one: bytes, two: bytes) -> None:
    first, second = (b"HTTP/1.1 200 OK\r\n%b: %b\r\nServer: a\r\n\r\n" % (name, value) for value in (one, two))
    anew = partial(_read_response_head, max_fields=8)
    known = KnownHeads(anew, ANSWERS_DIFFER)
    known.read(first)
    found = known.find(second)
    assert found == anew(second) != known.read(first) == anew(first)
    assert parse_response_head(first, max_fields=7).common is parse_response_head(second, max_fields=7).common


@pytest.mark.parametrize("value", [b"\r\n\r\nGET / HTTP/1.1\r\nx", b"1 \r\nHost: b", b"1\r\nx: y"])
def test_a_line_that_stands_in_a_value_is_never_part_of_it(value: bytes) -> None:
    known = known_from(with_lines(b"traceparent: " + b"1" * len(value)))
    assert known.find(with_lines(b"traceparent: " + value)) is None


@pytest.mark.parametrize("odd", [b"%b: 1", b"%b:1", b"%b: \t1"])
@pytest.mark.parametrize("name", sorted(NEVER_AGAIN))
def test_a_name_that_comes_twice_is_never_told_apart(name: bytes, odd: bytes) -> None:
    for head in (
        with_lines(name + b": 1", odd % name.upper()),
        with_lines(odd % name.upper(), name + b": 1"),
        with_lines(name + b": 1", name.title() + b": 2"),
    ):
        known = known_from(head)
        assert known.find(head) is None
        assert known.read(head) == read(head)


def test_an_error_is_not_remembered_and_is_one_each_time() -> None:
    known = KnownHeads(read, REQUESTS_DIFFER)
    for _ in range(2):
        with pytest.raises(Denied):
            known.read(with_lines(b"traceparent: 1", b"Host: b"))


def test_no_more_heads_are_known_than_may_be_and_the_last_are() -> None:
    known = KnownHeads(read, REQUESTS_DIFFER)
    heads = [with_lines(b"X: %d" % number, b"traceparent: 1") for number in range(1000, 1000 + MAX_HEADS + 1)]
    for head in heads:
        known.read(head)
    assert [head for head in heads if known.find(head) is None] == heads[:1]
    for size in range(2 * MAX_HEADS):
        known.read(with_lines(b"X: " + b"x" * size))
    assert len(known._heads) <= MAX_HEADS
    assert len(known._cuts) <= MAX_HEADS


def test_a_head_that_weighs_much_is_not_kept() -> None:
    large = with_lines(b"X: " + b"x" * 2 * MAX_KNOWN_BYTES)
    known = known_from(large)
    assert known.find(large) is None
    assert known.read(large) == read(large)


_NAMES = [
    *sorted(NEVER_AGAIN),
    b"Traceparent",
    b"TRACEPARENT",
    b"Delegation-Call",
    b"X-Request-ID",
    b"X",
    b"Content-Length",
]
_LINES = st.tuples(
    st.sampled_from([*_NAMES, b"Host", b"Connection", b"Transfer-Encoding", b"Authorization"]),
    st.sampled_from([b": ", b": ", b": ", b":", b" : ", b":\t"]),
    st.sampled_from([b"1", b"2", b"12", b"1 2", b"", b" ", b"\r\n", b"\0", b"a", b"chunked", b"01", b"1\r\nX: 1"]),
).map(b"".join)
_HEADS = st.lists(_LINES, max_size=5).map(lambda lines: with_lines(*lines))


@given(st.lists(_HEADS, max_size=12), st.data())
def test_whatever_came_before_a_head_is_read_as_it_is_read_anew(heads: list[bytes], data: st.DataObject) -> None:
    known = KnownHeads(read, REQUESTS_DIFFER)
    for head in [*heads, *(data.draw(st.permutations(heads)) if heads else [])]:
        assert known.find(head) in (None, outcome(head))
        assert outcome(head, known) == outcome(head)


# --- what heads take that are remembered


def flood(number: int, *, lines: int) -> tuple[bytes, bytes]:
    """A request's head and an answer's of 4 KiB, like no other one."""
    value = b"v" * ((_MAX_KNOWN_HEAD - 100) // lines - 20)
    fields = b"".join(b"x%02d%08d: %b\r\n" % (line, number, value) for line in range(lines))
    return (
        b"GET /%08d HTTP/1.1\r\nhost: h%08d\r\n%b\r\n" % (number, number, fields),
        b"HTTP/1.1 200 %08d\r\n%b\r\n" % (number, fields),
    )


@pytest.mark.parametrize("lines", [2, 60, 90])
def test_a_flood_of_heads_that_never_come_again_takes_some_mib_and_no_more(lines: int) -> None:
    def read(numbers: range) -> int:
        for number in numbers:
            request, answer = flood(number, lines=lines)
            parse_request_head(request, max_target_bytes=8192, max_fields=100, proxy_form=False).passing(any_name)
            parse_response_head(answer, max_fields=100).passing(any_name)
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        full = read(range(600))
        again = read(range(600, 1200))
    finally:
        tracemalloc.stop()
    assert full - before < 20 * 1024 * 1024
    assert again - full < 4 * 1024 * 1024


def any_name(_name: bytes) -> bool:
    return True
