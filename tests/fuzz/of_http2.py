"""HTTP/2: heads across versions, and whole connections of a peer that sends anything."""

from __future__ import annotations

import asyncio
from itertools import count

from delegation_core.errors import Denied, SidecarError
from sidecar.wire.connections import Connections
from sidecar.wire.h1_fields import edited, encode_request
from sidecar.wire.h1_head import RequestGrammar
from sidecar.wire.h2_frames import MAX_FRAME, PREFACE, FrameReader, Kind
from sidecar.wire.h2_head import request_of
from sidecar.wire.h2_requests import MAX_STREAMS
from sidecar.wire.h2_server import H2ServerConnection
from sidecar.wire.h2_session import CONNECTION_WINDOW
from sidecar.wire.limits import ServerLimits
from sidecar.wire.message import NOT_PASSED, Edits, Field
from sidecar.wire.stream import Stream
from tests.fuzz.inbound_world import InlineLoop
from tests.fuzz.properties import chance, pieces, quiet
from tests.wire.bench import Clock, RecordingTransport

LIMITS = ServerLimits(max_head_bytes=2400, max_fields=16, max_target_bytes=136, max_body_bytes=600)
GRAMMAR = RequestGrammar(max_target_bytes=136, max_fields=17, proxy_form=False)
ENDS = Edits(lambda name: name not in NOT_PASSED or name == b"host")


def _fields(data: bytes) -> list[Field]:
    """Read one field a line, NAME=VALUE, with ``\\`` before an octet that is meant."""
    found = []
    for line in data.split(b"\n"):
        name, _, value = line.partition(b"=")
        found.append((_meant(name), _meant(value)))
    return found


def _meant(text: bytes) -> bytes:
    return text.replace(b"\\r", b"\r").replace(b"\\n", b"\n").replace(b"\\0", b"\0")


def http2_head(data: bytes) -> None:
    """A head of HTTP/2 that is accepted means the same when it is written as HTTP/1.1, or it is refused."""
    try:
        head = request_of(_fields(data), LIMITS, ends=True)
    except Denied as error:
        quiet(error)
        return
    written = encode_request(head.method, head.target, edited(head, ENDS))
    assert written.count(b"\r\n\r\n") == 1, "a field became the end of a head"
    again = GRAMMAR.read(written)
    assert (again.method, again.target, again.authority) == (head.method, head.target, head.authority)
    assert again.fields == [field for field in head.fields if ENDS.passes(field[0])], "a field became another"
    assert again.content_length is None
    assert not again.has_body


class _Body:
    def __init__(self, stream: Stream, told: list[object], number: int) -> None:
        self.stream = stream
        self.told = told
        self.number = number
        self.data = b""

    def on_body(self, data: bytes) -> None:
        assert data
        self.data += data

    def on_body_end(self) -> None:
        self.told.append((self.number, "body", self.data))
        self.stream.answer(200, [], self.data)

    def on_body_error(self, error: SidecarError) -> None:
        quiet(error)
        self.told.append((self.number, "broken", error.reason))
        self.stream.answer(400, [], b"")

    def on_body_flush(self) -> None:
        pass


class _Handler:
    """Reads each body, and answers with it. ``told`` is what the peer has said, in order."""

    def __init__(self) -> None:
        self.told: list[object] = []
        self._numbers = count()

    def on_request(self, stream: Stream) -> None:
        head = stream.head
        assert head is not None
        number = next(self._numbers)
        self.told.append((number, head.method, head.target, tuple(head.fields), head.content_length))
        stream.read_body(_Body(stream, self.told, number))

    def on_refused(self, stream: Stream, error: SidecarError) -> None:
        quiet(error)
        self.told.append(("refused", error.reason))
        stream.answer(error.answer.status or 400, [], b"")


def _life(parts: list[bytes]) -> tuple[list[object], bytes]:
    """Return what one connection has told its handler, and what it has written."""
    loop = InlineLoop()
    before = asyncio._get_running_loop()
    asyncio._set_running_loop(loop)  # type: ignore[arg-type]
    try:
        handler, transport = _Handler(), RecordingTransport()
        connection = H2ServerConnection(handler, LIMITS, Connections(interval_s=3600, clock=Clock()))
        connection.connection_made(transport)
        for part in parts:
            connection.data_received(part)
            while loop.go_on():
                pass
            assert connection._reader.held <= MAX_FRAME + 9 + 2 * LIMITS.max_head_bytes, "too much waits"
            assert len(connection._streams) <= MAX_STREAMS + 1
            held = sum(stream.body._arrived_size for stream in connection._streams.values())
            assert held <= CONNECTION_WINDOW, "content past the window"
        connection.connection_lost(None)
        while loop.go_on():
            pass
        assert not connection._streams
    finally:
        asyncio._set_running_loop(before)
    return handler.told, transport.written


def _leaves(sent: bytes) -> bool:
    """Tell if one of the frames is a GOAWAY."""
    at = len(PREFACE)
    while at + 9 <= len(sent):
        if sent[at + 3] == Kind.GOAWAY:
            return True
        at += 9 + int.from_bytes(sent[at : at + 3])
    return False


def http2_connection(data: bytes) -> None:
    """A connection reads the same however its bytes are cut, and writes nothing but frames.

    The input follows the preface and empty settings; one that begins with ``!`` is all that is sent.
    """
    sent = data[1:] if data.startswith(b"!") else PREFACE + b"\0\0\0\4\0\0\0\0\0" + data
    told, written = _life([sent])
    cut, _ = _life(pieces(sent, chance(data)))
    if not _leaves(sent):  # what comes behind a GOAWAY is read as long as the connection lasts
        assert [one for one in told if one not in cut] == [], "the reading depends on the cut"
    reader, frames = FrameReader(preface=b"", max_block=2**20), []
    reader.feed(written)
    times = count(0.0, 100.0)
    while (frame := reader.next(next(times))) is not None:
        frames.append(frame)
    assert not reader.unfinished, "a frame that is not whole"
    assert frames[0].kind == Kind.SETTINGS
    assert not any(frame.kind == Kind.PUSH_PROMISE for frame in frames)
