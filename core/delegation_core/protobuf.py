"""Strict Protobuf reader for selected fields; refuses messages that parsers could read in different ways. Pure.

Parsers disagree about a repeated singular field (the last counts, or both are merged), a known field with another wire
type (ignored), groups, overlong varints, and text that is not UTF-8. All of these are refused. A ``Schema`` lists the
fields; only the texts that it names are copied. https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from enum import Enum
from typing import Final, NamedTuple

_VARINT: Final = 0
_FIXED64: Final = 1
_LENGTH: Final = 2  # length-delimited: text, bytes, a message
_FIXED32: Final = 5
_MOST_TAG: Final = 2**32
_MOST: Final = 2**64
_LONGEST: Final = 10  # bytes of a number
_ONE_BYTE: Final = 0x80  # smaller numbers take one byte


class ProtobufError(ValueError):
    """The message is malformed or ambiguous. The error text quotes nothing of it."""


class Kind(Enum):
    """Kinds of fields."""

    NUMBER = "number"  # skipped
    OPAQUE = "opaque"  # text, bytes or a message: skipped
    TEXT = "text"
    MESSAGE = "message"


class Field(NamedTuple):
    """A field of a message. ``name``: its key in the result; empty: not returned.

    ``many``: the field may be repeated. ``schema``: fields of a nested message. ``convert``: maps a text to its value,
    or raises ProtobufError.
    """

    kind: Kind
    name: str = ""
    many: bool = False
    schema: Mapping[int, Field] | None = None
    convert: Callable[[str], str] | None = None


Schema = Mapping[int, Field]
"""Fields of a message, by number."""


Place = tuple[int, int, int, int, int]
"""A field in the bytes of a message: number, wire type, offset of its tag, start and end of its content.

A plain tuple, since a peer chooses the number of fields, and building a named tuple takes half the time of reading one.
"""


class Fields:
    """Finds the fields of a message. ``left``: number of fields that may still be read, nested messages included."""

    __slots__ = ("_data", "left")

    def __init__(self, data: bytes, *, max_fields: int) -> None:
        self._data = data
        self.left = max_fields

    def between(self, at: int, end: int) -> Iterator[Place]:
        """Yield the fields of the message between the offsets ``at`` and ``end``.

        Raises:
            ProtobufError: the message is malformed, or the limit of fields is exceeded.
        """
        data = self._data
        while at < end:
            self.left -= 1
            if self.left < 0:
                raise ProtobufError("too many fields")
            tag = at
            key = data[at]
            if key < _ONE_BYTE:
                at += 1
            else:
                key, at = self._number(at, end)
            number, wire, start = key >> 3, key & 7, at
            if not number or key >= _MOST_TAG:
                raise ProtobufError("a field without a valid number")
            if wire == _LENGTH:
                if at < end and data[at] < _ONE_BYTE:
                    start = at + 1
                    at = start + data[at]
                else:
                    size, start = self._number(at, end)
                    at = start + size
            elif wire == _VARINT:
                at = self._number(at, end)[1]
            elif wire in {_FIXED64, _FIXED32}:
                at += 8 if wire == _FIXED64 else 4
            else:
                raise ProtobufError("a group, or an unknown wire type")
            if at > end:
                raise ProtobufError("a field is cut off")
            yield number, wire, tag, start, at

    def text(self, start: int, end: int) -> str:
        """Return the text between two offsets. Raises ProtobufError if it is not UTF-8."""
        try:
            return self._data[start:end].decode("utf-8")
        except UnicodeDecodeError:
            raise ProtobufError("a string is not UTF-8") from None

    def _number(self, at: int, end: int) -> tuple[int, int]:
        """Return the varint at offset ``at``, and the offset after it. Raises ProtobufError."""
        data, value = self._data, 0
        for shift in range(_LONGEST):
            if at >= end:
                raise ProtobufError("a field is cut off")
            byte = data[at]
            at += 1
            value |= (byte & 0x7F) << (7 * shift)
            if byte < 0x80:
                if (not byte and shift) or value >= _MOST:
                    break
                return value, at
        raise ProtobufError("a varint is too large, or longer than needed")


def read(data: bytes, schema: Schema, *, max_fields: int, others: bool = False) -> dict[str, object]:
    """Return the named fields of a message. ``others``: ignore fields that are not in the schema, instead of refusing.

    Raises:
        ProtobufError: the message is malformed or ambiguous, or has more than ``max_fields`` fields.
    """
    return read_between(Fields(data, max_fields=max_fields), 0, len(data), schema, others=others)


def read_between(fields: Fields, start: int, end: int, schema: Schema, *, others: bool) -> dict[str, object]:
    """Return the named fields of the message between two offsets; otherwise as ``read``."""
    found: dict[str, object] = {}
    seen: set[int] = set()
    for number, wire, _, at, until in fields.between(start, end):
        field = schema.get(number)
        if field is None:
            if others:
                continue
            raise ProtobufError("an unknown field")
        if wire != (_VARINT if field.kind is Kind.NUMBER else _LENGTH):
            raise ProtobufError("a field has the wrong wire type")
        if field.many:
            if field.name:
                values = found.setdefault(field.name, [])
                assert isinstance(values, list)  # noqa: S101 - for the type only
                values.append(_value(fields, at, until, field, others=others))
            continue
        if number in seen:
            raise ProtobufError("a field is repeated")
        seen.add(number)
        if field.name:
            found[field.name] = _value(fields, at, until, field, others=others)
    return found


def _value(fields: Fields, start: int, end: int, field: Field, *, others: bool) -> object:
    if field.schema is not None:
        return read_between(fields, start, end, field.schema, others=others)
    text = fields.text(start, end)
    return text if field.convert is None else field.convert(text)


def number_field(number: int, value: int) -> bytes:
    """Encode a varint field."""
    return _written(number << 3 | _VARINT) + _written(value)


def length_field(number: int, content: bytes | str) -> bytes:
    """Encode a length-delimited field: text, bytes or a message."""
    data = content.encode() if isinstance(content, str) else content
    return _written(number << 3 | _LENGTH) + _written(len(data)) + data


def _written(value: int) -> bytes:
    made = bytearray()
    while value > 0x7F:
        made.append(value & 0x7F | 0x80)
        value >>= 7
    made.append(value)
    return bytes(made)
