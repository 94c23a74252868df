from __future__ import annotations

import json
from typing import Any

import pytest

from delegation_core.agent_card import MAX_CARD_BYTES, card_of, read_card
from delegation_core.errors import Denied, Reason

OAUTH: dict[str, Any] = {
    "login": {"oauth2SecurityScheme": {"flows": {"clientCredentials": {"tokenUrl": "https://x/t"}}}}
}
V1: dict[str, Any] = {
    "name": "writer",
    "version": "1",
    "supportedInterfaces": [
        {"url": "http://127.0.0.1:8080/a2a", "protocolBinding": "JSONRPC", "protocolVersion": "1.0", "tenant": "t"},
        {"url": "127.0.0.1:9090", "protocolBinding": "GRPC", "protocolVersion": "1.0"},
        {"url": "https://writer.public.example", "protocolBinding": "HTTP+JSON", "protocolVersion": "0.3.0"},
    ],
    "capabilities": {"streaming": True},
    "securitySchemes": OAUTH,
    "securityRequirements": [{"schemes": {"login": {"list": ["all"]}}}],
    "skills": [{"id": "draft", "name": "Draft", "securityRequirements": [{"schemes": {"login": {"list": []}}}]}],
}
V03: dict[str, Any] = {
    "name": "writer",
    "protocolVersion": "0.3.0",
    "url": "127.0.0.1:9090",
    "preferredTransport": "GRPC",
    "additionalInterfaces": [
        {"url": "127.0.0.1:9090", "transport": "GRPC"},
        {"url": "http://127.0.0.1:8080/rpc", "transport": "JSONRPC"},
    ],
    "securitySchemes": {"key": {"type": "apiKey", "in": "header", "name": "X-Key"}},
    "security": [{"key": []}],
    "skills": [{"id": "draft", "security": [{"key": []}]}],
}


def at_sidecar(path: str) -> str:
    return f"https://writer.mesh:7443{path}"


def test_a_card_of_version_1_gets_our_addresses_and_what_the_mesh_demands() -> None:
    made = card_of(V1).rewritten(at_sidecar, mesh=True)
    assert made["supportedInterfaces"] == [
        {
            "url": "https://writer.mesh:7443/a2a",
            "protocolBinding": "JSONRPC",
            "protocolVersion": "1.0",
            "tenant": "t",
        },
        {"url": "https://writer.mesh:7443", "protocolBinding": "HTTP+JSON", "protocolVersion": "0.3.0"},
    ]
    assert set(made["securitySchemes"]) == {"mtls", "delegation"}
    assert made["securityRequirements"] == [{"schemes": {"mtls": {"list": []}, "delegation": {"list": []}}}]
    assert made["skills"] == [{"id": "draft", "name": "Draft"}]
    assert made["capabilities"] == V1["capabilities"]
    assert "security" not in made
    assert "127.0.0.1" not in json.dumps(made)
    assert "login" not in json.dumps(made)


def test_a_card_of_0_3_whose_main_interface_is_grpc_gets_another_main_one() -> None:
    made = card_of(V03).rewritten(at_sidecar, mesh=True)
    assert (made["url"], made["preferredTransport"]) == ("https://writer.mesh:7443/rpc", "JSONRPC")
    assert made["additionalInterfaces"] == [{"url": "https://writer.mesh:7443/rpc", "transport": "JSONRPC"}]
    assert made["security"] == [{"mtls": [], "delegation": []}]
    assert made["securitySchemes"]["mtls"] == {"type": "mutualTLS"}
    assert made["skills"] == [{"id": "draft"}]
    assert "securityRequirements" not in made


def test_the_agent_is_asked_for_no_login() -> None:
    for card in (V1, V03, V1 | V03):
        made = card_of(card).rewritten(lambda path: f"http://crm.mesh{path}", mesh=False)
        assert not made.keys() & {"security", "securitySchemes", "securityRequirements"}


def test_both_versions_in_one_card_are_rewritten() -> None:
    made = card_of(V1 | V03).rewritten(at_sidecar, mesh=True)
    assert made["securitySchemes"]["mtls"] == {"type": "mutualTLS", "mtlsSecurityScheme": {}}
    assert {"security", "securityRequirements"} <= made.keys()
    assert "127.0.0.1" not in json.dumps(made)


def grpc_interfaces(made: dict[str, Any]) -> list[str]:
    both = [*made.get("supportedInterfaces", []), *made.get("additionalInterfaces", [])]
    return [one["url"] for one in both if "GRPC" in one.values()]


def test_an_interface_of_grpc_is_where_its_version_is_served() -> None:
    def by_grpc(version: str) -> str | None:
        return "writer.mesh:7443" if version == "1.0" else None

    made = card_of(V1).rewritten(at_sidecar, mesh=True, grpc=by_grpc)
    assert grpc_interfaces(made) == ["writer.mesh:7443"]
    assert len(made["supportedInterfaces"]) == 3
    assert grpc_interfaces(card_of(V03).rewritten(at_sidecar, mesh=True, grpc=by_grpc)) == []
    old = card_of(V03).rewritten(at_sidecar, mesh=True, grpc=lambda _version: "writer.mesh:7443")
    assert (old["url"], old["preferredTransport"]) == ("writer.mesh:7443", "GRPC")
    assert grpc_interfaces(old) == ["writer.mesh:7443"]


@pytest.mark.parametrize(
    ("url", "mesh", "given"),
    [
        ("127.0.0.1:9090", True, ["w:1"]),
        ("writer.example", False, ["w:1"]),
        ("[::1]:9090", True, ["w:1"]),
        ("http://127.0.0.1:9090", True, ["https://w:1"]),
        ("https://grpc.example/a2a?x", True, ["https://w:1"]),
        ("https://grpc.example", False, ["http://w:1"]),
        ("127.0.0.1:9090/a2a", True, []),
        ("dns:///grpc.example:443", True, []),
        ("unix:/run/a2a.sock", True, []),
        ("evil.example:1@127.0.0.1:9090", True, []),
        ("", True, []),
    ],
)
def test_an_address_of_grpc_keeps_its_form_and_nothing_else(url: str, mesh: bool, given: list[str]) -> None:
    interfaces = [V1["supportedInterfaces"][0], {**V1["supportedInterfaces"][1], "url": url}]
    made = card_of({**V1, "supportedInterfaces": interfaces}).rewritten(
        at_sidecar, mesh=mesh, grpc=lambda _version: "w:1"
    )
    assert grpc_interfaces(made) == given
    assert len(made["supportedInterfaces"]) == 1 + len(given)


def test_interfaces_of_0_3_beside_those_of_version_1_are_rewritten_also_without_a_main_one() -> None:
    made = card_of({**V1, "additionalInterfaces": V03["additionalInterfaces"]}).rewritten(at_sidecar, mesh=True)
    assert made["additionalInterfaces"] == [{"url": "https://writer.mesh:7443/rpc", "transport": "JSONRPC"}]
    assert "url" not in made


def test_a_signature_is_dropped_and_told() -> None:
    signed = card_of({**V1, "signatures": [{"protected": "e30", "signature": "x"}]})
    assert signed.signed
    assert "signatures" not in signed.rewritten(at_sidecar, mesh=True)
    assert not card_of({**V1, "signatures": []}).signed


def test_a_null_in_place_of_interfaces_is_none() -> None:
    made = card_of({**V03, "supportedInterfaces": None}).rewritten(at_sidecar, mesh=True)
    assert made == card_of(V03).rewritten(at_sidecar, mesh=True)
    made = card_of({**V1, "additionalInterfaces": None}).rewritten(at_sidecar, mesh=True)
    assert made["supportedInterfaces"] == card_of(V1).rewritten(at_sidecar, mesh=True)["supportedInterfaces"]


def test_an_interface_that_is_not_served_is_left_out_and_without_any_the_card_is_refused() -> None:
    made = card_of(V1).rewritten(lambda path: at_sidecar(path) if path == "/a2a" else None, mesh=True)
    assert [one["url"] for one in made["supportedInterfaces"]] == ["https://writer.mesh:7443/a2a"]
    with pytest.raises(Denied) as refused:
        card_of(V1).rewritten(lambda _path: None, mesh=True)
    assert refused.value.reason is Reason.CARD_REFUSED
    with pytest.raises(Denied):
        card_of(V03).rewritten(lambda _path: None, mesh=True)


def test_a_card_without_an_interface_is_refused_when_it_is_read() -> None:
    assert card_of({"name": "writer", "url": "http://a/"}).members["name"] == "writer"
    with pytest.raises(Denied) as refused:
        card_of({"name": "writer"})
    assert (refused.value.reason, refused.value.detail) == (Reason.CARD_REFUSED, "the card names no interface")


@pytest.mark.parametrize(
    "changes",
    [
        {"name": None},
        {"supported_interfaces": V1["supportedInterfaces"]},
        {"URL": "http://127.0.0.1:8080/"},
        {"supportedInterfaces": {}},
        {"supportedInterfaces": ["http://127.0.0.1:8080/"]},
        {"supportedInterfaces": [{"protocolBinding": "JSONRPC"}]},
        {"supportedInterfaces": [{"url": "http://a/", "Url": "http://b/", "protocolBinding": "JSONRPC"}]},
        {"supportedInterfaces": [{"url": "ftp://a/", "protocolBinding": "JSONRPC"}]},
        {"supportedInterfaces": [{"url": "http://a/?x=1", "protocolBinding": "JSONRPC"}]},
        {"supportedInterfaces": [{"url": "http://a/../b", "protocolBinding": "JSONRPC"}]},
        {"supportedInterfaces": [{"url": "http://a/%61", "protocolBinding": "JSONRPC"}]},
        {"supportedInterfaces": [{"url": "http://[::1/", "protocolBinding": "JSONRPC"}]},
        {"supportedInterfaces": [{"url": "/a2a", "protocolBinding": "JSONRPC"}]},
        {"supportedInterfaces": [{"url": "http://a/", "protocolBinding": ["JSONRPC"]}]},
        {"skills": "all"},
        {"skills": [{"id": "x", "security_requirements": []}]},
        {"signatures": "none"},
        {"url": 7},
    ],
)
def test_what_is_no_card_or_could_be_read_in_two_ways_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(Denied) as refused:
        card_of({**V1, **changes}).rewritten(at_sidecar, mesh=True)
    assert refused.value.reason is Reason.CARD_REFUSED


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"[]",
        b'{"name": "a", "name": "b"}',
        json.dumps(V1).encode("utf-16"),
        json.dumps({**V1, "description": "x" * MAX_CARD_BYTES}).encode(),
    ],
)
def test_a_document_that_is_not_one_strict_object_is_refused(document: bytes) -> None:
    with pytest.raises(Denied) as refused:
        read_card(document)
    assert refused.value.reason is Reason.CARD_REFUSED
    assert read_card(json.dumps(V1).encode()).members == V1
