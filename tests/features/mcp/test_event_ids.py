from __future__ import annotations

from functools import partial
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from delegation_core.errors import Denied, Reason
from delegation_core.mcp_session import MAX_ID
from sidecar.features.mcp.event_ids import MAX_AT_ONCE, EventIds
from tests.counting import bytecodes

LINES = st.sampled_from(
    [
        b"id: 7",
        b"id:8",
        b"id",
        b"id:",
        b"i",
        b"idle: 1",
        b" id: 1",
        b"data: id: 1",
        b"data: {}",
        b": id: 1",
        b"",
        b"ID: 2",
    ]
)
ENDS = st.sampled_from([b"\n", b"\r", b"\r\n"])


def bound(value: bytes) -> bytes:
    return b"<" + value + b">"


def at_once(stream: bytes) -> bytes:
    return EventIds(bound).feed(stream)


@pytest.mark.parametrize(
    ("stream", "passed"),
    [
        (b"id: 7\ndata: {}\n\n", b"id: <7>\ndata: {}\n\n"),
        (b"id:7\r\ndata: id: 7\r\n\r\n", b"id: <7>\r\ndata: id: 7\r\n\r\n"),
        (b": id: 1\rid:  2\r\r", b": id: 1\rid: < 2>\r\r"),
        (b"id\nid:\nid: \n\n", b"id\nid:\nid: \n\n"),
        (b"idle: 1\nID: 2\n id: 3\n", b"idle: 1\nID: 2\n id: 3\n"),
        (b"\xef\xbb\xbfid: 1\n\n", b"\xef\xbb\xbfid: <1>\n\n"),
        (b"data: {}\n\n\xef\xbb\xbfid: 1\n", b"data: {}\n\n\xef\xbb\xbfid: 1\n"),
        (b"id: 1", b""),
        (b"", b""),
    ],
)
def test_ids_change_and_nothing_else_does(stream: bytes, passed: bytes) -> None:
    assert at_once(stream) == passed


@given(st.lists(st.tuples(LINES, ENDS)), st.booleans(), st.lists(st.integers(0, 200)))
def test_it_does_not_matter_how_a_stream_is_cut(lines: list[tuple[bytes, bytes]], mark: bool, cuts: list[int]) -> None:
    stream = b"\xef\xbb\xbf" * mark + b"".join(line + end for line, end in lines)
    ids, bounds = EventIds(bound), [0, *sorted(cut for cut in cuts if cut < len(stream)), len(stream)]
    pieces = [ids.feed(stream[first:last]) for first, last in pairwise(bounds)]
    assert b"".join(pieces) == at_once(stream)


def test_only_what_may_be_an_id_waits() -> None:
    ids = EventIds(bound)
    assert ids.feed(b"data: half") == b"data: half"
    assert ids.feed(b" a line\ni") == b" a line\n"
    assert ids.feed(b"nfo: 1") == b"info: 1"
    assert ids.feed(b"\nid: 1") == b"\n"
    assert ids.feed(b"2\n") == b"id: <12>\n"


@pytest.mark.parametrize("stream", [b"id: " + b"1" * (MAX_ID + 1) + b"\n", b"id: " + b"1" * (MAX_ID + 1)])
def test_an_id_has_a_longest_form(stream: bytes) -> None:
    assert at_once(b"id: " + b"1" * MAX_ID + b"\n")
    with pytest.raises(Denied) as refused:
        at_once(stream)
    assert refused.value.reason is Reason.UPSTREAM_BAD_RESPONSE


MACS = b"".join(bytes([letter]) * 32 + b"." for letter in b"abcdefgh")  # in front, by eight other sidecars


@pytest.mark.parametrize("end", [b"\n", b""])
def test_what_other_sidecars_put_in_front_does_not_count(end: bytes) -> None:
    for cut in (*range(0, len(MACS) + 8, 7), len(MACS) + MAX_ID):
        ids, line = EventIds(bound), b"id: " + MACS + b"1" * MAX_ID
        assert ids.feed(line[:cut]) + ids.feed(line[cut:] + b"\n") == b"id: <" + line[4:] + b">\n"
    ninth = b"i" * 32 + b"."
    for longer in (MACS + b"1" * (MAX_ID + 1), MACS + ninth + b"1" * MAX_ID, b"%" * 32 + b"." + b"1" * MAX_ID):
        with pytest.raises(Denied):
            at_once(b"id: " + longer + end)


def test_a_flood_of_ids_is_refused_before_it_costs_much() -> None:
    assert at_once(b"id: 1\n" * MAX_AT_ONCE).count(b"<1>") == MAX_AT_ONCE
    with pytest.raises(Denied) as refused:
        at_once(b"id: 1\n" * (MAX_AT_ONCE + 1))
    assert refused.value.reason is Reason.UPSTREAM_BAD_RESPONSE


@pytest.mark.parametrize("line", [b"\n", b"i\n", b"data: i\n", b"\r\n", b"id\n", b":\n"])
def test_lines_cost_in_proportion_to_their_number(line: bytes) -> None:
    few, many = (bytecodes(partial(at_once, line * (16_384 * times // len(line)))) for times in (1, 8))
    assert many <= few + 50
