"""Two independent parsers of HTTP/1.1: h11, and aiohttp's parser in Python.

Each gets exactly the bytes that we take for one message, and returns its reading. ``None``: it refuses. If the message
ends at another place for it, the result is ``Elsewhere``: a proxy and the server behind it would disagree about the
next request.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import h11
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.http_parser import HttpRequestParserPy, HttpResponseParserPy

Fields = list[tuple[bytes, bytes]]


class Seen(NamedTuple):
    """One message. ``first`` is method and target of a request, the status of an answer; names are in lower case."""

    first: tuple[bytes, ...]
    fields: Fields
    body: bytes


class Elsewhere(NamedTuple):
    """The message does not end where we end it."""

    why: str


Opinion = Seen | Elsewhere | None


def h11_request(message: bytes) -> Opinion:
    """Return h11's reading of one request."""
    return _by_h11(h11.Connection(h11.SERVER, max_incomplete_event_size=65536), message)


def h11_answer(message: bytes, method: str) -> Opinion:
    """Return h11's reading of one answer to a request with this method."""
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=65536)
    connection.send(h11.Request(method=method, target="/", headers=[("Host", "a")]))
    connection.send(h11.EndOfMessage())
    return _by_h11(connection, message)


def _by_h11(connection: h11.Connection, message: bytes) -> Opinion:
    head: Any = None
    body = b""
    try:
        connection.receive_data(message)
        while True:
            event = connection.next_event()
            if isinstance(event, h11.Request | h11.Response):
                head = event
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                break
            elif not isinstance(event, h11.InformationalResponse):
                return Elsewhere("it is not over yet")
    except h11.RemoteProtocolError:
        return None
    if connection.trailing_data[0]:
        return Elsewhere("it ends before")
    first = (head.method, head.target) if isinstance(head, h11.Request) else (b"%d" % head.status_code,)
    return Seen(first, [(name, value) for name, value in head.headers], body)


def aiohttp_request(message: bytes) -> Opinion:
    """Return aiohttp's reading of one request."""
    loop = _loop()
    return _by_aiohttp(HttpRequestParserPy(BaseProtocol(loop), loop, 2**16, auto_decompress=False), message)


def aiohttp_answer(message: bytes, method: str) -> Opinion:
    """Return aiohttp's reading of one answer to a request with this method."""
    loop = _loop()
    parser = HttpResponseParserPy(
        BaseProtocol(loop),
        loop,
        2**16,
        method=method,
        response_with_body=method != "HEAD",
        read_until_eof=True,
        auto_decompress=False,
    )
    return _by_aiohttp(parser, message)


def _by_aiohttp(parser: Any, message: bytes) -> Opinion:
    try:
        messages, _upgraded, tail = parser.feed_data(message)
    except HttpProcessingError:
        return None
    if not messages:
        return Elsewhere("it is not over yet")
    head, payload = messages[0]
    if payload.exception() is not None:
        return None
    if not payload.is_eof():
        return Elsewhere("it is not over yet")
    if len(messages) > 1 or tail:
        return Elsewhere("it ends before")
    first: tuple[bytes, ...]
    if hasattr(head, "method"):
        first = (head.method.encode(), head.path.encode("utf-8", "surrogateescape"))
    else:
        first = (b"%d" % head.code,)
    fields = [(name.lower(), value) for name, value in head.raw_headers]
    return Seen(first, fields, b"".join(getattr(payload, "_buffer", ())))


class _NoLoop:
    """A loop in which nothing runs: the parser requires one."""

    def get_debug(self) -> bool:
        return False


def _loop() -> Any:
    return _NoLoop()
