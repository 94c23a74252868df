"""Streams a call that carries a key of the sidecar's, and looks for that key in the answer: the agent must not see it.

The sidecar asks for an answer without content coding, because it looks for the key in the bytes.
"""

from __future__ import annotations

from typing import Final

from sidecar.delegation.permit import OwnPermit
from sidecar.errors import Denied, Reason
from sidecar.observe.access_log import Entry
from sidecar.proxy.forward import Forwarder, Forwarding
from sidecar.proxy.revalidation import Served
from sidecar.wire.dialer import Origin
from sidecar.wire.message import Edits, Request, Response
from sidecar.wire.stream import Stream

_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})


class KeyedForwarding(Forwarding):
    """A call that carries a ``key``. An answer that contains it is refused, and so is one that hides it."""

    __slots__ = ("_key", "_screen")

    def __init__(
        self,
        forwarder: Forwarder,
        permit: OwnPermit,
        stream: Stream,
        head: Request,
        entry: Entry,
        origin: Origin,
        target: bytes,
        edits: Edits,
        served: Served | None,
        *,
        key: bytes,
    ) -> None:
        super().__init__(forwarder, permit, stream, head, entry, origin, target, edits, served)
        self._key = key
        self._screen = AnswerScreen(key)

    def on_whole_response(self, head: Response, data: bytes) -> None:
        """Give the answer, unless it contains the key."""
        self._upstream = None  # it may serve another request already
        fault = self._fault_of(head) or (_exposed() if self._key in data else None)
        if fault is not None:
            self._refuse(head, fault)
            return
        super().on_whole_response(head, data)

    def on_response(self, head: Response, data: bytes) -> None:
        """Begin the answer, unless its head or its first bytes contain the key."""
        fault = self._fault_of(head)
        passed = self._screen.passed(data)
        if fault is not None or passed is None:
            self._refuse(head, fault or _exposed())
            return
        super().on_response(head, passed)

    def on_response_data(self, data: bytes) -> None:
        """Pass content back; cut the answer before the key."""
        passed = self._screen.passed(data)
        if passed is None:
            self._finish(_exposed())
        elif passed:
            super().on_response_data(passed)

    def on_response_end(self) -> None:
        """End the answer, with the bytes that were held back."""
        if rest := self._screen.rest():
            super().on_response_data(rest)
        super().on_response_end()

    def _refuse(self, head: Response, fault: Denied) -> None:
        self._entry.responded(head.status)
        self._finish(fault)

    def _fault_of(self, head: Response) -> Denied | None:
        if any(self._key in value for value in head.values) or any(self._key.lower() in n for n in head.layout.names):
            return _exposed()
        if head.status in _REDIRECTS:
            return Denied(Reason.UPSTREAM_BAD_RESPONSE, "a redirect, which is not followed with a static key")
        if any(value.strip().lower() != b"identity" for value in head.all(b"content-encoding")):
            return Denied(Reason.UPSTREAM_BAD_RESPONSE, "the content is encoded, though identity was asked for")
        return None


class AnswerScreen:
    """Looks for a key in an answer, whatever the pieces in which it arrives.

    Bytes that may be the beginning of the key are held back until what follows shows that they are not.
    """

    __slots__ = ("_held", "_key")

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._held = b""

    def passed(self, data: bytes) -> bytes | None:
        """Return the bytes that may go on; None: the key is in them."""
        key, data = self._key, self._held + data
        if key in data:
            return None
        held = self._beginning_at_end_of(data)
        self._held = data[len(data) - held :]
        return data[: len(data) - held]

    def rest(self) -> bytes:
        """Return the bytes held back, at the end of the answer."""
        held, self._held = self._held, b""
        return held

    def _beginning_at_end_of(self, data: bytes) -> int:
        """Return how many of the last bytes are the first ones of the key."""
        key = self._key
        at = data.find(key[:1], max(0, len(data) - len(key) + 1))
        while at >= 0:
            if key.startswith(data[at:]):
                return len(data) - at
            at = data.find(key[:1], at + 1)
        return 0


def _exposed() -> Denied:
    return Denied(Reason.CREDENTIAL_EXPOSED)
