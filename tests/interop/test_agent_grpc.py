"""The programs of gRPC in examples/ between two real sidecars: users served at once get answers in their own name.

Each stands beside the same program without the interceptor of its server, which is refused.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import grpc
import grpc.aio
import pytest

from tests.integration.grpc_agent_world import USERS, RunAgent, world_of
from tests.interop import agents
from tests.interop.engine import require
from tests.interop.test_agent_examples import running

pytestmark = [pytest.mark.interop, pytest.mark.timeout(120)]

TIMES: Final = 12
# By its name: how to run a program, and the folder in which it finds its packages.
PROGRAMS: Final[dict[str, tuple[Callable[[], Path], Callable[[], Path]]]] = {
    "grpc/agent.py": (lambda: agents.PYTHON, lambda: agents.HOME),
    "grpc/aio_agent.py": (lambda: agents.PYTHON, lambda: agents.HOME),
    "typescript/grpc_agent.ts": (agents.node, agents.node_folder),
}


@pytest.fixture(autouse=True)
def _installed() -> None:
    require(agents.missing())


def program(name: str, log: Path, *, kept: bool) -> RunAgent:
    """Return what runs an example, or a copy of it whose server has no interceptor."""
    interpreter, folder = PROGRAMS[name]

    @asynccontextmanager
    async def run(port: int, outbound: str) -> AsyncIterator[None]:
        text = (agents.EXAMPLES / name).read_text()
        if not kept:
            text, changes = re.subn(r"\[[sS]erverInterceptor(\(\))?\]", "[]", text)
            assert changes == 1
        copy = await asyncio.to_thread(folder) / f"copy_{kept}_{Path(name).name}"
        copy.write_text(text)
        try:
            async with running([interpreter(), copy], port, log, SIDECAR_OUTBOUND_URL=outbound):
                yield
        finally:
            copy.unlink()

    return run


@pytest.mark.parametrize("name", PROGRAMS)
async def test_users_served_at_once_are_answered_in_their_own_name(name: str, tmp_path: Path) -> None:
    async with world_of(program(name, tmp_path / "log", kept=True)) as world:
        assert await world.ask(TIMES) == [user.encode() for user in USERS] * TIMES
        records = await world.outbound_records(TIMES)
    assert sorted(one["subject"] for one in records) == sorted(USERS * TIMES)


@pytest.mark.parametrize("name", PROGRAMS)
async def test_without_the_servers_interceptor_every_call_is_refused(name: str, tmp_path: Path) -> None:
    async with world_of(program(name, tmp_path / "log", kept=False)) as world:
        answers = await world.ask(TIMES)
        records = await world.outbound_records(TIMES)
        assert world.mesh.records("writer") == []
    for answer in answers:
        assert isinstance(answer, grpc.aio.AioRpcError)
        assert answer.code() is grpc.StatusCode.PERMISSION_DENIED
        assert "(no_request_context)" in str(answer.details())
    assert {(one["reason"], one["subject"]) for one in records} == {("no_request_context", None)}
