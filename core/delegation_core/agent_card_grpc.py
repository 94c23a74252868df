"""Extended agent cards of A2A 0.3 and 1.0 by gRPC: parser and rewriter, as ``agent_card`` is for JSON. Pure.

Interfaces, signatures and security fields are replaced or removed; every other field passes unchanged.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from delegation_core.agent_card import AgentCard, card_of
from delegation_core.errors import Denied, Reason
from delegation_core.grpc_messages import GrpcMessageError, one_message, written
from delegation_core.protobuf import Field, Fields, Kind, ProtobufError, Schema, length_field, read_between

MAX_FIELDS: Final = 4096  # of a card and its parts that are parsed

# The same numbers in both versions.
_SKILLS: Final = 12
_SECURITY_OF_SKILL: Final = 8
_SCHEMES: Final = 8
_REQUIREMENTS: Final = 9
_DEMANDED: Final = (
    length_field(_SCHEMES, length_field(1, "mtls") + length_field(2, length_field(5, b""))),
    length_field(
        _SCHEMES,
        length_field(1, "delegation")
        + length_field(2, length_field(2, length_field(2, "Bearer") + length_field(3, "JWT"))),
    ),
    length_field(
        _REQUIREMENTS,
        b"".join(
            length_field(1, length_field(1, name) + length_field(2, b""))  # with no scopes
            for name in ("mtls", "delegation")
        ),
    ),
)

Rewrite = Callable[[AgentCard], dict[str, Any]]
"""Returns the rewritten members of a card, named as in JSON."""


class _Version(NamedTuple):
    """Fields of a card in one version: those parsed (``schema``), its texts, its list of interfaces and their texts.

    ``signatures``: the number of the signatures field.
    """

    schema: Schema
    texts: Mapping[int, str]
    listed: tuple[int, str]
    interface: Mapping[int, str]
    signatures: int


def _version(texts: dict[int, str], listed: tuple[int, str], interface: dict[int, str], signatures: int) -> _Version:
    of_interface = {number: Field(Kind.TEXT, name) for number, name in interface.items()}
    many = dict.fromkeys((_SCHEMES, _REQUIREMENTS, _SKILLS, signatures), Field(Kind.OPAQUE, many=True))
    number, name = listed
    schema = {
        1: Field(Kind.TEXT, "name"),
        **{one: Field(Kind.TEXT, called) for one, called in texts.items()},
        number: Field(Kind.MESSAGE, name, many=True, schema=of_interface),
        **many,
    }
    return _Version(schema, texts, listed, interface, signatures)


_V1: Final = _version(
    {}, (3, "supportedInterfaces"), {1: "url", 2: "protocolBinding", 3: "tenant", 4: "protocolVersion"}, 13
)
_V03: Final = _version(
    {3: "url", 14: "preferredTransport"}, (15, "additionalInterfaces"), {1: "url", 2: "transport"}, 17
)


def rewritten(content: bytes, rewrite: Rewrite, *, first_version: bool) -> bytes:
    """Return the content of an answer with its card rewritten by ``rewrite``. ``first_version``: the card is of 0.3.

    Raises:
        Denied: CARD_REFUSED unless ``content`` is one strict message with a valid card; any error of ``rewrite``.
    """
    try:
        return written(_rewritten(one_message(content), rewrite, _V03 if first_version else _V1))
    except (GrpcMessageError, ProtobufError) as error:
        raise Denied(Reason.CARD_REFUSED, str(error)) from None


def _rewritten(message: bytes, rewrite: Rewrite, version: _Version) -> bytes:
    fields = Fields(message, max_fields=MAX_FIELDS)
    members = read_between(fields, 0, len(message), version.schema, others=True)
    replaced = {*version.texts, version.listed[0], version.signatures, _SCHEMES, _REQUIREMENTS}
    kept: list[bytes] = []
    for number, _, tag, start, end in fields.between(0, len(message)):
        if number == _SKILLS:
            kept.append(length_field(_SKILLS, _without_security(fields, message, start, end)))
        elif number == version.signatures:
            members["signatures"] = [{}]
        elif number not in replaced:
            kept.append(message[tag:end])
    made = rewrite(card_of(members))
    kept += (length_field(number, made[name]) for number, name in version.texts.items() if made.get(name))
    number, name = version.listed
    kept += (length_field(number, _interface(one, version.interface)) for one in made.get(name) or ())
    if "securitySchemes" in made:
        kept += _DEMANDED
    return b"".join(kept)


def _interface(members: Mapping[str, str], names: Mapping[int, str]) -> bytes:
    return b"".join(length_field(number, members[name]) for number, name in names.items() if members.get(name))


def _without_security(fields: Fields, message: bytes, start: int, end: int) -> bytes:
    found = fields.between(start, end)
    return b"".join(message[tag:until] for number, _, tag, _, until in found if number != _SECURITY_OF_SKILL)
