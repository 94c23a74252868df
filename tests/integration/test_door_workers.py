"""A door that several workers serve is one door: to a user's login, to a session of MCP, and to a stranger."""

from __future__ import annotations

import json
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from tests.integration.door_world import DoorWorld, open_door_world
from tests.integration.process import Running, process
from tests.integration.test_door import HELLO, LIST, call, opens_sessions
from tests.integration.world import FRONT, Record, free_port, until

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

WORKERS = 2
CALLS = (
    24  # each on a connection of its own, which the kernel gives to a worker: one of 2^23 runs meets one worker only
)


@asynccontextmanager
async def workers(sessions: str = "per_subject") -> AsyncIterator[tuple[DoorWorld, Running]]:
    """Open a door world whose calls go to a sidecar of the same settings in several processes."""
    with tempfile.TemporaryDirectory(prefix="sc-") as folder:
        async with open_door_world(Path(folder), sessions=sessions) as door:
            opens_sessions(door)
            door.port = free_port()
            settings = door.front_settings()
            async with process(door.world, settings, workload=FRONT, starts=WORKERS, workers=WORKERS) as front:
                yield door, front


def requests_of(front: Running, **members: str) -> list[Record]:
    """Return the records of requests with these members."""
    requests = [record for record in front.records() if record["event"] == "request"]
    return [one for one in requests if all(one[key] == value for key, value in members.items())]


async def wait_for(front: Running, count: int, **members: str) -> set[str]:
    """Wait for so many records of requests with these members; return the workers that wrote them."""
    await until(lambda: len(requests_of(front, **members)) >= count)
    return {str(one["run"]) for one in requests_of(front, **members)}


async def test_every_worker_serves_a_login_and_refuses_one_for_another_audience() -> None:
    async with workers() as (door, front):
        token, other = door.token(), door.token(aud="https://api.example")
        answers = [await door.send(call("search"), token=token) for _ in range(CALLS)]
        assert {answer.status for answer in answers} == {200}
        refused = [await door.send(call("search"), token=other) for _ in range(CALLS)]
        assert {(answer.status, answer.reason) for answer in refused} == {(401, "wrong_audience")}
        assert len(door.world.agent.requests) == CALLS
        assert len(await wait_for(front, CALLS, decision="allow")) == WORKERS
        assert len(await wait_for(front, CALLS, reason="wrong_audience")) == WORKERS
        assert {one["subject"] for one in requests_of(front, decision="allow")} == {"staff:alice"}


@pytest.mark.parametrize("sessions", ["per_subject", "per_actor"])
async def test_a_session_that_one_worker_opened_is_its_users_at_every_worker(sessions: str) -> None:
    async with workers(sessions) as (door, front):
        opened = await door.send(HELLO)
        session = ("Mcp-Session-Id", opened.headers["mcp-session-id"])
        assert len(await wait_for(front, 1, op="initialize")) == 1
        asked = [await door.send(LIST, session) for _ in range(CALLS)]
        assert {answer.status for answer in asked} == {200}
        assert door.world.agent.headers()["mcp-session-id"] == "agents-own"
        assert len(await wait_for(front, CALLS, op="tools/list", reason="ok")) == WORKERS
        bob = door.token(sub="bob")
        refused = [await door.send(LIST, session, token=bob) for _ in range(CALLS)]
        assert {(answer.status, answer.reason) for answer in refused} == {(404, "session_unknown")}
        assert len(await wait_for(front, CALLS, reason="session_unknown")) == WORKERS
        # A stream is resumed at any worker by the event's id, which is bound to the session likewise.
        begun = await door.send(b"", session, method="GET")
        event = ("Last-Event-ID", begun.body.partition(b"\n")[0].removeprefix(b"id: ").decode())
        resumed = [await door.send(b"", session, event, method="GET") for _ in range(CALLS)]
        assert {answer.status for answer in resumed} == {200}
        assert door.world.agent.headers()["last-event-id"] == "7"
        forged = ("Last-Event-ID", event[1][:-1] + "8")
        assert (await door.send(b"", session, forged, method="GET")).reason == "session_unknown"


async def test_strangers_learn_of_the_door_from_every_worker_and_status_shows_one_door() -> None:
    async with workers() as (door, front):
        path = "/.well-known/oauth-protected-resource"
        told = [await door.send(b"", token="", target=path, method="GET") for _ in range(CALLS)]
        assert {(answer.status, json.loads(answer.body)["resource"]) for answer in told} == {(200, door.resource)}
        async with (
            aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(front.admin))) as client,
            client.get("http://admin/status") as answer,
        ):
            status = await answer.json()
        assert (status["ready"], len(status["workers"])) == (True, WORKERS)
        assert status["door"]["resource"] == door.resource
