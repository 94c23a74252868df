"""gRPC message framing in the content of requests and answers: a flag, a length and the message. Pure.

https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from typing import Final

HEAD: Final = 5  # bytes before each message
_WINDOWS: Final = {b"gzip": 31, b"deflate": 15}  # zlib's names for the two formats


class GrpcMessageError(ValueError):
    """The content is malformed. The error text never quotes it."""


def one_message(content: bytes) -> bytes:
    """Return the single message of a unary call.

    Raises:
        GrpcMessageError: ``content`` is not exactly one complete, uncompressed message.
    """
    if len(content) < HEAD:
        raise GrpcMessageError("the content has no message")
    if content[0]:
        raise GrpcMessageError("the message is compressed")
    size = int.from_bytes(content[1:HEAD], "big")
    if size != len(content) - HEAD:
        raise GrpcMessageError("the content has more than one message, or one that is cut off")
    return content[HEAD:]


def written(message: bytes) -> bytes:
    """Return ``message`` with its frame head, uncompressed."""
    return b"\0" + len(message).to_bytes(4, "big") + message


def decompressed(message: bytes, codings: Sequence[bytes], *, max_bytes: int) -> bytes:
    """Decompress a message. ``codings``: the values of ``grpc-encoding``; only gzip and deflate are supported.

    Raises:
        GrpcMessageError: the coding is unsupported, the message is malformed, or the result exceeds ``max_bytes``.
    """
    window = _WINDOWS.get(codings[0]) if len(codings) == 1 else None
    if window is None:
        raise GrpcMessageError("the message is compressed by another coding than gzip or deflate")
    made = zlib.decompressobj(window)
    try:
        found = made.decompress(message, max_bytes + 1)
    except zlib.error:
        raise GrpcMessageError("the message is not valid data of its coding") from None
    if len(found) > max_bytes:
        raise GrpcMessageError("the message is too long when decompressed")
    if not made.eof or made.unused_data:
        raise GrpcMessageError("the compressed message is cut off, or followed by other data")
    return found


def one_plain_message(content: bytes, codings: Sequence[bytes], *, max_bytes: int) -> bytes:
    """Return ``content`` decompressed if it is exactly one compressed message, else unchanged.

    Raises:
        GrpcMessageError: as ``decompressed``.
    """
    if len(content) < HEAD or content[0] != 1 or int.from_bytes(content[1:HEAD], "big") != len(content) - HEAD:
        return content
    return written(decompressed(content[HEAD:], codings, max_bytes=max_bytes))


class GrpcMessages:
    """Incremental parser of a stream of messages, each of at most ``max_bytes``.

    ``codings``: the values of ``grpc-encoding``. All compressed messages together may decompress to ``max_bytes``.
    """

    __slots__ = ("_codings", "_held", "_left", "_max_bytes")

    def __init__(self, *, max_bytes: int, codings: Sequence[bytes] = ()) -> None:
        self._held = bytearray()
        self._max_bytes = self._left = max_bytes
        self._codings = codings

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Consume ``data``; yield the messages that it completes.

        Raises:
            GrpcMessageError: a message has an unknown flag, exceeds ``max_bytes``, or cannot be decompressed within
                the limit. Earlier messages were yielded.
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
            del held[:at]  # once for all messages: each deletion copies the rest

    def _decompressed(self, message: bytes) -> bytes:
        made = decompressed(message, self._codings, max_bytes=self._left)
        self._left -= len(made)
        return made
