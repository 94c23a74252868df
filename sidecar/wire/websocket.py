"""WebSocket (RFC 6455): the opening handshake, the ends of frames, and the one frame that we send. Pure.

The opening handshake (section 4) is the only supported change of protocols. It travels as an ordinary request, with
Connection and Upgrade written by us on each hop, and is judged like one; the connection changes only after the
upstream's own 101.

A tunnel passes bytes and judges none. It follows the lengths of frames (section 5.2), so that a Close frame of ours is
never read as part of another frame. That costs a few comparisons for each frame and nothing for its content.
"""

from __future__ import annotations

import base64
import hashlib
import re
import secrets
from typing import Final

from delegation_core.errors import Denied, Reason
from sidecar.wire.h1_fields import connection_options
from sidecar.wire.message import Message, Request, Response

SWITCH_LINES: Final = b"connection: Upgrade\r\nupgrade: websocket\r\n"
"""The fields of this hop that ask for the change, and that grant it."""

_WEBSOCKET: Final = b"websocket"
_KEY: Final = re.compile(rb"[A-Za-z0-9+/]{21}[AQgw]==")  # 16 bytes in base64, in their one canonical form
_VERSION: Final = b"13"
_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_GRANTING: Final = frozenset({b"upgrade", b"keep-alive"})


class Handshake:
    """An opening handshake: a 101 must show its ``accept`` value, and one of the offered ``protocols`` or none."""

    __slots__ = ("accept", "protocols")

    def __init__(self, key: bytes, protocols: frozenset[bytes]) -> None:
        self.accept = base64.b64encode(hashlib.sha1(key + _GUID, usedforsecurity=False).digest())
        self.protocols = protocols

    def check(self, head: Response) -> None:
        """Return if a 101 accepts this handshake (RFC 6455 section 4.2.2).

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
    """Return if a request with an Upgrade field asks for WebSocket; its lists are stricter than RFC 6455 section 4.2.1.

    Raises:
        Denied: UPGRADE_REFUSED, it asks for another protocol, or for this one in another form.
    """
    if head.method != "GET" or head.minor != 1 or head.has_body or head.expect is not None:
        raise Denied(Reason.UPGRADE_REFUSED, "an upgrade by another request than a GET of HTTP/1.1 without a body")
    if not _names_websocket(head):
        raise Denied(Reason.UPGRADE_REFUSED, "an upgrade to something else than WebSocket")
    options = connection_options(head.all(b"connection"))
    if b"upgrade" not in options or b"close" in options:
        raise Denied(Reason.UPGRADE_REFUSED, "the Connection field does not say that it upgrades")
    if any(option.startswith(b"sec-websocket-") for option in options):  # they would be removed at this hop
        raise Denied(Reason.UPGRADE_REFUSED, "the Connection field names fields of the handshake")
    if head.all(b"sec-websocket-version") != (_VERSION,):
        raise Denied(Reason.UPGRADE_REFUSED, "not exactly one Sec-WebSocket-Version, 13")
    keys = head.all(b"sec-websocket-key")
    if len(keys) != 1 or not _KEY.fullmatch(keys[0]):
        raise Denied(Reason.UPGRADE_REFUSED, "not exactly one Sec-WebSocket-Key of 16 bytes")


def handshake_of(request: Message) -> Handshake:
    """Return the handshake that a request asks for, after ``check_upgrade``."""
    offered = b",".join(request.all(b"sec-websocket-protocol")).split(b",")
    (key,) = request.all(b"sec-websocket-key")
    return Handshake(key, frozenset(protocol.strip(b" \t") for protocol in offered))


def _names_websocket(head: Message) -> bool:
    return [value.lower() for value in head.all(b"upgrade")] == [_WEBSOCKET]


GOING_AWAY: Final = 1001  # RFC 6455 section 7.4.1

MAX_STEPS: Final = 512  # over heads and contents per iteration: one read holds up to 131,072 empty frames (ADR 0033)

_CLOSE: Final = 0x8
_MAX_CONTROL: Final = 125


class Frames:
    """Follows one direction. ``closed``: a Close frame has passed, after which nothing may follow (section 5.5.1)."""

    __slots__ = ("_head", "_lost", "_remaining", "closed")

    def __init__(self) -> None:
        self.closed = False
        self._head = bytearray()
        self._remaining = 0
        self._lost = False

    @property
    def at_boundary(self) -> bool:
        """True if the next byte begins a frame."""
        return not (self._remaining or self._head or self._lost)

    def follow(self, data: bytes) -> bytes:
        """Follow passed bytes. Returns those to be followed later, beyond one iteration's share."""
        size = len(data)
        if self._remaining >= size:
            self._remaining -= size
            return b""
        at = steps = 0
        while at < size and steps < MAX_STEPS:
            steps += 1
            at = self._step(data, at)
        return data[at:]

    def first_boundary(self, data: bytes) -> int:
        """Follow these bytes to the first place between two frames, and return it; -1 if there is none, with all
        followed.
        """
        at = 0
        while not self.at_boundary:
            if at == len(data):
                return -1
            at = self._step(data, at)
        return at

    def _step(self, data: bytes, at: int) -> int:
        """Advance to the end of a head, of a frame, or of ``data``."""
        if self._lost:
            return len(data)
        if self._remaining:
            taken = min(self._remaining, len(data) - at)
            self._remaining -= taken
            return at + taken
        head = self._head
        head += data[at : at + 1]
        wanted = _head_size(head)
        piece = data[at + 1 : at + 1 + wanted - len(head)]
        head += piece
        if len(head) == _head_size(head):  # the second byte may have made it longer
            self._take_head()
        return at + 1 + len(piece)

    def _take_head(self) -> None:
        head = self._head
        length = head[1] & 0x7F
        if length == 126:
            length = int.from_bytes(head[2:4], "big")
        elif length == 127:
            length = int.from_bytes(head[2:10], "big")
            self._lost = bool(length >> 63)  # no frame is that long: its reader will end the connection
        self.closed = self.closed or head[0] & 0x0F == _CLOSE
        self._remaining = length
        head.clear()


def _head_size(head: bytearray) -> int:
    """Return the size of a frame's head, as far as its first bytes tell."""
    if len(head) < 2:
        return 2
    length, masked = head[1] & 0x7F, head[1] & 0x80
    return 2 + (2 if length == 126 else 8 if length == 127 else 0) + (4 if masked else 0)


def close_frame(code: int, reason: str, *, masked: bool) -> bytes:
    """Build a Close frame (section 5.5.1); ``masked`` towards a server. A reason that is too long is left out."""
    content = code.to_bytes(2, "big") + reason.encode("ascii")
    if len(content) > _MAX_CONTROL:
        content = content[:2]
    if not masked:
        return bytes((0x80 | _CLOSE, len(content))) + content
    mask = secrets.token_bytes(4)
    covered = bytes(byte ^ mask[place % 4] for place, byte in enumerate(content))
    return bytes((0x80 | _CLOSE, 0x80 | len(content))) + mask + covered
