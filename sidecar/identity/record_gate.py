"""Passes TLS records on a few at a time, so that records without data cannot hold the event loop. Pure.

OpenSSL reads on until it has data for us. A KeyUpdate carries none and costs it 10 to 25 us, a NewSessionTicket 8 us,
and one event-loop iteration may bring megabytes of them (RFC 8446 section 4.6.3 sets no limit). So records are counted
over a tenth of a second: those without data, the bytes around the data, and records of a few bytes. A read that
brought exactly one record is not counted: each costs an event-loop iteration anyway.
"""

from __future__ import annotations

import ssl
import struct
import time
from collections.abc import Callable
from typing import Final

BATCH: Final = 32  # records passed on at once
BATCH_BYTES: Final = 20 * 1024  # no further record is added to a batch of this size
WINDOW_S: Final = 0.1
MAX_WITHOUT_DATA: Final = 128  # in a window; honest peers send two tickets and an occasional KeyUpdate
MAX_OVERHEAD_BYTES: Final = 24 * 1024  # in a window: messages without data, and padding
MAX_TINY: Final = 2048  # in a window: records with hardly any content
_TINY_BYTES: Final = 32  # of a record's body, with the 17 bytes that encryption adds
_HEADER_BYTES: Final = 5
_RECORD_BYTES: Final = 32  # that a record may add to its data
_HANDSHAKE: Final = 22
_APPLICATION_DATA: Final = 23
_HEADER_OF: Final = struct.Struct(">BxxH").unpack_from  # type, length


class TooManyRecordsError(ssl.SSLError):
    """A peer sent many records and hardly any data in them, or tries to renegotiate."""

    def __init__(self, text: str) -> None:
        super().__init__(1, text)
        self.reason = text  # as in OpenSSL's errors
        self.library = ""


class RecordGate:
    """The records of one direction of a connection, on their way to OpenSSL. ``clock`` is in seconds."""

    __slots__ = (
        "_at",
        "_clock",
        "_established",
        "_held",
        "_overhead_bytes",
        "_since",
        "_tiny",
        "_unfinished_bytes",
        "_without_data",
        "busy",
    )

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._held = b""
        self._at = 0  # number of bytes passed on
        self._unfinished_bytes = 0  # the missing rest of a record that was passed on in part
        self._since = clock()
        self._without_data = 0
        self._overhead_bytes = 0
        self._tiny = 0
        self._established = False
        self.busy = False
        """Records wait here, or were passed on and gave no data yet: ``more`` and ``count_data`` must be called."""

    def establish(self) -> None:
        """Start counting after the handshake; refuse a renegotiation of TLS 1.2."""
        self._established = True
        self._reset(self._clock())

    @property
    def held_bytes(self) -> int:
        """Number of bytes not passed on yet."""
        return len(self._held) - self._at

    def take(self, received: bytes) -> bytes:
        """Add received bytes; return the bytes for OpenSSL.

        Raises:
            TooManyRecordsError: as ``more``.
        """
        if not self._held:
            size = len(received) - _HEADER_BYTES
            if (
                size > 0
                and (received[0] == _APPLICATION_DATA or not self._established)
                and received[3] << 8 | received[4] == size
                and not self._unfinished_bytes
            ):
                return received  # one record, the usual case
        self._held = self._held[self._at :] + received
        self._at = 0
        return self.more()

    def more(self) -> bytes:
        """Return the next bytes for OpenSSL, parts of a record too; empty until a whole record header is received.

        Raises:
            TooManyRecordsError: a limit is passed within ``WINDOW_S``, or a handshake begins on an established
                connection.
        """
        now = self._clock()
        if now - self._since > WINDOW_S:
            self._reset(now)
        if self._without_data > MAX_WITHOUT_DATA or self._overhead_bytes > MAX_OVERHEAD_BYTES:
            raise TooManyRecordsError("many records without data")
        if self._tiny > MAX_TINY:
            raise TooManyRecordsError("many records with hardly any data")
        return self._pass_on()

    def count_data(self, size: int) -> None:
        """Count one read of ``size`` bytes of data from the records passed on."""
        self._without_data = max(0, self._without_data - 1)
        self._overhead_bytes = max(0, self._overhead_bytes - size - _RECORD_BYTES)
        self.busy = bool(self._without_data or self._held)

    def _reset(self, now: float) -> None:
        self._since = now
        self._without_data = self._overhead_bytes = self._tiny = 0
        self.busy = bool(self._held)

    def _pass_on(self) -> bytes:
        held, end = self._held, len(self._held)
        at = self._at + self._unfinished_bytes
        records, stop = 0, min(self._at + BATCH_BYTES, end - _HEADER_BYTES + 1)
        established, header_of = self._established, _HEADER_OF
        while at < stop and records < BATCH:
            kind, length = header_of(held, at)
            at += _HEADER_BYTES + length
            records += 1
            if established:
                if kind == _HANDSHAKE:
                    raise TooManyRecordsError("a handshake on an established connection")
                self._tiny += length < _TINY_BYTES
                self._overhead_bytes += length
        self._without_data += records
        self._unfinished_bytes = max(0, at - end)
        released = held[self._at : at]
        self._at = min(at, end)
        if self._at == end:
            self._held, self._at = b"", 0
        self.busy = bool(self._without_data or self._held)
        return released
