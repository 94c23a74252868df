"""Messages of gRPC in the content of requests and answers: a flag, a length and the message. Pure.

https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from typing import Final

HEAD: Final = 5  # bytes before each message
_WINDOWS: Final = {b"gzip": 31, b"deflate": 15}  # zlib's names for the two formats


class GrpcMessageError(ValueError):
    """Malformed content. The message never quotes it."""


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
    """Frame one message as content."""
    return b"\0" + len(message).to_bytes(4, "big") + message


def decompressed(message: bytes, codings: Sequence[bytes], *, max_bytes: int) -> bytes:
    """Return a message that is compressed as ``codings``, the values of ``grpc-encoding``, say.

    The result has at most ``max_bytes``.

    Raises:
        GrpcMessageError: the coding is none that is read, or the message is not one in this coding, or is too long.
    """
    window = _WINDOWS.get(codings[0]) if len(codings) == 1 else None
    if window is None:
        raise GrpcMessageError("the message is compressed, and not by gzip or deflate")
    made = zlib.decompressobj(window)
    try:
        found = made.decompress(message, max_bytes + 1)
    except zlib.error:
        raise GrpcMessageError("the message is not compressed as its coding says") from None
    if len(found) > max_bytes:
        raise GrpcMessageError("the message is too long when decompressed")
    if not made.eof or made.unused_data:
        raise GrpcMessageError("the compressed message is cut off, or more follows it")
    return found


def one_plain_message(content: bytes, codings: Sequence[bytes], *, max_bytes: int) -> bytes:
    """Return content of one message as it is without compression; other content as it is.

    Raises:
        GrpcMessageError: as ``decompressed``.
    """
    if len(content) < HEAD or content[0] != 1 or int.from_bytes(content[1:HEAD], "big") != len(content) - HEAD:
        return content
    return written(decompressed(content[HEAD:], codings, max_bytes=max_bytes))


class GrpcMessages:
    """Cuts a stream into its messages, however it arrives in pieces. It holds no more than ``max_bytes``.

    Messages that are compressed as ``codings`` say are decompressed, to ``max_bytes`` of all together.
    """

    __slots__ = ("_codings", "_held", "_left", "_max_bytes")

    def __init__(self, *, max_bytes: int, codings: Sequence[bytes] = ()) -> None:
        self._held = bytearray()
        self._max_bytes = self._left = max_bytes
        self._codings = codings

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield the messages that are complete with ``data``.

        Raises:
            GrpcMessageError: one is longer than ``max_bytes``, or cannot be decompressed within them; those before it
                were yielded.
        """
        held = self._held
        held += data
        at = 0
        try:
            while len(held) - at >= HEAD:
                if held[at] > 1:
                    raise GrpcMessageError("the message has an unknown flag")
                size = int.from_bytes(held[at + 1 : at + HEAD], "big")
                if size > self._max_bytes:
                    raise GrpcMessageError("the message is too long")
                begin, end = at + HEAD, at + HEAD + size
                if len(held) < end:
                    break
                compressed, at = held[at], end
                yield self._decompressed(bytes(held[begin:end])) if compressed else bytes(held[begin:end])
        finally:
            del held[:at]  # once: there may be thousands

    def _decompressed(self, message: bytes) -> bytes:
        made = decompressed(message, self._codings, max_bytes=self._left)
        self._left -= len(made)
        return made
