"""Holds a peer's handshake bytes until its certificates are known to be within bounds, then releases them. Pure."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Final

from delegation_core.errors import Denied, Reason
from sidecar.identity.bounds import MAX_CERTIFICATES, MAX_CHAIN_BYTES
from sidecar.identity.records import (
    ALERT,
    APPLICATION_DATA,
    CERTIFICATE,
    CLIENT_HELLO,
    COMPRESSED_CERTIFICATE,
    HANDSHAKE,
    HEADER_BYTES,
    MAX_RECORD_BYTES,
    SERVER_HELLO,
    Opener,
    certificates_in,
    offers_finite_field,
)

MAX_MESSAGE_BYTES: Final = 16384  # of any handshake message but Certificate
_MAX_CERTIFICATE_MESSAGE: Final = MAX_CHAIN_BYTES + 4096  # the lengths and extensions of the entries
_MAX_HELD: Final = 2 * _MAX_CERTIFICATE_MESSAGE
MAX_RECORDS: Final = 128  # before the certificates; each costs a decryption
_CHANGE_CIPHER_SPEC: Final = 20
_CLIENT_KEY_EXCHANGE: Final = 16
_MESSAGE_HEADER: Final = 4
_KINDS: Final = (_CHANGE_CIPHER_SPEC, ALERT, HANDSHAKE, APPLICATION_DATA)
_BEGINNINGS: Final = frozenset(bytes([kind, 3]) for kind in _KINDS)  # type, and the first byte of any version
_HEADER_OF: Final = struct.Struct(">2sxH").unpack_from  # these two bytes, and the length

Check = Callable[[tuple[bytes, ...]], object]  # raises Denied


class Screen:
    """The peer's bytes of one handshake. ``check`` checks its certificates' limits; None if none are requested.

    Records are released only up to the end of a complete handshake message, so OpenSSL gets no byte that was not parsed
    here. After the certificates everything is released.
    """

    __slots__ = (
        "_check",
        "_encrypted",
        "_held",
        "_message",
        "_opener",
        "_read",
        "_records",
        "certificates",
        "over",
        "wants_key",
    )

    def __init__(self, check: Check | None) -> None:
        self._check = check
        self._held = b""
        self._records = 0
        self._read = 0  # how many of the held bytes have been read
        self._message = b""  # the beginning of an incomplete handshake message
        self._opener: Opener | None = None
        self.wants_key = False  # the next record is encrypted: wait for ``open_with``
        self.over = False
        self.certificates: tuple[bytes, ...] = ()

    @property
    def heard(self) -> bool:
        """True once a record was read."""
        return self._records > 0

    @property
    def keyed(self) -> bool:
        """True once the key of the encrypted records is known."""
        return self._opener is not None

    def open_with(self, opener: Opener) -> None:
        """Set the key of the encrypted records."""
        self._opener = opener
        self.wants_key = False

    def take(self, received: bytes) -> bytes:
        """Consume received bytes; return the bytes to release to OpenSSL.

        Raises:
            Denied: TLS_VERSION, UNTRUSTED_CHAIN (too large or compressed), BAD_SVID (malformed); or as ``check``.
        """
        data = self._held + received if self._held else received
        at, end, through, header_of = self._read, len(data), 0, _HEADER_OF
        while at < end and not (self.over or self.wants_key):
            if end - at < HEADER_BYTES:
                _check_begun(data[at:])
                break
            begins, length = header_of(data, at)
            if begins not in _BEGINNINGS:
                raise Denied(Reason.TLS_VERSION, "it does not speak TLS")
            if not 0 < length <= MAX_RECORD_BYTES:
                raise Denied(Reason.TLS_VERSION, "a TLS record has an invalid length")
            after = at + HEADER_BYTES + length
            if after > end or not self._read_record(begins[0], data[at:after]):
                break
            self._records += 1
            if self._records > MAX_RECORDS:
                raise Denied(Reason.TLS_VERSION, "the handshake takes too many records")
            at = after
            if not self._message:
                through = at
        if self.over:
            through = end
            self._opener = None  # not needed for the rest of the connection
        elif self._message and end - through > _MAX_HELD:
            raise Denied(Reason.TLS_VERSION, "a handshake message is padded too much")
        self._read = max(0, at - through)
        self._held = data[through:]
        return data[:through]

    def _read_record(self, kind: int, record: bytes) -> bool:
        """Parse one record. False if it is encrypted and the key is not known yet."""
        if kind == APPLICATION_DATA:
            if self._check is None:
                self.over = True
                return True
            if self._opener is None:
                self.wants_key = True
                return False
            kind, content = self._opener.open(record)
        else:
            if kind == HANDSHAKE and self._opener is not None:
                raise Denied(Reason.TLS_VERSION, "a handshake message is not encrypted")
            content = record[HEADER_BYTES:]
        if kind == HANDSHAKE:
            self._read_messages(content)
        elif self._message and kind != ALERT:
            raise Denied(Reason.TLS_VERSION, "a handshake message is interrupted by another record")
        return True

    def _read_messages(self, content: bytes) -> None:
        """Parse the messages of a record, the first of which may have begun in an earlier one."""
        if not content:
            raise Denied(Reason.TLS_VERSION, "a handshake record is empty")
        data = self._message + content if self._message else content
        at, left = 0, len(data)
        while left >= _MESSAGE_HEADER and not self.over:
            kind, length = data[at], data[at + 1] << 16 | data[at + 2] << 8 | data[at + 3]
            if length > MAX_MESSAGE_BYTES or kind == COMPRESSED_CERTIFICATE:
                _check_size(kind, length)
            size = _MESSAGE_HEADER + length
            if left < size:
                break
            self._judge(kind, data[at + _MESSAGE_HEADER : at + size])
            at += size
            left -= size
        self._message = data[at:]

    def _judge(self, kind: int, body: bytes) -> None:
        if kind in (CLIENT_HELLO, SERVER_HELLO) and offers_finite_field(kind, body):
            raise Denied(Reason.TLS_VERSION, "a key share is of a finite field (ffdhe)")
        if kind == _CLIENT_KEY_EXCHANGE and self._check is None:
            self.over = True  # TLS 1.2: what follows is encrypted, and nothing of it is for us
        if kind == CERTIFICATE and self._check is not None:
            encrypted = self._opener is not None
            self.certificates = certificates_in(body, encrypted=encrypted, most=MAX_CERTIFICATES)
            if self.certificates:  # without any, OpenSSL refuses the peer
                self._check(self.certificates)
            self.over = True


def _check_size(kind: int, length: int) -> None:
    """Check a message that is large or holds compressed certificates.

    Raises:
        Denied: UNTRUSTED_CHAIN: compressed certificates, or too many bytes; TLS_VERSION: another large message.
    """
    if kind == COMPRESSED_CERTIFICATE:
        raise Denied(Reason.UNTRUSTED_CHAIN, "the certificates are compressed")
    if kind != CERTIFICATE:
        raise Denied(Reason.TLS_VERSION, "a handshake message is too large")
    if length > _MAX_CERTIFICATE_MESSAGE:
        raise Denied(Reason.UNTRUSTED_CHAIN, f"the chain is too large: more than {MAX_CHAIN_BYTES} bytes")


def _check_begun(header: bytes) -> None:
    """Check the first bytes of a header that is not complete.

    Raises:
        Denied: TLS_VERSION: no TLS record begins like this.
    """
    if not any(beginning.startswith(header[:2]) for beginning in _BEGINNINGS):
        raise Denied(Reason.TLS_VERSION, "it does not speak TLS")
