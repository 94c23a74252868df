from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.frames import Close, Frame, Opcode
from websockets.protocol import OPEN, Protocol, Side

from sidecar.wire import websocket
from sidecar.wire.websocket import GOING_AWAY, MAX_STEPS, Frames, close_frame


def frame(size: int, *, masked: bool = False, opcode: int = 2, fin: bool = True) -> bytes:
    return Frame(Opcode(opcode), b"x" * size, fin).serialize(mask=masked)


SIZES = (0, 1, 125, 126, 127, 65535, 65536)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("size", SIZES)
def test_a_frame_ends_where_it_says_however_it_is_cut(size: int, masked: bool) -> None:
    whole = frame(size, masked=masked)
    for cut in {1, 2, 3, 6, 9, 10, 13, 14, 15, len(whole) - 1} & set(range(1, len(whole))):
        frames = Frames()
        seen = []
        for piece in (whole[:cut], whole[cut:]):
            frames.follow(piece)
            seen.append((frames.at_boundary, frames.closed))
        assert seen == [(False, False), (True, False)]


FRAMES = st.lists(
    st.builds(
        frame, st.sampled_from([0, 1, 5, 125, 126, 300]), masked=st.booleans(), opcode=st.sampled_from([0, 1, 2])
    ),
    min_size=1,
    max_size=6,
)


@settings(max_examples=60, deadline=None)
@given(FRAMES, st.data())
def test_every_boundary_is_found_and_no_other(sent: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(sent)
    ends = {0, *(len(b"".join(sent[:count])) for count in range(1, len(sent) + 1))}
    cut = data.draw(st.integers(0, len(stream)))
    one = Frames()
    for start, end in pairwise(sorted({0, *data.draw(st.lists(st.integers(0, cut), max_size=4)), cut})):
        one.follow(stream[start:end])
    assert one.at_boundary == (cut in ends)
    found = one.first_boundary(stream[cut:])
    assert found == min(end for end in ends if end >= cut) - cut


def test_of_many_frames_so_many_are_followed_at_a_time_and_the_others_given_back() -> None:
    for whole in (frame(0), frame(1, masked=True)):
        frames, rest, times = Frames(), whole * 10_000, 0
        while rest:
            before = len(rest)
            rest = frames.follow(rest)
            assert 0 < before - len(rest) <= MAX_STEPS * len(whole)
            times += 1
        assert frames.at_boundary
        assert times >= 10_000 // MAX_STEPS


@settings(max_examples=60, deadline=None)
@given(FRAMES, st.binary(max_size=12), st.integers(1, 3))
def test_what_is_followed_a_few_steps_at_a_time_is_followed_as_in_one_go(
    sent: list[bytes], noise: bytes, steps: int
) -> None:
    stream = b"".join(sent) + noise
    whole, few, rest = Frames(), Frames(), stream
    assert whole.follow(stream) == b""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(websocket, "MAX_STEPS", steps)
        while rest:
            rest = few.follow(rest)
    assert (few.at_boundary, few.closed, few._remaining, few._head) == (
        whole.at_boundary,
        whole.closed,
        whole._remaining,
        whole._head,
    )


def test_a_boundary_that_does_not_come_is_none() -> None:
    frames = Frames()
    assert frames.first_boundary(frame(10)[:5]) == 0  # before it
    frames.follow(frame(10)[:5])
    assert frames.first_boundary(b"xx") == -1
    assert frames.first_boundary(b"x" * 5 + frame(3)) == 5


def test_a_close_frame_that_has_passed_is_known() -> None:
    frames = Frames()
    frames.follow(frame(3))
    assert not frames.closed
    frames.follow(frame(2, opcode=8))
    assert frames.closed


def test_what_follows_a_close_frame_does_not_open_the_direction_again() -> None:
    frames = Frames()
    frames.follow(frame(2, opcode=8))
    frames.follow(frame(3))
    assert frames.closed


def test_a_length_beyond_all_frames_is_never_followed_to_a_boundary() -> None:
    frames = Frames()
    frames.follow(b"\x82\x7f" + b"\xff" * 8)
    frames.follow(b"x" * 1000)
    assert not frames.at_boundary
    assert frames.first_boundary(b"x" * 1000) == -1


@settings(max_examples=100, deadline=None)
@given(st.lists(st.binary(max_size=40), max_size=8))
def test_any_bytes_can_be_followed(pieces: list[bytes]) -> None:
    together, apart = Frames(), Frames()
    together.follow(b"".join(pieces))
    for piece in pieces:
        apart.follow(piece)
    assert (together.at_boundary, together.closed) == (apart.at_boundary, apart.closed)


@pytest.mark.parametrize("side", [Side.CLIENT, Side.SERVER])
def test_our_close_frame_is_what_the_other_end_understands(side: Side) -> None:
    other = Protocol(side, state=OPEN)
    other.receive_data(close_frame(GOING_AWAY, "token_expired", masked=side is Side.SERVER))
    assert other.close_rcvd == Close(1001, "token_expired")


@pytest.mark.parametrize("side", [Side.CLIENT, Side.SERVER])
def test_a_close_frame_masked_for_the_wrong_side_is_not_understood(side: Side) -> None:
    other = Protocol(side, state=OPEN)
    other.receive_data(close_frame(GOING_AWAY, "token_expired", masked=side is Side.CLIENT))
    assert other.close_rcvd is None
    assert other.parser_exc is not None


def test_a_reason_too_long_for_a_control_frame_is_left_out() -> None:
    assert close_frame(GOING_AWAY, "x" * 123, masked=False)[1] == 125
    assert close_frame(GOING_AWAY, "x" * 124, masked=False) == b"\x88\x02\x03\xe9"
