"""Seals TLS 1.3 records: the inverse of ``records.Opener``."""

from __future__ import annotations

from typing import Any, Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

SUITES: Final = (
    "TLS_AES_256_GCM_SHA384",
    "TLS_AES_128_GCM_SHA256",
    "TLS_CHACHA20_POLY1305_SHA256",
)


class Sealer:
    """One direction of a connection."""

    def __init__(self, suite: str, secret: bytes) -> None:
        self._hash = hashes.SHA384() if suite.endswith("384") else hashes.SHA256()
        self._secret = secret
        key = self._expand(b"key", 16 if "128" in suite else 32)
        self._aead: Any = AESGCM(key) if "GCM" in suite else ChaCha20Poly1305(key)
        self._iv = self._expand(b"iv", 12)
        self._sequence = 0

    def _expand(self, label: bytes, length: int) -> bytes:
        full = b"tls13 " + label
        info = length.to_bytes(2, "big") + bytes([len(full)]) + full + b"\0"
        return HKDFExpand(self._hash, length, info).derive(self._secret)

    def next_secret(self) -> bytes:
        """Return the secret after a KeyUpdate (RFC 8446 section 7.2)."""
        return self._expand(b"traffic upd", self._hash.digest_size)

    def skip(self, records: int) -> None:
        """Count records that were sealed by OpenSSL."""
        self._sequence += records

    def seal(self, kind: int, content: bytes, *, padding: int = 0) -> bytes:
        """Seal one record."""
        inner = content + bytes([kind]) + bytes(padding)
        header = b"\x17\3\3" + (len(inner) + 16).to_bytes(2, "big")
        counter = self._sequence.to_bytes(12, "big")
        nonce = bytes(one ^ other for one, other in zip(self._iv, counter, strict=True))
        self._sequence += 1
        return header + bytes(self._aead.encrypt(nonce, inner, header))
