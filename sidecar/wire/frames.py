"""Where the frames of a WebSocket end (RFC 6455 section 5.2), and the one frame that is ours to say. Pure.

A tunnel passes bytes and judges none. Only to say goodbye it must know where a frame of its own would not be read as
part of another: so it follows the lengths, which costs a few comparisons for each frame and nothing for its content.
"""

from __future__ import annotations

import secrets
from typing import Final

GOING_AWAY: Final = 1001  # RFC 6455 section 7.4.1

MAX_STEPS: Final = 512  # over heads and contents at a time: one read holds up to 131,072 empty frames (ADR 0019)

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
        """Whether the next byte begins a frame."""
        return not (self._remaining or self._head or self._lost)

    def follow(self, data: bytes) -> bytes:
        """These bytes have passed. Those of them that are to be followed later, as so much is not done at a time."""
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
        """Follow these bytes up to the first place between two frames, and return it; -1, and all passed, if none."""
        at = 0
        while not self.at_boundary:
            if at == len(data):
                return -1
            at = self._step(data, at)
        return at

    def _step(self, data: bytes, at: int) -> int:
        """Go on to the end of a head, of a frame, or of ``data``."""
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
            self._lost = bool(length >> 63)  # no frame is that long: whoever reads this will end the connection
        self.closed = self.closed or head[0] & 0x0F == _CLOSE
        self._remaining = length
        head.clear()


def _head_size(head: bytearray) -> int:
    """How many bytes a frame's head has, as far as its first bytes tell."""
    if len(head) < 2:
        return 2
    length, masked = head[1] & 0x7F, head[1] & 0x80
    return 2 + (2 if length == 126 else 8 if length == 127 else 0) + (4 if masked else 0)


def close_frame(code: int, reason: str, *, masked: bool) -> bytes:
    """A Close frame (section 5.5.1); ``masked`` towards a server. A reason that is too long is left out."""
    content = code.to_bytes(2, "big") + reason.encode("ascii")
    if len(content) > _MAX_CONTROL:
        content = content[:2]
    if not masked:
        return bytes((0x80 | _CLOSE, len(content))) + content
    mask = secrets.token_bytes(4)
    covered = bytes(byte ^ mask[place % 4] for place, byte in enumerate(content))
    return bytes((0x80 | _CLOSE, 0x80 | len(content))) + mask + covered
