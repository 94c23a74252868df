"""Passes TLS records on a few at a time, so that records without data cannot hold the event loop. Pure.

OpenSSL reads on until it has data for us. A KeyUpdate carries none and costs it 10 to 25 us, and one read of the
socket may bring thousands of them (RFC 8446 section 4.6.3 sets no limit).
"""

from __future__ import annotations

import ssl
from typing import Final

BATCH: Final = 32  # records passed on at once
MAX_WITHOUT_DATA: Final = 128  # of what arrived together; lawful peers send two tickets and a KeyUpdate now and then
_HEADER_BYTES: Final = 5


class TooManyRecordsError(ssl.SSLError):
    """A peer sent many records and hardly any data in them."""

    def __init__(self) -> None:
        super().__init__(1, f"more than {MAX_WITHOUT_DATA} records without data")


class RecordGate:
    """The records of one direction of a connection, on their way to OpenSSL."""

    __slots__ = ("_at", "_held", "_unfinished_bytes", "_without_data")

    def __init__(self) -> None:
        self._held = b""
        self._at = 0  # how much of it was passed on
        self._unfinished_bytes = 0  # what is still to come of a record that was passed on in part
        self._without_data = 0

    @property
    def held_bytes(self) -> int:
        """How many bytes wait to be passed on."""
        return len(self._held) - self._at

    def take(self, received: bytes) -> bytes:
        """Take bytes as they were received, and return those that OpenSSL may have now."""
        if not self._held:
            size = len(received) - _HEADER_BYTES
            if size > 0 and not self._unfinished_bytes and received[3] << 8 | received[4] == size:
                return received  # one record, as most often
            self._without_data = 0
        self._held = self._held[self._at :] + received
        self._at = 0
        return self._pass_on()

    def more(self) -> bytes:
        """Return what OpenSSL may have next. Empty: the rest of a record must be received first.

        Raises:
            TooManyRecordsError: what arrived together has too many records without data.
        """
        if self._without_data > MAX_WITHOUT_DATA:
            raise TooManyRecordsError
        return self._pass_on()

    def count_data(self) -> None:
        """Count that one of the records passed on held data."""
        self._without_data = max(0, self._without_data - 1)

    def _pass_on(self) -> bytes:
        held, end = self._held, len(self._held)
        at = self._at + self._unfinished_bytes
        records = 0
        while records < BATCH and at + _HEADER_BYTES <= end:
            at += _HEADER_BYTES + (held[at + 3] << 8 | held[at + 4])
            records += 1
        self._without_data += records
        self._unfinished_bytes = max(0, at - end)
        released = held[self._at : at]
        self._at = min(at, end)
        if self._at == end:
            self._held, self._at = b"", 0
        return released
