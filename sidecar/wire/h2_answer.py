"""Answer of an HTTP/2 upstream as it arrives: head, content and its length, trailers."""

from __future__ import annotations

from typing import Final

from delegation_core.errors import Denied, Reason
from sidecar.wire.message import Field, Response
from sidecar.wire.stream import ResponseSink

_BODYLESS: Final = frozenset({204, 304})


class Answer:
    """One answer. ``over``: complete. ``size``: flow-controlled size of the content not taken yet."""

    __slots__ = (
        "_arrived",
        "_bodyless",
        "_interim",
        "_left",
        "_max_interim",
        "_told",
        "head",
        "over",
        "size",
        "trailers",
    )

    def __init__(self, method: str, *, max_interim: int) -> None:
        self.head: Response | None = None
        self.trailers: list[Field] = []
        self.over = False
        self.size = 0
        self._bodyless = method == "HEAD"
        self._max_interim = max_interim
        self._interim = 0
        self._left: int | None = None  # stated content still to come
        self._arrived = bytearray()
        self._told = False  # the head was reported to the sink

    def skip_interim(self) -> None:
        """Count an interim answer.

        Raises:
            Denied: UPSTREAM_BAD_RESPONSE: too many interim answers.
        """
        self._interim += 1
        if self._interim > self._max_interim:
            raise Denied(Reason.UPSTREAM_BAD_RESPONSE, "too many interim answers")

    def begin(self, head: Response) -> None:
        """Set the final head."""
        self.head = head
        self._bodyless = self._bodyless or head.status in _BODYLESS
        self._left = 0 if self._bodyless else head.content_length

    def add(self, data: bytes, size: int) -> None:
        """Add content; ``size``: its flow-controlled size, padding included.

        Raises:
            Denied: UPSTREAM_BAD_RESPONSE: more content than the head says, or no head.
        """
        self.size += size
        if self._left is not None:
            self._left -= len(data)
        if self.head is None or (self._left is not None and self._left < 0):
            raise Denied(Reason.UPSTREAM_BAD_RESPONSE, "the answer is longer than its head says")
        self._arrived += data

    def end(self) -> None:
        """End the answer.

        Raises:
            Denied: UPSTREAM_ABORTED: no head, or less content than it says.
        """
        if self.head is None or self._left:
            raise Denied(Reason.UPSTREAM_ABORTED, "the answer ends before its length")
        self.over = True

    def take(self) -> bytes:
        """Return the content received since the last call. The caller opens the windows."""
        data = bytes(self._arrived)
        self._arrived.clear()
        self.size = 0
        return data

    @property
    def is_whole(self) -> bool:
        """True if the answer is complete, has no trailers and was not reported in part: one event suffices."""
        return self.over and not (self._told or self.trailers)

    def tell_whole(self, sink: ResponseSink, data: bytes) -> None:
        """Report the whole answer to the sink."""
        assert self.head is not None  # noqa: S101 - for the type only
        head = self.head
        if head.content_length is None and not self._bodyless:
            self.head = head = Response(head.layout, head.values, head.status, len(data))
        sink.on_whole_response(head, data)

    def tell(self, sink: ResponseSink, data: bytes) -> None:
        """Report the head and content received so far to the sink."""
        assert self.head is not None  # noqa: S101 - for the type only
        if not self._told:
            self._told = True
            sink.on_response(self.head, data)
        elif data:
            sink.on_response_data(data)
