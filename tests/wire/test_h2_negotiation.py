"""The version of HTTP on an accepted connection: its caller's choice."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from delegation_core.errors import Reason
from sidecar.wire.connections import Connections
from sidecar.wire.h2_negotiation import VersionChoice
from sidecar.wire.h2_server import H2ServerConnection
from sidecar.wire.limits import ServerLimits
from tests.wire.bench import Clock, Handler, RecordingTransport, Served, answer_ok
from tests.wire.h2_bench import ASKS, Peer

GET = b"GET /a HTTP/1.1\r\nHost: agent\r\n\r\n"


class Tls:
    """A TLS object whose handshake is over."""

    def __init__(self, chosen: str | None) -> None:
        self.chosen = chosen

    def selected_alpn_protocol(self) -> str | None:
        return self.chosen


class SwitchingTransport(RecordingTransport):
    """Gives what arrives to its protocol of the moment."""

    protocol: Any

    def set_protocol(self, protocol: Any) -> None:
        self.protocol = protocol


class Chosen:
    """An accepted connection."""

    def __init__(self, **extra: Any) -> None:
        self.connections: Connections[Any] = Connections(interval_s=3600, clock=Clock())
        self.handler = Handler(answer_ok)
        self.transport = SwitchingTransport(**extra)
        self.transport.settle = self.connections.writes.write_all
        self.transport.protocol = VersionChoice(self.handler, ServerLimits(), self.connections)
        self.transport.protocol.connection_made(self.transport)

    def receive(self, data: bytes) -> None:
        self.transport.protocol.data_received(data)


def first_bytes() -> bytes:
    peer = Peer()
    peer.h2.send_headers(1, ASKS, end_stream=True)
    return peer.h2.data_to_send()


@pytest.mark.parametrize("piece", [1, 2, 3, 4, 5, 24, 1000])
async def test_a_preface_without_tls_begins_http2(piece: int) -> None:
    chosen = Chosen()
    sent = first_bytes()
    for at in range(0, len(sent), piece):
        chosen.receive(sent[at : at + piece])
    assert isinstance(chosen.transport.protocol, H2ServerConnection)
    assert len(chosen.handler.requests) == 1
    assert len(chosen.connections) == 1


@pytest.mark.parametrize("sent", [GET, b"POST /a HTTP/1.1\r\nHost: agent\r\nContent-Length: 0\r\n\r\n"])
@pytest.mark.parametrize("piece", [1, 2, 3, 4, 1000])
async def test_anything_else_without_tls_is_http_1(sent: bytes, piece: int) -> None:
    chosen = Chosen()
    for at in range(0, len(sent), piece):
        chosen.receive(sent[at : at + piece])
    chosen.receive(sent)
    assert chosen.transport.written.count(b"HTTP/1.1 200 ") == 2
    assert len(chosen.connections) == 1


INVALID = b"INVALID CONNECTION PREFACE\r\n\r\n"  # h2spec's


@pytest.mark.parametrize(
    "sent",
    [INVALID, b"GET /a\r\n\r\n", b"GET /a RTSP/1.0\r\n\r\n", b"\r\n" + INVALID, b"SSH-2.0-x\r\n"],
    ids=["h2spec", "HTTP/0.9", "RTSP", "an empty line first", "SSH"],
)
@pytest.mark.parametrize("piece", [1, 2, 17, 1000])
async def test_a_first_line_of_neither_version_ends_the_connection_without_an_answer(sent: bytes, piece: int) -> None:
    chosen = Chosen()
    for at in range(0, len(sent), piece):
        chosen.receive(sent[at : at + piece])
    chosen.receive(GET)
    assert chosen.transport.written == b""
    assert chosen.transport.ended
    assert chosen.handler.requests == []
    ((stream, error),) = chosen.handler.refused
    assert (error.reason, stream.status, stream.gone) == (Reason.BAD_REQUEST, 0, True)
    assert 0 < stream.bytes_in <= len(sent)


@pytest.mark.parametrize(
    "sent",
    [
        b"INVALID CONNECTION PREFACE HTTP/1.1\r\n\r\n",
        b"GET  /a HTTP/1.1\r\n\r\n",
        b"GET /a http/1.1\r\n\r\n",
        b"GET /a\tHTTP/1.1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"GET /a HTTP/1.2\r\n\r\n",
        b"GET * HTTP/2.0\r\n\r\n",
        b"INVALID\x01PREFACE\r\n\r\n",
        b"INVALID\rPREFACE\r\n\r\n",
        b"\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ],
    ids=[
        "HTTP/1.1",
        "two spaces",
        "lower case",
        "a tab",
        "an answer",
        "HTTP/1.2",
        "HTTP/2.0",
        "a control byte",
        "a bare CR",
        "empty lines",
        "TLS",
    ],
)
@pytest.mark.parametrize("piece", [1, 2, 17, 1000])
async def test_a_malformed_line_with_a_version_of_http_is_answered(sent: bytes, piece: int) -> None:
    chosen = Chosen()
    for at in range(0, len(sent), piece):
        chosen.receive(sent[at : at + piece])
    assert chosen.transport.written.startswith(b"HTTP/1.1 400 ")
    assert len(chosen.handler.refused) == 1


@pytest.mark.parametrize("piece", [1, 31, 1000])
async def test_behind_a_request_of_http_1_such_a_line_is_answered(piece: int) -> None:
    """The sender speaks HTTP/1.1: perhaps it stated too short a length, and the answer helps to find that."""
    chosen = Chosen()
    sent = GET + INVALID
    for at in range(0, len(sent), piece):
        chosen.receive(sent[at : at + piece])
    for _ in range(3):
        await asyncio.sleep(0)
    assert chosen.transport.written.startswith(b"HTTP/1.1 200 ")
    assert chosen.transport.written.count(b"HTTP/1.1 400 ") == 1


PIECES = st.one_of(
    st.sampled_from(
        [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"GET /a HTTP/1.1\r\n", b"Host: agent\r\n", b"\r\n", b"PR", b"HTTP/"]
    ),
    st.binary(max_size=9),
)


@given(st.lists(PIECES, max_size=6))
async def test_any_first_bytes_are_served_or_refused_once(pieces: list[bytes]) -> None:
    """In one piece and piece by piece: no byte of HTTP/1.1 is written to a connection of another version."""
    for cut in ([b"".join(pieces)], pieces):
        chosen = Chosen()
        for piece in cut:
            if piece:
                chosen.receive(piece)
        speaks_http2 = isinstance(chosen.transport.protocol, H2ServerConnection)
        written = chosen.transport.written
        assert speaks_http2 or not written or written.startswith(b"HTTP/1.1 ")
        assert not (speaks_http2 and b"HTTP/1.1" in written)
        refused = chosen.handler.refused
        assert len(refused) <= 1
        if refused and not speaks_http2 and not refused[0][0].status:
            assert refused[0][1].reason is Reason.BAD_REQUEST
            assert not written


async def test_over_tls_and_where_http2_is_off_such_a_line_is_answered() -> None:
    chosen = Chosen(ssl_object=Tls("http/1.1"))
    chosen.receive(INVALID)
    served = Served(answer_ok)
    served.receive(INVALID)
    for transport in (chosen.transport, served.transport):
        assert transport.written.startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize("begun", [b"\r\n", b"\r"])
async def test_an_empty_line_before_the_preface_is_no_http2(begun: bytes) -> None:
    chosen = Chosen()
    chosen.receive(begun)
    chosen.receive((b"\r\n" + first_bytes())[len(begun) :])
    assert chosen.handler.refused[0][1].reason is Reason.HTTP_VERSION
    assert chosen.transport.written.startswith(b"HTTP/1.1 505 ")


async def test_alpn_chooses_http2_and_nothing_else_is_spoken() -> None:
    chosen = Chosen(ssl_object=Tls("h2"))
    assert isinstance(chosen.transport.protocol, H2ServerConnection)
    chosen.receive(GET)
    assert len(chosen.handler.requests) == 0
    assert len(chosen.handler.refused) == 1
    assert b"HTTP/1.1" not in chosen.transport.written


@pytest.mark.parametrize("alpn", ["http/1.1", None])
async def test_without_alpn_for_it_a_preface_over_tls_is_refused(alpn: str | None) -> None:
    chosen = Chosen(ssl_object=Tls(alpn))
    chosen.receive(first_bytes())
    assert len(chosen.handler.requests) == 0
    assert len(chosen.handler.refused) == 1
    chosen = Chosen(ssl_object=Tls(alpn))
    chosen.receive(GET)
    assert chosen.transport.written.startswith(b"HTTP/1.1 200 ")


def test_nothing_of_http2_is_loaded_where_it_is_off() -> None:
    """Memory at rest counts: the sidecar loads the engine where the settings turn it on."""
    code = "import sys, sidecar.assembly; print([name for name in sys.modules if name.startswith('sidecar.wire.h2')])"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=50)
    assert ran.stdout.strip() == "[]"
