"""Metadata of MCP routes (RFC 9728) over real sockets: the sidecar tells it, and its challenges lead there."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.integration.test_mcp_sessions import OWN
from tests.integration.test_operations import SEARCH, Peer, mcp_settings, peer_of, tool
from tests.integration.world import ISSUER, Answer, World, bearer, mint

pytestmark = pytest.mark.integration

URL = "https://crm.acme.example/mcp"
WELL_KNOWN = "/.well-known/oauth-protected-resource"
TOLD = f"https://crm.acme.example{WELL_KNOWN}/mcp"


async def served(world: World, *more: dict[str, Any], **route: Any) -> Peer:
    settings = mcp_settings(world, **{"resource": URL, **route})
    settings["inbound"]["routes"] += more
    return await peer_of(world, settings)


async def get(peer: Peer, target: str, *fields: tuple[str, str], method: str = "GET") -> Answer:
    return await peer.world.call(peer.sidecar.inbound, peer.tls, target, headers=fields, method=method)


def wide(peer: str, **changes: Any) -> dict[str, Any]:
    return {
        "name": "all", "match": {"path_prefix": "/", "methods": ["GET"]}, "scopes": [], "peers": [peer], **changes
    }  # fmt: skip


@pytest.mark.parametrize("target", [f"{WELL_KNOWN}/mcp", WELL_KNOWN])
async def test_the_sidecar_tells_a_routes_metadata_without_a_token(world: World, target: str) -> None:
    peer = await served(world)
    answer = await get(peer, target)
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
    assert json.loads(answer.body) == {
        "resource": URL,
        "authorization_servers": [ISSUER],
        "scopes_supported": ["crm.read", "docs.write"],
        "bearer_methods_supported": ["header"],
    }
    record = await peer.last(1)
    assert [record[key] for key in ("decision", "reason", "route", "op", "subject", "status", "call_in")] == [
        "allow", "ok", "tools", "metadata", None, 200, None
    ]  # fmt: skip
    assert world.agent.requests == []


async def test_a_token_that_is_shown_to_it_proves_nothing(world: World) -> None:
    peer = await served(world, authorization_servers=["https://login.acme.example", ISSUER])
    call = ("Delegation-Call", "0" * 32)
    answer = await get(peer, f"{WELL_KNOWN}/mcp", *bearer(mint(key=1)), call)
    assert json.loads(answer.body)["authorization_servers"] == ["https://login.acme.example", ISSUER]
    assert (await get(peer, f"{WELL_KNOWN}/mcp", *bearer("rubbish"))).status == 200
    first, second = await peer.sidecar.wait_for_records(2)
    assert (first["verified"], first["subject"], first["call_in"]) == (False, "alice", "0" * 32)
    assert (second["verified"], second["subject"]) == (False, None)


@pytest.mark.parametrize(
    ("target", "method", "status", "reason"),
    [
        pytest.param(f"{WELL_KNOWN}/mcp", "POST", 405, "method_refused", id="method"),
        pytest.param(f"{WELL_KNOWN}/mcp", "HEAD", 405, "method_refused", id="head"),
        pytest.param(f"{WELL_KNOWN}/other", "GET", 404, "no_route", id="another"),
        pytest.param(f"{WELL_KNOWN}/mcp/", "GET", 404, "no_route", id="slash"),
        pytest.param(f"{WELL_KNOWN.upper()}/mcp", "GET", 404, "no_route", id="case"),
        pytest.param(f"{WELL_KNOWN}/", "GET", 404, "no_route", id="root-slash"),
    ],
)
async def test_an_agent_never_answers_there_though_a_wider_route_leads_to_it(
    world: World, target: str, method: str, status: int, reason: str
) -> None:
    planner = mcp_settings(world)["inbound"]["routes"][0]["peers"][0]
    peer = await served(world, wide(planner))
    answer = await peer.world.call(peer.sidecar.inbound, peer.tls, target, headers=bearer(mint()), method=method)
    assert (answer.status, answer.reason) == (status, reason)
    assert world.agent.requests == []
    assert (await get(peer, "/.well-known/agent.json", *bearer(mint()))).status == 200
    assert len(world.agent.requests) == 1


async def test_the_root_form_is_for_one_resource_alone(world: World) -> None:
    second = mcp_settings(world)["inbound"]["routes"][0] | {
        "name": "second", "match": {"path": "/b"}, "resource": "https://crm.acme.example/b"
    }  # fmt: skip
    peer = await served(world, second)
    assert (await get(peer, WELL_KNOWN)).status == 404
    for path in ("/mcp", "/b"):
        answer = await get(peer, WELL_KNOWN + path)
        assert json.loads(answer.body)["resource"] == f"https://crm.acme.example{path}"


async def challenge(world: World, message: object, token: str | None, **route: Any) -> str | None:
    peer = await served(world, **route)
    headers = bearer(token) if token else []
    answer = await world.call(
        peer.sidecar.inbound, peer.tls, "/mcp",
        headers=[*headers, ("content-type", "application/json")], body=json.dumps(message).encode(),
    )  # fmt: skip
    assert answer.status in {401, 403}
    return answer.headers.get("www-authenticate")


DROP = tool("drop")
ALL = 'scope="crm.read docs.write"'
COMMON = 'scope="docs.write"'


@pytest.mark.parametrize(
    ("claims", "words"),
    [
        pytest.param(None, [ALL], id="no-token"),
        pytest.param({"exp": 1}, ['error="invalid_token"', ALL], id="expired"),
        pytest.param(OWN, ['error="invalid_token"', ALL], id="no-actor"),
        pytest.param({"scope": "docs.write"}, ['error="insufficient_scope"', ALL], id="scope"),
    ],
)
async def test_a_challenge_names_the_metadata_and_all_scopes_of_the_operation(
    world: World, claims: dict[str, object] | None, words: list[str]
) -> None:
    told = await challenge(world, DROP, None if claims is None else mint(claims))
    assert told is not None
    assert told.startswith("Bearer ")
    parts = told.removeprefix("Bearer ").split(", ")
    assert set(parts) >= {*words, f'resource_metadata="{TOLD}"'}
    other = await challenge(world, SEARCH, None if claims is None else mint({"exp": 1}))
    assert other is not None
    assert 'scope="docs.write"' in other


async def test_a_challenge_to_a_message_that_is_too_long_to_read_names_what_every_operation_needs(world: World) -> None:
    long = {**DROP, "params": {"name": "drop", "arguments": {"text": "x" * 20_000}}}
    told = await challenge(world, long, None)
    assert told is not None
    assert COMMON in told
    read = await challenge(world, long, mint({"scope": "docs.write"}))
    assert read is not None
    assert ALL in read


async def test_a_route_without_a_resource_has_the_challenges_of_before(world: World) -> None:
    assert await challenge(world, DROP, None, resource=None) == "Bearer"
    peer = await peer_of(world, mcp_settings(world))
    assert (await get(peer, f"{WELL_KNOWN}/mcp")).status == 404


@pytest.mark.parametrize(
    ("claims", "operation"),
    [({}, {"subjects": ["bob"]}), ({"act": {"sub": "spiffe://acme.example/agent/other"}}, {})],
    ids=["policy", "actor"],
)
async def test_what_no_wider_token_helps_is_no_challenge(
    world: World, claims: dict[str, Any], operation: dict[str, Any]
) -> None:
    operations = [{"allow": ["tools/call:drop"], **operation}]
    assert await challenge(world, DROP, mint(claims), operations=operations) is None
