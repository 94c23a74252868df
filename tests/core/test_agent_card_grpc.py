"""Extended cards by gRPC: what is replaced, what passes, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from delegation_core.agent_card import AgentCard
from delegation_core.agent_card_grpc import rewritten
from delegation_core.errors import Denied, Reason
from delegation_core.grpc_messages import one_message, written
from delegation_core.protobuf import length_field as field
from delegation_core.protobuf import number_field as number

PROVIDER = field(4, field(1, "https://acme.example"))
LATER = field(99, b"of a later version")
SKILL = field(12, field(1, "draft") + field(8, field(1, field(1, "login"))))
BARE_SKILL = field(12, field(1, "draft"))
LOGIN = field(8, field(1, "login") + field(2, field(3, b""))) + field(9, field(1, field(1, "login")))
MESH = (
    field(8, field(1, "mtls") + field(2, field(5, b"")))
    + field(8, field(1, "delegation") + field(2, field(2, field(2, "Bearer") + field(3, "JWT"))))
    + field(9, field(1, field(1, "mtls") + field(2, b"")) + field(1, field(1, "delegation") + field(2, b"")))
)


def interface(url: str, binding: str, version: str = "1.0") -> bytes:
    return field(3, field(1, url) + field(2, binding) + (field(4, version) if version else b""))


V1 = (
    field(1, "writer")
    + PROVIDER
    + interface("http://127.0.0.1:8080/a2a", "JSONRPC")
    + interface("127.0.0.1:50051", "GRPC")
    + interface("127.0.0.1:50051", "GRPC", "0.2")
    + LOGIN
    + SKILL
    + LATER
)
V03 = (
    field(1, "writer")
    + field(3, "127.0.0.1:50051")
    + field(14, "GRPC")
    + field(15, field(1, "http://127.0.0.1:8080/a2a") + field(2, "JSONRPC"))
    + field(16, "0.3.0")
    + number(13, 1)
    + LOGIN
    + SKILL
)


def made(card: bytes, *, mesh: bool = True, first_version: bool = False, grpc: str | None = "w:1") -> bytes:
    def rewrite(found: AgentCard) -> dict[str, Any]:
        return found.rewritten(lambda path: f"https://w:1{path}", mesh=mesh, grpc=lambda _version: grpc)

    return one_message(rewritten(written(card), rewrite, first_version=first_version))


def test_a_card_of_version_1_gets_our_addresses_and_what_the_mesh_demands() -> None:
    ours = interface("https://w:1/a2a", "JSONRPC") + interface("w:1", "GRPC")
    assert made(V1) == field(1, "writer") + PROVIDER + BARE_SKILL + LATER + ours + MESH
    assert made(V1, mesh=False) == field(1, "writer") + PROVIDER + BARE_SKILL + LATER + ours
    assert b"login" not in made(V1)
    assert b"127.0.0.1" not in made(V1)


def test_a_card_of_0_3_too() -> None:
    rest = field(1, "writer") + field(16, "0.3.0") + number(13, 1) + BARE_SKILL
    other = field(15, field(1, "https://w:1/a2a") + field(2, "JSONRPC"))
    assert made(V03, first_version=True) == rest + field(3, "w:1") + field(14, "GRPC") + other + MESH
    without = made(V03, first_version=True, grpc=None)
    assert without == rest + field(3, "https://w:1/a2a") + field(14, "JSONRPC") + other + MESH


@pytest.mark.parametrize(("card", "signatures", "first_version"), [(V1, 13, False), (V03, 17, True)])
def test_a_signature_is_seen_and_dropped(card: bytes, signatures: int, first_version: bool) -> None:
    seen = []

    def rewrite(found: AgentCard) -> dict[str, Any]:
        seen.append(found.signed)
        return found.rewritten(lambda path: f"https://w:1{path}", mesh=False, grpc=lambda _version: "w:1")

    signed = rewritten(written(card + field(signatures, field(1, "e30"))), rewrite, first_version=first_version)
    assert signed == rewritten(written(card), rewrite, first_version=first_version)
    assert seen == [True, False]


@pytest.mark.parametrize(
    "card",
    [
        b"",
        b"\xff",
        field(1, "writer"),
        V1 + field(1, "writer"),
        V1 + number(3, 1),
        V1 + field(3, field(1, "https://x") * 2),
        V1 + field(3, field(2, "JSONRPC")),  # without a URL
        field(1, "writer") + interface("http://127.0.0.1/a2a", "SMOKE"),
        V1 + field(12, b"\x0b"),
        V1 + LATER * 5000,
    ],
)
def test_a_card_that_cannot_be_read_is_refused(card: bytes) -> None:
    with pytest.raises(Denied) as refused:
        made(card)
    assert refused.value.reason is Reason.CARD_REFUSED


def test_two_messages_are_no_card() -> None:
    for content in (written(V1) * 2, b"\1" + written(V1)[1:]):
        with pytest.raises(Denied) as refused:
            rewritten(content, lambda card: dict(card.members), first_version=False)
        assert refused.value.reason is Reason.CARD_REFUSED
