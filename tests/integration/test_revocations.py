"""Revocations reach everything in flight, of every kind, and nothing else; and a list that is too old stops all."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from delegation_core.revocation import Kind
from sidecar.exchange.revocations import RevocationLists
from tests.fakes.revocation_list import ListServer
from tests.integration.test_authority import begin, both_go_on
from tests.integration.underway import Underway, open_underway
from tests.integration.world import ISSUER, PATIENCE_S, free_port, until

pytestmark = [pytest.mark.integration]


@asynccontextmanager
async def with_list(**changes: Any) -> AsyncIterator[tuple[Underway, ListServer]]:
    """Open everything in flight of a sidecar that polls a list. The list is served from the start."""
    said, port = ListServer(ISSUER), free_port()
    server = await asyncio.start_server(said.serve, "127.0.0.1", port)

    def change(document: dict[str, Any]) -> None:
        document["issuers"][0]["revocations"] = {
            "url": f"http://127.0.0.1:{port}/revocations",
            "every_s": 0.5,
            **changes,
        }

    with tempfile.TemporaryDirectory(prefix="sc-") as folder:
        try:
            async with open_underway(Path(folder), change) as underway:
                yield underway, said
        finally:
            said.down = True
            server.close()


async def polled(underway: Underway, said: ListServer, times: int = 1) -> None:
    """Wait until the sidecar has asked again."""
    count = len(said.statuses) + times
    await until(lambda: len(said.statuses) >= count)
    look(underway)


def look(underway: Underway) -> None:
    """Have the sidecar compare its lists with the clock now."""
    lists = underway.sidecar.server.parts.revocations
    assert isinstance(lists, RevocationLists)
    lists.look()


# (the twin, the cause, the group concerned)
CAUSES = {
    "its subject": ((Kind.SUBJECT, "mallory", ISSUER), (Kind.SUBJECT, "alice", ISSUER), "helper"),
    "its actor": (
        (Kind.ACTOR, "spiffe://acme.example/agent/other", None),
        (Kind.ACTOR, "spiffe://partner.example/agent/helper", None),
        "helper",
    ),
    "its token": ((Kind.JTI, "another", None), (Kind.JTI, "of-planner", None), "planner"),
}


@pytest.mark.parametrize("direction", ["inbound", "outbound"])
@pytest.mark.parametrize(("twin", "cause", "group"), CAUSES.values(), ids=CAUSES.keys())
async def test_streams_uploads_and_tunnels_end_with_what_is_revoked_and_nothing_else_does(
    direction: str, twin: tuple[Kind, str, str | None], cause: tuple[Kind, str, str | None], group: str
) -> None:
    async with with_list() as (underway, said):
        await begin(underway, direction)
        said.revoke(*twin)
        await polled(underway, said, 2)
        await both_go_on(underway, direction)
        said.revoke(*cause)
        await underway.ended(direction, group, "revoked")
        await underway.look()
        await underway.go_on(direction, "planner" if group == "helper" else "helper")


async def test_a_handle_and_a_cached_token_end_and_a_lift_serves_again() -> None:
    async with with_list() as (underway, said):
        for group in ("helper", "planner"):
            await underway.hold(group)
            assert await underway.call(group) == (200, None)
        said.revoke(Kind.SUBJECT, "alice", ISSUER)
        await until(lambda: any(one["reason"] == "revoked" for one in underway.sidecar.records()))
        assert await underway.call("helper") == (403, "no_request_context")
        assert await underway.call("planner") == (200, None)
        said.lift()
        await until(lambda: underway.sidecar.server.parts.revocations.count()["subject"] == 0)
        look(underway)
        await underway.hold("helper")
        assert await underway.call("helper") == (200, None)

        def told() -> list[str]:
            return [one["revocation"].partition(" ")[2] for one in underway.sidecar.records("revocations.changed")]

        await until(lambda: told()[-2:] == ["seq=2 revoked=1", "seq=3 revoked=0"])


@pytest.mark.parametrize(
    ("revoked", "exchanges"),
    [
        pytest.param((Kind.SUBJECT, "alice", ISSUER), 0, id="of another user: cached tokens stay"),
        pytest.param((Kind.ACTOR, "spiffe://acme.example/x", None), 1, id="of a workload: all is judged again"),
    ],
)
async def test_a_revocation_of_others_costs_no_exchange(revoked: tuple[Kind, str, str | None], exchanges: int) -> None:
    async with with_list() as (underway, said):
        await underway.hold("planner")
        assert await underway.call("planner") == (200, None)
        server, sts = underway.sidecar.server, underway.hops.sts
        number, before = server.parts.snapshots.now().policy.number, len(sts.forms)
        said.revoke(*revoked)
        await until(lambda: server.parts.snapshots.now().policy.number > number)
        assert await underway.call("planner") == (200, None)
        assert len(sts.forms) == before + exchanges


async def test_a_list_that_is_too_old_refuses_everything_and_its_return_serves_again() -> None:
    async with with_list(max_stale_s=5) as (underway, said):
        await underway.begin("inbound", "planner", ("answer",))
        server = underway.sidecar.server
        said.down = True
        await underway.ended("inbound", "planner", "revocations_stale")
        assert any(one.startswith("revocations of") for one in server.missing())
        assert server.metrics.revocation_ages()[ISSUER] > 5
        said.down = False
        await until(lambda: not server.missing())


async def test_a_sidecar_is_not_ready_before_the_first_list_and_takes_no_foreign_one() -> None:
    async with with_list() as (underway, said):
        revocations = underway.sidecar.server.parts.revocations
        said.key = 3  # not the issuer's
        said.revoke(Kind.SUBJECT, "alice", ISSUER)
        await polled(underway, said, 2)
        assert revocations.count()["subject"] == 0
        said.key = 0
        await until(lambda: revocations.count()["subject"] == 1)
    said = ListServer(ISSUER)
    port = free_port()
    server = await asyncio.start_server(said.serve, "127.0.0.1", port)
    said.raw = b"not a list"
    with tempfile.TemporaryDirectory(prefix="sc-") as folder:

        def change(document: dict[str, Any]) -> None:
            document["issuers"][0]["revocations"] = {"url": f"http://127.0.0.1:{port}/", "every_s": 0.5}

        opening = asyncio.ensure_future(_open(Path(folder), change))
        began_at = time.monotonic()
        await until(lambda: len(said.statuses) >= 2)
        assert not opening.done()
        said.raw = None
        async with asyncio.timeout(PATIENCE_S + time.monotonic() - began_at):
            await opening
    said.down = True
    server.close()


async def _open(folder: Path, change: Any) -> None:
    async with open_underway(folder, change):
        pass
