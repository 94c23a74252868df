"""Who is told what happens on a connection: the protocols between the two sides and what joins them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from sidecar.errors import SidecarError
from sidecar.wire.message import Response

if TYPE_CHECKING:
    from sidecar.wire.exchange import ServerExchange


class BodySink(Protocol):
    """Takes a request body. ``on_body_flush`` follows each batch: what was collected may be written now."""

    def on_body(self, data: bytes) -> None:
        """More content, decoded, never empty."""

    def on_body_end(self) -> None:
        """The body is complete, or, after a switch of protocols, the peer sends no more. The last event."""

    def on_body_error(self, error: SidecarError) -> None:
        """The body is broken, too long or too late. The last event; the exchange can still be answered."""

    def on_body_flush(self) -> None:
        """No more events for now."""


class RequestHandler(Protocol):
    """What a listener does with requests."""

    def on_request(self, exchange: ServerExchange) -> None:
        """One whole valid head; ``exchange.head`` is set."""

    def on_refused(self, exchange: ServerExchange, error: SidecarError) -> None:
        """No request: the head is unusable, unspoken here, or late. The connection closes after the answer."""


class Owner(Protocol):
    """Who serves a request, and is told when it must end."""

    def gone(self) -> None:
        """The peer vanished before the answer ended."""

    def stop(self, error: SidecarError) -> None:
        """The answer must end now, for this reason."""


class Sender(Protocol):
    """Who passes an answer on, at the pace of the peer that takes it."""

    def on_caller_gone(self, error: SidecarError | None = None) -> None:
        """The last event before the answer ended: the peer vanished, or we cut it off for ``error``.

        The owner learns it from here.
        """

    def on_caller_pause(self) -> None:
        """The peer takes no more of the answer for now."""

    def on_caller_resume(self) -> None:
        """The peer takes more of the answer again."""


class ResponseSink(Protocol):
    """Takes one answer. ``on_response_flush`` follows each batch: what was collected may be written now."""

    def on_whole_response(self, head: Response, data: bytes) -> None:
        """A whole answer at once. The only event; the connection is already back in its pool, or closed."""

    def on_response(self, head: Response, data: bytes) -> None:
        """The final head (interim ones were skipped), and the content that came with it. There is more to come.

        After a 101 ``switch_protocols`` must be called at once; ``data`` is the first of the raw bytes.
        """

    def on_response_data(self, data: bytes) -> None:
        """More content, decoded, never empty."""

    def on_response_end(self) -> None:
        """The answer is complete; the connection is already back in its pool, or closed. The last event."""

    def on_response_error(self, error: SidecarError) -> None:
        """There will be no (more of an) answer. The last event."""

    def on_response_flush(self) -> None:
        """No more events for now."""

    def on_upstream_pause(self) -> None:
        """The upstream takes no more of the request for now."""

    def on_upstream_resume(self) -> None:
        """The upstream takes more of the request again."""


class RawSink(ResponseSink, Protocol):
    """Takes the raw bytes that follow a switch of protocols, as content of the answer."""

    def on_silence(self) -> None:
        """Nothing has passed in either direction for as long as is allowed."""
