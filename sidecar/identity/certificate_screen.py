"""Holds a peer's handshake bytes until its certificates are known to be within bounds, then releases them. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from sidecar.errors import Denied, Reason
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

Check = Callable[[tuple[bytes, ...]], object]  # raises Denied


class Screen:
    """The peer's bytes of one handshake. ``check`` judges its certificates; None: none are requested.

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
        self._held = bytearray()
        self._records = 0
        self._read = 0  # how many of the held bytes have been read
        self._message = bytearray()  # the beginning of an incomplete handshake message
        self._opener: Opener | None = None
        self.wants_key = False  # the next record is encrypted: wait for ``open_with``
        self.over = False
        self.certificates: tuple[bytes, ...] = ()

    @property
    def keyed(self) -> bool:
        """True once the key of the encrypted records is known."""
        return self._opener is not None

    def open_with(self, opener: Opener) -> None:
        """Take the key of the encrypted records."""
        self._opener = opener
        self.wants_key = False

    def take(self, received: bytes) -> bytes:
        """Take received bytes; return those that OpenSSL may have.

        Raises:
            Denied: TLS_VERSION, it is not the TLS that we accept; UNTRUSTED_CHAIN, the message is too large; as
            ``check``.
        """
        self._held += received
        through = 0
        while not self.over and not self.wants_key and (record := self._next_record()):
            if not self._read_record(record):
                break
            self._records += 1
            if self._records > MAX_RECORDS:
                raise Denied(Reason.TLS_VERSION, "the handshake takes too many records")
            self._read += len(record)
            through = through if self._message else self._read
        if self.over:
            through = len(self._held)
            self._opener = None  # not needed for the rest of the connection
        elif self._message and len(self._held) - through > _MAX_HELD:
            raise Denied(Reason.TLS_VERSION, "a handshake message is padded too much")
        released = bytes(self._held[:through])
        del self._held[:through]
        self._read -= min(self._read, through)
        return released

    def _next_record(self) -> bytes | None:
        """Return the next record with its header, if it is complete."""
        at = self._read
        header = self._held[at : at + HEADER_BYTES]
        if not header:
            return None
        if not _CHANGE_CIPHER_SPEC <= header[0] <= APPLICATION_DATA or (len(header) > 1 and header[1] != 3):
            raise Denied(Reason.TLS_VERSION, "it does not speak TLS")
        if len(header) < HEADER_BYTES:
            return None
        length = header[3] << 8 | header[4]
        if not 0 < length <= MAX_RECORD_BYTES:
            raise Denied(Reason.TLS_VERSION, "a TLS record has no possible length")
        end = at + HEADER_BYTES + length
        return bytes(self._held[at:end]) if end <= len(self._held) else None

    def _read_record(self, record: bytes) -> bool:
        """Parse one record. False: the key is not known yet."""
        kind, content = record[0], record[HEADER_BYTES:]
        if kind == APPLICATION_DATA:
            if self._check is None:
                self.over = True
                return True
            if self._opener is None:
                self.wants_key = True
                return False
            kind, content = self._opener.open(record)
        elif kind == HANDSHAKE and self._opener is not None:
            raise Denied(Reason.TLS_VERSION, "a handshake message is not encrypted")
        if kind == HANDSHAKE:
            if not content:
                raise Denied(Reason.TLS_VERSION, "a handshake record is empty")
            self._message += content
            self._read_messages()
        elif self._message and kind != ALERT:
            raise Denied(Reason.TLS_VERSION, "another record interrupts a handshake message")
        return True

    def _read_messages(self) -> None:
        while not self.over and len(self._message) >= _MESSAGE_HEADER:
            kind, length = self._message[0], int.from_bytes(self._message[1:_MESSAGE_HEADER], "big")
            if kind == COMPRESSED_CERTIFICATE:
                raise Denied(Reason.UNTRUSTED_CHAIN, "the certificates are compressed")
            if kind == CERTIFICATE and length > _MAX_CERTIFICATE_MESSAGE:
                raise Denied(Reason.UNTRUSTED_CHAIN, f"the chain is too large: more than {MAX_CHAIN_BYTES} bytes")
            if kind != CERTIFICATE and length > MAX_MESSAGE_BYTES:
                raise Denied(Reason.TLS_VERSION, "a handshake message is too large")
            end = _MESSAGE_HEADER + length
            if len(self._message) < end:
                return
            body = bytes(self._message[_MESSAGE_HEADER:end])
            del self._message[:end]
            self._judge(kind, body)

    def _judge(self, kind: int, body: bytes) -> None:
        if kind in (CLIENT_HELLO, SERVER_HELLO) and offers_finite_field(kind, body):
            raise Denied(Reason.TLS_VERSION, "a key share of a finite field (ffdhe)")
        if kind == _CLIENT_KEY_EXCHANGE and self._check is None:
            self.over = True  # TLS 1.2: what follows is encrypted, and nothing of it is for us
        if kind == CERTIFICATE and self._check is not None:
            encrypted = self._opener is not None
            self.certificates = tuple(certificates_in(body, encrypted=encrypted, most=MAX_CERTIFICATES))
            if self.certificates:  # without any, OpenSSL refuses the peer
                self._check(self.certificates)
            self.over = True
