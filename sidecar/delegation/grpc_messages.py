"""Messages of gRPC in the content of requests and answers: a flag, a length and the message. Pure.

https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

HEAD: Final = 5  # bytes before each message


class GrpcMessageError(ValueError):
    """Content that is not what it should be. Its text quotes nothing of it."""


def one_message(content: bytes) -> bytes:
    """Return the one message of a call that sends one.

    Raises:
        GrpcMessageError: there is none, or more than one; it is compressed, or cut off.
    """
    if len(content) < HEAD:
        raise GrpcMessageError("there is no message")
    if content[0]:
        raise GrpcMessageError("the message is compressed")
    size = int.from_bytes(content[1:HEAD], "big")
    if size != len(content) - HEAD:
        raise GrpcMessageError("more than one message, or one that is cut off")
    return content[HEAD:]


def written(message: bytes) -> bytes:
    """Return the content that holds one message."""
    return b"\0" + len(message).to_bytes(4, "big") + message


class GrpcMessages:
    """Cuts a stream into its messages, however it arrives in pieces. It holds no more than ``max_bytes``."""

    __slots__ = ("_held", "_max_bytes")

    def __init__(self, *, max_bytes: int) -> None:
        self._held = bytearray()
        self._max_bytes = max_bytes

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield the messages that are complete with ``data``.

        Raises:
            GrpcMessageError: one is compressed, or longer than ``max_bytes``; those before it were yielded.
        """
        held = self._held
        held += data
        at = 0
        try:
            while len(held) - at >= HEAD:
                if held[at]:
                    raise GrpcMessageError("the message is compressed")
                size = int.from_bytes(held[at + 1 : at + HEAD], "big")
                if size > self._max_bytes:
                    raise GrpcMessageError("the message is too long")
                begin, end = at + HEAD, at + HEAD + size
                if len(held) < end:
                    break
                at = end
                yield bytes(held[begin:end])
        finally:
            del held[:at]  # once: there may be thousands
