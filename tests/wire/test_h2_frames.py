"""Frames, cut out of a stream and counted."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.wire.h2_frames import (
    MAX_FRAME,
    PREFACE,
    Budget,
    Code,
    Frame,
    FrameReader,
    H2Error,
    Kind,
    goaway,
    last_stream_of,
)
from tests.wire.h2_bench import frame

SETTINGS = frame(4, 0, 0, b"")


def frames_of(reader: FrameReader, data: bytes) -> list[Frame]:
    reader.feed(data)
    found = []
    while (one := reader.next(0.0)) is not None:
        found.append(one)
    return found


def new(*, max_block: int = 1000) -> FrameReader:
    return FrameReader(preface=PREFACE, max_block=max_block)


@given(st.lists(st.integers(1, 60)), st.lists(st.binary(max_size=40), max_size=5))
def test_frames_do_not_depend_on_how_the_stream_is_cut(cuts: list[int], contents: list[bytes]) -> None:
    stream = PREFACE + SETTINGS + b"".join([frame(0, 0, 1, one) for one in contents])
    reader, found = new(), []
    for size in [*cuts, len(stream)]:
        found += frames_of(reader, stream[:size])
        stream = stream[size:]
    assert [one.content for one in found] == [b"", *contents]
    assert not reader.unfinished


def test_the_head_of_a_frame_is_read() -> None:
    reader = new()
    (_, one) = frames_of(reader, PREFACE + SETTINGS + frame(1, 0x25, 2**31 + 5, b"abc"))
    assert (one.kind, one.flags, one.stream_id, one.content, one.ends_stream) == (Kind.HEADERS, 0x25, 5, b"abc", True)


@pytest.mark.parametrize("bad", [b"GET / HTTP/1.1\r\n\r\n", PREFACE[:-1] + b"x" + SETTINGS, b"PRI * HTTP/2.1"])
def test_another_preface_is_a_fault(bad: bytes) -> None:
    with pytest.raises(H2Error) as fault:
        frames_of(new(), bad)
    assert fault.value.code == Code.PROTOCOL_ERROR


def test_a_long_frame_is_a_fault_by_its_head_alone() -> None:
    reader = new()
    frames_of(reader, PREFACE + SETTINGS)
    assert frames_of(reader, (MAX_FRAME).to_bytes(3) + b"\0\0\0\0\0\1") == []
    other = new()
    frames_of(other, PREFACE + SETTINGS)
    with pytest.raises(H2Error) as fault:
        frames_of(other, (MAX_FRAME + 1).to_bytes(3) + b"\0\0\0\0\0\1")
    assert fault.value.code == Code.FRAME_SIZE_ERROR


def test_content_that_arrives_is_of_its_stream() -> None:
    reader = new()
    frames_of(reader, PREFACE + SETTINGS + frame(0, 0, 7, b"x" * 100)[:50])
    assert (reader.content_of, reader.held) == (7, 50)
    frames_of(reader, b"x" * 59)
    assert (reader.content_of, reader.held) == (0, 0)


def test_a_budget_comes_back_with_time_and_by_what_earns_it() -> None:
    budget = Budget(2, 1.0)
    assert [budget.spend(10.0) for _ in range(3)] == [True, True, False]
    assert budget.spend(12.5)
    budget.earn(5)
    assert [budget.spend(12.5) for _ in range(3)] == [True, True, False]


def test_content_earns_frames_without_content() -> None:
    reader = new()
    reader.feed(PREFACE + SETTINGS)
    for _ in range(100):
        frames_of(reader, frame(6, 0, 0, bytes(8)) * 30)
        for _ in range(4):
            reader.sent_content()


def test_goaway_is_a_frame() -> None:
    reader = new()
    frames_of(reader, PREFACE + SETTINGS)
    (one,) = frames_of(reader, goaway(5, Code.CANCEL, b"why"))
    assert (one.kind, one.stream_id, one.content) == (Kind.GOAWAY, 0, (5).to_bytes(4) + (8).to_bytes(4) + b"why")


def test_a_goaway_names_the_last_stream() -> None:
    assert last_stream_of(Frame(Kind.GOAWAY, 0, 0, goaway(5, Code.NO_ERROR))) == 5


@pytest.mark.parametrize("one", [Frame(Kind.GOAWAY, 0, 1, goaway(5, 0)), Frame(Kind.GOAWAY, 0, 0, goaway(5, 0)[:-1])])
def test_a_malformed_goaway_ends_the_connection(one: Frame) -> None:
    with pytest.raises(H2Error, match="a malformed GOAWAY") as caught:
        last_stream_of(one)
    assert caught.value.code == Code.PROTOCOL_ERROR
