"""Fast path for usual frames: updates the state of the library h2 without its frame objects.

The library makes an object for each frame, each flag and each change of a state, looks at every stream for each new
one, and checks again what our reader of frames has checked. So a head in one frame and content change the states,
windows and tables here. Unusual frames are left to the library untouched: an error, a padded frame, a frame that its
stream does not expect. ``tests/wire/test_h2_direct.py`` compares both ways.
"""

from __future__ import annotations

from collections.abc import Sequence
from struct import Struct
from typing import Any, Final, cast

from h2.config import H2Configuration
from h2.connection import AllowedStreamIDs, ConnectionInputs, ConnectionState, H2Connection, _decode_headers
from h2.events import DataReceived, RequestReceived, ResponseReceived, StreamEnded, TrailersReceived
from h2.exceptions import ProtocolError
from h2.stream import H2Stream, H2StreamStateMachine, StreamClosedBy, StreamState
from h2.windows import WindowManager

from sidecar.wire.h2_compression import HeadDecoder, HeadEncoder
from sidecar.wire.h2_frames import END_HEADERS, END_STREAM, Kind
from sidecar.wire.message import Field

# Tuples: to look for a member of an enumeration in a set or dictionary runs its hash in Python.
_ALIVE: Final = ConnectionState.SERVER_OPEN, ConnectionState.CLIENT_OPEN, ConnectionState.IDLE
_RECEIVES: Final = StreamState.OPEN, StreamState.HALF_CLOSED_LOCAL
_SENDS: Final = StreamState.HALF_CLOSED_REMOTE, StreamState.OPEN
_WHOLE_HEADS: Final = frozenset({END_HEADERS, END_HEADERS | END_STREAM})  # flags: no padding, no priority
_HEADERS, _DATA, _CONTINUATION = int(Kind.HEADERS), int(Kind.DATA), int(Kind.CONTINUATION)
_FRAME: Final = Struct(">BHBBL").pack  # the head of a frame: its length in two parts, type, flags and stream
_STREAMS_KEPT: Final = 8  # closed streams kept, besides as many as are open


class StreamWithoutLength(H2Stream):
    """A stream without the library's Content-Length check, which ends the whole connection; ours ends the stream."""

    def _initialize_content_length(self, _headers: object) -> None:
        return


class DirectConnection(H2Connection):
    """``H2Connection`` with a fast path for usual frames."""

    decoder: HeadDecoder
    encoder: HeadEncoder

    def __init__(self, config: H2Configuration) -> None:
        super().__init__(config)
        self._is_client = config.client_side
        self._looks_at = 0  # the number of streams at which the open ones are counted

    def _admits(self) -> bool:
        """True if the settings admit another stream. Removes surplus closed streams."""
        if len(self.streams) < self._looks_at:
            return True
        if self._is_client:
            most, found = self.remote_settings.max_concurrent_streams, self.open_outbound_streams
        else:
            most, found = self.local_settings.max_concurrent_streams, self.open_inbound_streams
        self._looks_at = min(most, 2 * found + _STREAMS_KEPT)
        return found < most

    def _begin(self, stream_id: int) -> H2Stream:
        """Begin an admitted stream."""
        stream = StreamWithoutLength(
            stream_id,
            self.config,
            self.local_settings.initial_window_size,
            self.remote_settings.initial_window_size,
        )
        stream.max_outbound_frame_size = self.max_outbound_frame_size
        self.streams[stream_id] = stream
        return stream

    def _begin_new_stream(self, stream_id: int, allowed_ids: AllowedStreamIDs) -> H2Stream:
        stream = super()._begin_new_stream(stream_id, allowed_ids)
        stream.__class__ = StreamWithoutLength
        return stream

    def forget_closed(self) -> None:
        """Remove closed streams; the library still remembers how each ended.

        Otherwise the library would end the connection, with the calls of others, in two cases: an interim answer on a
        stream that was reset, and settings that overflow the window of a closed stream.
        """
        self._open_streams(1)

    # --- received

    def read_usual(self, frame: bytes) -> list[Any] | None:
        """Return the events of a usual frame, without StreamEnded; None, and no effect, for an unusual frame.

        Raises:
            ProtocolError: a head is malformed or too large. The connection has ended, and GOAWAY is written.
        """
        kind, flags = frame[3], frame[4]
        if self.state_machine.state not in _ALIVE:
            return None
        if kind == _DATA and flags <= END_STREAM:
            return self._read_data(frame, ends=flags > 0)
        if kind == _HEADERS and flags in _WHOLE_HEADS:
            return self._read_answer(frame) if self._is_client else self._read_request(frame)
        return None

    def _read_data(self, frame: bytes, *, ends: bool) -> list[Any] | None:
        stream = self.streams.get(int.from_bytes(frame[5:9]))
        size = len(frame) - 9
        if stream is None:
            return None
        machine, window = stream.state_machine, stream._inbound_window_manager
        shared = self._inbound_flow_control_window_manager
        fits = size <= window.current_window_size and size <= shared.current_window_size
        if not (fits and machine.headers_received and machine.state in _RECEIVES):
            return None
        window.current_window_size -= size
        shared.current_window_size -= size
        stream._actual_content_length += size
        ended = _end_by_peer(machine) if ends else None
        return [
            DataReceived(stream_id=stream.stream_id, data=frame[9:], flow_controlled_length=size, stream_ended=ended)
        ]

    def _read_request(self, frame: bytes) -> list[Any] | None:
        """Read the head of a new request. No block is unended then: ``FrameReader`` admits nothing inside one."""
        stream_id = int.from_bytes(frame[5:9])  # has the reserved bit; an id with it set is left to h2
        if not (stream_id & 1 and self.highest_inbound_stream_id < stream_id < 1 << 31):
            return None
        if not self._admits():
            return None
        fields = self._decode(frame)
        if b":status" in dict(fields):
            self.state_machine.process_input(ConnectionInputs.RECV_HEADERS)
            return self._by_library(self._begin_new_stream(stream_id, AllowedStreamIDs.ODD), fields, frame)
        if self.state_machine.state is ConnectionState.IDLE:
            self.state_machine.process_input(ConnectionInputs.RECV_HEADERS)
        machine = self._begin(stream_id).state_machine
        self.highest_inbound_stream_id = stream_id
        machine.client, machine.headers_received, machine.state = False, True, StreamState.OPEN
        ended = _end_by_peer(machine) if frame[4] & END_STREAM else None
        return [RequestReceived(stream_id=stream_id, headers=fields, stream_ended=ended)]

    def _read_answer(self, frame: bytes) -> list[Any] | None:
        stream = self.streams.get(int.from_bytes(frame[5:9]))
        if stream is None or stream.state_machine.state not in _RECEIVES:
            return None
        machine, ends = stream.state_machine, frame[4] & END_STREAM
        fields = self._decode(frame)
        answers = bool(fields) and fields[0][0] == b":status"
        unusual = fields[0][1].startswith(b"1") if answers else b":status" in dict(fields)
        if unusual or (machine.headers_received and (machine.trailers_received or not ends)):
            return self._by_library(stream, fields, frame)
        ended = _end_by_peer(machine) if ends else None
        if machine.headers_received:
            machine.trailers_received = True
            return [TrailersReceived(stream_id=stream.stream_id, headers=fields, stream_ended=ended)]
        machine.headers_received = True
        return [ResponseReceived(stream_id=stream.stream_id, headers=fields, stream_ended=ended)]

    def _decode(self, frame: bytes) -> list[Field]:
        try:
            return cast("list[Field]", _decode_headers(self.decoder, frame[9:]))
        except ProtocolError as error:
            self._terminate_connection(error.error_code)
            raise

    def _by_library(self, stream: H2Stream, fields: list[Field], frame: bytes) -> list[Any]:
        """Handle a decoded head by the library: an interim answer, or a head out of place."""
        try:
            return stream.receive_headers(fields, bool(frame[4] & END_STREAM), None)[1]
        except ProtocolError as error:
            self._terminate_connection(error.error_code)
            raise

    # --- sent

    def window_of(self, stream_id: int) -> int:
        """Return the number of bytes of content that a stream may send."""
        stream = self.streams.get(stream_id)
        if stream is None:
            return self.local_flow_control_window(stream_id)
        own, shared = stream.outbound_flow_control_window, self.outbound_flow_control_window
        return own if own < shared else shared

    def send_content(self, stream_id: int, data: bytes, *, ends: bool) -> None:
        """Write content, or the end of a stream."""
        stream, size = self.streams.get(stream_id), len(data)
        if (
            stream is None
            or stream.state_machine.state not in _SENDS
            or self.state_machine.state not in _ALIVE
            or size > self.max_outbound_frame_size
            or (size and size > min(stream.outbound_flow_control_window, self.outbound_flow_control_window))
        ):
            self._send_by_library(stream_id, data, ends=ends)
            return
        stream.outbound_flow_control_window -= size
        self.outbound_flow_control_window -= size
        if ends:
            _end_by_us(stream.state_machine)
        self._data_to_send += _FRAME(size >> 16, size & 0xFFFF, _DATA, END_STREAM if ends else 0, stream_id) + data

    def _send_by_library(self, stream_id: int, data: bytes, *, ends: bool) -> None:
        if data or not ends:
            self.send_data(stream_id, data, end_stream=ends)
        else:
            self.end_stream(stream_id)

    def send_request(self, stream_id: int, fields: Sequence[Field], *, ends: bool) -> None:
        """Write the head of a request, or its trailers."""
        is_next = self.highest_outbound_stream_id < stream_id < 1 << 31 and stream_id & 1
        if not is_next or self.state_machine.state not in _ALIVE or not self._admits():
            self.send_headers(stream_id, fields, end_stream=ends)
            return
        if self.state_machine.state is ConnectionState.IDLE:
            self.state_machine.process_input(ConnectionInputs.SEND_HEADERS)
        machine = self._begin(stream_id).state_machine
        self.highest_outbound_stream_id = stream_id
        machine.client, machine.headers_sent, machine.state = True, True, StreamState.OPEN
        self._send_block(stream_id, self.encoder.encode(fields), ends=ends)
        if ends:
            _end_by_us(machine)

    def send_answer(self, stream_id: int, fields: Sequence[Field], *, ends: bool) -> None:
        """Write the head or trailers of an answer; the library writes interim heads."""
        stream = self.streams.get(stream_id)
        machine = None if stream is None else stream.state_machine
        if (
            machine is None
            or machine.state not in _SENDS
            or machine.trailers_sent
            or (machine.headers_sent and not ends)
            or self.state_machine.state not in _ALIVE
            or (fields and fields[0][0] == b":status" and fields[0][1].startswith(b"1"))
        ):
            self.send_headers(stream_id, fields, end_stream=ends)
            return
        if machine.headers_sent:
            machine.trailers_sent = True
        machine.headers_sent = True
        self._send_block(stream_id, self.encoder.encode_again(fields), ends=ends)
        if ends:
            _end_by_us(machine)

    def _send_block(self, stream_id: int, block: bytes, *, ends: bool) -> None:
        """Write a head in as many frames as it needs."""
        most, size = self.max_outbound_frame_size, len(block)
        kind, flags = _HEADERS, END_STREAM if ends else 0
        while size > most:
            self._data_to_send += _FRAME(most >> 16, most & 0xFFFF, kind, flags, stream_id) + block[:most]
            block, size = block[most:], size - most
            kind, flags = _CONTINUATION, 0
        self._data_to_send += _FRAME(size >> 16, size & 0xFFFF, kind, flags | END_HEADERS, stream_id) + block

    def taken(self, size: int, stream_id: int) -> None:
        """Return flow-control credit for consumed content, in WINDOW_UPDATE frames of at least half a window."""
        stream = self.streams.get(stream_id)
        shared = self._inbound_flow_control_window_manager
        if stream is None or _opens(shared, size) or _opens(stream._inbound_window_manager, size):
            if size:
                self.acknowledge_received_data(size, stream_id)
            return
        shared._bytes_processed += size
        if stream.state_machine.state is not StreamState.CLOSED:
            stream._inbound_window_manager._bytes_processed += size


def _opens(window: WindowManager, size: int) -> bool:
    """True if consuming ``size`` more bytes may make the library open the window."""
    return not window.current_window_size or window._bytes_processed + size >= window.max_window_size // 2


def _end_by_peer(machine: H2StreamStateMachine) -> StreamEnded:
    """End the direction in which the peer sends."""
    if machine.state is StreamState.OPEN:
        machine.state = StreamState.HALF_CLOSED_REMOTE
    else:
        machine.state = StreamState.CLOSED
        machine.stream_closed_by = StreamClosedBy.RECV_END_STREAM
    return StreamEnded(stream_id=machine.stream_id)


def _end_by_us(machine: H2StreamStateMachine) -> None:
    """End the direction in which we send."""
    if machine.state is StreamState.OPEN:
        machine.state = StreamState.HALF_CLOSED_LOCAL
    else:
        machine.state = StreamState.CLOSED
        machine.stream_closed_by = StreamClosedBy.SEND_END_STREAM
