"""An agent acts for itself, over real sockets and with the real token service: each lawful call beside one refused.

The planner gets the workload handle by a socket, and calls crm by a self route. The token service lists that pair.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from delegation_core.bearer import parse_bearer
from tests.integration.mesh import Mesh, open_mesh
from tests.integration.mesh_files import Settings
from tests.integration.world import CRM, PLANNER, WRITER, until

pytestmark = pytest.mark.integration


def adjust(folder: Path) -> Any:
    """Return the changes to the mesh: planner → crm on its own authority, crm accepts it on one route."""

    def change(name: str, settings: Settings, ports: Mapping[str, int]) -> None:
        crm = {
            "match": {"prefix": "/crm"}, "upstream": f"https://127.0.0.1:{ports['crm-in']}", "peer": CRM,
            "audience": CRM, "scopes": ["crm.read"],
        }  # fmt: skip
        if name == "planner":
            settings["outbound"]["routes"].append({"name": "crm", "token": "self", **crm})
            settings["workload_handle"] = {
                "may_call": ["crm"],
                "socket": str(folder / "own.sock"),
                "agent_uids": [os.getuid()],
            }
        if name == "crm":
            own = {"name": "sync", "path": "/sync", "allow_self": True}
            closed = {"name": "export-all", "path": "/export-all"}
            for route in (own, closed):
                settings["inbound"]["routes"].append(
                    {
                        "name": route["name"],
                        "match": {"path": route["path"], "methods": ["GET"]},
                        "scopes": ["crm.read"],
                        "peers": [PLANNER],
                        "pass_token": True,
                        "allow_self": route.get("allow_self", False),
                    }
                )
        if name == "sts":
            settings["self_rules"] = [{"workload": PLANNER, "audience": CRM, "scopes": ["crm.read"]}]

    return change


@pytest.fixture
async def mesh(tmp_path: Path) -> AsyncIterator[Mesh]:
    async with open_mesh(tmp_path, adjust(tmp_path)) as mesh:
        yield mesh


async def handle_of(folder: Path) -> str:
    with socket.socket(socket.AF_UNIX) as own:
        own.connect(str(folder / "own.sock"))
        own.settimeout(None)

        answer = await asyncio.to_thread(own.makefile().read)
    return str(json.loads(answer)["handle"])


def shown(handle: str) -> list[tuple[str, str]]:
    return [("authorization", f"Bearer {handle}")]


async def test_an_agent_calls_for_itself_with_a_token_that_names_nobody_else(mesh: Mesh, tmp_path: Path) -> None:
    handle = await handle_of(tmp_path)
    assert (await mesh.call("planner", "/crm/sync", shown(handle))).status == 200
    fields = mesh.agents["crm"].headers()
    assert fields["delegation-subject"] == str(PLANNER)
    claims = parse_bearer(fields["delegation-token"]).claims
    assert {name: claims.get(name) for name in ("sub", "client_id", "aud", "act")} == {
        "sub": PLANNER, "client_id": PLANNER, "aud": CRM, "act": None,
    }  # fmt: skip
    await mesh.call("planner", "/crm/sync", shown(handle))
    await until(lambda: len(mesh.records("planner")) >= 2 and len(mesh.records("crm")) >= 2)
    left, again = mesh.records("planner")
    came = mesh.records("crm")[0]
    assert again["exchange_ms"] is None  # by the cached token
    assert left["exchange_ms"] > 0
    assert [left[key] for key in ("op", "subject", "actor", "call_in")] == ["own", PLANNER, None, None]
    assert (came["subject"], came["txn"], came["call_in"]) == (PLANNER, left["txn"], left["call_out"])


async def test_a_route_that_does_not_allow_it_refuses_such_a_token(mesh: Mesh, tmp_path: Path) -> None:
    handle = await handle_of(tmp_path)
    answer = await mesh.call("planner", "/crm/export-all", shown(handle))
    assert (answer.status, answer.reason) == (401, "act_missing")


async def test_the_handle_opens_no_exchange_route_and_a_request_s_handle_no_self_route(
    mesh: Mesh, tmp_path: Path
) -> None:
    handle = await handle_of(tmp_path)
    answer = await mesh.call("planner", "/writer/draft", shown(handle), method="POST")
    assert (answer.status, answer.reason) == (403, "own_authority_refused")
    assert not mesh.agents["writer"].requests

    reasons: list[str | None] = []

    async def tries_both(fields: dict[str, str]) -> bytes:
        for more in ([], [("delegation-handle", handle)]):
            answer = await mesh.call("planner", "/crm/sync", [("authorization", fields["authorization"]), *more])
            reasons.append(answer.reason)
        return b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"

    mesh.scripts["planner"] = tries_both
    assert (await mesh.ask(mesh.log_in())).status == 200
    assert reasons == ["call_not_allowed", "no_request_context"]
    assert not mesh.agents["crm"].requests


async def test_the_token_service_gives_such_a_token_only_to_a_listed_pair(tmp_path: Path) -> None:
    lawful = adjust(tmp_path)

    def unlisted(name: str, settings: Settings, ports: Mapping[str, int]) -> None:
        lawful(name, settings, ports)
        if name == "sts":
            settings["self_rules"][0]["workload"] = WRITER

    async with open_mesh(tmp_path, unlisted) as mesh:
        answer = await mesh.call("planner", "/crm/sync", shown(await handle_of(tmp_path)))
        assert (answer.status, answer.reason) == (403, "exchange_denied")
        await until(lambda: bool(mesh.sts_records("token.exchange_refused")))
        (record,) = mesh.sts_records("token.exchange_refused")
        assert (record["reason"], record["peer"]) == ("target_unknown", PLANNER)
        assert not mesh.agents["crm"].requests


def onwards(folder: Path, *listed: dict[str, Any]) -> Any:
    """Return the changes for crm → planner → writer, which crm starts for itself."""

    def change(name: str, settings: Settings, ports: Mapping[str, int]) -> None:
        scopes = ["plan.make", "docs.write"]
        if name == "crm":
            route = {
                "name": "planner", "token": "self", "match": {"prefix": "/planner"},
                "upstream": f"https://127.0.0.1:{ports['planner-in']}", "peer": PLANNER, "audience": PLANNER,
                "scopes": scopes,
            }  # fmt: skip
            settings["outbound"] = {"routes": [route]}
            settings["workload_handle"] = {
                "may_call": ["planner"],
                "socket": str(folder / "own.sock"),
                "agent_uids": [os.getuid()],
            }
        if name == "planner":
            settings["inbound"]["routes"].append(
                {
                    "name": "report",
                    "match": {"path": "/report", "methods": ["POST"]},
                    "scopes": ["plan.make"],
                    "peers": [CRM],
                    "allow_self": True,
                    "delegate_self": True,
                    "may_call": ["writer"],
                }
            )
        if name == "sts":
            settings["self_rules"] = [{"workload": CRM, "audience": PLANNER, "scopes": scopes}]
            settings["self_delegations"] = list(listed)

    return change


LISTED = {"workload": CRM, "actor": PLANNER, "audience": WRITER, "scopes": ["docs.write"]}


@pytest.mark.parametrize(
    ("listed", "status"),
    [([LISTED], 200), ([], 403), ([{**LISTED, "workload": WRITER}], 403)],
    ids=["listed", "nothing listed", "another started"],
)
async def test_a_chain_that_a_workload_started_goes_on_only_where_it_is_listed(
    tmp_path: Path, listed: list[dict[str, Any]], status: int
) -> None:
    async with open_mesh(tmp_path, onwards(tmp_path, *listed)) as mesh:

        async def draft(_fields: dict[str, str]) -> bytes:
            return b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"

        mesh.scripts["writer"] = draft
        answer = await mesh.call("crm", "/planner/report", shown(await handle_of(tmp_path)), method="POST")
        assert answer.status == status
        if status != 200:
            assert not mesh.agents["writer"].requests
            await until(lambda: bool(mesh.sts_records("token.exchange_refused")))
            assert mesh.sts_records("token.exchange_refused")[0]["reason"] == "not_an_entry"
            return
        fields = mesh.agents["writer"].headers()
        assert (fields["delegation-subject"], fields["delegation-actor"]) == (CRM, PLANNER)
        claims = parse_bearer(fields["delegation-token"]).claims
        assert {name: claims.get(name) for name in ("sub", "act", "aud", "sub_id")} == {
            "sub": CRM, "act": {"sub": PLANNER}, "aud": WRITER, "sub_id": None,
        }  # fmt: skip
        await until(lambda: bool(mesh.records("writer")) and bool(mesh.records("crm")))
        assert mesh.records("writer")[0]["txn"] == mesh.records("crm")[0]["txn"]
