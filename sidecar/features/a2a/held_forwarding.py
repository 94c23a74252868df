"""Forwards a request and buffers its whole answer, so that a subclass can rewrite the content."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import replace
from typing import Final

from delegation_core.errors import Denied, Reason
from delegation_core.grpc_messages import GrpcMessageError, one_plain_message
from sidecar.proxy.journeys.forward import Forwarding, Way
from sidecar.proxy.journeys.headers import without
from sidecar.wire.message import Edits, Response, new_edits

GRPC_CODING: Final = b"grpc-encoding"
_OF_CODING: Final = frozenset({GRPC_CODING})


class HeldForwarding(Forwarding):
    """A request whose answer is buffered, up to ``max_bytes``, and rewritten by a subclass.

    An answer that cannot be rewritten is refused with the reason ``refused``. Answers that the subclass does not hold
    pass unchanged. ``grpc``: the answer is gRPC, with its status in trailers; without content there is no message to
    rewrite. A compressed message is decompressed, up to ``max_bytes`` too.
    """

    __slots__ = ("_grpc", "_held", "_held_head", "_max_bytes", "_refused")

    def __init__(self, way: Way, *, max_bytes: int, refused: Reason, grpc: bool = False) -> None:
        super().__init__(*way)
        self._grpc = grpc
        self._max_bytes = max_bytes
        self._refused = refused
        self._held = bytearray()
        self._held_head: Response | None = None  # set while the answer is buffered

    @abstractmethod
    def holds(self, head: Response) -> bool:
        """Return True to buffer and rewrite the answer. Raises Denied if it should be rewritten and cannot be."""

    @abstractmethod
    def rebuild(self, document: bytes) -> bytes:
        """Return the content that replaces ``document``. Raises Denied if the document is not readable."""

    def rewrite(self, head: Response) -> Edits:
        """Return the edits to the answer's fields; drop ``grpc-encoding``, because rewritten messages are plain."""
        edits = super().rewrite(head)
        if self._held_head is None or not self._grpc:
            return edits
        passes, names, values = edits
        return new_edits((without(passes, _OF_CODING), names, values))

    def on_whole_response(self, head: Response, data: bytes) -> None:
        """Rewrite the answer if it is held, and pass it back."""
        if self._begins(head):
            self._held += data
            self.on_response_end()
        elif not self._over:
            super().on_whole_response(head, data)

    def on_response(self, head: Response, data: bytes) -> None:
        """Begin to buffer the answer if ``holds`` says so; else pass it back."""
        if self._begins(head):
            self.unfinished(head)
            self.on_response_data(data)
        elif not self._over:
            super().on_response(head, data)

    def on_response_data(self, data: bytes) -> None:
        """Buffer content up to the limit, or pass it back."""
        if self._over:
            return
        if self._held_head is None:
            super().on_response_data(data)
            return
        self._held += data
        if len(self._held) > self._max_bytes:
            self._refuse(self._held_head, "the answer is too long")

    def on_response_end(self) -> None:
        """Rewrite the buffered answer and pass it back."""
        if self._over:
            return
        head = self._held_head
        if head is None:
            super().on_response_end()
            return
        upstream, self._upstream = self._upstream, None  # the connection may serve another request already
        trailers = getattr(upstream, "trailers", ())
        try:
            body = b"" if self._grpc and not self._held else self.rebuild(self._plain(head))
        except Denied as error:
            self._refuse(head, error.detail)
            return
        if trailers:
            self._begin_answer(replace(head, content_length=None), body)
            self.end_answer(trailers)
            return
        super().on_whole_response(replace(head, content_length=len(body), chunked=False), body)

    def _plain(self, head: Response) -> bytes:
        content = bytes(self._held)
        if not self._grpc:
            return content
        try:
            return one_plain_message(content, head.all(GRPC_CODING), max_bytes=self._max_bytes)
        except GrpcMessageError as error:
            raise Denied(self._refused, str(error)) from None

    def _begins(self, head: Response) -> bool:
        try:
            if head.status < 200 or not self.holds(head):
                return False
        except Denied as error:
            self._refuse(head, error.detail)
            return False
        self._held_head = self.response = head
        return True

    def _refuse(self, head: Response, detail: str) -> None:
        self._entry.responded(head.status)
        self._finish(Denied(self._refused, detail))
