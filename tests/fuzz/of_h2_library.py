"""One connection of HTTP/2 read and written by our shorter way, and by the library h2 with its own compression.

Both see the same, end for the same faults, and write what means the same. Heads are judged apart: what we accept, the
library's own checks accept too.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import Any, Final

from h2.events import RequestReceived, ResponseReceived, TrailersReceived
from h2.utilities import HeaderValidationFlags, validate_headers

from delegation_core.errors import Denied
from sidecar.wire.h2_frames import PREFACE, FrameReader
from sidecar.wire.h2_head import request_again, request_of, response_again, response_of, trailers_of
from sidecar.wire.h2_session import Session
from sidecar.wire.limits import ClientLimits, ServerLimits
from sidecar.wire.message import Field, Request
from tests.fuzz.h2_library import (
    MAX_HEAD,
    SENDS,
    Library,
    Written,
    do_both,
    fits,
    read_both,
    receiving,
    sending,
    state_of,
)
from tests.fuzz.h2_script import ANSWERS, MAX_STREAMS, SIZES, Peer, Script
from tests.wire.h2_bench import ASKS, frame

LIMITS: Final = ServerLimits(max_head_bytes=MAX_HEAD, max_fields=30, max_target_bytes=300)
_OF_CLIENT: Final = ClientLimits(max_head_bytes=MAX_HEAD, max_fields=30)
_OF_REQUEST: Final = HeaderValidationFlags(
    is_client=False, is_trailer=False, is_response_header=False, is_push_promise=False
)
_OF_ANSWER: Final = HeaderValidationFlags(
    is_client=True, is_trailer=False, is_response_header=True, is_push_promise=False
)
_OF_TRAILERS: Final = HeaderValidationFlags(
    is_client=False, is_trailer=True, is_response_header=False, is_push_promise=False
)


def _result(judge: Callable[[], Any]) -> Any:
    """Return a message, or the reason of its refusal."""
    try:
        return judge()
    except Denied as error:
        return error.reason


def _judge(event: Any) -> None:
    """Our judgement of a head is that of the first time, and no milder than the library's."""
    fields = [(bytes(name), bytes(value)) for name, value in event.headers]
    if isinstance(event, RequestReceived):
        ends = event.stream_ended is not None
        found = _result(lambda: request_of(fields, LIMITS, ends=ends))
        assert _result(lambda: request_again(event.headers, LIMITS, ends=ends)) == found, "judged otherwise than before"
        if isinstance(found, Request):
            joined = b"; ".join(value for name, value in fields if name == b"cookie")
            kept = [one for one in fields if not one[0].startswith(b":") and one[0] not in (b"cookie", b"host")]
            assert [one for one in found.fields if one[0] not in (b"cookie", b"host")] == kept
            assert found.one(b"cookie") == (joined or None)
        flags = _OF_REQUEST
    elif isinstance(event, TrailersReceived):
        found = _result(lambda: trailers_of(event.headers, max_bytes=MAX_HEAD, max_fields=LIMITS.max_fields))
        flags = _OF_TRAILERS
    else:
        found = _result(lambda: response_of(fields, _OF_CLIENT))
        if isinstance(event, ResponseReceived):
            again = _result(lambda: response_again(event.headers, _OF_CLIENT))
            assert again == found, "judged otherwise than before"
        flags = _OF_ANSWER
    if not isinstance(found, str):
        hosts = b"host", b":authority"  # the library compares them letter by letter
        fields = [(name, value.lower() if name in hosts else value) for name, value in fields]
        list(validate_headers(fields, flags))  # raises ProtocolError


class _Pair:
    """Our side of a connection beside the library's, and the peer of both."""

    def __init__(self, data: bytes, *, client_side: bool) -> None:
        self.script = Script(data)
        self.own = Session(client_side=client_side, max_streams=MAX_STREAMS, max_head_bytes=MAX_HEAD)
        self.other = Library(client_side=client_side)
        self.peer = Peer(self.script, answers=client_side)
        self._reader = FrameReader(preface=b"", max_block=2 * MAX_HEAD)
        self._times = count(0.0, 100.0)  # no frame is one too many
        for side in (self.own, self.other):
            side.begin()
            side.receive_data((b"" if client_side else PREFACE) + frame(4, 0, 0, b"") + frame(4, 1, 0, b""))

    def run(self, act: Callable[[_Pair], bool]) -> None:
        """Go on until the script or the connection ends. ``act`` does what our side does by itself."""
        own, other, script, peer = self.own, self.other, self.script, self.peer
        written, expected = Written(), Written()
        try:
            while not script.over:
                action = script.number(10)
                peer.open, peer.receives = other.open_inbound_streams, receiving(other)
                if action < 6:
                    sent = peer.headers() if action < 3 else peer.data() if action == 3 else peer.other()
                    if not read_both(own, other, self._reader, sent, self._times, _judge):
                        return
                elif not act(self):
                    return
                assert state_of(own) == state_of(other)
                assert written.read(own.data_to_send()) == expected.read(other.data_to_send())
        finally:
            own.forget()

    def other_action(self, kind: int, stream_id: int, *, ends: bool) -> bool:
        """Send content, open windows, or forget heads."""
        script, own, other = self.script, self.own, self.other
        size, taken = script.one_of(SIZES), script.one_of([1, 9000, 32767, 65535])
        if kind == 2:
            lawful = stream_id in sending(other) and fits(other, stream_id, size)
            if not (lawful or script.odd()):
                return True
            return do_both(own, other, lambda side: side.send_content(stream_id, b"a" * size, ends=ends))
        if kind == 3:
            if stream_id in other.streams:
                return do_both(own, other, lambda side: side.taken(taken, stream_id))
            return True
        own.forget_heads()
        return True


def http2_beside_library(data: bytes) -> None:
    """Requests to us, and our answers."""
    _Pair(data, client_side=False).run(_answer)


def _answer(pair: _Pair) -> bool:
    script, other = pair.script, pair.other
    kind, ends, sends = script.number(5), bool(script.number(2)), sending(pair.other)
    stream_id = script.one_of(sends) if sends else pair.peer.stream_id() & 0x7FFFFFFF
    if kind > 1:
        return pair.other_action(kind, stream_id, ends=ends)
    fields: list[Field] = script.one_of(ANSWERS)
    stream = other.streams.get(stream_id)
    lawful = False
    if stream is not None and stream.state_machine.state in SENDS:
        machine, interim = stream.state_machine, fields[0] == (b":status", b"100")
        if machine.headers_sent:
            lawful = ends and not machine.trailers_sent and not interim
        else:
            lawful = fields[0][0] == b":status" and not (interim and ends)
    if not (lawful or script.odd()):
        return True
    return do_both(pair.own, other, lambda side: side.head(stream_id, fields, ends=ends))


def http2_answers_beside_library(data: bytes) -> None:
    """Our requests to an upstream, and its answers."""
    _Pair(data, client_side=True).run(_ask)


def _ask(pair: _Pair) -> bool:
    script, other, peer = pair.script, pair.other, pair.peer
    kind, ends, sends = script.number(5), bool(script.number(2)), sending(pair.other)
    stream_id = script.one_of(sends) if sends else peer.stream_id() & 0x7FFFFFFF
    if kind > 1:
        return pair.other_action(kind, stream_id, ends=ends)
    fields: list[Field] = [*ASKS, *script.one_of(ANSWERS)[1:]]
    if script.number(8) == 1:
        if not (sends and fields[4:]):
            return True
        fields, ends = fields[4:], True
    else:
        most = min(other.remote_settings.max_concurrent_streams, MAX_STREAMS)
        if other.open_outbound_streams >= most and not script.odd():
            return True
        stream_id = peer.highest = other.get_next_available_stream_id()
    return do_both(pair.own, other, lambda side: side.head(stream_id, fields, ends=ends))
