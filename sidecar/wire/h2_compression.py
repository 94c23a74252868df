"""Compression of heads (HPACK, RFC 7541): the tables and codes of the library hpack, by a shorter path.

A warm HTTP/2 request spent most of its CPU on the Huffman code of its token. So decoded long literals are cached by
their encoded bytes, and our own heads use no Huffman code, which would only save bytes.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any, Final

from hpack import Decoder, Encoder
from hpack.exceptions import HPACKDecodingError, InvalidTableSizeError, OversizedHeaderListError
from hpack.hpack import DEFAULT_MAX_HEADER_LIST_SIZE, decode_integer, encode_integer
from hpack.table import HeaderTable

from sidecar.wire.h2_head import size_of
from sidecar.wire.h2_huffman import decode_huffman
from sidecar.wire.h2_names import FIELD_BYTES, Fields
from sidecar.wire.message import Field

MAX_LITERAL_BYTES: Final = 4 * 1024 * 1024  # enough for some thousand tokens
LITERALS_LIVE_S: Final = 60.0
LEAST_LITERAL: Final = 100  # encoded bytes: tokens and cookies, but no traces and hardly any paths
_ENTRY_BYTES: Final = 2 * sys.getsizeof(b"") + 140  # of a dictionary that is about to grow
_MOST_RESIZED: Final = 2  # table size updates per head: the least and the last size
_LONGEST_INTEGER: Final = 8  # bytes: the library reads no more
_STATIC: Final = HeaderTable.STATIC_TABLE_MAPPING
_DYNAMIC: Final = HeaderTable.STATIC_TABLE_LENGTH + 1  # index of the newest entry
_STATIC_FIELDS: Final[dict[int, Field]] = dict(enumerate(HeaderTable.STATIC_TABLE, 1))
TABLE_BYTES: Final = 4096  # of one direction's compression
_UNKNOWN: Final[tuple[int, dict[bytes, int]]] = (0, {})
_INDEXED: Final = 0x80  # the kinds of fields (RFC 7541 section 6)
_ADDED: Final = 0x40
_RESIZED: Final = 0x20
_NEVER_INDEXED: Final = 0x10
_LONG_INDEX: Final = 0xFF  # of an entry: it goes on in the next byte
_FOREVER: Final = 1 << 62  # an age
_MAX_KNOWN: Final = 32  # heads of one connection
_MAX_KNOWN_BYTES: Final = 2048  # of such a head, as it travels
_MAX_WRITTEN_BYTES: Final = 128  # of a cached head that we write: too short for a token
_MAX_EVICTED: Final = 8  # fields kept a little longer than in the table


class Literals:
    """Cache of long literals, keyed by their Huffman code: tokens that recur in each request.

    Bounded in bytes, per process. Cleared when full, so that one peer cannot keep others' tokens out; each minute; and
    when the last of ``readers`` is gone.
    """

    __slots__ = ("_known", "_since", "readers", "size")

    def __init__(self) -> None:
        self.readers = 0
        self.size = 0
        self._known: dict[bytes, bytes] = {}
        self._since = 0.0

    def __len__(self) -> int:
        return len(self._known)

    def decoded(self, code: bytes) -> bytes:
        """Return the literal.

        Raises:
            HPACKDecodingError: the code is malformed.
        """
        if len(code) < LEAST_LITERAL:
            return decode_huffman(code)
        found = self._known.get(code)
        if found is None:
            found = decode_huffman(code)
            size = len(code) + len(found) + _ENTRY_BYTES
            if size <= MAX_LITERAL_BYTES:
                if self.size + size > MAX_LITERAL_BYTES:
                    self.forget()
                self._known[code] = found
                self.size += size
        return found

    def add_reader(self) -> None:
        """Count a connection."""
        self.readers += 1

    def drop_reader(self) -> None:
        """Count the end of a connection."""
        self.readers = max(0, self.readers - 1)
        if not self.readers:
            self.forget()

    def sweep(self, now: float) -> None:
        """Clear the cache once a minute, so that tokens do not outlive their use for long."""
        if now - self._since > LITERALS_LIVE_S:
            self._since = now
            self.forget()

    def forget(self) -> None:
        """Clear the cache."""
        self._known.clear()
        self.size = 0


literals: Final = Literals()


class Table(HeaderTable):
    """The library's header table of one direction, without a log line per evicted field."""

    def add(self, name: bytes, value: bytes) -> None:
        """Add a field. A field larger than the table empties the table (RFC 7541 section 4.4)."""
        size = len(name) + len(value) + FIELD_BYTES
        entries = self.dynamic_entries
        if size > self._maxsize:
            entries.clear()
            self._current_size = 0
            return
        entries.appendleft((name, value))
        size += self._current_size
        while size > self._maxsize:
            oldest, text = entries.pop()
            size -= len(oldest) + len(text) + FIELD_BYTES
        self._current_size = size


class HeadDecoder(Decoder):
    """Decodes heads like its base class; also refuses a third change of the table size (section 4.2).

    A change takes one byte of the head and more CPU than anything else in it.

    Caches heads by their bytes until the table changes or ``forget`` is called; heads hold tokens.
    """

    def __init__(self, max_header_list_size: int = DEFAULT_MAX_HEADER_LIST_SIZE) -> None:
        super().__init__(max_header_list_size)
        self.header_table = Table()
        self._known: dict[bytes, Fields] = {}

    def forget(self) -> None:
        """Clear the cache of heads."""
        self._known.clear()

    def decode(self, data: bytes, raw: bool = True) -> Fields:  # type: ignore[override]  # noqa: ARG002, FBT001, FBT002
        """Decode a head into fields of bytes. The caller must not change the result.

        Raises:
            HPACKDecodingError: the head is malformed, or too large.
        """
        known = self._known.get(data)
        if known is not None:
            return known
        fields = Fields()
        fields.message = None
        try:
            changes = self._read(data, fields)
        except LookupError:
            self._check_size(fields)
            raise HPACKDecodingError("the head ends inside a field, or names a field that is in no table") from None
        except HPACKDecodingError:
            self._check_size(fields)
            raise
        self._check_size(fields)
        if self.header_table_size > self.max_allowed_table_size:
            raise InvalidTableSizeError("the table was not made as small as our settings say")
        if changes or len(self._known) >= _MAX_KNOWN:
            self._known.clear()
        if not changes and len(data) <= _MAX_KNOWN_BYTES:
            self._known[data] = fields
        return fields

    def _read(self, data: bytes, fields: list[Field]) -> bool:
        """Decode the fields of a head into ``fields``; True if the table changed.

        LookupError: the head ends inside a field, or an index is in no table.
        """
        end = len(data)
        changes = end > 0 and data[0] & 0xE0 == _RESIZED
        at = self._resize(data) if changes else 0
        table = self.header_table
        entries = table.dynamic_entries
        for _ in range(self.max_header_list_size // FIELD_BYTES + 1):  # no head that fits has more fields
            if at >= end:
                break
            first = data[at]
            if first & _INDEXED:
                if first < _LONG_INDEX:
                    index = first & 0x7F
                    at += 1
                else:
                    index, at = _integer(data, at, 7)
                fields.append(_STATIC_FIELDS[index] if index < _DYNAMIC else entries[index - _DYNAMIC])
                continue
            if first & 0xE0 == _RESIZED:
                raise HPACKDecodingError("the size of the table changes inside a head, or too often")
            indexed = first & _ADDED
            most = 0x3F if indexed else 0x0F
            index = first & most
            if index < most:
                at += 1
            else:
                index, at = _integer(data, at, 6 if indexed else 4)
            if index:
                name = (_STATIC_FIELDS[index] if index < _DYNAMIC else entries[index - _DYNAMIC])[0]
            else:
                name, at = _string(data, at)
            value, at = _string(data, at)
            if indexed:
                table.add(name, value)
                changes = True
            fields.append((name, value))
        return changes

    def _check_size(self, fields: Fields) -> None:
        fields.size = size_of(fields)
        if fields.size > self.max_header_list_size:
            raise OversizedHeaderListError("the head is too large")

    def _resize(self, data: bytes) -> int:
        """Apply the table size updates at the start of a head; return the offset after them."""
        at = 0
        for _ in range(_MOST_RESIZED):
            if at == len(data) or data[at] & 0xE0 != _RESIZED:
                break
            size, at = _integer(data, at, 5)
            if size > self.max_allowed_table_size:
                raise InvalidTableSizeError("the table becomes larger than allowed")
            self.header_table_size = size
        return at


class HeadEncoder(Encoder):
    """Encodes heads without the Huffman code, which costs more in Python than the rest of a request.

    Fields with names in ``literal`` are never indexed, on any hop (RFC 7541 section 6.2.3). ``_numbers``: the
    fields that entered the table, each with its number; the table holds the last of them.
    """

    def __init__(self, literal: frozenset[bytes]) -> None:
        super().__init__()
        self.header_table = Table()
        self._literal = _literal_names(literal)
        self._numbers: dict[Field, int] = {}
        self._last = 0
        self._indexes: dict[Field, bytes] = {}  # of fields in both tables, until the table changes
        self._known: dict[tuple[Field, ...], bytes] = {}
        self._changes = 0  # of the table: a field that is larger than it empties it, and is no entry

    def encode_again(self, headers: Sequence[Field]) -> bytes:
        """Encode fields that recur often; cached until the table changes."""
        fields, changes = tuple(headers), self._changes
        known = self._known.get(fields)
        if known is not None and not self.table_size_changes:
            return known
        block = self.encode(fields)
        if self._changes != changes or len(self._known) >= _MAX_KNOWN:
            self._known.clear()
        if self._changes == changes and len(block) <= _MAX_WRITTEN_BYTES:
            self._known[fields] = block
        return block

    def encode(self, headers: Iterable[Any], huffman: bool = False) -> bytes:  # noqa: ARG002, FBT001, FBT002
        """Encode fields of bytes."""
        table, numbers = self.header_table, self._numbers
        entries = table.dynamic_entries
        parts: list[bytes] = []
        if self.table_size_changes:
            parts.append(self._encode_table_size_change())
            self._indexes.clear()
            self._known.clear()
        table.resized = False
        indexes = self._indexes
        for field in headers:
            index = indexes.get(field)
            if index is not None:
                parts.append(index)
                continue
            name, value = field
            begin = self._literal.get(name)
            if field in _STATIC_WHOLE:
                indexes[field] = _STATIC_WHOLE[field]
                parts.append(_STATIC_WHOLE[field])
                continue
            if begin is None:
                age = self._last - numbers.get(field, -_FOREVER)
                if age < len(entries):
                    indexes[field] = _INDEXES[age]
                    parts.append(_INDEXES[age])
                    continue
                begin = _begin_of(name, 6, _ADDED)
                table.add(name, value)
                self._changes += 1
                indexes.clear()
                self._known.clear()
                if entries:  # else it is larger than the table, which is empty now
                    self._remember(field)
                    numbers = self._numbers
            length = len(value)
            parts += begin, (_OCTETS[length] if length < 0x7F else _number(length, 7, 0)), value
        return b"".join(parts)

    def _remember(self, field: Field) -> None:
        self._last += 1
        self._numbers[field] = self._last
        entries = len(self.header_table.dynamic_entries)
        if len(self._numbers) > 2 * entries + _MAX_EVICTED:  # a value may be as large as the table
            oldest = self._last - entries
            self._numbers = {one: number for one, number in self._numbers.items() if number > oldest}


@cache  # there is one set of names
def _literal_names(names: frozenset[bytes]) -> dict[bytes, bytes]:
    """Return the encoded names of never-indexed fields, by name."""
    return {name: _begin_of(name, 4, _NEVER_INDEXED) for name in names}


def _begin_of(name: bytes, bits: int, kind: int) -> bytes:
    """Encode the name of a field that is not a table entry; its name may be indexed."""
    index = _STATIC.get(name, _UNKNOWN)[0]
    return _number(index, bits, kind) if index else bytes((kind,)) + _number(len(name), 7, 0) + name


def _number(number: int, bits: int, kind: int) -> bytes:
    """Encode an integer with a prefix of ``bits`` bits (RFC 7541 section 5.1). ``kind``: its other bits."""
    if number < (1 << bits) - 1:
        return bytes((kind | number,))
    encoded = encode_integer(number, bits)
    encoded[0] |= kind
    return bytes(encoded)


_OCTETS: Final = tuple([bytes((octet,)) for octet in range(256)])
_STATIC_WHOLE: Final = {field: _number(index, 7, _INDEXED) for index, field in reversed(_STATIC_FIELDS.items())}
_INDEXES: Final = tuple([_number(_DYNAMIC + age, 7, _INDEXED) for age in range(TABLE_BYTES // FIELD_BYTES)])
"""The entries of the table by their age: none has fewer than 32 bytes."""


def _integer(data: bytes, at: int, bits: int) -> tuple[int, int]:
    """Decode an integer with a prefix of ``bits`` bits; return it and the offset after it."""
    most = (1 << bits) - 1
    number = data[at] & most
    if number < most:
        return number, at + 1
    second = data[at + 1]
    if second < 0x80:
        return most + second, at + 2
    third = data[at + 2]
    if third < 0x80:
        return most + (second & 0x7F) + (third << 7), at + 3
    number, used = decode_integer(data[at : at + _LONGEST_INTEGER], bits)
    return number, at + used


def _string(data: bytes, at: int) -> tuple[bytes, int]:
    """Decode a string literal; return it and the offset after it."""
    first = data[at]
    length = first & 0x7F
    if length < 0x7F:
        at += 1
    else:
        length, at = _integer(data, at, 7)
    end = at + length
    text = data[at:end]
    if len(text) != length:
        raise HPACKDecodingError("the head ends inside a field")
    return (literals.decoded(text) if first & 0x80 else text), end
