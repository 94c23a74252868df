"""A schema of ours as the official library reads it: its parser says what an agent would read in the same bytes."""

from __future__ import annotations

import itertools
from typing import Any, Final

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError, Message

from delegation_core.protobuf import Kind, Schema

_numbers: Final = itertools.count()
_PROTO: Final = descriptor_pb2.FieldDescriptorProto
_TYPES: Final = {
    Kind.NUMBER: _PROTO.TYPE_INT64,
    Kind.OPAQUE: _PROTO.TYPE_BYTES,
    Kind.TEXT: _PROTO.TYPE_STRING,
    Kind.MESSAGE: _PROTO.TYPE_MESSAGE,
}


def message_class(schema: Schema) -> type[Message]:
    """Make the library's class of a message. Its fields are called f1, f2 … by their numbers."""
    name = f"schema{next(_numbers)}"
    file = descriptor_pb2.FileDescriptorProto(name=f"{name}.proto", package=name, syntax="proto3")
    _add(file.message_type.add(), "M", f".{name}.M", schema)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    found = pool.FindMessageTypeByName(f"{name}.M")
    return message_factory.GetMessageClass(found)


def _add(made: Any, name: str, path: str, schema: Schema) -> None:
    made.name = name
    for number, field in schema.items():
        one = made.field.add(name=f"f{number}", number=number, type=_TYPES[field.kind])
        one.label = _PROTO.LABEL_REPEATED if field.many else _PROTO.LABEL_OPTIONAL
        if field.schema is not None:
            one.type_name = f"{path}.M{number}"
            _add(made.nested_type.add(), f"M{number}", one.type_name, field.schema)


def read_by_library(made: type[Message], schema: Schema, data: bytes) -> dict[str, object] | None:
    """Return the named fields as the library reads them; None: it refuses the message."""
    message = made()
    try:
        message.ParseFromString(data)
    except DecodeError:
        return None
    return _read(message, schema)


def _read(message: Any, schema: Schema) -> dict[str, object]:
    found: dict[str, object] = {}
    for number, field in schema.items():
        value = getattr(message, f"f{number}")
        if not field.name:
            continue
        if field.many:
            if value:
                found[field.name] = list(value)
        elif field.schema is not None:
            if message.HasField(f"f{number}"):
                found[field.name] = _read(value, field.schema)
        elif value:
            found[field.name] = value if field.convert is None else field.convert(value)
    return found


def without_empty(found: object) -> object:
    """Return fields without empty texts: to the library they are as absent ones."""
    if isinstance(found, dict):
        return {name: without_empty(value) for name, value in found.items() if value != ""}
    return found
