"""The library h2 as the sidecar uses it: what an update of it must not change."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from h2.exceptions import ProtocolError
from h2.settings import SettingCodes
from h2.stream import H2Stream
from hpack import Encoder
from hpack.hpack import decode_integer
from hypothesis import example, given
from hypothesis import strategies as st

from sidecar.errors import Reason
from sidecar.proxy.headers import _KEY_FIELDS
from sidecar.wire.h2_compression import TABLE_BYTES
from sidecar.wire.h2_frames import PREFACE, FrameReader, H2Error, Kind
from sidecar.wire.h2_session import STREAM_WINDOW, Session
from sidecar.wire.message import Field
from tests.wire.h2_bench import ASKS, Peer, frame


def read(session: Session, data: bytes) -> list[Any]:
    """Give the session one frame after another, as connections do."""
    if data.startswith(PREFACE):
        session.receive_data(PREFACE)
    reader = FrameReader(preface=b"", max_block=10_000)
    reader.feed(data.removeprefix(PREFACE))
    events = []
    while (one := reader.next(0.0)) is not None:
        events += session.read(one.data)
    return events


def pair() -> tuple[Session, Peer]:
    session, peer = Session(client_side=False, max_streams=7, max_head_bytes=1000), Peer()
    session.begin()
    read(session, peer.h2.data_to_send())
    peer.take(session.data_to_send())
    return session, peer


def test_our_settings_reach_the_peer() -> None:
    _, peer = pair()
    settings = peer.h2.remote_settings
    assert settings.max_concurrent_streams == 7
    assert settings.initial_window_size == STREAM_WINDOW
    assert settings.max_header_list_size == 1000
    assert settings.enable_push == 0
    assert settings[SettingCodes.ENABLE_CONNECT_PROTOCOL] == 0


def test_a_content_length_that_does_not_fit_is_left_to_the_stream() -> None:
    session, peer = pair()
    peer.h2.send_headers(1, [*ASKS, (b"content-length", b"x")])
    peer.h2.send_data(1, b"abc", end_stream=True)
    assert len(read(session, peer.h2.data_to_send())) >= 2


def test_a_fault_of_the_peer_is_told_without_its_words() -> None:
    session, peer = pair()
    peer.h2.send_headers(1, ASKS, end_stream=True)
    read(session, peer.h2.data_to_send())
    with pytest.raises(H2Error) as fault:
        session.read(b"\0\0\3\0\0\0\0\0\7abc")
    assert fault.value.error.reason is Reason.BAD_REQUEST
    assert "abc" not in fault.value.error.detail
    assert fault.value.told


@pytest.mark.parametrize("name", [b"set-cookie", b"authorization", *sorted(_KEY_FIELDS)])
def test_secrets_stay_out_of_the_table_of_the_compression(name: bytes) -> None:
    session, peer = pair()
    peer.h2.send_headers(1, ASKS, end_stream=True)
    read(session, peer.h2.data_to_send())
    session.head(1, [(b":status", b"200"), (name, b"secret=1"), (b"x-a", b"plain")], ends=True)
    table = list(session.encoder.header_table.dynamic_entries)
    assert (b"x-a", b"plain") in table
    assert not any(b"secret" in value for _, value in table)


def test_the_table_of_the_compression_stays_small() -> None:
    session, peer = pair()
    peer.h2.update_settings({SettingCodes.HEADER_TABLE_SIZE: 2**30})
    peer.h2.send_headers(1, ASKS, end_stream=True)
    read(session, peer.h2.data_to_send())
    session.head(1, [(b":status", b"200")], ends=True)
    assert session.encoder.header_table_size == TABLE_BYTES


def test_sizes_of_the_table_that_were_asked_for_are_not_collected() -> None:
    session, peer = pair()
    peer.h2.send_headers(1, ASKS, end_stream=True)
    read(session, peer.h2.data_to_send())
    for size in [*range(300, 100, -1), *range(50, 400)]:
        read(session, frame(4, 0, 0, b"\0\1" + size.to_bytes(4)))
    assert session.encoder.table_size_changes == [50, 399]
    session.head(1, [(b":status", b"200"), (b"x-a", b"b")], ends=True)
    peer.take(session.data_to_send())
    assert peer.answer(1).fields == {b":status": b"200", b"x-a": b"b"}


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ([0, 2**16], [0, TABLE_BYTES]),  # at most twice (RFC 7541 section 4.2)
        ([2048, 2048], [2048]),  # told once, though the second setting changes nothing
        ([], []),
    ],
)
def test_a_head_tells_the_changes_of_the_tables_size_and_at_most_two(asked: list[int], told: list[int]) -> None:
    session, peer = pair()
    peer.h2.send_headers(1, ASKS, end_stream=True)
    read(session, peer.h2.data_to_send())
    for size in asked:
        read(session, frame(4, 0, 0, b"\0\1" + size.to_bytes(4)))
    session.data_to_send()
    session.head(1, [(b":status", b"200")], ends=True)
    head = session.data_to_send()[9:]
    found = []
    while head[0] & 0xE0 == 0x20:
        size, taken = decode_integer(head, 5)
        found.append(size)
        head = head[taken:]
    assert found == told


def test_the_library_writes_no_field_into_logs() -> None:
    assert not logging.getLogger("hpack.hpack").isEnabledFor(logging.DEBUG)


class Generic(Session):
    """A session that takes the library's own way for every head."""

    def _expects(self, frame: bytes) -> bool:
        del frame
        return False

    def _send_answer(self, stream: H2Stream, lines: list[Field], *, ends: bool) -> None:
        self.send_headers(stream.stream_id, lines, end_stream=ends)


def heads_frame(stream_id: int, flags: int, block: bytes) -> bytes:
    return len(block).to_bytes(3) + bytes([Kind.HEADERS, flags]) + stream_id.to_bytes(4) + block


def state_of(session: Session) -> Any:
    streams = {number: stream.state_machine.state for number, stream in session.streams.items()}
    tables = [session.decoder.header_table.dynamic_entries, session.encoder.header_table.dynamic_entries]
    return session.state_machine.state, streams, session.highest_inbound_stream_id, tables


def told(event: Any) -> Any:
    ended = getattr(event, "stream_ended", None)
    return type(event), getattr(event, "stream_id", None), getattr(event, "headers", None), ended is not None


def act(session: Session, action: tuple[Any, ...]) -> Any:
    """Do one thing; return what can be seen of it."""
    kind, *rest = action
    try:
        if kind == "head":
            return [told(event) for event in session.read(heads_frame(*rest))]
        if kind == "answer":
            session.head(*rest[:2], ends=rest[2])
        elif kind == "reset":
            session.reset_stream(rest[0])
        return session.data_to_send()
    except H2Error as fault:
        return fault.code, str(fault.error), session.data_to_send()
    except ProtocolError as fault:
        return type(fault)


ids = st.sampled_from([1, 3, 5, 7, 2, 0, 2**31 - 1, 2**31 + 3])
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
actions = st.lists(
    st.tuples(
        st.just("head"),
        ids,
        flags_of_heads,
        st.sampled_from(
            [request_block, request_block, b"\x82\x84", b"\x80", b"\xff\xff\xff\xff\xff\xff", interim, b""]
        ),
    )
    | st.tuples(st.just("answer"), ids, answers, st.booleans())
    | st.tuples(st.just("reset"), ids),
    max_size=12,
)


@given(actions)
@example([("head", 1, 5, request_block), ("head", 3, 4, request_block), ("head", 5, 5, request_block)])  # one too many
@example(
    [
        ("head", 1, 5, request_block),
        ("answer", 1, [(b":status", b"200")], False),
        ("answer", 1, [(b"grpc-status", b"0")], False),
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
    for action in done:
        seen = act(own, action)
        assert seen == act(other, action)
        if isinstance(seen, tuple | type):
            break  # the connection has ended, or our own fault
        assert state_of(own) == state_of(other)
    for session in (own, other):
        session.forget()


answer_blocks = st.sampled_from(
    [Encoder().encode(fields) for fields in ([(b":status", b"200")], [(b":status", b"100")], [(b"grpc-status", b"0")])]
    + [b"\x80", b""]
)


@given(st.lists(st.tuples(st.just("head"), ids, flags_of_heads, answer_blocks), max_size=8))
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
    for action in done:
        seen = act(own, action)
        assert seen == act(other, action)
        if isinstance(seen, tuple):
            break
        assert state_of(own) == state_of(other)
    for session in (own, other):
        session.forget()


def test_a_request_in_one_frame_makes_no_objects_of_the_library_for_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    session, peer = pair()
    read(session, peer.h2.data_to_send())
    peer.h2.send_headers(1, ASKS, end_stream=True)
    sent = peer.h2.data_to_send()
    monkeypatch.setattr(Session, "receive_data", None)
    monkeypatch.setattr(Session, "send_headers", None)
    (request, _) = read(session, sent)
    assert dict(request.headers)[b":method"] == b"GET"
    session.head(1, [(b":status", b"204")], ends=True)
    peer.take(session.data_to_send())
    assert peer.answers[1].fields == {b":status": b"204"}
