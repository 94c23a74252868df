"""The messages of the SPIFFE Workload API, for the client here and for the development server.

The descriptors live in a private pool: the standard's proto file has no package, so a second copy in protobuf's default
pool (py-spiffe brings one) would be a duplicate symbol. Nothing is generated: no protoc, no coupling of versions.
"""

from __future__ import annotations

from typing import Any, Final

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, struct_pb2

SERVICE: Final = "/SpiffeWorkloadAPI/"
SECURITY_HEADER: Final = "workload.spiffe.io"  # must be "true" on every call (Workload Endpoint section 6.1)

_STRING: Final = "string"
_BYTES: Final = "bytes"
_STRINGS: Final = "repeated string"
_BLOBS: Final = "repeated bytes"
_BLOB_MAP: Final = "map<string, bytes>"

# message -> field -> (number, type), as in workload.proto
_MESSAGES: Final[dict[str, dict[str, tuple[int, str]]]] = {
    "X509SVIDRequest": {},
    "X509SVIDResponse": {"svids": (1, "X509SVID"), "crl": (2, _BLOBS), "federated_bundles": (3, _BLOB_MAP)},
    "X509SVID": {
        "spiffe_id": (1, _STRING),
        "x509_svid": (2, _BYTES),
        "x509_svid_key": (3, _BYTES),
        "bundle": (4, _BYTES),
        "hint": (5, _STRING),
    },
    "X509BundlesRequest": {},
    "X509BundlesResponse": {"crl": (1, _BLOBS), "bundles": (2, _BLOB_MAP)},
    "JWTSVIDRequest": {"audience": (1, _STRINGS), "spiffe_id": (2, _STRING)},
    "JWTSVIDResponse": {"svids": (1, "JWTSVID")},
    "JWTSVID": {"spiffe_id": (1, _STRING), "svid": (2, _STRING), "hint": (3, _STRING)},
    "JWTBundlesRequest": {},
    "JWTBundlesResponse": {"bundles": (1, _BLOB_MAP)},
    "ValidateJWTSVIDRequest": {"audience": (1, _STRING), "svid": (2, _STRING)},
    "ValidateJWTSVIDResponse": {"spiffe_id": (1, _STRING), "claims": (2, "google.protobuf.Struct")},
}

_Field = descriptor_pb2.FieldDescriptorProto


def _add_map(message: descriptor_pb2.DescriptorProto, name: str, number: int) -> None:
    """Add a protobuf map: a repeated nested message with a key, a value and the map_entry option."""
    entry_name = "".join(part.capitalize() for part in name.split("_")) + "Entry"
    entry = message.nested_type.add(name=entry_name)
    entry.options.map_entry = True
    entry.field.add(name="key", number=1, type=_Field.TYPE_STRING, label=_Field.LABEL_OPTIONAL)
    entry.field.add(name="value", number=2, type=_Field.TYPE_BYTES, label=_Field.LABEL_OPTIONAL)
    message.field.add(
        name=name,
        number=number,
        type=_Field.TYPE_MESSAGE,
        label=_Field.LABEL_REPEATED,
        type_name=f".{message.name}.{entry_name}",
    )


def _add_field(message: descriptor_pb2.DescriptorProto, name: str, number: int, kind: str) -> None:
    if kind == _BLOB_MAP:
        _add_map(message, name, number)
        return
    scalar = {_STRING: _Field.TYPE_STRING, _BYTES: _Field.TYPE_BYTES}.get(kind.removeprefix("repeated "))
    # Lists of messages: every message-typed field of this API is repeated, except the claims.
    repeated = kind.startswith("repeated ") or (scalar is None and kind in _MESSAGES)
    field = message.field.add(name=name, number=number)
    field.label = _Field.LABEL_REPEATED if repeated else _Field.LABEL_OPTIONAL
    field.type = scalar or _Field.TYPE_MESSAGE
    if scalar is None:
        field.type_name = f".{kind}"


def _build() -> dict[str, Any]:
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(struct_pb2.DESCRIPTOR.serialized_pb)
    file = descriptor_pb2.FileDescriptorProto(
        name="workload.proto", syntax="proto3", dependency=["google/protobuf/struct.proto"]
    )
    for message_name, fields in _MESSAGES.items():
        message = file.message_type.add(name=message_name)
        for name, (number, kind) in fields.items():
            _add_field(message, name, number, kind)
    pool.Add(file)
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(name)) for name in _MESSAGES}


# protobuf makes these classes at run time, so they have no static type.
_CLASSES: Final = _build()
X509SVIDRequest: Final[Any] = _CLASSES["X509SVIDRequest"]
X509SVIDResponse: Final[Any] = _CLASSES["X509SVIDResponse"]
X509SVID: Final[Any] = _CLASSES["X509SVID"]
X509BundlesRequest: Final[Any] = _CLASSES["X509BundlesRequest"]
X509BundlesResponse: Final[Any] = _CLASSES["X509BundlesResponse"]
JWTSVIDRequest: Final[Any] = _CLASSES["JWTSVIDRequest"]
JWTSVIDResponse: Final[Any] = _CLASSES["JWTSVIDResponse"]
JWTSVID: Final[Any] = _CLASSES["JWTSVID"]
JWTBundlesRequest: Final[Any] = _CLASSES["JWTBundlesRequest"]
JWTBundlesResponse: Final[Any] = _CLASSES["JWTBundlesResponse"]
ValidateJWTSVIDRequest: Final[Any] = _CLASSES["ValidateJWTSVIDRequest"]
ValidateJWTSVIDResponse: Final[Any] = _CLASSES["ValidateJWTSVIDResponse"]
