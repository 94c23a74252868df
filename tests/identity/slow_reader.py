"""Reads hellos and lists of certificates field by field: slow and plain, to compare the fast readers with."""

from __future__ import annotations

from delegation_core.errors import Denied, Reason
from sidecar.identity.records import CLIENT_HELLO, MAX_HELLO_EXTENSIONS, MAX_KEY_SHARES, SERVER_HELLO


class Fields:
    """Takes fields from the front of a byte string."""

    def __init__(self, data: bytes) -> None:
        self.left = data

    def take(self, count: int) -> bytes:
        if count > len(self.left):
            raise Denied(Reason.TLS_VERSION, "cut short")
        taken, self.left = self.left[:count], self.left[count:]
        return taken

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")

    def vector(self, size: int) -> bytes:
        return self.take(self.number(size))


def offers_finite_field(kind: int, body: bytes) -> bool:
    fields = Fields(body)
    fields.take(34)
    fields.vector(1)
    if kind == CLIENT_HELLO:
        fields.vector(2)
        fields.vector(1)
    else:
        fields.take(3)
    if not fields.left:
        return False
    extensions = Fields(fields.vector(2))
    found, count = False, 0
    while extensions.left and not found:
        name, content = extensions.number(2), extensions.vector(2)
        count += 1
        if count > MAX_HELLO_EXTENSIONS:
            raise Denied(Reason.TLS_VERSION, "too many extensions")
        found = name == 51 and any(0x0100 <= group <= 0x01FF for group in _groups(kind, content))
    if not found and fields.left:
        raise Denied(Reason.TLS_VERSION, "more behind it")
    return found


def _groups(kind: int, content: bytes) -> list[int]:
    fields = Fields(content)
    if kind == SERVER_HELLO:
        return [fields.number(2)]
    shares = Fields(fields.vector(2))
    groups: list[int] = []
    while shares.left:
        if len(groups) == MAX_KEY_SHARES:
            raise Denied(Reason.TLS_VERSION, "too many shares")
        groups.append(shares.number(2))
        shares.vector(2)
    return groups


def certificates_in(body: bytes, *, encrypted: bool, most: int) -> tuple[bytes, ...]:
    try:
        fields = Fields(body)
        if encrypted:
            fields.vector(1)
        entries = Fields(fields.vector(3))
        found: list[bytes] = []
        while entries.left and len(found) <= most:
            found.append(entries.vector(3))
            if encrypted:
                entries.vector(2)
    except Denied:
        raise Denied(Reason.BAD_SVID, "cut short") from None
    return tuple(found)
