from __future__ import annotations

import asyncio

import pytest

from delegation_core.errors import Denied, Reason, SidecarError
from sidecar.identity.call import Call
from sidecar.identity.endpoint import EndpointAnswer
from sidecar.wire.connections import Connections
from sidecar.wire.h1_client import ClientConnection
from sidecar.wire.h1_fields import encode_fields
from sidecar.wire.limits import ClientLimits

FORM = b"grant_type=x&y=%0D%0A"
FIELDS = ((b"host", b"sts"), (b"content-type", b"application/x-www-form-urlencoded"))
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


class Transport(asyncio.Transport):
    """Records the bytes written, and a cut."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[bytes] = []
        self.cut = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.writes.append(bytes(data))

    def is_closing(self) -> bool:
        return self.cut

    def abort(self) -> None:
        self.cut = True


class Ends:
    """A call on its own connection."""

    def __init__(self, *, max_bytes: int = 10) -> None:
        self.transport = Transport()
        self.idle: list[ClientConnection] = []
        self.connection = ClientConnection(
            ClientLimits(),
            Connections(most_together=1),
            on_idle=self.idle.append,
            on_closed=lambda _connection: None,
            max_age_s=60.0,
        )
        self.connection.connection_made(self.transport)
        self.call = Call(b"/token", encode_fields(FIELDS), FORM, max_bytes=max_bytes)


async def test_a_form_goes_out_in_one_write_under_its_own_length() -> None:
    ends = Ends()
    ends.call.begin(ends.connection)
    (request,) = ends.transport.writes
    head, _, body = request.partition(b"\r\n\r\n")
    assert body == FORM
    assert head.split(b"\r\n") == [
        b"POST /token HTTP/1.1",
        b"host: sts",
        b"content-type: application/x-www-form-urlencoded",
        b"content-length: %d" % len(FORM),
    ]


@pytest.mark.parametrize(
    ("fields", "content_type", "cache_control"),
    [
        pytest.param(b"Cache-Control: no-store\r\n", "application/json", "no-store", id="once each"),
        pytest.param(b"", "application/json", None, id="one is absent"),
        pytest.param(b"Content-Type: text/html\r\n", None, None, id="one came twice"),
    ],
)
async def test_an_answer_is_told_whole(fields: bytes, content_type: str | None, cache_control: str | None) -> None:
    ends = Ends()
    ends.call.begin(ends.connection)
    for piece in (HEAD, fields + b"Content-Length: 10\r\n\r\n01234", b"56789"):
        assert not ends.call.answer.done()
        ends.connection.data_received(piece)
    assert ends.call.answer.result() == EndpointAnswer(200, content_type, cache_control, b"0123456789")
    ends.call.end()
    assert ends.idle == [ends.connection]
    assert not ends.transport.cut


@pytest.mark.parametrize(
    "told",
    [
        pytest.param(HEAD + b"Content-Length: 11\r\n\r\n0123456789x", id="by length"),
        pytest.param(HEAD + b"Transfer-Encoding: chunked\r\n\r\nb\r\n0123456789x\r\n", id="in chunks"),
        pytest.param(HEAD + b"\r\n0123456789x", id="to the end"),
    ],
)
async def test_a_byte_too_many_cuts_the_connection(told: bytes) -> None:
    ends = Ends()
    ends.call.begin(ends.connection)
    ends.connection.data_received(told)
    error = ends.call.answer.exception()
    assert isinstance(error, Denied)
    assert error.reason is Reason.STS_TOO_LARGE
    assert ends.transport.cut
    assert not ends.connection.usable


@pytest.mark.parametrize("coding", [b"gzip", b"identity", b"", b"br, gzip"])
async def test_an_encoded_answer_is_refused_and_cuts_the_connection(coding: bytes) -> None:
    ends = Ends()
    ends.call.begin(ends.connection)
    ends.connection.data_received(HEAD + b"Content-Encoding: %b\r\nContent-Length: 2\r\n\r\n{}" % coding)
    error = ends.call.answer.exception()
    assert isinstance(error, Denied)
    assert error.reason is Reason.STS_BAD_RESPONSE
    assert ends.transport.cut
    assert not ends.connection.usable


async def test_a_call_that_nobody_waits_for_cuts_its_connection_and_is_told_nothing_more() -> None:
    ends = Ends()
    ends.call.begin(ends.connection)
    ends.call.answer.cancel()
    ends.call.end()
    assert ends.transport.cut
    ends.connection.data_received(HEAD + b"Content-Length: 0\r\n\r\n")
    ends.connection.connection_lost(None)
    assert ends.idle == []


class Wait:
    given_up = False

    def cancel(self) -> None:
        self.given_up = True


async def test_a_call_that_waits_for_a_connection_leaves_the_line() -> None:
    call, call.waits = Ends().call, (wait := Wait())
    call.end()
    assert wait.given_up


async def test_without_a_connection_a_call_fails_as_it_is_told() -> None:
    call = Ends().call
    call.fail(error := Denied(Reason.UPSTREAM_IDENTITY))
    assert call.answer.exception() is error


async def test_an_answer_that_breaks_off_fails_the_call_and_later_errors_change_nothing() -> None:
    ends = Ends()
    ends.call.begin(ends.connection)
    ends.connection.data_received(HEAD + b"Content-Length: 2\r\n\r\n{")
    ends.connection.connection_lost(None)
    error = ends.call.answer.exception()
    assert isinstance(error, SidecarError)
    ends.call.fail(Denied(Reason.UPSTREAM_IDENTITY))
    assert ends.call.answer.exception() is error


async def test_only_a_kept_connection_without_a_head_of_an_answer_is_silent() -> None:
    ends = Ends()
    assert not ends.call.silent
    ends.call.begin(ends.connection)
    assert not ends.call.silent  # it is new
    ends.connection.data_received(HEAD + b"Content-Length: 0\r\n\r\n")
    ends.connection.kept = True  # as its pool notes
    second = Call(b"/token", encode_fields(FIELDS), FORM, max_bytes=10)
    second.begin(ends.connection)
    assert second.silent
    ends.connection.data_received(HEAD)
    assert second.silent
    ends.connection.data_received(b"Content-Length: 1\r\n\r\n")
    assert not second.silent
