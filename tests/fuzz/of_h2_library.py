"""One connection of HTTP/2 read and written by our shorter way, and by the library h2 with its own compression.

Both see the same, end for the same faults, and write what means the same. Heads are judged apart: what we accept, the
library's own checks accept too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import count
from typing import Any, Final

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import RequestReceived, TrailersReceived
from h2.exceptions import ProtocolError
from h2.settings import SettingCodes, Settings
from h2.stream import H2Stream, StreamState
from h2.utilities import HeaderValidationFlags, validate_headers
from hpack import Decoder

from sidecar.errors import Denied
from sidecar.wire.h2_frames import END_HEADERS, END_STREAM, MAX_FRAME, PREFACE, FrameReader, H2Error, Kind
from sidecar.wire.h2_head import request_again, request_of, trailers_of
from sidecar.wire.h2_session import CONNECTION_WINDOW, STREAM_WINDOW, Session
from sidecar.wire.limits import ServerLimits
from sidecar.wire.message import Field, Request
from tests.fuzz.h2_script import ANSWERS, MAX_STREAMS, SIZES, Peer, Script
from tests.wire.h2_bench import frame

LIMITS: Final = ServerLimits(max_head_bytes=4000, max_fields=30, max_target_bytes=300)
_OF_REQUEST: Final = HeaderValidationFlags(
    is_client=False, is_trailer=False, is_response_header=False, is_push_promise=False
)
_OF_TRAILERS: Final = HeaderValidationFlags(
    is_client=False, is_trailer=True, is_response_header=False, is_push_promise=False
)
_has_three_sizes: Final = re.compile(rb"(?:[\x20-\x3e]|\x3f[\x80-\xff]*[\x00-\x7f]){3}").search
_RECEIVES: Final = StreamState.OPEN, StreamState.HALF_CLOSED_LOCAL
_SENDS: Final = StreamState.OPEN, StreamState.HALF_CLOSED_REMOTE


class _UncheckedStream(H2Stream):
    def _initialize_content_length(self, _headers: object) -> None:
        return


class _Library(H2Connection):
    """The library's connection with the same settings, its own compression, and heads judged apart."""

    MAX_CLOSED_STREAMS = Session.MAX_CLOSED_STREAMS

    def __init__(self, *, client_side: bool) -> None:
        super().__init__(
            H2Configuration(
                client_side=client_side,
                header_encoding=None,
                validate_inbound_headers=False,
                normalize_inbound_headers=False,
                validate_outbound_headers=False,
                normalize_outbound_headers=False,
            )
        )
        self.local_settings = Settings(
            client=client_side,
            initial_values={
                SettingCodes.ENABLE_PUSH: 0,
                SettingCodes.INITIAL_WINDOW_SIZE: STREAM_WINDOW,
                SettingCodes.MAX_FRAME_SIZE: MAX_FRAME,
                SettingCodes.MAX_HEADER_LIST_SIZE: LIMITS.max_head_bytes,
                SettingCodes.HEADER_TABLE_SIZE: 4096,
            },
        )
        self.decoder = Decoder(max_header_list_size=2 * LIMITS.max_head_bytes)
        self.max_inbound_frame_size = MAX_FRAME

    def _begin_new_stream(self, stream_id: int, allowed_ids: Any) -> H2Stream:
        stream = super()._begin_new_stream(stream_id, allowed_ids)
        stream.__class__ = _UncheckedStream
        return stream

    def begin(self) -> None:
        self.initiate_connection()
        if not self.config.client_side:
            self.update_settings({SettingCodes.MAX_CONCURRENT_STREAMS: MAX_STREAMS})
        self.increment_flow_control_window(CONNECTION_WINDOW - self.inbound_flow_control_window)

    def head(self, stream_id: int, fields: Sequence[Field], *, ends: bool) -> None:
        # hpack 4.2 forgets to tell a size that was set twice.
        self.encoder.header_table.resized = bool(self.encoder.table_size_changes)
        self.send_headers(stream_id, fields, end_stream=ends)

    def send_content(self, stream_id: int, data: bytes, *, ends: bool) -> None:
        self.send_data(stream_id, data, end_stream=ends)

    def taken(self, size: int, stream_id: int) -> None:
        if size:
            self.acknowledge_received_data(size, stream_id)


class _Written:
    """Frames that one side has written, with heads as fields."""

    def __init__(self) -> None:
        self._decoder = Decoder(max_header_list_size=2**20)
        self._decoder.max_allowed_table_size = 2**16

    def read(self, data: bytes) -> list[Any]:
        data = data.removeprefix(PREFACE)
        found: list[Any] = []
        block = b""
        while data:
            end = 9 + int.from_bytes(data[:3])
            kind, flags, stream_id, content = data[3], data[4], data[5:9], data[9:end]
            assert len(content) == end - 9, "a frame that is not whole"
            if kind == Kind.HEADERS:
                found.append((kind, flags & END_STREAM, stream_id))
            if kind in (Kind.HEADERS, Kind.CONTINUATION):
                block += content
                if flags & END_HEADERS:
                    found.append([(bytes(name), bytes(value)) for name, value in self._decoder.decode(block, raw=True)])
                    block = b""
            else:
                found.append((kind, flags, stream_id, content))
            data = data[end:]
        return found


def _told(events: list[Any]) -> list[Any]:
    names = "stream_id", "data", "flow_controlled_length", "error_code", "delta", "ping_data"
    found = []
    for event in events:
        kind = type(event).__name__
        if kind in ("StreamEnded", "UnknownFrameReceived"):
            continue
        fields = getattr(event, "headers", None)
        fields = None if fields is None else [(bytes(name), bytes(value)) for name, value in fields]
        ended = getattr(event, "stream_ended", None) is not None
        found.append((kind, fields, ended, *[getattr(event, name, None) for name in names]))
    return found


def _state(session: H2Connection) -> Any:
    streams = {
        number: (
            dict(vars(stream.state_machine)),
            vars(stream._inbound_window_manager),
            stream.outbound_flow_control_window,
            stream.max_outbound_frame_size,
        )
        for number, stream in session.streams.items()
        if stream.state_machine.state is not StreamState.CLOSED
    }
    numbers = session.highest_inbound_stream_id, session.highest_outbound_stream_id
    windows = session.outbound_flow_control_window, vars(session._inbound_flow_control_window_manager)
    table = list(session.decoder.header_table.dynamic_entries), session.decoder.header_table_size
    return session.state_machine.state, streams, numbers, windows, table


def _judged(fields: list[Field], *, ends: bool) -> Any:
    try:
        return request_of(fields, LIMITS, ends=ends)
    except Denied as error:
        return error.reason


def _judge(event: Any) -> None:
    """Our judgement of a head is that of the first time, and no milder than the library's."""
    fields = [(bytes(name), bytes(value)) for name, value in event.headers]
    if isinstance(event, RequestReceived):
        ends = event.stream_ended is not None
        found = _judged(fields, ends=ends)
        try:
            again: Any = request_again(event.headers, LIMITS, ends=ends)
        except Denied as error:
            again = error.reason
        assert again == found, "a remembered head is judged otherwise"
        accepted = isinstance(found, Request)
        if accepted:
            sent = b"; ".join(value for name, value in fields if name == b"cookie")
            kept = [one for one in fields if not one[0].startswith(b":") and one[0] not in (b"cookie", b"host")]
            assert [one for one in found.fields if one[0] not in (b"cookie", b"host")] == kept
            assert found.one(b"cookie") == (sent or None)
        flags = _OF_REQUEST
    else:
        assert isinstance(event, TrailersReceived)
        try:
            trailers_of(event.headers, max_bytes=LIMITS.max_head_bytes, max_fields=LIMITS.max_fields)
            accepted = True
        except Denied:
            accepted = False
        flags = _OF_TRAILERS
    if accepted:
        hosts = b"host", b":authority"  # the library compares them letter by letter
        fields = [(name, value.lower() if name in hosts else value) for name, value in fields]
        list(validate_headers(fields, flags))  # raises ProtocolError


def http2_beside_library(data: bytes) -> None:
    """Both read the same, in the same order, end for the same faults, and write what means the same."""
    script = Script(data)
    own = Session(client_side=False, max_streams=MAX_STREAMS, max_head_bytes=LIMITS.max_head_bytes)
    other = _Library(client_side=False)
    reader = FrameReader(preface=b"", max_block=2 * LIMITS.max_head_bytes)
    written, expected = _Written(), _Written()
    peer, times = Peer(script), count(0.0, 100.0)
    for side in (own, other):
        side.begin()
        side.receive_data(PREFACE + frame(4, 0, 0, b"") + frame(4, 1, 0, b""))
    try:
        while not script.over:
            action = script.number(10)
            peer.open = other.open_inbound_streams
            peer.receives = [
                number for number, stream in other.streams.items() if stream.state_machine.state in _RECEIVES
            ]
            if action < 6:
                sent = peer.headers() if action < 3 else peer.data() if action == 3 else peer.other()
                if not _read(own, other, reader, sent, times):
                    return
            elif not _act(script, own, other, peer):
                return
            assert _state(own) == _state(other)
            assert written.read(own.data_to_send()) == expected.read(other.data_to_send())
    finally:
        own.forget()


def _read(own: Session, other: _Library, reader: FrameReader, sent: bytes, times: Iterator[float]) -> bool:
    """Give both what the peer has sent. False: the connection has ended."""
    reader.feed(sent)
    while True:
        try:
            one = reader.next(next(times))
        except H2Error:  # a limit of ours, or a fault that the library would find too
            return False
        if one is None:
            return True
        if one.kind == Kind.GOAWAY:  # the library would serve no stream any more
            return False
        fault: H2Error | None = None
        other_fault: ProtocolError | None = None
        events: list[Any] = []
        expected: list[Any] = []
        try:
            events = own.read(one.data)
        except H2Error as error:
            fault = error
        try:
            expected = other.receive_data(one.data)
        except ProtocolError as error:
            other_fault = error
        if fault is not None or other_fault is not None:
            assert fault is not None, f"the library refuses what we read: {other_fault!r}"
            if other_fault is None:
                assert one.kind in (Kind.HEADERS, Kind.CONTINUATION), "we refuse what the library reads"
                assert _has_three_sizes(one.content), "we refuse another head than one of three sizes"
            else:
                assert fault.code == other_fault.error_code
            return False
        assert _told(events) == _told(expected)
        for event in events:
            if isinstance(event, RequestReceived | TrailersReceived):
                _judge(event)


def _act(script: Script, own: Session, other: _Library, peer: Peer) -> bool:
    """Let both do the same on our own account. False: it broke the rules."""
    kind, ends = script.number(5), bool(script.number(2))
    sends = [number for number, stream in other.streams.items() if stream.state_machine.state in _SENDS]
    stream_id = script.one_of(sends) if sends else peer.stream_id() & 0x7FFFFFFF
    fields, size, taken = script.one_of(ANSWERS), script.one_of(SIZES), script.one_of([1, 9000, 32767, 65535])
    if not (script.odd() or _lawful(other, kind, stream_id, fields, size, ends=ends)):
        return True
    broken = []
    for side in (own, other):
        try:
            if kind < 2:
                side.head(stream_id, fields, ends=ends)
            elif kind == 2:
                side.send_content(stream_id, b"a" * size, ends=ends)
            elif kind == 3:
                side.taken(taken, stream_id)
            elif isinstance(side, Session):
                side.forget_heads()
            broken.append(False)
        except (ProtocolError, KeyError):
            broken.append(True)
    assert broken[0] == broken[1]
    return not broken[0]


def _lawful(other: _Library, kind: int, stream_id: int, fields: list[Field], size: int, *, ends: bool) -> bool:
    stream = other.streams.get(stream_id)
    if kind > 3:
        return True
    if stream is None or stream.state_machine.state not in _SENDS:
        return False
    machine = stream.state_machine
    if kind < 2:
        interim = fields[0] == (b":status", b"100")
        if machine.headers_sent:
            return ends and not machine.trailers_sent and not interim
        return fields[0][0] == b":status" and not (interim and ends)
    if kind == 2:
        window = min(stream.outbound_flow_control_window, other.outbound_flow_control_window)
        return bool(machine.headers_sent) and size <= min(window, other.max_outbound_frame_size)
    return True
