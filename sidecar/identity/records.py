"""Parser for the TLS records and handshake messages that carry certificates (RFC 8446). Pure.

OpenSSL parses and verifies a peer's certificates in one step, and ``ssl`` has no hook before it. Here they are parsed
from the same bytes first: encrypted records are opened with the handshake's own traffic secret.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from collections.abc import Iterator
from typing import Final, Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

from delegation_core.errors import Denied, Reason
from sidecar.identity.shapes import Shapes

ALERT, HANDSHAKE, APPLICATION_DATA = 21, 22, 23
CLIENT_HELLO, SERVER_HELLO, CERTIFICATE, COMPRESSED_CERTIFICATE = 1, 2, 11, 25
HEADER_BYTES: Final = 5
MAX_HELLO_EXTENSIONS: Final = 64
MAX_KEY_SHARES: Final = 16
MAX_RECORD_BYTES: Final = 16384 + 256  # RFC 8446 section 5.2

_KEY_SHARE: Final = 51
_FINITE_FIELDS: Final = range(0x0100, 0x0200)  # ffdhe2048 and larger, RFC 7919
_VERSION_BYTES: Final = 2
_RANDOM_BYTES: Final = _VERSION_BYTES + 32
_NONCE_BYTES: Final = 12
_client_hellos: Final = Shapes()  # without a finite field; random bytes, session and keys vary
_certificate_lists: Final = Shapes()  # of TLS 1.3; the certificates vary
_TWO_NUMBERS: Final = struct.Struct(">HH").unpack_from  # a type and a length


class _Aead(Protocol):
    def decrypt(self, nonce: bytes, data: bytes, associated_data: bytes | None) -> bytes: ...


class Opener:
    """Opens the encrypted records of one direction, in their order (RFC 8446 sections 5.2, 5.3 and 7.3)."""

    def __init__(self, cipher: str, secret: bytes) -> None:
        """Take OpenSSL's name of the cipher suite, and the traffic secret of the direction.

        Raises:
            Denied: TLS_VERSION: unsupported cipher suite.
        """
        digest = hashlib.sha384 if cipher.endswith("_SHA384") else hashlib.sha256
        key_bytes = 16 if "_AES_128_" in cipher else 32
        key = _expand(secret, b"tls13 key", key_bytes, digest)
        self._aead: _Aead
        if "_GCM_" in cipher:
            self._aead = AESGCM(key)
        elif "_CHACHA20_" in cipher:
            self._aead = ChaCha20Poly1305(key)
        else:
            raise Denied(Reason.TLS_VERSION, "the cipher suite is not known")
        self._iv = int.from_bytes(_expand(secret, b"tls13 iv", _NONCE_BYTES, digest), "big")
        self._sequence = 0

    def open(self, record: bytes) -> tuple[int, bytes]:
        """Open a record, given with its header. Return its true type and its content.

        Raises:
            Denied: TLS_VERSION, it was not sealed with the handshake's key.
        """
        nonce = (self._iv ^ self._sequence).to_bytes(_NONCE_BYTES, "big")
        self._sequence += 1
        try:
            inner = self._aead.decrypt(nonce, record[HEADER_BYTES:], record[:HEADER_BYTES]).rstrip(b"\0")
        except InvalidTag:
            raise Denied(Reason.TLS_VERSION, "a record cannot be decrypted") from None
        if not inner:
            raise Denied(Reason.TLS_VERSION, "a record has no type")
        return inner[-1], inner[:-1]


def _expand(secret: bytes, label: bytes, length: int, digest: object) -> bytes:
    """Compute HKDF-Expand-Label with an empty context; the output is never longer than one hash."""
    info = b"\0%c%c%b\0\1" % (length, len(label), label)
    return hmac.digest(secret, info, digest)[:length]  # type: ignore[arg-type]


def offers_finite_field(kind: int, body: bytes) -> bool:
    """Return True if a ClientHello has a key share of a finite-field group, or a ServerHello (or retry) chooses one.

    The 8192-bit group costs a server 0.1 s for a key share of 1.2 KB, which any client can send.

    Raises:
        Denied: TLS_VERSION, the message does not have the shape of a hello, or has too many extensions or key shares.
    """
    if kind == CLIENT_HELLO and _client_hellos.cut(body) is not None:
        return False
    try:
        return _offers_finite_field(kind, body)
    except (IndexError, struct.error):
        raise Denied(Reason.TLS_VERSION, "a handshake message is cut short") from None


def _offers_finite_field(kind: int, body: bytes) -> bool:
    """See ``offers_finite_field``. IndexError, struct.error: it is cut short."""
    session = _RANDOM_BYTES + 1
    at = session + body[_RANDOM_BYTES]
    varying = [(_VERSION_BYTES, _RANDOM_BYTES), (session, at)]
    if kind == CLIENT_HELLO:
        at += 2 + (body[at] << 8 | body[at + 1])  # cipher suites
        at += 1 + body[at]  # compression methods
    else:
        at += 3
    if at == len(body):
        return False
    end = at + 2 + (body[at] << 8 | body[at + 1])
    at += 2
    for _ in range(MAX_HELLO_EXTENSIONS):
        if at >= end:
            break
        name, size = _TWO_NUMBERS(body, at)
        at += 4 + size
        if name == _KEY_SHARE:
            for group, start, after in _key_shares(kind, body, at - size, at):
                if group in _FINITE_FIELDS:
                    return True
                varying.append((start, after))
    if at < end:
        raise Denied(Reason.TLS_VERSION, f"a hello of more than {MAX_HELLO_EXTENSIONS} extensions")
    if at > end or end != len(body):
        raise IndexError
    if kind == CLIENT_HELLO:
        _client_hellos.keep(body, varying)
    return False


def _key_shares(kind: int, body: bytes, at: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Yield the group of each share in a key share extension, and the bounds of its key. Errors as above."""
    if kind == SERVER_HELLO:
        if end - at < 2:
            raise IndexError
        yield body[at] << 8 | body[at + 1], end, end
        return
    last = at + 2 + (body[at] << 8 | body[at + 1])
    if last > end:
        raise IndexError
    at += 2
    for _ in range(MAX_KEY_SHARES):
        if at >= last:
            break
        group, size = _TWO_NUMBERS(body, at)
        yield group, at + 4, at + 4 + size
        at += 4 + size
    if at < last:
        raise Denied(Reason.TLS_VERSION, f"a hello of more than {MAX_KEY_SHARES} key shares")
    if at > last:
        raise IndexError


def certificates_in(body: bytes, *, encrypted: bool, most: int) -> tuple[bytes, ...]:
    """Read the certificates of a Certificate message (RFC 8446 section 4.4.2; in clear: RFC 5246 section 7.4.2).

    Reading stops after one more than ``most``.

    Raises:
        Denied: BAD_SVID, the message is malformed.
    """
    if encrypted and (found := _certificate_lists.cut(body)) is not None and len(found) <= most:
        return found
    try:
        return _certificates_in(body, encrypted=encrypted, most=most)
    except IndexError:
        raise Denied(Reason.BAD_SVID, "the list of certificates cannot be read") from None


def _certificates_in(body: bytes, *, encrypted: bool, most: int) -> tuple[bytes, ...]:
    at = 1 + body[0] if encrypted else 0  # certificate_request_context
    end = at + 3 + (body[at] << 16 | body[at + 1] << 8 | body[at + 2])
    if end > len(body):
        raise IndexError
    at += 3
    found: list[tuple[int, int]] = []
    while at < end and len(found) <= most:
        start = at + 3
        at = start + (body[at] << 16 | body[at + 1] << 8 | body[at + 2])
        found.append((start, at))
        if encrypted:
            at += 2 + (body[at] << 8 | body[at + 1])  # skip the entry's extensions
        if at > end:
            raise IndexError
    if encrypted and len(found) <= most:
        _certificate_lists.keep(body, found)
    return tuple(body[start:after] for start, after in found)
