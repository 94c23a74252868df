"""A real Keycloak as the user issuer: its logins start chains, and its logouts end them within ten seconds."""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final

import pytest

from tests.integration.mesh import Mesh, open_mesh
from tests.integration.world import Answer, free_port
from tests.interop import keycloak
from tests.interop.engine import require
from tests.interop.keycloak import Keycloak, Login
from tests.interop.keycloak_mesh import log_in_at

pytestmark = [pytest.mark.interop, pytest.mark.timeout(400)]

WITHIN_S: Final = 10.0
STREAM: Final = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n5\r\nbegun\r\n"
)


@pytest.fixture
async def both() -> AsyncIterator[tuple[Keycloak, Mesh]]:
    require(keycloak.lacking())
    events = free_port()
    with tempfile.TemporaryDirectory(prefix="sc-") as folder:
        async with AsyncExitStack() as stack:
            url = f"http://127.0.0.1:{events}/backchannel-logout"
            issuer = await stack.enter_async_context(keycloak.running(Path(folder), url))

            def adjust(name: str, settings: dict[str, Any], ports: Mapping[str, int]) -> None:
                log_in_at(issuer, name, settings)
                if name == "sts":
                    settings["revocation"] = {"events": {"listen": f"127.0.0.1:{events}"}}
                    return
                settings["issuers"][0]["revocations"] = {"url": f"https://127.0.0.1:{ports['sts']}/revocations"}

            mesh = await stack.enter_async_context(open_mesh(Path(folder), adjust))
            yield issuer, mesh


async def test_a_logout_at_keycloak_ends_that_logins_chains_and_no_others(both: tuple[Keycloak, Mesh]) -> None:
    issuer, mesh = both
    first, second, bobs = [await issuer.log_in(user) for user in ("alice", "alice", "bob")]
    assert (await mesh.ask(first.access_token)).status == 200, "the whole chain: front, planner, writer, crm"
    await mesh.sidecars["crm"].wait_for_records(1)
    (witness,) = [record for record in mesh.records("crm") if record["direction"] == "inbound"]
    assert len(witness["chain"]) == 3

    async def stream(_fields: dict[str, str]) -> bytes:
        return STREAM

    mesh.scripts["planner"] = stream
    begun = len(mesh.agents["planner"].requests)
    held = {name: asyncio.ensure_future(mesh.ask(one.access_token)) for name, one in _named(first, second, bobs)}
    async with asyncio.timeout(20):
        while len(mesh.agents["planner"].requests) < begun + 3:
            await asyncio.sleep(0.01)
            assert [one.result() for one in held.values() if one.done()] == []

    began_at = time.monotonic()
    await issuer.log_out(first)
    ended_s = await _ended(held["first"], began_at)
    assert not held["second"].done(), "the user's other login goes on"
    assert not held["bobs"].done()
    assert await _refused(mesh, first)

    began_at = time.monotonic()
    await issuer.end_sessions_of("alice")
    by_admin_s = await _ended(held["second"], began_at)
    assert await _refused(mesh, second)
    assert not held["bobs"].done(), "another user goes on"
    held["bobs"].cancel()

    del mesh.scripts["planner"]
    assert (await mesh.ask(bobs.access_token)).status == 200
    assert (await mesh.ask((await issuer.log_in("alice")).access_token)).status == 200, "she may log in again"
    sys.stdout.write(f"\nlast byte {ended_s:.2f} s after the user's logout, {by_admin_s:.2f} s after the admin's\n")


def _named(*logins: Login) -> list[tuple[str, Login]]:
    return list(zip(("first", "second", "bobs"), logins, strict=True))


async def _ended(call: asyncio.Future[Answer], began_at: float) -> float:
    """Wait for the last byte of a stream; return the seconds since ``began_at``."""
    async with asyncio.timeout(WITHIN_S):
        answer = await call
    assert (answer.status, b"begun" in answer.body) == (200, True)
    return time.monotonic() - began_at


async def _refused(mesh: Mesh, login: Login) -> bool:
    """Tell if this login's token starts no further chain."""
    answer = await mesh.ask(login.access_token)
    return (answer.status, answer.reason) == (403, "revoked")
