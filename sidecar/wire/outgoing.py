"""What one side of a connection is going to write: framed as its head says, collected, and written in one piece."""

from __future__ import annotations


class Outgoing:
    """The bytes of one outgoing message after another. Pure; whoever owns the transport writes what ``take`` gives.

    ``pieces`` is not empty while there is anything to write; only to be looked at.
    """

    __slots__ = ("_bodyless", "_chunked", "_remaining", "pieces")

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self._bodyless = False
        self._chunked = False
        self._remaining: int | None = 0

    def begin(self, head: bytes, *, length: int | None, chunked: bool, bodyless: bool = False) -> None:
        """Begin a message of ``length`` content bytes; without a length it is chunked, or ends with its connection.

        ``bodyless``: it has no content, and what is added is dropped.
        """
        self.pieces.append(head)
        self._bodyless = bodyless
        self._chunked = chunked
        self._remaining = length

    def begin_raw(self) -> None:
        """Begin bytes that are no message: they end with the connection."""
        self._chunked = False
        self._remaining = None

    @property
    def until_close(self) -> bool:
        """Whether only the end of the connection tells the end of the message."""
        return self._remaining is None and not self._chunked

    def add(self, data: bytes) -> None:
        """Add content. RuntimeError if there is more than the head says: that would be read as another message."""
        if not data or self._bodyless:
            return
        if self._chunked:
            self.pieces += (b"%x\r\n" % len(data), data, b"\r\n")
            return
        if self._remaining is not None:
            self._remaining -= len(data)
            if self._remaining < 0:
                raise RuntimeError("the message is longer than its head says")
        self.pieces.append(data)

    def end(self) -> bool:
        """End the message; False, and nothing is added, if it is shorter than its head says."""
        if self._remaining:
            return False
        if self._chunked:
            self.pieces.append(b"0\r\n\r\n")
        self._chunked = False
        self._remaining = 0
        return True

    def take(self) -> bytes:
        """Everything added since the last call."""
        pieces = self.pieces
        if len(pieces) == 1:
            return pieces.pop()
        data = b"".join(pieces)
        pieces.clear()
        return data

    def clear(self) -> None:
        """Forget what was not taken."""
        self.pieces.clear()
