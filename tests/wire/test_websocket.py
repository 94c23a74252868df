from __future__ import annotations

import pytest

from delegation_core.errors import Denied, Reason
from sidecar.wire.message import Response
from sidecar.wire.websocket import Handshake, check_upgrade, handshake_of
from tests.wire.written import parse_request_head, parse_response_head

# The example of RFC 6455 section 1.3.
KEY = b"dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="

ASKS = (
    b"GET /chat HTTP/1.1\r\n"
    b"Host: a\r\n"
    b"Upgrade: websocket\r\n"
    b"Connection: Upgrade\r\n"
    b"Sec-WebSocket-Key: " + KEY + b"\r\n"
    b"Sec-WebSocket-Version: 13\r\n\r\n"
)
GRANTS = (
    b"HTTP/1.1 101 Switching Protocols\r\n"
    b"Upgrade: websocket\r\n"
    b"Connection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: " + ACCEPT + b"\r\n\r\n"
)


def with_field(head: bytes, field: bytes) -> bytes:
    return head[:-2] + field + b"\r\n\r\n"


def ask(head: bytes) -> Handshake:
    request = parse_request_head(head, max_target_bytes=100, max_fields=20, proxy_form=False)
    check_upgrade(request)
    return handshake_of(request)


def granted(head: bytes) -> Response:
    return parse_response_head(head, max_fields=20)


LAWFUL = {
    "the RFC's example": ASKS,
    "as browsers write it": ASKS.replace(b"Connection: Upgrade", b"Connection: keep-alive, Upgrade"),
    "another case": ASKS.replace(b"Upgrade: websocket", b"Upgrade: WebSocket"),
    "a body of length zero": with_field(ASKS, b"Content-Length: 0"),
    "subprotocols in two fields": with_field(ASKS, b"Sec-WebSocket-Protocol: a, b\r\nSec-WebSocket-Protocol: c"),
}
UNLAWFUL = {
    "another method": ASKS.replace(b"GET", b"POST"),
    "HTTP/1.0": ASKS.replace(b"HTTP/1.1", b"HTTP/1.0"),
    "a body by length": with_field(ASKS, b"Content-Length: 1"),
    "a body by chunks": with_field(ASKS, b"Transfer-Encoding: chunked"),
    "an expectation": with_field(ASKS, b"Expect: 100-continue"),
    "h2c": ASKS.replace(b"Upgrade: websocket", b"Upgrade: h2c"),
    "another protocol beside it": ASKS.replace(b"Upgrade: websocket", b"Upgrade: websocket, h2c"),
    "two Upgrade fields": with_field(ASKS, b"Upgrade: websocket"),
    "an empty Upgrade": ASKS.replace(b"Upgrade: websocket", b"Upgrade:"),
    "no Connection": ASKS.replace(b"Connection: Upgrade\r\n", b""),
    "another Connection": ASKS.replace(b"Connection: Upgrade", b"Connection: keep-alive"),
    "a connection to be closed": ASKS.replace(b"Connection: Upgrade", b"Connection: Upgrade, close"),
    "a Connection that takes the key away": ASKS.replace(
        b"Connection: Upgrade", b"Connection: Upgrade, Sec-WebSocket-Key"
    ),
    "no version": ASKS.replace(b"Sec-WebSocket-Version: 13\r\n", b""),
    "version 8": ASKS.replace(b"Version: 13", b"Version: 8"),
    "two versions": with_field(ASKS, b"Sec-WebSocket-Version: 13"),
    "no key": ASKS.replace(b"Sec-WebSocket-Key: " + KEY + b"\r\n", b""),
    "two keys": with_field(ASKS, b"Sec-WebSocket-Key: " + KEY),
    "a key of 15 bytes": ASKS.replace(KEY, b"dGhlIHNhbXBsZSBub25j"),
    "a key of 17 bytes": ASKS.replace(KEY, b"dGhlIHNhbXBsZSBub25jZQAA"),
    "a key that has another form": ASKS.replace(KEY, b"dGhlIHNhbXBsZSBub25jZR=="),
    "a key that is not base64": ASKS.replace(KEY, b"dGhlIHNhbXBsZSBub25j!Q=="),
}


@pytest.mark.parametrize("head", LAWFUL.values(), ids=LAWFUL.keys())
def test_a_valid_handshake_is_granted_by_its_accept_value_alone(head: bytes) -> None:
    ask(head).check(granted(GRANTS))


@pytest.mark.parametrize("head", UNLAWFUL.values(), ids=UNLAWFUL.keys())
def test_what_is_no_valid_handshake_is_refused(head: bytes) -> None:
    with pytest.raises(Denied) as refused:
        ask(head)
    assert refused.value.reason is Reason.UPGRADE_REFUSED


GRANTING = {
    "as it must be": GRANTS,
    "with keep-alive": GRANTS.replace(b"Connection: Upgrade", b"Connection: keep-alive, upgrade"),
    "with an offered subprotocol": with_field(GRANTS, b"Sec-WebSocket-Protocol: chat"),
    "with an extension": with_field(GRANTS, b"Sec-WebSocket-Extensions: permessage-deflate"),
}
NOT_GRANTING = {
    "no accept value": GRANTS.replace(b"Sec-WebSocket-Accept: " + ACCEPT + b"\r\n", b""),
    "another accept value": GRANTS.replace(ACCEPT, b"S3pPLMBiTxaQ9kYGzzhZRbK+xOo="),
    "two accept values": with_field(GRANTS, b"Sec-WebSocket-Accept: " + ACCEPT),
    "another protocol": GRANTS.replace(b"websocket", b"h2c"),
    "no Upgrade": GRANTS.replace(b"Upgrade: websocket\r\n", b""),
    "two Upgrades": with_field(GRANTS, b"Upgrade: websocket"),
    "no Connection": GRANTS.replace(b"Connection: Upgrade\r\n", b""),
    "a connection that closes": GRANTS.replace(b"Connection: Upgrade", b"Connection: Upgrade, close"),
    "a Connection that takes the accept value away": GRANTS.replace(
        b"Connection: Upgrade", b"Connection: Upgrade, Sec-WebSocket-Accept"
    ),
    "a length": with_field(GRANTS, b"Content-Length: 0"),
    "chunks": with_field(GRANTS, b"Transfer-Encoding: chunked"),
    "HTTP/1.0": GRANTS.replace(b"HTTP/1.1", b"HTTP/1.0"),
    "a subprotocol nobody offered": with_field(GRANTS, b"Sec-WebSocket-Protocol: other"),
    "two subprotocols": with_field(GRANTS, b"Sec-WebSocket-Protocol: chat\r\nSec-WebSocket-Protocol: chat"),
}
OFFER = with_field(ASKS, b"Sec-WebSocket-Protocol: chat, superchat")


@pytest.mark.parametrize("head", GRANTING.values(), ids=GRANTING.keys())
def test_a_101_that_grants_the_handshake_passes(head: bytes) -> None:
    ask(OFFER).check(granted(head))


@pytest.mark.parametrize("head", NOT_GRANTING.values(), ids=NOT_GRANTING.keys())
def test_a_101_that_grants_another_handshake_or_none_is_refused(head: bytes) -> None:
    with pytest.raises(Denied):
        ask(OFFER).check(granted(head))


def test_a_101_may_choose_no_subprotocol_where_none_was_offered() -> None:
    with pytest.raises(Denied):
        ask(ASKS).check(granted(with_field(GRANTS, b"Sec-WebSocket-Protocol: chat")))
