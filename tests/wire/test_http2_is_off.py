"""A client of HTTP/2, as the library h2 speaks it, where HTTP/2 is off."""

from __future__ import annotations

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection

from delegation_core.errors import Reason
from tests.wire.bench import Served, answer_ok

GET = b"GET /a HTTP/1.1\r\nHost: agent\r\n\r\n"


def bytes_of_http2() -> bytes:
    """Return the first bytes of a client: the preface, its settings, and a request."""
    client = H2Connection(H2Configuration(client_side=True))
    client.initiate_connection()
    fields = [(":method", "GET"), (":scheme", "http"), (":path", "/a"), (":authority", "agent")]
    client.send_headers(1, fields, end_stream=True)
    return client.data_to_send()


@pytest.mark.parametrize("piece", [1, 15, 16, 17, 18, 24, 10_000])
async def test_a_client_of_http2_gets_505_in_http_1(piece: int) -> None:
    sent = bytes_of_http2()
    served = Served(answer_ok)
    for at in range(0, len(sent), piece):
        served.receive(sent[at : at + piece])
    served.receive(GET)

    assert served.transport.written.startswith(b"HTTP/1.1 505 ")
    assert served.transport.written.endswith(b"http_version")
    assert served.refusal.reason is Reason.HTTP_VERSION
    assert served.handler.requests == []
    ((stream, _),) = served.handler.refused
    assert (stream.status, stream.bytes_out) == (505, len(served.transport.written))


@pytest.mark.parametrize("line", [b"PRI / HTTP/2.0", b"PRI * HTTP/2.1", b"GET * HTTP/2.0", b"PRI * HTTP/2.00"])
async def test_another_line_of_that_version_is_told_in_http_1(line: bytes) -> None:
    served = Served(answer_ok)
    served.receive(line + b"\r\n\r\nSM\r\n\r\n")
    assert served.refusal.reason is Reason.BAD_REQUEST
    assert served.transport.written.startswith(b"HTTP/1.1 400 ")


async def test_the_preface_behind_a_request_is_refused_as_well() -> None:
    sent = bytes_of_http2()
    served = Served(answer_ok)
    served.receive(GET + sent)
    await served.turns()
    assert [one.head is not None for one in served.handler.requests] == [True]
    assert served.refusal.reason is Reason.HTTP_VERSION


async def test_a_connection_that_vanished_is_told_nothing() -> None:
    sent = bytes_of_http2()
    served = Served(answer_ok)
    served.receive(sent[:17])
    ((stream, _),) = served.handler.refused
    written = served.transport.written
    served.lose()
    stream.answer(505, [], b"again")
    assert served.transport.written == written
