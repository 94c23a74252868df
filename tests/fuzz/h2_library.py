"""The library h2 as the other side of a comparison: with its own compression, our settings, and heads judged apart."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.exceptions import ProtocolError
from h2.settings import SettingCodes, Settings
from h2.stream import H2Stream, StreamState
from hpack import Decoder

from sidecar.wire.h2_frames import END_HEADERS, END_STREAM, MAX_FRAME, PREFACE, Code, FrameReader, H2Error, Kind
from sidecar.wire.h2_session import CONNECTION_WINDOW, STREAM_WINDOW, Session
from sidecar.wire.message import Field
from tests.fuzz.h2_script import MAX_STREAMS

MAX_HEAD: Final = 4000
SENDS: Final = StreamState.OPEN, StreamState.HALF_CLOSED_REMOTE
_RECEIVES: Final = StreamState.OPEN, StreamState.HALF_CLOSED_LOCAL
_has_three_sizes: Final = re.compile(rb"(?:[\x20-\x3e]|\x3f[\x80-\xff]*[\x00-\x7f]){3}").search


class _UncheckedStream(H2Stream):
    def _initialize_content_length(self, _headers: object) -> None:
        return


class Library(H2Connection):
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
                SettingCodes.MAX_HEADER_LIST_SIZE: MAX_HEAD,
                SettingCodes.HEADER_TABLE_SIZE: 4096,
            },
        )
        self.decoder = Decoder(max_header_list_size=2 * MAX_HEAD)
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


class Written:
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


def state_of(session: H2Connection) -> Any:
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


def read_both(
    own: Session,
    other: Library,
    reader: FrameReader,
    sent: bytes,
    times: Iterator[float],
    judge: Callable[[Any], None],
) -> bool:
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
                whole = one.kind == Kind.HEADERS
                assert not whole or _has_three_sizes(one.content), "we refuse another head than one of three sizes"
            else:
                codes = {
                    int(fault.code),
                    int(other_fault.error_code),
                }  # of a closed stream it hangs on its being forgotten
                assert len(codes) == 1 or codes == {Code.PROTOCOL_ERROR, Code.STREAM_CLOSED}
            return False
        assert _told(events) == _told(expected)
        for event in events:
            if getattr(event, "headers", None) is not None:
                judge(event)


def receiving(other: Library) -> list[int]:
    """Return the streams on which more may come."""
    return [number for number, stream in other.streams.items() if stream.state_machine.state in _RECEIVES]


def sending(other: Library) -> list[int]:
    """Return the streams on which more may be sent."""
    return [number for number, stream in other.streams.items() if stream.state_machine.state in SENDS]


def fits(other: Library, stream_id: int, size: int) -> bool:
    """Tell if a stream may send so much content now."""
    stream = other.streams[stream_id]
    window = min(stream.outbound_flow_control_window, other.outbound_flow_control_window)
    return bool(stream.state_machine.headers_sent) and size <= min(window, other.max_outbound_frame_size)


def do_both(own: Session, other: Library, do: Callable[[Any], None]) -> bool:
    """Do something on our own account. False: it broke the rules."""
    broken = []
    for side in (own, other):
        try:
            do(side)
            broken.append(False)
        except (ProtocolError, KeyError):
            broken.append(True)
    assert broken[0] == broken[1]
    return not broken[0]
