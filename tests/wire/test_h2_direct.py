"""Frames by the shorter way beside the library's own: what an update of it must not change."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from h2.events import StreamEnded
from h2.exceptions import ProtocolError
from h2.stream import StreamState
from hpack import Encoder
from hypothesis import example, given
from hypothesis import strategies as st

from sidecar.wire.h2_frames import PREFACE, Code, H2Error, Kind, rst_stream
from sidecar.wire.h2_session import Session
from sidecar.wire.message import Field
from tests.wire.h2_bench import ASKS, frame
from tests.wire.test_h2_session import pair, read


class Generic(Session):
    """A session that takes the library's own way for every frame."""

    def read_usual(self, frame: bytes) -> list[Any] | None:
        return None

    def send_content(self, stream_id: int, data: bytes, *, ends: bool) -> None:
        self._send_by_library(stream_id, data, ends=ends)

    def send_request(self, stream_id: int, fields: Sequence[Field], *, ends: bool) -> None:
        self.send_headers(stream_id, fields, end_stream=ends)

    def send_answer(self, stream_id: int, fields: Sequence[Field], *, ends: bool) -> None:
        self.send_headers(stream_id, fields, end_stream=ends)

    def taken(self, size: int, stream_id: int) -> None:
        if size:
            self.acknowledge_received_data(size, stream_id)


def state_of(session: Session) -> Any:
    """Return the state of a session and its streams. The library forgets a closed one sooner."""
    streams = {
        number: (
            vars(stream.state_machine),
            vars(stream._inbound_window_manager),
            stream.outbound_flow_control_window,
            stream.max_outbound_frame_size,
            stream._actual_content_length,
        )
        for number, stream in session.streams.items()
        if stream.state_machine.state is not StreamState.CLOSED
    }
    tables = [session.decoder.header_table.dynamic_entries, session.encoder.header_table.dynamic_entries]
    numbers = [session.highest_inbound_stream_id, session.highest_outbound_stream_id]
    windows = [session.outbound_flow_control_window, vars(session._inbound_flow_control_window_manager)]
    return session.state_machine.state, streams, numbers, tables, windows


def told(events: list[Any]) -> list[Any]:
    """Return what is told by events: the end of a stream is told by the one that brings it."""
    return [
        (
            type(event),
            getattr(event, "stream_id", None),
            getattr(event, "headers", None),
            getattr(event, "data", None),
            getattr(event, "flow_controlled_length", None),
            getattr(event, "stream_ended", None),
        )
        for event in events
        if not isinstance(event, StreamEnded)
    ]


def act(session: Session, action: tuple[Any, ...]) -> Any:
    """Do one thing; return what can be seen of it."""
    kind, *rest = action
    try:
        if kind == "head":
            return told(session.read(frame(Kind.HEADERS, rest[1], rest[0], rest[2]))), session.data_to_send()
        if kind == "data":
            return told(session.read(frame(Kind.DATA, rest[1], rest[0], rest[2]))), session.data_to_send()
        if kind == "settings":
            session.read(frame(Kind.SETTINGS, 0, 0, rest[0].to_bytes(2) + rest[1].to_bytes(4)))
        elif kind == "opens":
            session.read(frame(Kind.WINDOW_UPDATE, 0, rest[0], rest[1].to_bytes(4)))
        elif kind == "sends":
            session.head(*rest[:2], ends=rest[2])
        elif kind == "content":
            session.send_content(*rest[:2], ends=rest[2])
        elif kind == "taken":
            session.taken(rest[1], rest[0])
        elif kind == "reset":
            session.reset_stream(rest[0])
        return session.data_to_send()
    except H2Error as fault:
        return fault
    except (ProtocolError, KeyError):  # the second, of a closed stream that was forgotten
        return None


def agree(own: Session, other: Session, done: list[tuple[Any, ...]]) -> None:
    """Do the same things with both."""
    for action in done:
        seen, expected = act(own, action), act(other, action)
        if isinstance(seen, H2Error):
            assert isinstance(expected, H2Error)
            assert (seen.code, str(seen.error)) == (expected.code, str(expected.error))
            assert own.data_to_send() == other.data_to_send()
            break
        assert seen == expected
        if seen is None:
            break  # our own fault
        assert state_of(own) == state_of(other)
    for session in (own, other):
        session.forget()


ids = st.sampled_from([1, 3, 5, 7, 2, 0, 2**31 - 1, 2**31 + 3])
our_ids = st.sampled_from([1, 3, 5, 7, 9, 2, 0])
flags_of_heads = st.sampled_from([4, 5, 4, 5, 0x0C, 0x24])  # the reader lets no other frame into an unended head
request_block = Encoder().encode(ASKS)
interim = b"\x08\x03100"  # :status, in a request
answers = st.sampled_from(
    [
        [(b":status", b"200"), (b"x", b"y")],
        [(b":status", b"100")],
        [(b"grpc-status", b"0")],
        [(b":status", b"200"), (b"long", b"v" * 20_000)],
    ]
)
contents = st.sampled_from([b"", b"a", b"b" * 9000, b"c" * 16384, b"d" * 16385])
sizes = st.sampled_from([0, 1, 9000, 32767, 65535])
others = (
    st.tuples(st.just("data"), ids, st.sampled_from([0, 1, 0, 1, 8, 9]), contents)
    | st.tuples(st.just("content"), our_ids, contents, st.booleans())
    | st.tuples(st.just("taken"), st.sampled_from([1, 3, 5, 7]), sizes)
    | st.tuples(st.just("opens"), ids, st.sampled_from([1, 70_000, 2**31 - 1]))
    | st.tuples(st.just("settings"), st.sampled_from([3, 4, 5]), st.sampled_from([1, 16_384, 70_000]))
    | st.tuples(st.just("reset"), our_ids)
)
actions = st.lists(
    others
    | st.tuples(
        st.just("head"),
        ids,
        flags_of_heads,
        st.sampled_from(
            [request_block, request_block, b"\x82\x84", b"\x80", b"\xff\xff\xff\xff\xff\xff", interim, b""]
        ),
    )
    | st.tuples(st.just("sends"), our_ids, answers, st.booleans()),
    max_size=16,
)


@given(actions)
@example([("head", 1, 5, request_block), ("head", 3, 4, request_block), ("head", 5, 5, request_block)])  # one too many
@example(
    [
        ("head", 1, 5, request_block),
        ("sends", 1, [(b":status", b"200")], False),
        ("sends", 1, [(b"grpc-status", b"0")], False),
    ]
)
def test_heads_are_taken_and_sent_as_the_library_does(done: list[tuple[Any, ...]]) -> None:
    own, other = (kind(client_side=False, max_streams=2, max_head_bytes=50_000) for kind in (Session, Generic))
    for session in (own, other):
        session.begin()
        session.receive_data(PREFACE)
        session.read(b"\0\0\0\4\0\0\0\0\0")
        session.read(b"\0\0\0\4\1\0\0\0\0")  # the peer has our settings
        session.data_to_send()
    agree(own, other, done)


answer_blocks = st.sampled_from(
    [Encoder().encode(fields) for fields in ([(b":status", b"200")], [(b":status", b"100")], [(b"grpc-status", b"0")])]
    + [b"\x80", b""]
)


@given(
    st.lists(
        others
        | st.tuples(st.just("head"), ids, flags_of_heads, answer_blocks)
        | st.tuples(st.just("sends"), our_ids, st.sampled_from([ASKS, [(b"a", b"b" * 20_000)]]), st.booleans()),
        max_size=16,
    )
)
@example(
    [
        ("head", 1, 4, Encoder().encode([(b":status", b"100")])),
        ("head", 1, 4, Encoder().encode([(b":status", b"200")])),
        ("head", 1, 5, Encoder().encode([(b"grpc-status", b"0")])),
        ("head", 1, 5, Encoder().encode([(b"grpc-status", b"0")])),  # behind the end
    ]
)
def test_heads_of_answers_are_taken_as_by_the_library(done: list[tuple[Any, ...]]) -> None:
    own, other = (kind(client_side=True, max_streams=0, max_head_bytes=50_000) for kind in (Session, Generic))
    for session in (own, other):
        session.begin()
        session.read(b"\0\0\0\4\0\0\0\0\0")
        session.head(1, ASKS, ends=True)
        session.head(3, ASKS)
        session.head(5, ASKS, ends=True)
        session.reset_stream(5)
        session.data_to_send()
    agree(own, other, done)


@pytest.mark.parametrize("flags", [4, 0x0C], ids=["plain", "padded"])
@pytest.mark.parametrize("status", [b"103", b"200"])
def test_an_answer_on_a_stream_that_we_reset_ends_no_other_stream(flags: int, status: bytes) -> None:
    session = Session(client_side=True, max_streams=0, max_head_bytes=50_000)
    session.begin()
    session.read(b"\0\0\0\4\0\0\0\0\0")
    session.head(1, ASKS, ends=True)
    session.head(3, ASKS, ends=True)
    session.reset_stream(1)
    session.data_to_send()
    block = Encoder().encode([(b":status", status), (b"x-a", b"b")])
    assert session.read(frame(Kind.HEADERS, flags, 1, (b"\0" if flags & 8 else b"") + block)) == []
    assert session.data_to_send() == rst_stream(1, Code.STREAM_CLOSED)
    (answer,) = session.read(frame(Kind.HEADERS, 4, 3, b"\x88\xbe"))  # the table has the field of the head before
    assert answer.headers == [(b":status", b"200"), (b"x-a", b"b")]
    session.forget()


@pytest.mark.parametrize("open_still", [False, True])
def test_settings_overflow_no_window_of_a_closed_stream(*, open_still: bool) -> None:
    session = Session(client_side=True, max_streams=0, max_head_bytes=50_000)
    session.begin()
    session.read(b"\0\0\0\4\0\0\0\0\0")
    session.head(1, ASKS, ends=True)
    session.read(frame(Kind.WINDOW_UPDATE, 0, 1, (70_000).to_bytes(4)))
    session.read(frame(Kind.HEADERS, 4 if open_still else 5, 1, b"\x88"))
    largest = frame(Kind.SETTINGS, 0, 0, b"\0\4" + (2**31 - 1).to_bytes(4))
    if open_still:
        with pytest.raises(H2Error) as fault:
            session.read(largest)
        assert fault.value.code == Code.FLOW_CONTROL_ERROR
    else:
        session.read(largest)
        session.head(3, ASKS)
        assert session.window_of(3) == 65_535  # of the connection
    session.forget()


def test_a_request_in_one_frame_makes_no_objects_of_the_library_for_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    session, peer = pair()
    read(session, peer.h2.data_to_send())
    peer.h2.send_headers(1, ASKS, end_stream=True)
    sent = peer.h2.data_to_send()
    monkeypatch.setattr(Session, "receive_data", None)
    monkeypatch.setattr(Session, "send_headers", None)
    (request,) = read(session, sent)
    assert dict(request.headers)[b":method"] == b"GET"
    session.head(1, [(b":status", b"204")], ends=True)
    peer.take(session.data_to_send())
    assert peer.answers[1].fields == {b":status": b"204"}


def served(window: int) -> Session:
    """Return a server's session with two requests whose bodies may come."""
    session = Session(client_side=False, max_streams=7, max_head_bytes=1000, window=window)
    session.begin()
    session.receive_data(PREFACE)
    session.read(frame(Kind.SETTINGS, 0, 0, b""))
    for stream_id in (1, 3):
        assert session.read(frame(Kind.HEADERS, 4, stream_id, request_block))
    session.data_to_send()
    return session


@pytest.mark.parametrize(
    ("window", "streams"), [(2**20, [1, 1, 1, 1]), (70_000, [1, 1, 1, 3, 3])], ids=["a stream's", "the connection's"]
)
def test_content_past_a_window_ends_the_connection(window: int, streams: list[int]) -> None:
    session = served(window)
    *fitting, last = [frame(Kind.DATA, 0, stream_id, b"x" * 16_384) for stream_id in streams]
    for one in fitting:
        assert session.read(one)[0].data == b"x" * 16_384
    with pytest.raises(H2Error) as fault:
        session.read(last)
    assert fault.value.code == Code.FLOW_CONTROL_ERROR


@pytest.mark.parametrize(("setting", "content"), [(4, b"x" * 11), (5, b"x" * 16_385)], ids=["window", "frame"])
def test_no_more_content_is_sent_than_the_peer_admits(setting: int, content: bytes) -> None:
    session = served(2**20)
    value = {4: 10, 5: 16_384}[setting]
    session.read(frame(Kind.SETTINGS, 0, 0, setting.to_bytes(2) + value.to_bytes(4)))
    session.head(1, [(b":status", b"200")])
    session.send_content(1, content[:value], ends=False)
    with pytest.raises(ProtocolError):
        session.send_content(1, content[: value + 1], ends=True)
    if setting == 5:
        with pytest.raises(ProtocolError):
            session.send_content(3, content, ends=True)


def test_no_request_begins_past_the_streams_that_the_upstream_admits_now() -> None:
    session = Session(client_side=True, max_streams=0, max_head_bytes=1000)
    session.begin()
    session.read(frame(Kind.SETTINGS, 0, 0, b"\0\3\0\0\0\144"))
    for stream_id in (1, 3):
        session.head(stream_id, ASKS, ends=True)
    session.read(frame(Kind.SETTINGS, 0, 0, b"\0\3\0\0\0\2"))
    with pytest.raises(ProtocolError):
        session.head(5, ASKS, ends=True)
    session.read(frame(Kind.HEADERS, 5, 1, Encoder().encode([(b":status", b"200")])))
    session.head(5, ASKS, ends=True)  # one of them has ended
