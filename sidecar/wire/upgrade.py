"""The WebSocket opening handshake (RFC 6455 section 4): which request asks for it, which answer grants it. Pure.

It is the only change of protocols that is served. The handshake travels as an ordinary request, with its Connection
and Upgrade written by us on each hop, and is judged like one; the connection changes only after the upstream's own 101.
"""

from __future__ import annotations

import base64
import hashlib
import re
from typing import Final

from sidecar.errors import Denied, Reason
from sidecar.wire.h1_fields import connection_options
from sidecar.wire.message import Message, Request, Response

SWITCH_LINES: Final = b"connection: Upgrade\r\nupgrade: websocket\r\n"
"""The fields of this hop that ask for the change, and that grant it."""

_WEBSOCKET: Final = b"websocket"
_KEY: Final = re.compile(rb"[A-Za-z0-9+/]{21}[AQgw]==")  # 16 bytes in base64, in the one form that they have
_VERSION: Final = b"13"
_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_GRANTING: Final = frozenset({b"upgrade", b"keep-alive"})


class Handshake:
    """What a 101 must show: the ``accept`` value, and one of the offered ``protocols`` or none."""

    __slots__ = ("accept", "protocols")

    def __init__(self, key: bytes, protocols: frozenset[bytes]) -> None:
        self.accept = base64.b64encode(hashlib.sha1(key + _GUID, usedforsecurity=False).digest())
        self.protocols = protocols

    def check(self, head: Response) -> None:
        """Return if a 101 grants this handshake (RFC 6455 section 4.2.2).

        Raises:
            Denied: BAD_REQUEST; the caller knows that this was an answer.
        """
        if head.minor != 1 or head.chunked or head.content_length is not None:
            raise Denied(Reason.BAD_REQUEST, "a 101 of another version, or with a length")
        options = connection_options(head.all(b"connection"))
        if b"upgrade" not in options or not options <= _GRANTING or not _names_websocket(head):
            raise Denied(Reason.BAD_REQUEST, "a 101 that does not switch to WebSocket")
        if head.all(b"sec-websocket-accept") != (self.accept,):
            raise Denied(Reason.BAD_REQUEST, "a 101 without the one right Sec-WebSocket-Accept")
        chosen = head.all(b"sec-websocket-protocol")
        if len(chosen) > 1 or not self.protocols.issuperset(chosen):
            raise Denied(Reason.BAD_REQUEST, "a 101 with a subprotocol that nobody offered")


def check_upgrade(head: Request) -> None:
    """Return if a request with an Upgrade field asks for WebSocket; stricter than RFC 6455 section 4.2.1 in its lists.

    Raises:
        Denied: UPGRADE_REFUSED, it asks for another protocol, or for this one not exactly as it must be asked for.
    """
    if head.method != "GET" or head.minor != 1 or head.has_body or head.expect is not None:
        raise Denied(Reason.UPGRADE_REFUSED, "an upgrade by another request than a GET of HTTP/1.1 without a body")
    if not _names_websocket(head):
        raise Denied(Reason.UPGRADE_REFUSED, "an upgrade to something else than WebSocket")
    options = connection_options(head.all(b"connection"))
    if b"upgrade" not in options or b"close" in options:
        raise Denied(Reason.UPGRADE_REFUSED, "the Connection field does not say that it upgrades")
    if any(option.startswith(b"sec-websocket-") for option in options):  # they would be taken off at this hop
        raise Denied(Reason.UPGRADE_REFUSED, "the Connection field names fields of the handshake")
    if head.all(b"sec-websocket-version") != (_VERSION,):
        raise Denied(Reason.UPGRADE_REFUSED, "not exactly one Sec-WebSocket-Version, 13")
    keys = head.all(b"sec-websocket-key")
    if len(keys) != 1 or not _KEY.fullmatch(keys[0]):
        raise Denied(Reason.UPGRADE_REFUSED, "not exactly one Sec-WebSocket-Key of 16 bytes")


def handshake_of(request: Message) -> Handshake:
    """The handshake that a request asks for, after ``check_upgrade``."""
    offered = b",".join(request.all(b"sec-websocket-protocol")).split(b",")
    (key,) = request.all(b"sec-websocket-key")
    return Handshake(key, frozenset(protocol.strip(b" \t") for protocol in offered))


def _names_websocket(head: Message) -> bool:
    return [value.lower() for value in head.all(b"upgrade")] == [_WEBSOCKET]
